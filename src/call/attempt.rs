//! One dial of a call.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{event::Event, id::CallSid, status::Status};

/// One dial of an outbound call, or the only attempt of an inbound call.
///
/// The store keeps it as JSON in this form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Its number within the call, from 1.
    pub number: u32,
    /// The telephony provider's id: the first `call_sid` of its events.
    pub call_sid: Option<CallSid>,
    /// The status of the highest rank among its events, without an ERROR that
    /// the call went on from.
    pub status: Status,
    /// Every status that its events report.
    pub statuses: BTreeSet<Status>,
    /// When its first event happened.
    pub started_at: DateTime<Utc>,
    /// When the event happened that gave it its ended status. If it has none:
    /// when the next attempt began, or `None` if there is no next one.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether `ended_at` is the time of receipt, because the time by the
    /// provider's clock is unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_end_by_receipt: bool,
}

impl Attempt {
    /// Opens an attempt with its first event, whose status must belong to an
    /// attempt.
    pub(super) fn open(number: u32, event: &Event) -> Self {
        let status = event.status();
        assert!(status.belongs_to_attempt(), "{status} cannot open an attempt");
        let mut attempt = Self {
            number,
            call_sid: event.call_sid.clone(),
            status,
            statuses: BTreeSet::from([status]),
            started_at: event.effective_at(),
            ended_at: None,
            is_end_by_receipt: false,
        };
        if status.ends_attempt() {
            attempt.end_with(event);
        }
        attempt
    }

    /// Counts a further event for the attempt.
    pub(super) fn add(&mut self, event: &Event) {
        let status = event.status();
        assert!(status.belongs_to_attempt(), "{status} belongs to no attempt");
        self.statuses.insert(status);
        if status.rank() > self.status.rank() {
            self.status = status;
            if status.ends_attempt() {
                self.end_with(event);
            }
        }
        if self.call_sid.is_none() {
            self.call_sid.clone_from(&event.call_sid);
        }
    }

    /// Ends an attempt that has no ended status, because this event opens the
    /// next one.
    pub(super) fn end_before(&mut self, next: &Event) {
        if !self.status.ends_attempt() {
            self.end_with(next);
        }
    }

    /// Leaves its ERROR out, because the call went on from it.
    pub(super) fn leave_error_out(&mut self) {
        if self.status != Status::Error {
            return;
        }
        // ERROR was the highest rank, so the others are live statuses, and no
        // two live statuses of one direction have the same rank.
        let others = self.statuses.iter().copied().filter(|status| *status != Status::Error);
        if let Some(highest) = others.max_by_key(|status| status.rank()) {
            self.status = highest;
            self.ended_at = None;
            self.is_end_by_receipt = false;
        }
    }

    fn end_with(&mut self, event: &Event) {
        self.ended_at = Some(event.effective_at());
        self.is_end_by_receipt = event.occurred_at.is_none();
    }

    /// Whether the attempt has ended without an answer and cannot hold the
    /// event, so that the event belongs to the next dial.
    ///
    /// An attempt passes PENDING, REQUESTED and CALLING once each, and has one
    /// outcome. A status that it skipped may still arrive late.
    pub(super) fn cannot_hold(&self, event: &Event) -> bool {
        let status = event.status();
        let no_answer = Status::Busy.rank();
        let has_no_answer = self.status.rank() == no_answer;
        let has_ended = self.status == Status::Error || has_no_answer;
        let is_dialed_again = status.spec().starts_dial && self.statuses.contains(&status);
        let is_second_outcome = has_no_answer
            && (status.rank() == no_answer || status == Status::Completed)
            && !self.is_ended_by_same(event);
        has_ended && (is_dialed_again || is_second_outcome)
    }

    /// Whether the event has the status and the known time of the event that
    /// ended the attempt: the provider rendered a retry again.
    fn is_ended_by_same(&self, event: &Event) -> bool {
        self.status == event.status()
            && !self.is_end_by_receipt
            && event.occurred_at.is_some()
            && event.occurred_at == self.ended_at
    }
}
