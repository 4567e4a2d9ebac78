//! `GET /calls/{call_id}`: one call, as it is or as it was known at a time.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};
use uuid::Uuid;

use crate::{
    call::{
        Attempt, Call, CallError, CallId, CallKey, CallSid, ClientId, Direction, ProjectId, Status,
    },
    http::{
        Problem, Service, Shared,
        auth::{ApiClient, PresentedKey},
        etag::tagged,
        openapi::{
            answers::{Responses, problems},
            example,
        },
        query::{CallIdInPath, InProject, Query, read_instant},
        routes::streams,
    },
    store::{
        calls::{StoredCall, as_of::known_at, find::CallQuery},
        events::history::{ErrorsOf, ReportedError, errors},
    },
};

/// The most errors of a call that are shown: the first. Its history shows the
/// errors of each event.
const MAX_ERRORS: u16 = 1000;

/// A call, whole.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Call)]
pub(crate) struct CallDocument {
    /// The provider's name of the call.
    call_id: CallId,
    /// The project that the call is of.
    project_id: ProjectId,
    /// Who dialled; null while only events of unknown types have come.
    direction: Option<Direction>,
    /// Where the call stands.
    status: Status,
    /// Whether the call has ended, at least for now.
    terminal: bool,
    /// Whether the call never leaves its status.
    #[serde(rename = "final")]
    is_final: bool,
    /// How many attempts there were.
    attempt_count: usize,
    /// The attempts of the call, in their order; of an inbound call at most one. An attempt may never
    /// have been dialed.
    attempts: Vec<AttemptDocument>,
    /// The current attempt's.
    call_sid: Option<CallSid>,
    /// The customer's own id of the party, as the last event told it that has one.
    client_id: Option<ClientId>,
    /// The provider's own status of the call, as the last event told it that has one; informative
    /// only.
    provider_status: Option<String>,
    /// Whether any event carried errors. A call that is `COMPLETED` and has some was completed with
    /// errors.
    has_errors: bool,
    /// What went wrong: the first 1,000, in the order of their events.
    errors: Vec<ErrorDocument>,
    /// How long the call stayed in each status, in seconds. An open stay is not counted.
    time_in_status: BTreeMap<Status, f64>,
    /// How many events the call has.
    event_count: u32,
    /// How many of them were forced, conflicting or unrecognized.
    anomaly_count: u32,
    /// When its first event happened.
    first_event_at: DateTime<Utc>,
    /// When its last event happened.
    last_event_at: DateTime<Utc>,
    /// When the event happened that brought its terminal status; null while the call is live.
    ended_at: Option<DateTime<Utc>>,
    /// When the newest of its events was received.
    updated_at: DateTime<Utc>,
}

/// An attempt of a call. It may never have been dialed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptDocument {
    /// Its place among the call's attempts, from 1.
    #[schema(minimum = 1)]
    number: u32,
    /// The telephony provider's id of it.
    call_sid: Option<CallSid>,
    /// The status of highest rank that its events said.
    status: Status,
    /// When its first event happened.
    started_at: DateTime<Utc>,
    /// When the event happened that ended it; null while it lasts.
    ended_at: Option<DateTime<Utc>>,
}

/// Something that went wrong in a call, and the event that told it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErrorOfCall)]
struct ErrorDocument {
    /// The event that carried it.
    event_id: Uuid,
    #[serde(flatten)]
    error: CallError,
}

impl From<Attempt> for AttemptDocument {
    fn from(attempt: Attempt) -> Self {
        let Attempt { number, call_sid, status, started_at, ended_at, .. } = attempt;
        Self { number, call_sid, status, started_at, ended_at }
    }
}

impl From<ReportedError> for ErrorDocument {
    fn from(reported: ReportedError) -> Self {
        let ReportedError { event_id, error } = reported;
        Self { event_id, error }
    }
}

