//! The machine as grids for a terminal, at most 160 columns wide.

use std::fmt::Write as _;

use super::{Machine, TransitionRow};
use crate::call::{Direction, KnownEvent, Order, Relation, Status};

/// The blanks between two columns.
const GAP: &str = "  ";

/// The mark where an event is impossible.
const IMPOSSIBLE: &str = "·";

impl Machine {
    /// The terms, then what each event does wherever it is possible: one grid per
    /// direction and relation. Ends with a line feed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut sections = vec![
            section("STATUSES, by rank: a call moves from lower to higher", &self.statuses()),
            section("KINDS of status", &self.kinds()),
            section("DISPOSITIONS: what an event does", &self.dispositions()),
            section("RELATIONS of an event to the attempts of its call", &self.relations()),
            section(
                "ORDERS: whether the provider's clock proves that the event is later",
                &self.orders(),
            ),
        ];
        for direction in Direction::ALL.iter().copied() {
            for relation in Relation::ALL.iter().copied() {
                sections.extend(self.grid(direction, relation));
            }
        }
        sections.push(
            "An event of the other direction is conflicting everywhere, and one of a type that is none \
             of these is unrecognized.\nA line with * is for an event of order after. \
             A line without * is for every other event.\n\
             ERROR in CALLING: the ERROR interrupted CALLING. If the event is then not late, the ERROR is \
             nonfatal. ERROR: it opened the attempt.\nA dot marks an event that is impossible there.\n"
                .to_owned(),
        );
        sections.join("\n")
    }

    fn statuses(&self) -> Vec<Vec<String>> {
        let head = ["rank", "status", "kind", "direction"].map(str::to_owned);
        let rows = self.statuses.iter().map(|row| {
            let directions: Vec<&str> = row.directions.iter().map(|it| it.as_str()).collect();
            vec![
                format!("{:>4}", row.rank.get()),
                row.status.to_string(),
                row.kind.to_string(),
                directions.join(", "),
            ]
        });
        std::iter::once(head.to_vec()).chain(rows).collect()
    }

    fn kinds(&self) -> Vec<Vec<String>> {
        let mut kinds: Vec<_> = self.statuses.iter().map(|row| row.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.iter().map(|kind| vec![kind.to_string(), kind.meaning().to_owned()]).collect()
    }

    fn dispositions(&self) -> Vec<Vec<String>> {
        let head = ["disposition", "new status", "anomaly", "meaning"].map(str::to_owned);
        let rows = self.dispositions.iter().map(|row| {
            let yes = |holds| if holds { "yes" } else { "" }.to_owned();
            vec![
                row.disposition.to_string(),
                yes(row.changes_status),
                yes(row.anomaly),
                row.meaning.to_owned(),
            ]
        });
        std::iter::once(head.to_vec()).chain(rows).collect()
    }

    fn relations(&self) -> Vec<Vec<String>> {
        self.relations
            .iter()
            .map(|row| vec![row.relation.to_string(), row.meaning.to_owned()])
            .collect()
    }

    fn orders(&self) -> Vec<Vec<String>> {
        self.orders.iter().map(|row| vec![row.order.to_string(), row.meaning.to_owned()]).collect()
    }

    /// What events of one relation do to calls of one direction: a line for each
    /// status, then for each where proof of order makes a difference. Adjacent
    /// lines that are alike are one.
    fn grid(&self, direction: Direction, relation: Relation) -> Option<String> {
        let rows: Vec<&TransitionRow> = self
            .transitions
            .iter()
            .filter(|row| row.direction == direction && row.relation == relation)
            .collect();
        let mut events: Vec<KnownEvent> = rows.iter().map(|row| row.event_type).collect();
        events.sort_by_key(|event| event.status());
        events.dedup();
        if rows.is_empty() {
            return None;
        }
        let mut situations: Vec<Situation> = Vec::new();
        for order in Order::ALL.iter().copied() {
            let of_order = rows.iter().filter(|row| {
                row.order == Some(order) || (order == Order::Unproven && row.order.is_none())
            });
            situations.extend(of_order.map(|row| (row.from, row.interrupted, order)));
            situations.dedup();
        }

        let mut table = heads(&events);
        let lines = situations.iter().copied().map(|situation| {
            let (from, interrupted, order) = situation;
            let cells = events.iter().map(|event| {
                let row = rows.iter().find(|row| {
                    (row.from, row.interrupted, row.event_type) == (from, interrupted, *event)
                        && row.order.is_none_or(|it| it == order)
                });
                row.map_or(IMPOSSIBLE, |row| row.disposition.as_str()).to_owned()
            });
            (situation, cells.collect::<Vec<_>>())
        });
        let lines: Vec<(Situation, Vec<String>)> = lines.collect();
        for alike in
            lines.chunk_by(|one, other| one.1 == other.1 && can_share_label(one.0, other.0))
        {
            let situations: Vec<Situation> = alike.iter().map(|line| line.0).collect();
            let mut line = vec![label(&situations)];
            line.extend(alike[0].1.iter().cloned());
            table.push(line);
        }
        let title = format!(
            "{} CALLS, an event of relation {relation}: down, the status of the call; across, the status that the event reports",
            direction.as_str().to_uppercase(),
        );
        Some(section(&title, &table))
    }
}

/// The names of the events over their columns, a line per word.
fn heads(events: &[KnownEvent]) -> Vec<Vec<String>> {
    let words: Vec<Vec<&str>> =
        events.iter().map(|event| event.status().as_str().split('_').collect()).collect();
    let height = words.iter().map(Vec::len).max().unwrap_or(0);
    let line = |number: usize| {
        let cells = words.iter().map(|words| {
            let blank = height - words.len();
            let word = number.checked_sub(blank).map_or("", |index| words[index]);
            let is_last = number + 1 == height;
            if word.is_empty() || is_last { word.to_owned() } else { format!("{word}_") }
        });
        std::iter::once(String::new()).chain(cells).collect()
    };
    (0..height).map(line).collect()
}

/// A line of a grid: the status of the call, the status that its ERROR
/// interrupted, and the order of the event.
type Situation = (Option<Status>, Option<Status>, Order);

/// Whether two adjacent lines can be named together: an ERROR that interrupted
/// a status only with others of its kind, or with ERROR itself.
fn can_share_label(one: Situation, other: Situation) -> bool {
    let both_in_error = one.0 == Some(Status::Error) && other.0 == Some(Status::Error);
    let uninterrupted = one.1.is_none() && other.1.is_none();
    one.2 == other.2 && (both_in_error || uninterrupted)
}

/// Names the statuses of one line.
fn label(situations: &[Situation]) -> String {
    let name = |status: Option<Status>| status.map_or("no call yet", Status::as_str);
    let interrupted: Option<Vec<&str>> =
        situations.iter().map(|it| it.1.map(Status::as_str)).collect();
    let names = match interrupted {
        Some(interrupted) => format!("ERROR in {}", joined(&interrupted)),
        None => {
            let mut names: Vec<&str> = situations.iter().map(|it| name(it.0)).collect();
            names.dedup();
            joined(&names)
        }
    };
    match situations {
        [(_, _, Order::After), ..] => format!("{names} *"),
        _ => names,
    }
}

fn joined(names: &[&str]) -> String {
    match names {
        [first, .., last] if names.len() > 2 => format!("{first} … {last}"),
        some => some.join(", "),
    }
}

/// A title and a table under it, its columns as wide as they need to be.
fn section(title: &str, table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = format!("{title}\n\n");
    for row in table {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:<width$}{GAP}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
