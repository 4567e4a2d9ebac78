//! What the drawings show: few enough edges to be read, each of them computed
//! from the table.
//!
//! Of a call of one direction, the statuses under way stand in one box, and
//! terminal statuses that are alike share one. An edge that leaves the statuses
//! under way is drawn once, from their box, and says where it leaves only some
//! of them. What is left out, the drawings say in a comment: [`LEFT_OUT`].

use super::Machine;
use crate::call::{Direction, Disposition, Kind, Relation, Status};

/// What a drawing does not show, a sentence each.
pub(super) const LEFT_OUT: &[&str] = &[
    "A call may begin with any event, a step forward may skip statuses, and a redial may begin with its outcome.",
    "While an attempt is under way, an event of another call_sid redials too.",
    "Events that leave the status as it is, such as late and repeated ones, are not drawn.",
];

/// The part of the machine that calls of one direction go through.
pub(super) struct Drawing {
    pub(super) direction: Direction,
    /// The statuses under way, by rank.
    pub(super) live: Vec<Status>,
    /// The terminal statuses, by rank, those that are alike together.
    pub(super) ended: Vec<Vec<Status>>,
    pub(super) edges: Vec<Edge>,
}

/// A way that a call can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) by: Disposition,
}

/// Where an edge begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the first event.
    Start,
    /// The box of the statuses under way: any of them.
    UnderWay,
    /// That box, but some of them only.
    Among(Vec<Status>),
    /// A status, standing for those that are alike.
    At(Status),
}

impl Drawing {
    /// Draws what calls of one direction go through.
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

        // From the beginning, and among the statuses under way: the next one.
        let mut last = None;
        for status in self.live.clone() {
            if steps.of(last, status) == Some(Disposition::Advanced) {
                let from = last.map_or(Place::Start, Place::At);
                self.edge(from, Place::At(status), Disposition::Advanced);
            }
            last = Some(status);
        }

        for by in [Disposition::Advanced, Disposition::Forced] {
            for to in ends.iter().copied() {
                let leaves = |from: &Status| steps.of(Some(*from), to) == Some(by);
                let from_live: Vec<Status> = self.live.iter().copied().filter(leaves).collect();
                if from_live == self.live {
                    self.edge(Place::UnderWay, Place::At(to), by);
                } else if !from_live.is_empty() {
                    self.edge(Place::Among(from_live), Place::At(to), by);
                }
                for from in ends.iter().copied().filter(leaves) {
                    self.edge(Place::At(from), Place::At(to), by);
                }
            }
        }

        for from in ends {
            if self.live.iter().all(|to| steps.redial(from, *to)) {
                self.edge(Place::At(from), Place::UnderWay, Disposition::Redialed);
            }
        }
    }

    fn edge(&mut self, from: Place, to: Place, by: Disposition) {
        self.edges.push(Edge { from, to, by });
    }
}

/// The table, asked for one direction.
struct Steps<'a> {
    machine: &'a Machine,
    direction: Direction,
}

impl Steps<'_> {
    fn by(&self, from: Option<Status>, to: Status, relation: Relation) -> Option<Disposition> {
        let row = self.machine.transitions.iter().find(|row| {
            row.direction == self.direction
                && row.from == from
                && row.event_type.status() == to
                && row.relation == relation
                && row.disposition.changes_status()
        })?;
        Some(row.disposition)
    }

    /// How a call goes from one status to another within an attempt, if it does.
    fn of(&self, from: Option<Status>, to: Status) -> Option<Disposition> {
        self.by(from, to, Relation::Current)
    }

    fn redial(&self, from: Status, to: Status) -> bool {
        self.by(Some(from), to, Relation::Next) == Some(Disposition::Redialed)
    }

    /// Whether two statuses are reached and left in the same ways.
    fn are_alike(&self, one: Status, other: Status) -> bool {
        let same_kind = one.kind() == other.kind() && one.rank() == other.rank();
        same_kind
            && Status::ALL.iter().filter(|third| **third != one && **third != other).all(|third| {
                self.of(Some(*third), one) == self.of(Some(*third), other)
                    && self.of(Some(one), *third) == self.of(Some(other), *third)
                    && self.redial(one, *third) == self.redial(other, *third)
            })
    }
}

/// What a box is labelled with: the names of its statuses.
pub(super) fn names(statuses: &[Status], between: &str) -> String {
    statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(between)
}
