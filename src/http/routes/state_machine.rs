//! `GET /state-machine`: the machine's table, from the code.

use axum::{Json, http::Uri};

use crate::{
    call::machine::{Machine, describe},
    http::{Problem, openapi::answers::BadParameter, query::Query},
};

/// The state machine
///
/// Its vocabulary and its whole table, from the code that runs. What `callstate state-machine`
/// prints, also as drawings.
#[utoipa::path(
    get,
    path = "/state-machine",
    operation_id = "get_state_machine",
    tag = "operations",
    responses(
        (status = 200, description = "The machine.", body = Machine, example = json!(beginnings())),
        BadParameter,
    ),
)]
pub(crate) async fn show(uri: Uri) -> Result<Json<Machine>, Problem> {
    Query::of(&uri).finish()?;
    Ok(Json(describe()))
}

/// The machine with the first rows of each of its lists.
fn beginnings() -> Machine {
    let mut machine = describe();
    machine.statuses.truncate(2);
    machine.events.truncate(2);
    machine.dispositions.truncate(2);
    machine.relations.truncate(2);
    machine.orders.truncate(2);
    machine.transitions.truncate(2);
    machine
}
