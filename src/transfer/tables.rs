//! The tables: which columns they have, and where each comes from.

use crate::{
    call::{Attempt, CallError, CallKey, CallSid, ClientId, Direction, Status, event::TimeProblem},
    store::{
        calls::StoredCall,
        events::{StoredEvent, history::HistoryEvent},
        export::ExportedCall,
    },
};

use super::sheet::{Cell, Field, Kind, Sheet};

/// An attempt, with what it says of its call.
#[derive(Debug)]
pub struct AttemptRow {
    key: CallKey,
    direction: Option<Direction>,
    client_id: Option<ClientId>,
    attempt: Attempt,
}

impl AttemptRow {
    /// The attempts of a call.
    pub fn of(stored: StoredCall) -> impl Iterator<Item = Self> {
        let StoredCall { key, call, .. } = stored;
        call.attempts.into_iter().map(move |attempt| Self {
            key: key.clone(),
            direction: call.direction,
            client_id: call.client_id.clone(),
            attempt,
        })
    }
}

/// A call each, as `GET /calls/{call_id}` shows it.
#[must_use]
pub fn calls() -> Sheet<ExportedCall> {
    use Kind::{Flag, Integer, Text, Time};
    Sheet::new(vec![
        Field::new("call_id", Text).of(|it| it.stored.key.call_id.as_str().into()),
        Field::new("project_id", Text).of(|it| it.stored.key.project_id.as_str().into()),
        Field::optional("direction", Text)
            .of(|it| it.stored.call.direction.map(Direction::as_str).into()),
        Field::new("status", Text).of(|it| it.stored.call.status.as_str().into()),
        Field::new("terminal", Flag).of(|it| it.stored.call.status.is_terminal().into()),
        Field::new("final", Flag).of(|it| it.stored.call.status.is_final().into()),
        Field::new("attempt_count", Integer).of(|it| length(&it.stored.call.attempts)),
        Field::new("attempts", Kind::List(attempt_fields()))
            .of(|it| Cell::List(it.stored.call.attempts.iter().map(attempt_cells).collect())),
        Field::optional("call_sid", Text)
            .of(|it| it.stored.call.call_sid().map(CallSid::as_str).into()),
        Field::optional("client_id", Text)
            .of(|it| it.stored.call.client_id.as_ref().map(ClientId::as_str).into()),
        Field::optional("provider_status", Text)
            .of(|it| it.stored.call.provider_status.as_deref().into()),
        Field::new("has_errors", Flag).of(|it| it.stored.call.has_errors.into()),
        Field::new("errors", Kind::List(told_error_fields())).of(|it| {
            let told = it.errors.iter().map(|told| {
                let mut cells = vec![told.event_id.to_string().into()];
                cells.extend(error_cells(&told.error));
                cells
            });
            Cell::List(told.collect())
        }),
        Field::new("time_in_status", Kind::Record(status_fields())).of(|it| {
            let spent = &it.stored.call.microseconds_in_status;
            let seconds = |status| spent.get(status).copied().map(seconds).into();
            Cell::Record(Status::ALL.iter().map(seconds).collect())
        }),
        Field::new("event_count", Integer).of(|it| it.stored.call.event_count.into()),
        Field::new("anomaly_count", Integer).of(|it| it.stored.call.anomaly_count.into()),
        Field::new("first_event_at", Time).of(|it| it.stored.call.first_event_at.into()),
        Field::new("last_event_at", Time).of(|it| it.stored.call.last_event_at().into()),
        Field::optional("ended_at", Time).of(|it| it.stored.call.ended_at().into()),
        Field::new("updated_at", Time).of(|it| it.stored.call.updated_at.into()),
    ])
}

/// An attempt each, as its call shows it.
#[must_use]
pub fn attempts() -> Sheet<AttemptRow> {
    use Kind::{Integer, Text, Time};
    Sheet::new(vec![
        Field::new("call_id", Text).of(|it| it.key.call_id.as_str().into()),
        Field::new("project_id", Text).of(|it| it.key.project_id.as_str().into()),
        Field::optional("direction", Text).of(|it| it.direction.map(Direction::as_str).into()),
        Field::optional("client_id", Text)
            .of(|it| it.client_id.as_ref().map(ClientId::as_str).into()),
        Field::new("number", Integer).of(|it| it.attempt.number.into()),
        Field::optional("call_sid", Text)
            .of(|it| it.attempt.call_sid.as_ref().map(CallSid::as_str).into()),
        Field::new("status", Text).of(|it| it.attempt.status.as_str().into()),
        Field::new("started_at", Time).of(|it| it.attempt.started_at.into()),
        Field::optional("ended_at", Time).of(|it| it.attempt.ended_at.into()),
    ])
}

