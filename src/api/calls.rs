//! `GET /calls/{call_id}`: one call.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::Uri};
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Problem, Shared,
    caller::Caller,
    query::{CallIdInPath, Query},
};
use crate::{
    call::{Attempt, CallError, CallId, CallSid, ClientId, Direction, ProjectId, Status},
    store::{
        calls::{StoredCall, Wanted},
        events::{self, ToldError},
    },
};

/// The most errors of a call that are shown: the first. Its history shows the
/// errors of each event.
const MAX_ERRORS: u16 = 1000;

/// A call, whole.
#[derive(Debug, Serialize)]
pub(super) struct CallDocument {
    call_id: CallId,
    project_id: ProjectId,
    direction: Option<Direction>,
    status: Status,
    terminal: bool,
    #[serde(rename = "final")]
    is_final: bool,
    attempt_count: usize,
    attempts: Vec<AttemptDocument>,
    call_sid: Option<CallSid>,
    client_id: Option<ClientId>,
    provider_status: Option<String>,
    has_errors: bool,
    errors: Vec<ErrorDocument>,
    time_in_status: BTreeMap<Status, f64>,
    event_count: u32,
    anomaly_count: u32,
    first_event_at: DateTime<Utc>,
    last_event_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
}

#[derive(Debug, Serialize)]
struct AttemptDocument {
    number: u32,
    call_sid: Option<CallSid>,
    status: Status,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize)]
struct ErrorDocument {
    event_id: Uuid,
    #[serde(flatten)]
    error: CallError,
}

impl From<Attempt> for AttemptDocument {
    fn from(attempt: Attempt) -> Self {
        let Attempt { number, call_sid, status, statuses: _, started_at, ended_at } = attempt;
        Self { number, call_sid, status, started_at, ended_at }
    }
}

impl From<ToldError> for ErrorDocument {
    fn from(told: ToldError) -> Self {
        let ToldError { event_id, error } = told;
        Self { event_id, error }
    }
}

impl CallDocument {
    fn of(stored: StoredCall, errors: Vec<ToldError>) -> Self {
        let call = stored.call;
        Self {
            call_id: stored.key.call_id,
            project_id: stored.key.project_id,
            direction: call.direction,
            status: call.status,
            terminal: call.status.is_terminal(),
            is_final: call.status.is_final(),
            attempt_count: call.attempts.len(),
            call_sid: call.call_sid().cloned(),
            last_event_at: call.last_event_at(),
            attempts: call.attempts.into_iter().map(AttemptDocument::from).collect(),
            client_id: call.client_id,
            provider_status: call.provider_status,
            has_errors: call.has_errors,
            errors: errors.into_iter().map(ErrorDocument::from).collect(),
            time_in_status: call
                .microseconds_in_status
                .into_iter()
                .map(|(status, microseconds)| (status, seconds(microseconds)))
                .collect(),
            event_count: call.event_count,
            anomaly_count: call.anomaly_count,
            first_event_at: call.first_event_at,
            ended_at: call.ended_at,
            updated_at: call.updated_at,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a stay of 285 years is still exact")]
fn seconds(microseconds: i64) -> f64 {
    microseconds as f64 / 1e6
}

pub(super) async fn show(
    State(service): State<Shared>,
    caller: Caller,
    CallIdInPath(call_id): CallIdInPath,
    uri: Uri,
) -> Result<Json<CallDocument>, Problem> {
    let mut query = Query::of(&uri);
    let projects = caller.projects(query.take_project_id().as_ref());
    query.finish()?;
    let found = service.lookup.find(Wanted { call_id: call_id.clone(), projects }).await?;
    let stored = only_one(found, &call_id, |stored| &stored.key.project_id)?;
    let errors = if stored.call.has_errors {
        // Those that the call had when it was read: of an event that came since, the rest of the
        // answer knows nothing. What is received by one instance and committed late, with a clock
        // behind another's, may show here a moment before it counts there.
        let read_as_of = stored.call.updated_at;
        events::errors(&service.pool, service.buckets, &stored.key, read_as_of, MAX_ERRORS).await?
    } else {
        Vec::new()
    };
    Ok(Json(CallDocument::of(stored, errors)))
}

/// The one call of that id; a problem where there is none, or one in each of
/// several projects.
pub(super) fn only_one<T>(
    mut found: Vec<T>,
    call_id: &CallId,
    project_of: impl Fn(&T) -> &ProjectId,
) -> Result<T, Problem> {
    if found.len() > 1 {
        let projects: Vec<&str> = found.iter().map(|found| project_of(found).as_str()).collect();
        let detail = format!(
            "call {call_id} is in the projects {}: say which by project_id",
            projects.join(", "),
        );
        return Err(Problem::ambiguous_call(detail).with("project_ids", projects));
    }
    found.pop().ok_or_else(|| Problem::not_found(format!("there is no call {call_id}")))
}
