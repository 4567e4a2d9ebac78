//! Why an event did what it did: one plain sentence each.

use super::{
    event::Event,
    state::Call,
    transition::{Disposition, Relation},
};

/// The sentence for an event, given the call as it was before.
pub(super) fn reason(
    call: &Call,
    event: &Event,
    relation: Relation,
    disposition: Disposition,
) -> String {
    let was = call.status;
    let says = event.status();
    let current = call.attempts.len();
    match disposition {
        Disposition::Advanced if call.event_count == 0 => format!("the call began as {says}"),
        Disposition::Advanced => format!("the call went from {was} to {says}"),
        Disposition::Forced => format!(
            "the call went from {was} to {says}, which the provider does not describe but is the authority on"
        ),
        Disposition::Redialed => {
            let next = current + 1;
            match (&event.call_sid, call.call_sid()) {
                (Some(_), Some(_)) => {
                    format!("another call_sid than that of attempt {current}: attempt {next} began")
                }
                (None, _) | (_, None) => format!(
                    "attempt {current} had ended as {was} and cannot be {says} after it: attempt {next} began"
                ),
            }
        }
        Disposition::Repeated => format!("the call was {was} already and is told so again"),
        Disposition::Late if was.is_final() => format!("the call was already {was}"),
        Disposition::Late if relation == Relation::Earlier => {
            format!("it is of an earlier attempt, and attempt {current} has begun")
        }
        Disposition::Late => format!("the call was already {was}"),
        Disposition::Conflicting if relation == Relation::Opposite => {
            match (event.event_type.direction(), call.direction) {
                (Some(of_event), Some(of_call)) => {
                    format!("an {of_event} event in an {of_call} call")
                }
                (None, _) | (_, None) => "an event of the other direction".to_owned(),
            }
        }
        Disposition::Conflicting => {
            format!("the call was already {was}, which {says} contradicts")
        }
        Disposition::Unrecognized => "the event type is none of the 18 that are known".to_owned(),
    }
}
