//! The state machine described: its table as data, as text and as drawings.
//!
//! All of it is computed from [`transition`] and the vocabulary of the domain
//! when it is asked for, so that none of it can tell of another machine than
//! the one that runs. [`describe`] gives the table, which is served as JSON;
//! what [`Machine`] renders, it renders from that table.
//!
//! Two answers have no rows, since they are the same everywhere: an event whose
//! type is not one of the 18 is unrecognized, and one of the other direction is
//! conflicting.
//!
//! Deliberately absent: JSON's syntax. Who serves the table serializes it.

mod dot;
mod drawing;
mod mermaid;
#[cfg(test)]
mod tests;
mod text;

use serde::Serialize;

use super::{
    event::KnownEvent,
    name::named,
    status::{Direction, Kind, Rank, Status},
    transition::{Disposition, Relation, transition},
};

named! {
    /// How the machine may be shown.
    pub enum Format as "format" {
        /// Grids for a terminal: [`Machine::text`].
        Text = "text",
        /// A drawing for Markdown: [`Machine::mermaid`].
        Mermaid = "mermaid",
        /// A drawing for Graphviz: [`Machine::dot`].
        Dot = "dot",
        /// All of the table: [`Machine`] itself, serialized.
        Json = "json",
    }
}

/// The whole machine: its vocabulary and its table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Where a call can stand, by rank.
    pub statuses: Vec<StatusRow>,
    /// What the provider says.
    pub events: Vec<EventRow>,
    /// What an event can do.
    pub dispositions: Vec<DispositionRow>,
    /// How an event can relate to the attempts of its call.
    pub relations: Vec<RelationRow>,
    /// What each event does wherever it can come.
    pub transitions: Vec<TransitionRow>,
}

/// A status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusRow {
    /// Its name.
    pub status: Status,
    /// How far along it is.
    pub rank: Rank,
    /// What may still become of a call in it.
    pub kind: Kind,
    /// Whether the call has ended, at least for now.
    pub terminal: bool,
    /// Whether the call never leaves it.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Whose calls can be in it.
    pub directions: Vec<Direction>,
}

/// An event type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// Its name.
    pub event_type: KnownEvent,
    /// Whose calls have it.
    pub direction: Direction,
    /// The status that it says.
    pub status: Status,
}

/// A disposition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DispositionRow {
    /// Its name.
    pub disposition: Disposition,
    /// It explained in one line.
    pub meaning: &'static str,
    /// Whether the event gives the call its status.
    pub changes_status: bool,
    /// Whether the event is counted among the call's anomalies.
    pub anomaly: bool,
}

/// A relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelationRow {
    /// Its name.
    pub relation: Relation,
    /// It explained in one line.
    pub meaning: &'static str,
}

/// What one event does to a call in one status, in one relation to its
/// attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransitionRow {
    /// Whose calls it is about.
    pub direction: Direction,
    /// Where the call stands; `None` where the event is its first.
    pub from: Option<Status>,
    /// The event.
    pub event_type: KnownEvent,
    /// How it relates to the attempts of the call.
    pub relation: Relation,
    /// What it does.
    pub disposition: Disposition,
    /// Where the call stands after it.
    pub to: Status,
}

/// The machine, as the code has it.
#[must_use]
pub fn describe() -> Machine {
    Machine {
        statuses: Status::ALL.iter().copied().map(status_row).collect(),
        events: KnownEvent::ALL.iter().copied().map(event_row).collect(),
        dispositions: Disposition::ALL.iter().copied().map(disposition_row).collect(),
        relations: Relation::ALL.iter().copied().map(relation_row).collect(),
        transitions: Direction::ALL.iter().copied().flat_map(transitions).collect(),
    }
}

fn status_row(status: Status) -> StatusRow {
    StatusRow {
        status,
        rank: status.rank(),
        kind: status.kind(),
        terminal: status.is_terminal(),
        is_final: status.is_final(),
        directions: Direction::ALL.iter().copied().filter(|of| can_be_in(*of, status)).collect(),
    }
}

fn event_row(event_type: KnownEvent) -> EventRow {
    EventRow { event_type, direction: event_type.direction(), status: event_type.status() }
}

fn disposition_row(disposition: Disposition) -> DispositionRow {
    DispositionRow {
        disposition,
        meaning: disposition.meaning(),
        changes_status: disposition.changes_status(),
        anomaly: disposition.is_anomaly(),
    }
}

fn relation_row(relation: Relation) -> RelationRow {
    RelationRow { relation, meaning: relation.meaning() }
}

fn transitions(direction: Direction) -> Vec<TransitionRow> {
    let begun = Status::ALL.iter().copied().filter(|status| can_be_in(direction, *status));
    let mut rows = Vec::new();
    for from in std::iter::once(None).chain(begun.map(Some)) {
        for event_type in events_of(direction) {
            let says = event_type.status();
            for relation in Relation::ALL.iter().copied() {
                if !can_relate(direction, from, says, relation) {
                    continue;
                }
                // To begin a call is to find it with nothing known.
                let stands = from.unwrap_or(Status::Unknown);
                let disposition = transition(stands, says, relation);
                let to = if disposition.changes_status() { says } else { stands };
                rows.push(TransitionRow { direction, from, event_type, relation, disposition, to });
            }
        }
    }
    rows
}

fn events_of(direction: Direction) -> impl Iterator<Item = KnownEvent> {
    KnownEvent::ALL.iter().copied().filter(move |event| event.direction() == direction)
}

/// Whether a call can be in a status: because an event of its direction says
/// so, or because no known event has come.
fn can_be_in(direction: Direction, status: Status) -> bool {
    status == Status::Unknown || events_of(direction).any(|event| event.status() == status)
}

/// Whether an event of the call's own direction can relate so to its attempts.
fn can_relate(
    direction: Direction,
    from: Option<Status>,
    event: Status,
    relation: Relation,
) -> bool {
    // Before the first known event there is no attempt to be compared with.
    let Some(from) = from.filter(|status| *status != Status::Unknown) else {
        return relation == Relation::Current;
    };
    match (relation, direction) {
        (Relation::Current, _) => true,
        // An inbound call has one attempt, and takes any call_sid for it.
        (Relation::Earlier | Relation::Next, Direction::Inbound) => false,
        (Relation::Foreign, Direction::Inbound) => true,
        (Relation::Earlier, Direction::Outbound) => true,
        (Relation::Next, Direction::Outbound) => !from.is_final() && event.is_of_attempt(),
        (Relation::Foreign, Direction::Outbound) => from.is_final() || !event.is_of_attempt(),
        (Relation::Opposite, _) => false,
    }
}
