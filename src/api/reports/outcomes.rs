//! `GET /reports/outcomes`: what became of calls.

use std::collections::BTreeMap;

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
    store::reports::{
        Cell,
        outcomes::{Outcome, outcomes},
    },
};

/// What became of the calls that began in a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct OutcomesRow {
    #[serde(flatten)]
    place: Place,
    /// How many calls.
    calls: u64,
    /// How many of them have not ended.
    live: u64,
    /// How many of them have ended, at least for now.
    terminal: u64,
    /// How many of them are COMPLETED, with errors or without.
    completed: u64,
    /// How many of the completed ones had errors.
    completed_with_errors: u64,
    /// The share of the completed ones among those that have ended; null where none has.
    #[schema(minimum = 0, maximum = 1)]
    completion_rate: Option<f64>,
    /// How many of them are in each status that any call of the report is in.
    by_status: BTreeMap<Status, u64>,
    /// How many dials they had.
    attempts: u64,
    /// How many of these came to each status that any dial of the report came to.
    attempts_by_status: BTreeMap<Status, u64>,
}

impl OutcomesRow {
    fn of(place: Place, by_status: BTreeMap<Status, u64>, attempts: BTreeMap<Status, u64>) -> Self {
        let terminal = by_status.iter().filter(|(status, _)| status.is_terminal());
        let (calls, terminal) = (by_status.values().sum(), terminal.map(|(_, calls)| calls).sum());
        let completed = by_status.get(&Status::Completed).copied().unwrap_or_default();
        Self {
            place,
            calls,
            live: calls - terminal,
            terminal,
            completed,
            completed_with_errors: 0,
            completion_rate: (terminal > 0).then(|| ratio(completed, terminal)),
            by_status,
            attempts: attempts.values().sum(),
            attempts_by_status: attempts,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

impl Row for OutcomesRow {
    fn names() -> Vec<String> {
        let totals =
            ["calls", "live", "terminal", "completed", "completed_with_errors", "completion_rate"];
        let by_status = Status::ALL.iter().map(|status| format!("by_status.{status}"));
        let of_attempts = Status::ALL.iter().filter(|status| is_of_attempt(**status));
        let of_attempts = of_attempts.map(|status| format!("attempts_by_status.{status}"));
        let totals = totals.into_iter().map(str::to_owned);
        totals.chain(by_status).chain(["attempts".to_owned()]).chain(of_attempts).collect()
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn values(&self) -> Vec<String> {
        let of = |counts: &BTreeMap<Status, u64>, status| {
            counts.get(status).copied().unwrap_or_default().to_string()
        };
        let mut values = vec![
            self.calls.to_string(),
            self.live.to_string(),
            self.terminal.to_string(),
            self.completed.to_string(),
            self.completed_with_errors.to_string(),
            shown(self.completion_rate),
        ];
        values.extend(Status::ALL.iter().map(|status| of(&self.by_status, status)));
        values.push(self.attempts.to_string());
        let of_attempts = Status::ALL.iter().filter(|status| is_of_attempt(**status));
        values.extend(of_attempts.map(|status| of(&self.attempts_by_status, status)));
        values
    }
}

fn is_of_attempt(status: Status) -> bool {
    status.is_of_attempt()
}

/// What became of calls
///
/// Of the calls whose first event lies in each bucket: where they stand now, and where their attempts
/// came to.
#[utoipa::path(
    get,
    path = "/reports/outcomes",
    operation_id = "get_outcomes",
    tag = "reports",
    params(Asking),
    responses(
        (status = 200, description = "The report.", content(
            (ReportDocument<OutcomesRow> = "application/json",
             example = json!(example(include_str!("../openapi/examples/outcomes.json")))),
            (String = "text/csv; charset=utf-8; header=present",
             example = json!("bucket_start,calls,live,terminal,completed,…\r\n2026-05-11T22:00:00.000000Z,1,1,0,0,…\r\n")),
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
    let outcomes = outcomes(&mut look.tx, &question.asked()).await?;
    let rows = rows(&question, outcomes)?;
    answer(question, rows)
}

fn rows(question: &Question, outcomes: Vec<Outcome>) -> Result<Vec<OutcomesRow>, Problem> {
    let groups: Vec<_> = outcomes.iter().map(|outcome| outcome.cell.group.clone()).collect();
    let mut counted: BTreeMap<Cell, Vec<Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        counted.entry(outcome.cell.clone()).or_default().push(outcome);
    }
    let cells = question.cells(groups, 1)?.into_iter();
    let rows = cells.map(|cell| {
        let (mut by_status, mut attempts) = (BTreeMap::new(), BTreeMap::new());
        let mut completed_with_errors = 0;
        for outcome in counted.remove(&cell).unwrap_or_default() {
            let counts = if outcome.of_attempts { &mut attempts } else { &mut by_status };
            *counts.entry(outcome.status).or_default() += outcome.count;
            if outcome.completed_with_errors {
                completed_with_errors += outcome.count;
            }
        }
        let row = OutcomesRow::of(question.place(&cell), by_status, attempts);
        OutcomesRow { completed_with_errors, ..row }
    });
    Ok(rows.collect())
}