/// An event each, as the history of its call shows it.
#[must_use]
pub fn events() -> Sheet<HistoryEvent> {
    use Kind::{Integer, Text, Time};
    Sheet::new(vec![
        Field::new("call_id", Text).of(|it| it.key.call_id.as_str().into()),
        Field::new("project_id", Text).of(|it| it.key.project_id.as_str().into()),
        Field::new("event_id", Text).of(|it| it.event_id().to_string().into()),
        Field::new("event_type", Text).of(|it| it.stored.event.event_type.as_str().into()),
        Field::optional("status", Text).of(|it| {
            let status = it.stored.event.status();
            Some(status).filter(|it| *it != Status::Unknown).map(Status::as_str).into()
        }),
        Field::new("disposition", Text)
            .of(|it| it.stored.derived.outcome.disposition.as_str().into()),
        Field::new("reason", Text).of(|it| {
            let StoredEvent { event, derived, .. } = &it.stored;
            derived.outcome.reason.sentence(event.status(), derived.outcome.attempt).into()
        }),
        Field::optional("from_status", Text)
            .of(|it| it.stored.derived.outcome.from_status.map(Status::as_str).into()),
        Field::optional("to_status", Text)
            .of(|it| it.stored.derived.outcome.to_status.map(Status::as_str).into()),
        Field::optional("attempt", Integer).of(|it| it.stored.derived.outcome.attempt.into()),
        Field::optional("call_sid", Text)
            .of(|it| it.stored.event.call_sid.as_ref().map(CallSid::as_str).into()),
        Field::optional("client_id", Text)
            .of(|it| it.stored.event.client_id.as_ref().map(ClientId::as_str).into()),
        Field::optional("provider_status", Text)
            .of(|it| it.stored.event.provider_status.as_deref().into()),
        Field::optional("occurred_at", Time).of(|it| it.stored.event.occurred_at.into()),
        Field::optional("time_problem", Text)
            .of(|it| it.time_problem.map(TimeProblem::as_str).into()),
        Field::new("received_at", Time).of(|it| it.stored.event.received_at.into()),
        Field::new("effective_at", Time).of(|it| it.stored.derived.effective_at.into()),
        Field::new("delivery_count", Integer).of(|it| it.delivery_count.into()),
        Field::new("last_delivered_at", Time).of(|it| it.stored.last_delivered_at.into()),
        Field::new("endpoint", Text).of(|it| it.endpoint.as_str().into()),
        Field::new("errors", Kind::List(error_fields()))
            .of(|it| Cell::List(it.errors.iter().map(|it| error_cells(it).into()).collect())),
    ])
}

fn attempt_fields() -> Vec<Field> {
    vec![
        Field::new("number", Kind::Integer),
        Field::optional("call_sid", Kind::Text),
        Field::new("status", Kind::Text),
        Field::new("started_at", Kind::Time),
        Field::optional("ended_at", Kind::Time),
    ]
}

fn attempt_cells(attempt: &Attempt) -> Vec<Cell<'_>> {
    let Attempt { number, call_sid, status, started_at, ended_at, .. } = attempt;
    vec![
        (*number).into(),
        call_sid.as_ref().map(CallSid::as_str).into(),
        status.as_str().into(),
        (*started_at).into(),
        (*ended_at).into(),
    ]
}

fn told_error_fields() -> Vec<Field> {
    let mut fields = vec![Field::new("event_id", Kind::Text)];
    fields.extend(error_fields());
    fields
}

fn error_fields() -> Vec<Field> {
    ["code", "message", "phase", "where", "timestamp"]
        .map(|name| Field::optional(name, Kind::Text))
        .into()
}

fn error_cells(error: &CallError) -> [Cell<'_>; 5] {
    let CallError { code, message, phase, location, timestamp } = error;
    [code, message, phase, location, timestamp].map(|text| text.as_deref().into())
}

/// The seconds in each status, by its name.
fn status_fields() -> Vec<Field> {
    Status::ALL.iter().map(|it| Field::optional(it.as_str(), Kind::Number)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a stay of 285 years is still exact")]
fn seconds(microseconds: i64) -> f64 {
    microseconds as f64 / 1e6
}

fn length<T>(items: &[T]) -> Cell<'static> {
    Cell::Integer(i64::try_from(items.len()).unwrap_or(i64::MAX))
}
