//! `GET /reports/concurrency`: how many calls were in CALLING at once, and how
//! many were turned away for that.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use chrono::{DateTime, Utc};
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
    store::reports::{
        Cell, Group, ReportQuery,
        concurrency::{Sweep, in_conversation, sweep, turned_away},
    },
};

/// The calls in CALLING in the course of a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ConcurrencyRow {
    #[serde(flatten)]
    key: RowKey,
    /// The most at once.
    peak: u64,
    /// The mean over the time of the bucket that is asked about and has passed.
    mean: f64,
    /// How many that began in it were turned away.
    turned_away: u64,
}

impl ReportRow for ConcurrencyRow {
    fn names() -> Vec<String> {
        ["peak", "mean", "turned_away"].map(str::to_owned).into()
    }

    fn key(&self) -> &RowKey {
        &self.key
    }

    fn values(&self) -> Vec<String> {
        vec![self.peak.to_string(), self.mean.to_string(), self.turned_away.to_string()]
    }
}

/// How many calls there were at once
///
/// How many calls were in CALLING, and how many were turned away by the limit of concurrent calls.
#[utoipa::path(
    get,
    path = "/reports/concurrency",
    operation_id = "get_concurrency",
    tag = "reports",
    params(ReportParameters),
    responses(
        (status = 200, description = "The report.", content(
            (ReportDocument<ConcurrencyRow> = "application/json",
             example = json!(example(include_str!("../../openapi/examples/concurrency.json")))),
            (String = "text/csv; charset=utf-8; header=present",
             example = json!("peak,mean,turned_away\r\n1,0.5,0\r\n")),
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
    let query = request.query();
    let turned_away = turned_away(&mut snapshot.tx, &query).await?;
    // What is to come is not known: calls count until now.
    let until = request.to.min(request.now).max(request.from);
    let passed = ReportQuery { to: until, ..query };
    let sweeps = sweep(&mut snapshot.tx, &passed).await?;
    let now = in_conversation(&mut snapshot.tx, &passed).await?;

    let mut levels: BTreeMap<Group, i64> =
        now.into_iter().map(|now| (now.group, now.calls)).collect();
    for sweep in &sweeps {
        *levels.entry(sweep.cell.group.clone()).or_default() -= sweep.change;
    }
    let before = levels.clone();
    let groups = levels.iter().filter(|(_, level)| **level != 0).map(|(group, _)| group.clone());
    let groups = groups
        .chain(sweeps.iter().map(|sweep| sweep.cell.group.clone()))
        .chain(turned_away.iter().map(|away| away.cell.group.clone()));
    let cells = request.cells(groups, 1)?;
    let mut sweeps: BTreeMap<Cell, Sweep> =
        sweeps.into_iter().map(|sweep| (sweep.cell.clone(), sweep)).collect();
    let turned_away: BTreeMap<Cell, u64> =
        turned_away.into_iter().map(|away| (away.cell, away.calls)).collect();

    let rows = cells
        .into_iter()
        .map(|cell| {
            let (begins, ends) = request.span(cell.bucket);
            let level = levels.entry(cell.group.clone()).or_default();
            let before = before.get(&cell.group).copied().unwrap_or_default();
            let course =
                Course { from: request.from, begins, ends: ends.min(until), before, level: *level };
            let sweep = sweeps.remove(&cell);
            *level += sweep.as_ref().map_or(0, |sweep| sweep.change);
            ConcurrencyRow {
                key: request.key(&cell),
                peak: course.peak(sweep.as_ref()),
                mean: course.mean(sweep.as_ref()),
                turned_away: turned_away.get(&cell).copied().unwrap_or_default(),
            }
        })
        .collect();
    answer(request, rows)
}

/// What is known of a bucket besides its changes.
struct Course {
    /// When the span begins.
    from: DateTime<Utc>,
    begins: DateTime<Utc>,
    ends: DateTime<Utc>,
    /// How many calls were in CALLING before the span.
    before: i64,
    /// How many were before the bucket.
    level: i64,
}

impl Course {
    fn peak(&self, sweep: Option<&Sweep>) -> u64 {
        if self.ends <= self.begins {
            return 0;
        }
        let after_change = sweep.map(|sweep| self.before + sweep.peak);
        // The calls from before the bucket are in it only until the first change.
        let at_first = sweep.is_none_or(|sweep| sweep.first_at > self.begins);
        let at_first = at_first.then_some(self.level);
        after_change.max(at_first).unwrap_or_default().unsigned_abs()
    }

    #[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
    fn mean(&self, sweep: Option<&Sweep>) -> f64 {
        let length = (self.ends - self.begins).as_seconds_f64();
        if length <= 0.0 {
            return 0.0;
        }
        // Each that came is there from its moment on until the end, each that left no longer is.
        let changed = sweep.map_or(0.0, |sweep| {
            sweep.change as f64 * (self.ends - self.from).as_seconds_f64() - sweep.moment
        });
        ((self.level as f64 * length + changed) / length).max(0.0)
    }
}
