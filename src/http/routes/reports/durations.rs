//! `GET /reports/durations`: how long calls were in each status, and as a whole.

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
            table::{ReportDocument, ReportRow, RowKey, answer, shown},
        },
    },
    store::reports::{
        StatusName,
        durations::{Durations, Percentile, durations},
    },
};

/// What the time from the first event of a call to its end is called among the
/// statuses.
const TOTAL: &str = "total";

/// How long the calls that began in a bucket were in a status, all stays in it
/// together.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DurationsRow {
    #[serde(flatten)]
    key: RowKey,
    /// The status, or `total`.
    status: String,
    /// How many calls have been in it, and left it.
    count: u64,
    /// How long on average; null where there was none.
    mean_seconds: Option<f64>,
    /// How long half of them took at most; null where there was none.
    p50_seconds: Option<f64>,
    /// How long nine in ten of them took at most; null where there was none.
    p90_seconds: Option<f64>,
    /// How long all but one in a hundred of them took at most; null where there was none.
    p99_seconds: Option<f64>,
}

impl DurationsRow {
    fn of(key: RowKey, status: String, durations: Option<&Durations>) -> Self {
        let percentile = |at: f64, of: fn(&Durations) -> Percentile| {
            durations.map(|it| interpolated(at, it.count, of(it)))
        };
        Self {
            key,
            status,
            count: durations.map_or(0, |it| it.count),
            mean_seconds: durations.map(|it| it.mean),
            p50_seconds: percentile(0.5, |it| it.p50),
            p90_seconds: percentile(0.9, |it| it.p90),
            p99_seconds: percentile(0.99, |it| it.p99),
        }
    }
}

/// The continuous percentile, as `percentile_cont` of Postgres has it.
#[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
fn interpolated(at: f64, count: u64, Percentile { before, after }: Percentile) -> f64 {
    let rank = at * (count - 1) as f64;
    before + (rank - rank.floor()) * (after - before)
}

impl ReportRow for DurationsRow {
    fn names() -> Vec<String> {
        ["status", "count", "mean_seconds", "p50_seconds", "p90_seconds", "p99_seconds"]
            .map(str::to_owned)
            .into()
    }

    fn key(&self) -> &RowKey {
        &self.key
    }

    fn values(&self) -> Vec<String> {
        vec![
            self.status.clone(),
            self.count.to_string(),
            shown(self.mean_seconds),
            shown(self.p50_seconds),
            shown(self.p90_seconds),
            shown(self.p99_seconds),
        ]
    }
}

/// How long calls took
///
/// How long calls were in each status, all their stays in it together, and as a whole (`total`): a
/// row for each. A stay that has not ended is not counted.
#[utoipa::path(
    get,
    path = "/reports/durations",
    operation_id = "get_durations",
    tag = "reports",
    params(ReportParameters),
    responses(
        (status = 200, description = "The report.", content(
            (ReportDocument<DurationsRow> = "application/json",
             example = json!(example(include_str!("../../openapi/examples/durations.json")))),
            (String = "text/csv; charset=utf-8; header=present",
             example = json!("status,count,mean_seconds,p50_seconds,p90_seconds,p99_seconds\r\nCALLING,1,18,18,18,18\r\n")),
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
    let found = durations(&mut snapshot.tx, &request.query()).await?;
    let seen: BTreeSet<&StatusName> = found.iter().filter_map(|it| it.status.as_ref()).collect();
    let statuses: Vec<Option<&StatusName>> = seen.into_iter().map(Some).chain([None]).collect();
    let groups = found.iter().map(|it| it.cell.group.clone());
    let cells = request.cells(groups, statuses.len())?;
    let found: BTreeMap<_, _> =
        found.iter().map(|it| ((&it.cell, it.status.as_ref()), it)).collect();
    let rows = cells.iter().flat_map(|cell| {
        let (request, found) = (&request, &found);
        statuses.iter().map(move |status| {
            let name = status.map_or(TOTAL, |status| &status.name).to_owned();
            let durations = found.get(&(cell, *status)).copied();
            DurationsRow::of(request.key(cell), name, durations)
        })
    });
    let rows = rows.collect();
    answer(request, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_lies_between_the_values_around_it() {
        let between =
            |at, count, before, after| interpolated(at, count, Percentile { before, after });
        assert!((between(0.5, 2, 1.0, 2.0) - 1.5).abs() < 1e-12);
        assert!((between(0.9, 11, 9.0, 9.0) - 9.0).abs() < 1e-12);
        assert!((between(0.99, 1, 4.0, 4.0) - 4.0).abs() < 1e-12);
    }
}
