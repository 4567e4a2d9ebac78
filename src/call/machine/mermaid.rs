//! The machine as a Mermaid state diagram, for Markdown.
//!
//! Forced steps are left to the other formats: a state diagram of Mermaid has
//! no dashed edges, and drawn like the regular ones they would be taken for
//! such.

use std::fmt::Write as _;

use super::{
    Machine,
    drawing::{Drawing, Edge, LEFT_OUT, Place, names},
};
use crate::call::{Direction, Disposition, Status};

/// The kinds of terminal status, told apart on a light and on a dark page.
const STYLES: &str = "
    classDef resolvable fill:#fbe3e4,stroke:#a33,color:#222
    classDef redialable fill:#fff6d6,stroke:#a80,color:#222
    classDef final fill:#dde,stroke:#335,stroke-width:3px,color:#222
";

impl Machine {
    /// The regular ways of a call as a `stateDiagram-v2`. Ends with a line feed.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut text = String::from("stateDiagram-v2\n    direction LR\n");
        let forced = ["Forced steps, which the provider does not describe, are not drawn."];
        for sentence in LEFT_OUT.iter().chain(&forced) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    %% {sentence}");
        }
        text.push_str(STYLES);
        for direction in Direction::ALL.iter().copied() {
            write_drawing(&mut text, &Drawing::of(self, direction));
        }
        text
    }
}

fn write_drawing(text: &mut String, drawing: &Drawing) {
    let direction = drawing.direction;
    let id = |status: Status| format!("{direction}_{status}");
    let place = |place: &Place| match place {
        Place::Start => "[*]".to_owned(),
        Place::UnderWay | Place::Among(_) => direction.to_string(),
        Place::At(status) => id(*status),
    };
    let is_inside = |edge: &&Edge| matches!(edge.to, Place::At(to) if drawing.live.contains(&to));
    let (inside, outside): (Vec<&Edge>, Vec<&Edge>) =
        drawing.edges.iter().filter(|edge| edge.by != Disposition::Forced).partition(is_inside);

    let _ = writeln!(text, "\n    state \"{direction}, under way\" as {direction} {{");
    for status in &drawing.live {
        let _ = writeln!(text, "        state \"{status}\" as {}", id(*status));
    }
    for edge in inside {
        let _ = writeln!(text, "        {} --> {}", place(&edge.from), place(&edge.to));
    }
    let _ = writeln!(text, "    }}");
    for group in &drawing.ended {
        let _ = writeln!(text, "    state \"{}\" as {}", names(group, " · "), id(group[0]));
    }
    for edge in outside {
        let label = match (&edge.from, edge.by) {
            (Place::Among(some), _) => format!(" : from {}", names(some, ", ")),
            (_, Disposition::Redialed) => " : redial".to_owned(),
            _ => String::new(),
        };
        let _ = writeln!(text, "    {} --> {}{label}", place(&edge.from), place(&edge.to));
    }
    for group in &drawing.ended {
        let _ = writeln!(text, "    class {} {}", id(group[0]), group[0].kind());
    }
}
