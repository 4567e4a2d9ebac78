//! What the table needs beside the two statuses, computed from the call.

use super::{
    attempt::Attempt,
    event::Event,
    state::Call,
    status::{Direction, Status},
    transition::Relation,
};

impl Call {
    /// How the event relates to the attempts.
    pub(super) fn relation(&self, event: &Event) -> Relation {
        if let (Some(of_event), Some(of_call)) = (event.event_type.direction(), self.direction)
            && of_event != of_call
        {
            return Relation::Opposite;
        }
        let Some(current) = self.attempts.last() else {
            return Relation::Current;
        };
        if self.earlier_attempt(event).is_some() {
            Relation::Earlier
        } else if self.starts_another_attempt(event, current) {
            Relation::Next
        } else if has_other_sid(event, current) {
            Relation::Foreign
        } else {
            Relation::Current
        }
    }

    /// The index of the attempt before the current one that has the event's
    /// `call_sid`.
    pub(super) fn earlier_attempt(&self, event: &Event) -> Option<usize> {
        let sid = event.call_sid.as_ref()?;
        let (_, earlier) = self.attempts.split_last()?;
        earlier.iter().position(|attempt| attempt.call_sid.as_ref() == Some(sid))
    }

    /// Whether the event starts another attempt. In a final call, where that
    /// also takes proof that it happened later, only a dial starts one.
    fn starts_another_attempt(&self, event: &Event, current: &Attempt) -> bool {
        let status = event.status();
        let is_other = has_other_sid(event, current);
        let is_unknown = event.call_sid.is_none() || current.call_sid.is_none();
        if event.event_type.direction() != Some(Direction::Outbound) {
            false
        } else if self.status.is_final() {
            let was_in_status = || self.attempts.iter().any(|it| it.statuses.contains(&status));
            status.spec().starts_dial && (is_other || (is_unknown && was_in_status()))
        } else if is_other {
            status.belongs_to_attempt() && !is_other_leg(status, current)
        } else {
            is_unknown && current.cannot_hold(event)
        }
    }

    /// Whether no attempt has the event's `call_sid` and the current attempt
    /// cannot take it.
    pub(super) fn is_of_no_attempt(&self, event: &Event) -> bool {
        self.attempts.last().is_some_and(|current| has_other_sid(event, current))
    }
}

fn has_other_sid(event: &Event, attempt: &Attempt) -> bool {
    matches!(
        (&event.call_sid, &attempt.call_sid),
        (Some(of_event), Some(of_attempt)) if of_event != of_attempt
    )
}

/// Whether an event with another `call_sid` is another leg of the same
/// conversation, as after a transfer.
fn is_other_leg(status: Status, current: &Attempt) -> bool {
    matches!(status, Status::Closing | Status::Completed)
        && matches!(current.status, Status::Calling | Status::Closing)
}
