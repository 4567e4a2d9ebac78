//! What reports count of a call that has ended, taken out of it once, when it is
//! written.
//!
//! The twin of the functions `callstate_shape` and `callstate_stays`, which take the
//! same out of a row: where it is not written, and in the views. A test of the reports
//! holds the two together.

use std::fmt::Write as _;

use crate::call::{Attempt, Call, Status};

/// The longest shape that is written: an entry of an index has no room for more.
const MAX_SHAPE: usize = 400;

/// The columns `closed_shape` and `closed_stays`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closed {
    /// The status of each attempt, and all that the attempts were told, as JSON.
    pub(super) shape: String,
    /// How long the call was in each status that it left, and from its first event to
    /// its end: microseconds times 16, plus the number of the status, or 0.
    pub(super) stays: Vec<i64>,
}

impl Closed {
    /// What is written of the call: nothing while it is live, nor where its shape is
    /// too long.
    pub(super) fn of(call: &Call) -> Option<Self> {
        if !call.status.is_terminal() {
            return None;
        }
        let shape = shape(&call.attempts)?;
        Some(Self { shape, stays: stays(call) })
    }
}

/// As Postgres writes an array of two arrays; nothing where that is too long.
fn shape(attempts: &[Attempt]) -> Option<String> {
    let statuses = attempts.iter().map(|attempt| attempt.status);
    let told = attempts.iter().flat_map(|attempt| attempt.statuses.iter().copied());
    let mut shape = String::with_capacity(128);
    shape.push('[');
    write_array(&mut shape, statuses)?;
    shape.push(',');
    write_array(&mut shape, told)?;
    shape.push(']');
    (shape.len() <= MAX_SHAPE).then_some(shape)
}

/// Writes no more than shows that it is too long.
fn write_array(shape: &mut String, statuses: impl Iterator<Item = Status>) -> Option<()> {
    let mut separator = "";
    shape.push('[');
    for status in statuses {
        if shape.len() > MAX_SHAPE {
            return None;
        }
        write!(shape, "{separator}\"{status}\"").expect("a String takes all");
        separator = ", ";
    }
    shape.push(']');
    Some(())
}

fn stays(call: &Call) -> Vec<i64> {
    let in_all = call.ended_at.and_then(|at| (at - call.first_event_at).num_microseconds());
    let in_statuses = call
        .microseconds_in_status
        .iter()
        .filter_map(|(status, microseconds)| Some((*microseconds, number_of(*status)?)));
    in_all
        .map(|microseconds| (microseconds, 0))
        .into_iter()
        .chain(in_statuses)
        .filter_map(|(microseconds, number)| Some(microseconds.checked_mul(16)? + number))
        .collect()
}

/// The number of a status that a call may leave.
fn number_of(status: Status) -> Option<i64> {
    Some(match status {
        Status::Pending => 1,
        Status::Requested => 2,
        Status::Connecting => 3,
        Status::Calling => 4,
        Status::Closing => 5,
        Status::Error => 6,
        Status::NoResponse => 7,
        Status::Busy => 8,
        Status::Unreachable => 9,
        Status::Unknown
        | Status::Completed
        | Status::Canceled
        | Status::Expired
        | Status::MaxAttemptsReached
        | Status::ConcurrencyLimitExceeded => return None,
    })
}
