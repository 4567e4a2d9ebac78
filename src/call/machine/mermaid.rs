//! The machine as a Mermaid state diagram, for Markdown.
//!
//! Forced steps are not drawn: a state diagram of Mermaid has no dashed edges,
//! and a solid edge would look like a regular step.

use std::fmt::Write as _;

use super::{
    Machine,
    drawing::{Drawing, Edge, OMITTED, Place, Step, names},
};
use crate::call::{Direction, Status};

/// Colors for the kinds of terminal status that work on light and dark pages.
const STYLES: &str = "
    classDef resolvable fill:#fbe3e4,stroke:#a33,color:#222
    classDef redialable fill:#fff6d6,stroke:#a80,color:#222
    classDef final fill:#dde,stroke:#335,stroke-width:3px,color:#222
";

impl Machine {
    /// The regular steps of a call as a `stateDiagram-v2`. Ends with a line feed.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut text = String::from("stateDiagram-v2\n    direction LR\n");
        let forced = ["Forced steps, which the provider does not describe, are not drawn."];
        for sentence in OMITTED.iter().chain(&forced) {
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
        Place::Live | Place::Among(_) => direction.to_string(),
        Place::At(status) => id(*status),
    };
    let is_inside = |edge: &&Edge| matches!(edge.to, Place::At(to) if drawing.live.contains(&to));
    let is_regular = |edge: &&Edge| !matches!(edge.step, Step::Forced | Step::ForcedLater);
    let (inside, outside): (Vec<&Edge>, Vec<&Edge>) =
        drawing.edges.iter().filter(is_regular).partition(is_inside);

    let _ = writeln!(text, "\n    state \"{direction}, live\" as {direction} {{");
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
        let label = match (&edge.from, edge.step.label()) {
            (Place::Among(some), _) => format!(" : from {}", names(some, ", ")),
            (_, Some(label)) => format!(" : {label}"),
            (_, None) => String::new(),
        };
        let _ = writeln!(text, "    {} --> {}{label}", place(&edge.from), place(&edge.to));
    }
    for group in &drawing.ended {
        let _ = writeln!(text, "    class {} {}", id(group[0]), group[0].kind());
    }
}
