//! The state machine described: its table as data, as text and as drawings.
//!
//! All of it is computed from [`transition`] and the tables of statuses and
//! event types, so it always describes the machine that runs. [`describe`]
//! returns the table, which is served as JSON; the text and the drawings are
//! rendered from it.
//!
//! Two results have no rows, since they are the same everywhere: an event whose
//! type is not one of the 18 is unrecognized, and one of the other direction is
//! conflicting. An ERROR becomes nonfatal by a later event, so no row has that
//! disposition: see [`TransitionRow::interrupted`].
//!
//! Deliberately absent: the syntax of JSON. The caller serializes the table.

mod dot;
mod drawing;
mod mermaid;
#[cfg(test)]
mod tests;
mod text;

use serde::Serialize;

use super::{
    event_type::KnownEvent,
    name::named,
    status::{Direction, Kind, Rank, Status},
    transition::{Disposition, Facts, Order, Relation, transition},
};

named! {
    /// The formats in which the machine is shown.
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

/// The whole machine: its terms and its table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The statuses of a call, by rank.
    pub statuses: Vec<StatusRow>,
    /// The provider's event types.
    pub events: Vec<EventRow>,
    /// What an event can do.
    pub dispositions: Vec<DispositionRow>,
    /// How an event can relate to the attempts of its call.
    pub relations: Vec<RelationRow>,
    /// Whether an event is proven to have happened later.
    pub orders: Vec<OrderRow>,
    /// What each event does wherever it is possible.
    pub transitions: Vec<TransitionRow>,
}

/// A status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusRow {
    /// Its name.
    pub status: Status,
    /// How far along it is.
    pub rank: Rank,
    /// How a call may leave it.
    pub kind: Kind,
    /// Whether the call has ended, at least for now.
    pub terminal: bool,
    /// Whether the call has ended for good, unless the provider dials later.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// The directions of the calls that can be in it.
    pub directions: Vec<Direction>,
}

/// An event type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// Its name.
    pub event_type: KnownEvent,
    /// The direction of the calls that have it.
    pub direction: Direction,
    /// The status that it reports.
    pub status: Status,
}

/// A disposition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DispositionRow {
    /// Its name.
    pub disposition: Disposition,
    /// An explanation in one line.
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
    /// An explanation in one line.
    pub meaning: &'static str,
}

/// Whether an event is proven to have happened later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderRow {
    /// Its name.
    pub order: Order,
    /// An explanation in one line.
    pub meaning: &'static str,
}

/// What one event does to a call in one status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransitionRow {
    /// The direction of the call.
    pub direction: Direction,
    /// The status of the call; `None` if the event is its first.
    pub from: Option<Status>,
    /// In a call in ERROR: the status that the ERROR interrupted, `None` if the
    /// ERROR opened the attempt. If the event then takes the call to a status
    /// of the attempt, or repeats the interrupted one, the ERROR is nonfatal.
    pub interrupted: Option<Status>,
    /// The event.
    pub event_type: KnownEvent,
    /// How it relates to the attempts of the call.
    pub relation: Relation,
    /// Whether it is proven to have happened later; `None` if that makes no
    /// difference.
    pub order: Option<Order>,
    /// What it does.
    pub disposition: Disposition,
    /// The status of the call after it.
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
        orders: Order::ALL.iter().copied().map(order_row).collect(),
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

fn order_row(order: Order) -> OrderRow {
    OrderRow { order, meaning: order.meaning() }
}

fn transitions(direction: Direction) -> Vec<TransitionRow> {
    let mut rows = Vec::new();
    for (from, interrupted) in situations(direction) {
        for event_type in events_of(direction) {
            for relation in Relation::ALL.iter().copied() {
                if can_relate(direction, from, event_type.status(), relation) {
                    rows.extend(rows_of(direction, from, interrupted, event_type, relation));
                }
            }
        }
    }
    rows
}

/// Before the first event, then every status that a call can be in; ERROR once
/// more for each status that it may have interrupted.
fn situations(direction: Direction) -> impl Iterator<Item = (Option<Status>, Option<Status>)> {
    let statuses = Status::ALL.iter().copied().filter(move |status| can_be_in(direction, *status));
    let live = statuses
        .clone()
        .filter(|status| status.kind() == Kind::Live && *status != Status::Unknown)
        .collect::<Vec<_>>();
    let of_status = move |status: Status| {
        let interrupted = if status == Status::Error { live.clone() } else { Vec::new() };
        let interrupted = interrupted.into_iter().map(Some);
        std::iter::once(None).chain(interrupted).map(move |it| (Some(status), it))
    };
    std::iter::once((None, None)).chain(statuses.flat_map(of_status))
}

/// One row, or one for each order where that makes a difference.
fn rows_of(
    direction: Direction,
    from: Option<Status>,
    interrupted: Option<Status>,
    event_type: KnownEvent,
    relation: Relation,
) -> Vec<TransitionRow> {
    let event = event_type.status();
    // The first event finds a call of which nothing is known.
    let before = from.unwrap_or(Status::Unknown);
    let by = |order| transition(before, event, Facts { relation, order, interrupted });
    let row = |order, disposition: Disposition| {
        let went_on = before == Status::Error && disposition == Disposition::Repeated;
        let stays = interrupted.filter(|it| went_on && *it == event).unwrap_or(before);
        let to = if disposition.changes_status() { event } else { stays };
        TransitionRow { direction, from, interrupted, event_type, relation, order, disposition, to }
    };
    if by(Order::Unproven) == by(Order::After) {
        vec![row(None, by(Order::After))]
    } else {
        Order::ALL.iter().copied().map(|order| row(Some(order), by(order))).collect()
    }
}

fn events_of(direction: Direction) -> impl Iterator<Item = KnownEvent> {
    KnownEvent::ALL.iter().copied().filter(move |event| event.direction() == direction)
}

/// Whether a call can be in a status: because an event of its direction reports
/// it, or because it has no known event.
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
    // Before the first known event there is no attempt to compare with.
    let Some(from) = from.filter(|status| *status != Status::Unknown) else {
        return relation == Relation::Current;
    };
    match (relation, direction) {
        (Relation::Current, _) => true,
        // An inbound call has one attempt, which takes every call_sid.
        (Relation::Earlier | Relation::Next, Direction::Inbound) => false,
        (Relation::Foreign, Direction::Inbound) => true,
        (Relation::Earlier, Direction::Outbound) => true,
        (Relation::Next, Direction::Outbound) => {
            if from.is_final() {
                event.spec().starts_dial
            } else {
                event.belongs_to_attempt()
            }
        }
        (Relation::Foreign, Direction::Outbound) => {
            if from.is_final() {
                !event.spec().starts_dial
            } else {
                let is_other_leg = matches!(event, Status::Closing | Status::Completed)
                    && matches!(from, Status::Calling | Status::Closing);
                !event.belongs_to_attempt() || is_other_leg
            }
        }
        (Relation::Opposite, _) => false,
    }
}
