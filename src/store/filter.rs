//! Which calls are listed, and what that leaves of the indexes of lists.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::shelf::{self, Shelf};
use crate::{
    access::Projects,
    call::{CallSid, ClientId, Direction, ProjectId, Status, event::MAX_AHEAD},
};

/// The most projects whose calls are merged. The calls of more are picked out
/// of those of all.
const MAX_MERGED_PROJECTS: usize = 32;

/// Which calls are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Those of these projects.
    pub projects: Projects,
    /// Those that stand in one of these.
    pub statuses: BTreeSet<Status>,
    /// Those that were dialled by so.
    pub direction: Option<Direction>,
    /// Those of this party.
    pub client_id: Option<ClientId>,
    /// Those of which an attempt is this dial.
    pub call_sid: Option<CallSid>,
    /// Those that have errors, or have none.
    pub has_errors: Option<bool>,
    /// Those that have anomalies, or have none.
    pub is_anomalous: Option<bool>,
    /// Those for which no delivery came after this.
    pub delivered_by: Option<DateTime<Utc>>,
    /// Those that began then or later.
    pub from: Option<DateTime<Utc>>,
    /// Those that began before.
    pub to: Option<DateTime<Utc>>,
}

/// Where the calls of a list are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source<'a> {
    /// Among the dials.
    Dial(&'a CallSid),
    /// Among the calls of a party.
    Client(&'a ClientId),
    /// Among the calls of each of some projects.
    Projects(&'a BTreeSet<ProjectId>),
    /// Among all.
    All,
}

impl Filter {
    /// The narrowest source.
    pub(super) fn source(&self) -> Source<'_> {
        match (&self.call_sid, &self.client_id, &self.projects) {
            (Some(call_sid), ..) => Source::Dial(call_sid),
            (None, Some(client_id), _) => Source::Client(client_id),
            (None, None, Projects::Only(projects)) if projects.len() <= MAX_MERGED_PROJECTS => {
                Source::Projects(projects)
            }
            (None, None, Projects::Only(_) | Projects::All) => Source::All,
        }
    }

    pub(super) fn shelves(&self) -> impl Iterator<Item = Shelf> {
        shelf::all().filter(|shelf| {
            self.statuses.iter().any(|status| shelf.holds(*status))
                && self.direction.is_none_or(|direction| shelf.direction() == Some(direction))
                && self.has_errors.is_none_or(|has_errors| shelf.has_errors == has_errors)
                && self.is_anomalous.is_none_or(|anomalous| shelf.is_anomalous == anomalous)
        })
    }

    /// The statuses, where shelves do not tell them apart.
    pub(super) fn statuses(&self) -> Option<Vec<&'static str>> {
        let is_told = shelf::all().all(|shelf| {
            let mut held = Status::ALL.iter().filter(|status| shelf.holds(**status));
            held.clone().all(|status| self.statuses.contains(status))
                || !held.any(|status| self.statuses.contains(status))
        });
        (!is_told).then(|| self.statuses.iter().map(|status| status.as_str()).collect())
    }

    /// The time before which all its calls began.
    pub(super) fn until(&self) -> Option<DateTime<Utc>> {
        // What came by then happened at most so much later.
        let behind = MAX_AHEAD + TimeDelta::microseconds(1);
        let delivered = self.delivered_by.and_then(|by| by.checked_add_signed(behind));
        [self.to, delivered].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Filter {
        Filter {
            projects: Projects::All,
            statuses: Status::ALL.iter().copied().collect(),
            direction: None,
            client_id: None,
            call_sid: None,
            has_errors: None,
            is_anomalous: None,
            delivered_by: None,
            from: None,
            to: None,
        }
    }

    #[test]
    fn a_statement_has_an_arm_for_each_shelf() {
        assert_eq!(shelf::all().count(), 56);
        assert_eq!(everything().shelves().count(), 56);
        // The first of them of calls that have not ended.
        assert!(
            shelf::all().enumerate().all(|(place, it)| (place >= 12) == it.outcome.is_terminal())
        );
    }

    #[test]
    fn statuses_are_told_apart_by_shelves_but_for_those_of_calls_under_way() {
        let of = |statuses: &[Status]| {
            let filter = Filter { statuses: statuses.iter().copied().collect(), ..everything() };
            (filter.shelves().count(), filter.statuses())
        };
        assert_eq!(everything().statuses(), None);
        // By who dialled, errors and anomalies.
        assert_eq!(of(&[Status::Completed]), (8, None));
        assert_eq!(of(&[Status::Busy, Status::Unknown]), (8, None));
        assert_eq!(of(&[Status::Calling]), (8, Some(vec!["CALLING"])));
        assert_eq!(of(&[Status::Busy, Status::Closing]), (12, Some(vec!["CLOSING", "BUSY"])));
        let live: Vec<Status> =
            Status::ALL.iter().copied().filter(|status| !status.is_terminal()).collect();
        assert_eq!(of(&live), (12, None));
    }

    #[test]
    fn the_narrowest_source_is_taken() {
        let project = |number: usize| ProjectId::new(number.to_string()).unwrap();
        let client_id = Some(ClientId::new("client").unwrap());
        let call_sid = Some(CallSid::new("dial").unwrap());
        let of = |projects: usize| Filter {
            projects: Projects::Only((0..projects).map(project).collect()),
            ..everything()
        };
        assert_eq!(everything().source(), Source::All);
        assert!(matches!(of(1).source(), Source::Projects(_)));
        assert!(matches!(of(MAX_MERGED_PROJECTS).source(), Source::Projects(_)));
        assert_eq!(of(MAX_MERGED_PROJECTS + 1).source(), Source::All);
        assert!(matches!(Filter { client_id, ..of(1) }.source(), Source::Client(_)));
        assert!(matches!(Filter { call_sid, ..of(1) }.source(), Source::Dial(_)));
    }

    #[test]
    fn what_is_stalled_began_before_an_event_could_have_claimed_to_happen() {
        let by = DateTime::UNIX_EPOCH;
        let stalled = Filter { delivered_by: Some(by), ..everything() };
        assert!(stalled.until().is_some_and(|until| until > by + MAX_AHEAD));
        let to = Some(by - TimeDelta::days(1));
        assert_eq!(Filter { to, ..stalled }.until(), to);
    }
}
