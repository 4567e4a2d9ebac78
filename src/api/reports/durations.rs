//! `GET /reports/durations`: how long calls were in each status, and as a whole.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    question::{Asking, Look, Question},
    table::{Place, ReportDocument, Row, answer, shown},
};
use crate::{
    api::{
        Problem, Shared,
        caller::Caller,
        openapi::{answers::BadParameter, example},
    },
    call::Status,
    store::reports::durations::{Percentile, Stay, durations},
};

/// What the time from the first event of a call to its end is called among the
/// statuses.
const TOTAL: &str = "total";

/// How long the calls that began in a bucket were in a status, all stays in it
/// together.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct DurationsRow {
    #[serde(flatten)]
    place: Place,
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
    fn of(place: Place, status: String, stay: Option<&Stay>) -> Self {
        let percentile = |at: f64, of: fn(&Stay) -> Percentile| {
            stay.map(|stay| interpolated(at, stay.count, of(stay)))
        };
        Self {
            place,
            status,
            count: stay.map_or(0, |stay| stay.count),
            mean_seconds: stay.map(|stay| stay.mean),
            p50_seconds: percentile(0.5, |stay| stay.p50),
            p90_seconds: percentile(0.9, |stay| stay.p90),
            p99_seconds: percentile(0.99, |stay| stay.p99),
        }
    }
}

/// The continuous percentile, as `percentile_cont` of Postgres has it.
#[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
fn interpolated(at: f64, count: u64, Percentile { before, after }: Percentile) -> f64 {
    let place = at * (count - 1) as f64;
    before + (place - place.floor()) * (after - before)
}

impl Row for DurationsRow {
    fn names() -> Vec<String> {
        ["status", "count", "mean_seconds", "p50_seconds", "p90_seconds", "p99_seconds"]
            .map(str::to_owned)
            .into()
    }

    fn place(&self) -> &Place {
        &self.place
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
    params(Asking),
    responses(
        (status = 200, description = "The report.", content(
            (ReportDocument<DurationsRow> = "application/json",
             example = json!(example(include_str!("../openapi/examples/durations.json")))),
            (String = "text/csv; charset=utf-8; header=present",
             example = json!("status,count,mean_seconds,p50_seconds,p90_seconds,p99_seconds\r\nCALLING,1,18,18,18,18\r\n")),
        )),
        BadParameter,
    ),
    security((), ("api_key" = [])),
)]
pub(in crate::api) async fn show(
    State(service): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Question::answer(&service, &caller, &uri, &headers, report).await
}

/// The report.
async fn report(question: Question, mut look: Look) -> Result<Response, Problem> {
    let stays = durations(&mut look.tx, &question.asked()).await?;
    let seen: BTreeSet<&str> = stays.iter().map(|stay| stay.status).collect();
    let statuses = Status::ALL.iter().map(|status| status.as_str());
    let statuses: Vec<&str> =
        statuses.filter(|status| seen.contains(status)).chain([TOTAL]).collect();
    let cells = question.cells(stays.iter().map(|stay| stay.cell.group.clone()), statuses.len())?;
    let found: BTreeMap<_, _> =
        stays.iter().map(|stay| ((&stay.cell, stay.status), stay)).collect();
    let rows = cells.iter().flat_map(|cell| {
        let (question, found) = (&question, &found);
        statuses.iter().map(move |status| {
            let stay = found.get(&(cell, *status)).copied();
            DurationsRow::of(question.place(cell), (*status).to_owned(), stay)
        })
    });
    let rows = rows.collect();
    answer(question, rows)
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
