//! The machine as a graph for Graphviz, forced steps dashed.

use std::fmt::Write as _;

use super::{
    Machine,
    drawing::{Drawing, OMITTED, Place, Step, names},
};
use crate::call::{Direction, Kind, Status};

impl Machine {
    /// The steps of a call as a `digraph`. Ends with a line feed.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut text = String::from("digraph calls {\n");
        for sentence in OMITTED {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    // {sentence}");
        }
        text.push_str(
            "    // Dashed: forced steps, which the provider does not describe.\n\
             \n    rankdir=LR; compound=true; fontname=\"Helvetica\";\n    \
             node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica\", fontsize=11];\n    \
             edge [fontname=\"Helvetica\", fontsize=10];\n",
        );
        for direction in Direction::ALL.iter().copied() {
            write_drawing(&mut text, &Drawing::of(self, direction));
        }
        text.push_str("}\n");
        text
    }
}

fn write_drawing(text: &mut String, drawing: &Drawing) {
    let direction = drawing.direction;
    let id = |status: Status| format!("{direction}_{status}");
    // An edge of the box is one of a status in it, cut off at the border.
    let anchor = drawing.live[drawing.live.len() / 2];
    let place = |place: &Place| match place {
        Place::Start => format!("{direction}_start"),
        Place::Live => id(anchor),
        Place::Among(some) => {
            format!("{{{}}}", some.iter().copied().map(id).collect::<Vec<_>>().join(" "))
        }
        Place::At(status) => id(*status),
    };

    let _ = writeln!(
        text,
        "\n    {direction}_start [shape=circle, label=\"\", width=0.2, fillcolor=black];"
    );
    let _ = writeln!(text, "    subgraph cluster_{direction} {{");
    let _ = writeln!(text, "        label=\"{direction}, live\"; style=rounded; color=gray50;");
    for status in &drawing.live {
        write_node(text, "        ", &id(*status), &[*status]);
    }
    let _ = writeln!(text, "    }}");
    for group in &drawing.ended {
        write_node(text, "    ", &id(group[0]), group);
    }
    for edge in &drawing.edges {
        let mut attributes = Vec::new();
        if edge.from == Place::Live {
            attributes.push(format!("ltail=cluster_{direction}"));
        }
        if edge.to == Place::Live {
            attributes.push(format!("lhead=cluster_{direction}"));
        }
        if matches!(edge.step, Step::Forced | Step::ForcedLater) {
            attributes.push("style=dashed, color=gray40".to_owned());
        }
        if let Some(label) = edge.step.label() {
            attributes.push(format!("label=\"{label}\""));
        }
        let attributes = match attributes.as_slice() {
            [] => String::new(),
            some => format!(" [{}]", some.join(", ")),
        };
        let (from, to) = (place(&edge.from), place(&edge.to));
        let _ = writeln!(text, "    {from} -> {to}{attributes};");
    }
}

fn write_node(text: &mut String, indent: &str, id: &str, statuses: &[Status]) {
    let kind = statuses[0].kind();
    let color = match kind {
        Kind::Live => "white",
        Kind::Redialable => "lightyellow",
        Kind::Resolvable => "mistyrose",
        Kind::Final => "gray85",
    };
    // A double border marks a final status.
    let border = if kind == Kind::Final { ", peripheries=2" } else { "" };
    let label = names(statuses, "\\n");
    let _ = writeln!(text, "{indent}{id} [label=\"{label}\", fillcolor={color}{border}];");
}