impl CallDocument {
    fn of(key: CallKey, call: Call, errors: Vec<ReportedError>) -> Self {
        let CallKey { call_id, project_id } = key;
        Self {
            call_id,
            project_id,
            direction: call.direction,
            status: call.status,
            terminal: call.status.is_terminal(),
            is_final: call.status.is_final(),
            attempt_count: call.attempts.len(),
            call_sid: call.call_sid().cloned(),
            last_event_at: call.last_event_at(),
            ended_at: call.ended_at(),
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
            updated_at: call.updated_at,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a stay of 285 years is still exact")]
fn seconds(microseconds: i64) -> f64 {
    microseconds as f64 / 1e6
}

/// One call
///
/// Where it stands, its attempts, what went wrong, and how long it was in each status. With `wait`,
/// once it has ended.
#[utoipa::path(
    get,
    path = "/calls/{call_id}",
    operation_id = "get_call",
    tag = "calls",
    params(
        CallIdInPath,
        InProject,
        streams::WaitParameter,
        ("as_of" = Option<DateTime<Utc>>, Query,
         description = "Shows what was known at that time: the fold of the events received by then."),
        ("If-None-Match" = Option<String>, Header,
         description = "Tags of answers that the client has (RFC 9110)."),
    ),
    responses(
        (status = 200, description = "The call.", body = CallDocument,
         headers(("etag" = String, description = "Names this very answer.")),
         example = json!(example(include_str!("../../openapi/examples/call.json")))),
        (status = 304, description = "The client has the answer.",
         headers(("etag" = String, description = "Names this very answer."))),
        NoSuchCall,
    ),
    security((), ("api_key" = [])),
)]
pub(crate) async fn show(
    State(service): State<Shared>,
    caller: ApiClient,
    pass: PresentedKey,
    CallIdInPath(call_id): CallIdInPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut query = Query::of(&uri);
    let projects = caller.projects(query.take_project_id().as_ref());
    let as_of = query.take("as_of", read_instant);
    let wait = query.take("wait", streams::read_wait);
    if as_of.is_some() && wait.is_some() {
        query.fault("wait", "what was known as_of a time does not change");
    }
    query.finish()?;
    let wanted = || CallQuery { call_id: call_id.clone(), projects: projects.clone() };
    let stored = |found: Vec<StoredCall>| {
        found.into_iter().map(|stored| (stored.id, stored.key, stored.call)).collect()
    };
    let found = match (as_of, wait) {
        (Some(at), _) => known_at(&service.pool, &wanted(), at).await?,
        (None, Some(longest)) if !longest.is_zero() => {
            stored(streams::find_ended(&service, wanted(), &pass, longest).await?)
        }
        (None, _) => stored(service.calls.find(wanted()).await?),
    };
    let call = only_one(found, &call_id, |(_, key, _)| &key.project_id)?;
    let mut shown = documents(&service, vec![call], MAX_ERRORS).await?;
    let document = shown.pop().ok_or_else(|| Problem::internal("a call was not shown"))?;
    Ok(tagged(&headers, &document))
}

/// The calls with their errors, at most so many of each.
pub(crate) async fn documents(
    service: &Service,
    calls: Vec<(i64, CallKey, Call)>,
    max_errors: u16,
) -> Result<Vec<CallDocument>, Problem> {
    // Of events that were received when the call was read: the rest of the response does not
    // include later ones. An event that is received by one instance and committed late, by a clock
    // that is behind that of another, may be here a moment before it counts there.
    let with_errors: Vec<ErrorsOf<'_>> = calls
        .iter()
        .filter(|(_, _, call)| call.has_errors)
        .map(|(id, key, call)| ErrorsOf { id: *id, key, received_by: call.updated_at })
        .collect();
    let mut found = errors(&service.pool, &with_errors, max_errors).await?.into_iter();
    let found: Vec<Vec<ReportedError>> = calls
        .iter()
        .map(|(_, _, call)| if call.has_errors { found.next() } else { None }.unwrap_or_default())
        .collect();
    let documents = calls.into_iter().zip(found);
    Ok(documents.map(|((_, key, call), errors)| CallDocument::of(key, call, errors)).collect())
}

/// The call is not there, is one of several, or is not named well.
pub(crate) struct NoSuchCall;

impl IntoResponses for NoSuchCall {
    fn responses() -> Responses {
        let call_id = CallId::new("call-1").expect("it is short");
        let projects = ["p-1", "p-2"].map(|id| ProjectId::new(id).expect("it is short"));
        let refusal = |found| only_one(found, &call_id, |project_id| project_id).err();
        let bad = Problem::bad_parameter("colour: is no parameter here");
        problems([refusal(Vec::new()), refusal(projects.into()), Some(bad)].into_iter().flatten())
    }
}

/// The one call of that id; a problem where there is none, or one in each of
/// several projects.
pub(crate) fn only_one<T>(
    found: Vec<T>,
    call_id: &CallId,
    project_of: impl Fn(&T) -> &ProjectId,
) -> Result<T, Problem> {
    at_most_one(found, call_id, project_of)?
        .ok_or_else(|| Problem::not_found(format!("there is no call {call_id}")))
}

/// The call of that id, if there is one; a problem where there is one in each of
/// several projects.
pub(crate) fn at_most_one<T>(
    mut found: Vec<T>,
    call_id: &CallId,
    project_of: impl Fn(&T) -> &ProjectId,
) -> Result<Option<T>, Problem> {
    if found.len() > 1 {
        let projects: Vec<&str> = found.iter().map(|found| project_of(found).as_str()).collect();
        let detail = format!(
            "call {call_id} is in the projects {}: say which by project_id",
            projects.join(", "),
        );
        return Err(Problem::ambiguous_call(detail).with("project_ids", projects));
    }
    Ok(found.pop())
}
