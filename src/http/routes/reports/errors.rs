//! `GET /reports/errors`: what went wrong in calls.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        Problem, Shared,
        auth::ApiClient,
        openapi::{answers::BadParameter, example},
        routes::reports::{
            request::{ReportParameters, ReportRequest, ReportSnapshot},
            table::{ReportDocument, ReportRow, RowKey, answer},
        },
    },
    store::reports::errors::errors,
};

/// The errors of one kind in the calls that began in a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ErrorsRow {
    #[serde(flatten)]
    key: RowKey,
    /// The provider's code; null where it gave none.
    code: Option<String>,
    /// The phase of the call; null where the provider gave none.
    phase: Option<String>,
    /// How many errors.
    errors: u64,
    /// In how many calls.
    calls: u64,
}

impl ReportRow for ErrorsRow {
    fn names() -> Vec<String> {
        ["code", "phase", "errors", "calls"].map(str::to_owned).into()
    }

    fn key(&self) -> &RowKey {
        &self.key
    }

    fn values(&self) -> Vec<String> {
        vec![
            self.code.clone().unwrap_or_default(),
            self.phase.clone().unwrap_or_default(),
            self.errors.to_string(),
            self.calls.to_string(),
        ]
    }
}

/// What went wrong
///
/// The errors of calls by code and phase: a row for each.
#[utoipa::path(
    get,
    path = "/reports/errors",
    operation_id = "get_errors",
    tag = "reports",
    params(ReportParameters),
    responses(
        (status = 200, description = "The report.", content(
            (ReportDocument<ErrorsRow> = "application/json",
             example = json!(example(include_str!("../../openapi/examples/errors.json")))),
            (String = "text/csv; charset=utf-8; header=present",
             example = json!("code,phase,errors,calls\r\nNETWORK_ERROR,CONNECTING,2,1\r\n")),
        )),
        BadParameter,
    ),
    security((), ("api_key" = [])),
)]
pub(in crate::http) async fn show(
    State(service): State<Shared>,
    caller: ApiClient,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    ReportRequest::answer(&service, &caller, &uri, &headers, report).await
}

/// The report.
async fn report(request: ReportRequest, mut snapshot: ReportSnapshot) -> Result<Response, Problem> {
    let errors = errors(&mut snapshot.tx, &request.query()).await?;
    let kinds: BTreeSet<_> = errors.iter().map(|errors| (&errors.code, &errors.phase)).collect();
    let groups = errors.iter().map(|errors| errors.cell.group.clone());
    let cells = request.cells(groups, kinds.len())?;
    let found: BTreeMap<_, _> = errors
        .iter()
        .map(|errors| ((&errors.cell, (&errors.code, &errors.phase)), errors))
        .collect();
    let rows = cells.iter().flat_map(|cell| {
        let (request, found) = (&request, &found);
        kinds.iter().map(move |(code, phase)| {
            let found = found.get(&(cell, (*code, *phase)));
            ErrorsRow {
                key: request.key(cell),
                code: (*code).clone(),
                phase: (*phase).clone(),
                errors: found.map_or(0, |found| found.errors),
                calls: found.map_or(0, |found| found.calls),
            }
        })
    });
    let rows = rows.collect();
    answer(request, rows)
}
