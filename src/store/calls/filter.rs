//! Which calls are listed, and which index partitions these are in.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::partition::{self, ListPartition};
use crate::{
    access::Projects,
    call::{CallId, CallSid, ClientId, Direction, ProjectId, Status, event::MAX_AHEAD},
};

/// The most projects whose calls are merged. With more, the calls are selected from
/// those of all projects.
const MAX_MERGED_PROJECTS: usize = 1000;

/// Which calls are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The projects of the calls.
    pub projects: Projects,
    /// The statuses of the calls.
    pub statuses: BTreeSet<Status>,
    /// Their direction.
    pub direction: Option<Direction>,
    /// The provider's ids of the calls, at most a page of them.
    pub call_ids: Option<BTreeSet<CallId>>,
    /// Their client.
    pub client_id: Option<ClientId>,
    /// The `call_sid` of one of their attempts.
    pub call_sid: Option<CallSid>,
    /// Whether they have errors.
    pub has_errors: Option<bool>,
    /// Whether they have anomalies.
    pub is_anomalous: Option<bool>,
    /// The time after which no delivery for them was received.
    pub delivered_by: Option<DateTime<Utc>>,
    /// The least `first_event_at`, inclusive.
    pub from: Option<DateTime<Utc>>,
    /// The greatest `first_event_at`, exclusive.
    pub to: Option<DateTime<Utc>>,
}

/// The index that a list is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source<'a> {
    /// The calls by these ids.
    CallIds(&'a BTreeSet<CallId>),
    /// The events of a `call_sid`.
    CallSid(&'a CallSid),
    /// The calls of a client.
    Client(&'a ClientId),
    /// The calls of each of some projects.
    Projects(&'a BTreeSet<ProjectId>),
    /// All calls.
    All,
}

impl Filter {
    /// The source with the fewest calls.
    pub(super) fn source(&self) -> Source<'_> {
        if let Some(call_ids) = &self.call_ids {
            return Source::CallIds(call_ids);
        }
        match (&self.call_sid, &self.client_id, &self.projects) {
            (Some(call_sid), ..) => Source::CallSid(call_sid),
            (None, Some(client_id), _) => Source::Client(client_id),
            (None, None, Projects::Only(projects)) if projects.len() <= MAX_MERGED_PROJECTS => {
                Source::Projects(projects)
            }
            (None, None, Projects::Only(_) | Projects::All) => Source::All,
        }
    }

    /// The index partitions of the calls.
    pub(super) fn partitions(&self) -> impl Iterator<Item = ListPartition> {
        partition::all().filter(|partition| {
            self.statuses.iter().any(|status| partition.contains(*status))
                && self.direction.is_none_or(|it| partition.direction() == Some(it))
                && self.has_errors.is_none_or(|it| partition.has_errors == it)
                && self.is_anomalous.is_none_or(|it| partition.is_anomalous == it)
        })
    }

    /// The ids of the statuses, where partitions alone do not select them.
    pub(super) fn statuses(&self) -> Option<Vec<i16>> {
        let is_selected = partition::all().all(|partition| {
            let mut contained = Status::ALL.iter().filter(|status| partition.contains(**status));
            contained.clone().all(|status| self.statuses.contains(status))
                || !contained.any(|status| self.statuses.contains(status))
        });
        (!is_selected).then(|| self.statuses.iter().map(|status| status.id()).collect())
    }

    /// The time before which all its calls began.
    pub(super) fn until(&self) -> Option<DateTime<Utc>> {
        // An event that was received by then happened at most so much later.
        let ahead = MAX_AHEAD + TimeDelta::microseconds(1);
        let delivered = self.delivered_by.and_then(|by| by.checked_add_signed(ahead));
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
            call_ids: None,
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
    fn partitions_select_statuses_except_among_live_ones() {
        let of = |statuses: &[Status]| {
            let filter = Filter { statuses: statuses.iter().copied().collect(), ..everything() };
            (filter.partitions().count(), filter.statuses())
        };
        assert_eq!(everything().partitions().count(), partition::all().count());
        assert_eq!(everything().statuses(), None);
        // By direction, errors and anomalies.
        assert_eq!(of(&[Status::Completed]), (8, None));
        assert_eq!(of(&[Status::Busy, Status::Unknown]), (8, None));
        assert_eq!(of(&[Status::Calling]), (8, Some(vec![Status::Calling.id()])));
        let both = vec![Status::Closing.id(), Status::Busy.id()];
        assert_eq!(of(&[Status::Busy, Status::Closing]), (12, Some(both)));
        let live: Vec<Status> =
            Status::ALL.iter().copied().filter(|status| !status.is_terminal()).collect();
        assert_eq!(of(&live), (12, None));
    }

    #[test]
    fn a_list_is_read_from_the_source_with_the_fewest_calls() {
        let project = |number: usize| ProjectId::new(number.to_string()).unwrap();
        let client_id = Some(ClientId::new("client").unwrap());
        let call_sid = Some(CallSid::new("sid").unwrap());
        let of = |projects: usize| Filter {
            projects: Projects::Only((0..projects).map(project).collect()),
            ..everything()
        };
        assert_eq!(everything().source(), Source::All);
        assert!(matches!(of(1).source(), Source::Projects(_)));
        assert!(matches!(of(MAX_MERGED_PROJECTS).source(), Source::Projects(_)));
        assert_eq!(of(MAX_MERGED_PROJECTS + 1).source(), Source::All);
        let call_ids = Some([CallId::new("call").unwrap()].into());
        let by_id = Filter { call_ids, call_sid: call_sid.clone(), ..of(1) };
        assert!(matches!(by_id.source(), Source::CallIds(_)));
        assert!(matches!(Filter { client_id, ..of(1) }.source(), Source::Client(_)));
        assert!(matches!(Filter { call_sid, ..of(1) }.source(), Source::CallSid(_)));
    }

    #[test]
    fn a_stalled_call_began_before_the_latest_time_that_an_event_could_have() {
        let by = DateTime::UNIX_EPOCH;
        let stalled = Filter { delivered_by: Some(by), ..everything() };
        assert!(stalled.until().is_some_and(|until| until > by + MAX_AHEAD));
        let to = Some(by - TimeDelta::days(1));
        assert_eq!(Filter { to, ..stalled }.until(), to);
    }
}
