//! What the drawings show: few enough edges to read, each computed from the
//! table.
//!
//! For calls of one direction, the live statuses are in one box, and terminal
//! statuses that are alike share one. An edge that leaves the live statuses is
//! drawn once, from their box, and names them if it leaves only some. The
//! drawings list what they omit in a comment: [`OMITTED`].

use super::Machine;
use crate::call::{Direction, Disposition, Kind, Order, Relation, Status};

/// What a drawing does not show, a sentence each.
pub(super) const OMITTED: &[&str] = &[
    "A call may begin with any event, a step forward may skip statuses, and a redial may begin with its outcome.",
    "In a live attempt, an event with another call_sid redials too, unless it is another leg of the conversation.",
    "An ERROR that interrupted a status is nonfatal if the call goes on: then the call never left that status.",
    "Events that leave the status as it is, such as late and repeated ones, are not drawn.",
];

/// The part of the machine for calls of one direction.
pub(super) struct Drawing {
    pub(super) direction: Direction,
    /// The live statuses, by rank.
    pub(super) live: Vec<Status>,
    /// The terminal statuses, by rank, those that are alike together.
    pub(super) ended: Vec<Vec<Status>>,
    pub(super) edges: Vec<Edge>,
}

/// A step that a call can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) step: Step,
}

/// The kinds of step that are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Forward within an attempt, or to the end of the call.
    Forward,
    /// Out of an ERROR that opened the attempt, with proof of order.
    Recovery,
    /// To another attempt.
    Redial,
    /// A step that the provider does not describe.
    Forced,
    /// The same out of a final status, with proof of order.
    ForcedLater,
}

impl Step {
    /// What an edge is labeled with, if anything.
    pub(super) const fn label(self) -> Option<&'static str> {
        match self {
            Self::Forward | Self::Forced => None,
            Self::Recovery => Some("went on later"),
            Self::Redial => Some("redial"),
            Self::ForcedLater => Some("later"),
        }
    }
}

/// The place where an edge begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the first event.
    Start,
    /// The box of the live statuses: any of them.
    Live,
    /// That box, but some of them only.
    Among(Vec<Status>),
    /// A status and those that are alike.
    At(Status),
}

impl Drawing {
    /// Draws the part of the machine for calls of one direction.
    pub(super) fn of(machine: &Machine, direction: Direction) -> Self {
        let (live, terminal): (Vec<Status>, Vec<Status>) = machine
            .statuses
            .iter()
            .filter(|row| row.directions.contains(&direction) && row.status != Status::Unknown)
            .map(|row| row.status)
            .partition(|status| status.kind() == Kind::Live);
        let steps = Steps { machine, direction };
        let mut ended: Vec<Vec<Status>> = Vec::new();
        for status in terminal {
            match ended.last_mut().filter(|group| steps.are_alike(group[0], status)) {
                Some(group) => group.push(status),
                None => ended.push(vec![status]),
            }
        }
        let mut drawing = Self { direction, live, ended, edges: Vec::new() };
        drawing.draw(&steps);
        drawing
    }

    fn draw(&mut self, steps: &Steps<'_>) {
        let ends: Vec<Status> = self.ended.iter().map(|group| group[0]).collect();

        // From the beginning, and among the live statuses: the next one.
        let mut last = None;
        for status in self.live.clone() {
            if steps.of(last, status) == Some(Disposition::Advanced) {
                let from = last.map_or(Place::Start, Place::At);
                self.edge(from, Place::At(status), Step::Forward);
            }
            last = Some(status);
        }

        for (by, step) in
            [(Disposition::Advanced, Step::Forward), (Disposition::Forced, Step::Forced)]
        {
            for to in ends.iter().copied() {
                let leaves = |from: &Status| steps.of(Some(*from), to) == Some(by);
                let from: Vec<Status> = self.live.iter().copied().filter(leaves).collect();
                if let Some(place) = self.among_live(from) {
                    self.edge(place, Place::At(to), step);
                }
                for from in ends.iter().copied().filter(leaves) {
                    self.edge(Place::At(from), Place::At(to), step);
                }
            }
        }

        for from in ends.iter().copied() {
            if self.live.iter().all(|to| steps.recovers(from, *to)) {
                self.edge(Place::At(from), Place::Live, Step::Recovery);
            }
            if self.live.iter().all(|to| steps.redials(from, *to)) {
                self.edge(Place::At(from), Place::Live, Step::Redial);
            }
        }

        for from in ends.iter().copied() {
            let is_left = |to: &Status| steps.is_forced_later(from, *to);
            let to: Vec<Status> = self.live.iter().copied().filter(is_left).collect();
            if let Some(place) = self.among_live(to) {
                self.edge(Place::At(from), place, Step::ForcedLater);
            }
            for to in ends.iter().copied().filter(is_left) {
                self.edge(Place::At(from), Place::At(to), Step::ForcedLater);
            }
        }
    }

    /// The place for some of the live statuses; `None` if there are none.
    fn among_live(&self, some: Vec<Status>) -> Option<Place> {
        if some.is_empty() {
            None
        } else if some == self.live {
            Some(Place::Live)
        } else {
            Some(Place::Among(some))
        }
    }

    fn edge(&mut self, from: Place, to: Place, step: Step) {
        self.edges.push(Edge { from, to, step });
    }
}

/// The table for one direction.
struct Steps<'a> {
    machine: &'a Machine,
    direction: Direction,
}

impl Steps<'_> {
    /// The disposition of the event that reports `to`, if it changes the status.
    fn by(
        &self,
        from: Option<Status>,
        to: Status,
        relation: Relation,
        order: Order,
    ) -> Option<Disposition> {
        let row = self.machine.transitions.iter().find(|row| {
            row.direction == self.direction
                && row.from == from
                && row.interrupted.is_none()
                && row.event_type.status() == to
                && row.relation == relation
                && row.order.is_none_or(|it| it == order)
                && row.disposition.changes_status()
        })?;
        Some(row.disposition)
    }

    /// How a call goes from one status to another within an attempt, if it does.
    fn of(&self, from: Option<Status>, to: Status) -> Option<Disposition> {
        self.by(from, to, Relation::Current, Order::Unproven)
    }

    fn redials(&self, from: Status, to: Status) -> bool {
        self.by(Some(from), to, Relation::Next, Order::Unproven) == Some(Disposition::Redialed)
    }

    /// Whether the call leaves an ERROR for a status of a lower rank.
    fn recovers(&self, from: Status, to: Status) -> bool {
        self.of(Some(from), to).is_none()
            && self.by(Some(from), to, Relation::Current, Order::After)
                == Some(Disposition::Advanced)
    }

    fn is_forced_later(&self, from: Status, to: Status) -> bool {
        from.is_final()
            && [Relation::Current, Relation::Next].iter().any(|relation| {
                self.by(Some(from), to, *relation, Order::After) == Some(Disposition::Forced)
            })
    }

    /// Whether two statuses are reached and left in the same ways.
    fn are_alike(&self, one: Status, other: Status) -> bool {
        let same_kind = one.kind() == other.kind() && one.rank() == other.rank();
        same_kind
            && Status::ALL.iter().filter(|third| **third != one && **third != other).all(|third| {
                self.of(Some(*third), one) == self.of(Some(*third), other)
                    && self.of(Some(one), *third) == self.of(Some(other), *third)
                    && self.redials(one, *third) == self.redials(other, *third)
                    && self.is_forced_later(one, *third) == self.is_forced_later(other, *third)
            })
    }
}

/// The names of the statuses in a box.
pub(super) fn names(statuses: &[Status], between: &str) -> String {
    statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(between)
}
