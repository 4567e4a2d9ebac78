//! `GET /state-machine`: the machine's table, from the code.

use axum::{Json, http::Uri};

use super::{Problem, query::Query};
use crate::call::machine::{Machine, describe};

pub(super) async fn show(uri: Uri) -> Result<Json<Machine>, Problem> {
    Query::of(&uri).finish()?;
    Ok(Json(describe()))
}
