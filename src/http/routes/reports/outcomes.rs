//! `GET /reports/outcomes`: what became of calls.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    call::Status,
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
        Cell, StatusName,
        outcomes::{OutcomeCount, outcomes},
    },
};

/// What became of the calls that began in a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct OutcomesRow {
    #[serde(flatten)]
    key: RowKey,
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
    /// How many of them are in each status that any of them is in.
    #[serde(serialize_with = "by_name")]
    #[schema(value_type = BTreeMap<Status, u64>)]
    by_status: BTreeMap<StatusName, u64>,
    /// How many attempts they have. An attempt may never have been dialed.
    attempts: u64,
    /// How many of these are in each status that any of them is in.
    #[serde(serialize_with = "by_name")]
    #[schema(value_type = BTreeMap<Status, u64>)]
    attempts_by_status: BTreeMap<StatusName, u64>,
}

/// Counts with the names of the statuses as keys.
fn by_name<S: Serializer>(
    counts: &BTreeMap<StatusName, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(status, count)| (&status.name, count)))
}

impl OutcomesRow {
    fn of(key: RowKey, counts: Vec<OutcomeCount>) -> Self {
        let sum = |is_counted: fn(&OutcomeCount) -> bool| -> u64 {
            counts.iter().filter(|it| !it.of_attempts && is_counted(it)).map(|it| it.count).sum()
        };
        let (calls, terminal) = (sum(|_| true), sum(|it| it.is_terminal));
        let (completed, completed_with_errors) =
            (sum(|it| it.is_completed), sum(|it| it.completed_with_errors));
        let (mut by_status, mut attempts_by_status) = (BTreeMap::new(), BTreeMap::new());
        for OutcomeCount { of_attempts, status, count, .. } in counts {
            let counted = if of_attempts { &mut attempts_by_status } else { &mut by_status };
            *counted.entry(status).or_default() += count;
        }
        Self {
            key,
            calls,
            live: calls - terminal,
            terminal,
            completed,
            completed_with_errors,
            completion_rate: (terminal > 0).then(|| ratio(completed, terminal)),
            by_status,
            attempts: attempts_by_status.values().sum(),
            attempts_by_status,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

impl ReportRow for OutcomesRow {
    fn names() -> Vec<String> {
        let totals =
            ["calls", "live", "terminal", "completed", "completed_with_errors", "completion_rate"];
        let by_status = Status::ALL.iter().map(|status| format!("by_status.{status}"));
        let of_attempts = Status::ALL.iter().filter(|status| belongs_to_attempt(**status));
        let of_attempts = of_attempts.map(|status| format!("attempts_by_status.{status}"));
        let totals = totals.into_iter().map(str::to_owned);
        totals.chain(by_status).chain(["attempts".to_owned()]).chain(of_attempts).collect()
    }

    fn key(&self) -> &RowKey {
        &self.key
    }

    fn values(&self) -> Vec<String> {
        let of = |counts: &BTreeMap<StatusName, u64>, status: &Status| {
            let mut counts = counts.iter();
            let found = counts.find(|(counted, _)| counted.id == status.id());
            found.map_or(0, |(_, count)| *count).to_string()
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
        let of_attempts = Status::ALL.iter().filter(|status| belongs_to_attempt(**status));
        values.extend(of_attempts.map(|status| of(&self.attempts_by_status, status)));
        values
    }
}

fn belongs_to_attempt(status: Status) -> bool {
    status.belongs_to_attempt()
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
    params(ReportParameters),
    responses(
        (status = 200, description = "The report.", content(
            (ReportDocument<OutcomesRow> = "application/json",
             example = json!(example(include_str!("../../openapi/examples/outcomes.json")))),
            (String = "text/csv; charset=utf-8; header=present",
             example = json!("bucket_start,calls,live,terminal,completed,…\r\n2026-05-11T22:00:00.000000Z,1,1,0,0,…\r\n")),
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
    let outcomes = outcomes(&mut snapshot.tx, &request.query()).await?;
    let rows = rows(&request, outcomes)?;
    answer(request, rows)
}

fn rows(request: &ReportRequest, outcomes: Vec<OutcomeCount>) -> Result<Vec<OutcomesRow>, Problem> {
    let groups: Vec<_> = outcomes.iter().map(|outcome| outcome.cell.group.clone()).collect();
    let mut counted: BTreeMap<Cell, Vec<OutcomeCount>> = BTreeMap::new();
    for outcome in outcomes {
        counted.entry(outcome.cell.clone()).or_default().push(outcome);
    }
    let cells = request.cells(groups, 1)?.into_iter();
    let rows = cells
        .map(|cell| OutcomesRow::of(request.key(&cell), counted.remove(&cell).unwrap_or_default()));
    Ok(rows.collect())
}
