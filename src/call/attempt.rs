//! One dial of a call.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{event::Event, id::CallSid, status::Status};

/// One dial of an outbound call, or the one of an inbound call.
///
/// Serialized as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Its place among the call's attempts, from 1.
    pub number: u32,
    /// The telephony provider's id of it: the first that came for it.
    pub call_sid: Option<CallSid>,
    /// The status of highest rank that its events said.
    pub status: Status,
    /// Every status that its events said.
    pub statuses: BTreeSet<Status>,
    /// When its first event happened.
    pub started_at: DateTime<Utc>,
    /// When the event happened that gave it its ended status, if it has ended.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Attempt {
    /// Opens an attempt with its first event, whose status must be one of an
    /// attempt.
    pub(super) fn open(number: u32, event: &Event) -> Self {
        let status = event.status();
        assert!(status.is_of_attempt(), "{status} cannot open an attempt");
        Self {
            number,
            call_sid: event.call_sid.clone(),
            status,
            statuses: BTreeSet::from([status]),
            started_at: event.effective_at(),
            ended_at: status.ends_attempt().then(|| event.effective_at()),
        }
    }

    /// Counts a further event for the attempt.
    pub(super) fn take(&mut self, event: &Event) {
        let status = event.status();
        assert!(status.is_of_attempt(), "{status} belongs to no attempt");
        self.statuses.insert(status);
        if status.rank() > self.status.rank() {
            self.status = status;
            self.ended_at = status.ends_attempt().then(|| event.effective_at());
        }
        if self.call_sid.is_none() {
            self.call_sid.clone_from(&event.call_sid);
        }
    }

    /// Whether the attempt, having ended, cannot hold an event that says
    /// `status`, so that this must be of the next dial.
    ///
    /// A phase seen twice can only be the next dial, and so can a second
    /// outcome; a phase that was skipped is late.
    pub(super) fn is_over_for(&self, status: Status) -> bool {
        let unanswered = Status::Busy.rank();
        let ended = self.status == Status::Error || self.status.rank() == unanswered;
        let phase_seen_twice =
            matches!(status, Status::Pending | Status::Requested | Status::Calling)
                && self.statuses.contains(&status);
        let second_outcome = self.status.rank() == unanswered
            && (status.rank() == unanswered || status == Status::Completed);
        ended && (phase_seen_twice || second_outcome)
    }
}
