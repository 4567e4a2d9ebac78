//! Why an event did what it did: one plain sentence each.
//!
//! The sentences are kept with the events and read by operators, beside the
//! event's type and its disposition. So they tell what the call was and what
//! else decided, in the past tense, by the names of statuses and the numbers of
//! attempts; never by an identifier, which may be long and stands in the event.

use super::{
    event::Event,
    state::Call,
    status::{Kind, Status},
    transition::{Disposition, Relation},
};

/// The sentence for an event, given the call as it was before and, where the
/// event is of an earlier attempt, the number of that.
pub(super) fn reason(
    call: &Call,
    event: &Event,
    relation: Relation,
    earlier: Option<u32>,
    disposition: Disposition,
) -> String {
    let was = call.status;
    let says = event.status();
    match disposition {
        Disposition::Advanced => advanced(call, says),
        Disposition::Forced => format!(
            "the call went from {was} to {says}{}, a step that the provider had not described; its word was taken",
            in_attempt(call, says),
        ),
        Disposition::Redialed => redialed(call, event),
        Disposition::Repeated => format!("the call was already {was} and was told so again"),
        Disposition::Late => match (relation, earlier) {
            (Relation::Earlier, Some(earlier)) if !was.is_final() => format!(
                "its call_sid was that of attempt {earlier}, and attempt {} had already begun",
                current(call),
            ),
            _ => format!("the call was already {was}"),
        },
        Disposition::Conflicting => {
            match (relation, event.event_type.direction(), call.direction) {
                (Relation::Opposite, Some(of_event), Some(of_call)) => {
                    format!("the event was {of_event}, but the call was {of_call}")
                }
                _ => format!(
                    "the call was already {was}{}, which {says} contradicted",
                    in_attempt(call, says),
                ),
            }
        }
        Disposition::Unrecognized => {
            "its type was not one of the 18 that callstate knows".to_owned()
        }
    }
}

fn advanced(call: &Call, says: Status) -> String {
    let was = call.status;
    if call.event_count == 0 {
        return format!("the call began as {says}");
    }
    if was == Status::Unknown {
        return format!("the call became {says} with its first event of a known type");
    }
    match was.kind() {
        Kind::Live => format!("the call went from {was} to {says}{}", in_attempt(call, says)),
        Kind::Resolvable if says.is_of_attempt() => {
            format!("the call went from {was} to {says}, the outcome of attempt {}", current(call))
        }
        Kind::Resolvable | Kind::Redialable | Kind::Final => {
            format!("the call went from {was} to {says} after attempt {}", current(call))
        }
    }
}

fn redialed(call: &Call, event: &Event) -> String {
    let (was, says) = (call.status, event.status());
    let (last, next) = (current(call), current(call) + 1);
    if event.call_sid.is_some() && call.call_sid().is_some() {
        format!("its call_sid was not that of attempt {last}, so attempt {next} began as {says}")
    } else if says.ends_attempt() {
        format!("attempt {last} had ended as {was}, so {says} was the outcome of attempt {next}")
    } else {
        format!(
            "attempt {last} had been {says} and had ended as {was}, so attempt {next} began as {says}"
        )
    }
}

/// The number of the current attempt, 0 before the first.
fn current(call: &Call) -> u32 {
    call.attempts.last().map_or(0, |attempt| attempt.number)
}

/// Where a status is one of an attempt: of which, if the call has had several.
fn in_attempt(call: &Call, status: Status) -> String {
    match current(call) {
        number @ 2.. if status.is_of_attempt() => format!(" in attempt {number}"),
        _ => String::new(),
    }
}
