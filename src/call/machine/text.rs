//! The machine as grids for a terminal, at most 160 columns wide.

use std::fmt::Write as _;

use super::{Machine, TransitionRow};
use crate::call::{Direction, KnownEvent, Relation, Status};

/// What stands between two columns.
const GAP: &str = "  ";

/// What stands where an event cannot come.
const NOWHERE: &str = "·";

impl Machine {
    /// The vocabulary, then what each event does wherever it can come: one grid
    /// per direction and relation. Ends with a line feed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut sections = vec![
            section("STATUSES, by rank: a call moves from lower to higher", &self.statuses()),
            section("KINDS of status", &self.kinds()),
            section("DISPOSITIONS: what an event does", &self.dispositions()),
            section("RELATIONS of an event to the attempts of its call", &self.relations()),
        ];
        for direction in Direction::ALL.iter().copied() {
            for relation in Relation::ALL.iter().copied() {
                sections.extend(self.grid(direction, relation));
            }
        }
        sections.push(
            "An event of the other direction is conflicting everywhere, and one of a type that is none \
             of these is unrecognized.\nWhere a grid has a dot, no event of its relation can come.\n"
                .to_owned(),
        );
        sections.join("\n")
    }

    fn statuses(&self) -> Vec<Vec<String>> {
        let head = ["rank", "status", "kind", "of calls that are"].map(str::to_owned);
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
        let head = ["disposition", "new status", "marks the call", "the event"].map(str::to_owned);
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

    /// What events of one relation do to calls of one direction: a row for each
    /// status, neighbours that are alike in one.
    fn grid(&self, direction: Direction, relation: Relation) -> Option<String> {
        let rows: Vec<&TransitionRow> = self
            .transitions
            .iter()
            .filter(|row| row.direction == direction && row.relation == relation)
            .collect();
        let mut events: Vec<KnownEvent> = rows.iter().map(|row| row.event_type).collect();
        events.sort_by_key(|event| event.status());
        events.dedup();
        let mut from: Vec<Option<Status>> = rows.iter().map(|row| row.from).collect();
        from.dedup();
        if rows.is_empty() {
            return None;
        }

        let mut table = heads(&events);
        let lines = from.iter().map(|from| {
            let cells = events.iter().map(|event| {
                let row = rows.iter().find(|row| row.from == *from && row.event_type == *event);
                row.map_or(NOWHERE, |row| row.disposition.as_str()).to_owned()
            });
            (*from, cells.collect::<Vec<_>>())
        });
        let lines: Vec<_> = lines.collect();
        for alike in lines.chunk_by(|one, other| one.1 == other.1) {
            let mut line = vec![label(&alike.iter().map(|(from, _)| *from).collect::<Vec<_>>())];
            line.extend(alike[0].1.iter().cloned());
            table.push(line);
        }
        let title = format!(
            "{} CALLS, an event of relation {relation}: down, where the call stands; across, what the event says",
            direction.as_str().to_uppercase(),
        );
        Some(section(&title, &table))
    }
}

/// The names of the events over their columns, a line for each word of the
/// longest.
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

/// Names statuses that stand in one line.
fn label(from: &[Option<Status>]) -> String {
    let name = |from: &Option<Status>| from.map_or("no call yet", Status::as_str);
    match from {
        [first, .., last] if from.len() > 2 => format!("{} … {}", name(first), name(last)),
        some => some.iter().map(name).collect::<Vec<_>>().join(", "),
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
