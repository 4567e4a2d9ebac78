//! Schemas for people: what type something has, and which fields an object.

use maud::{Markup, html};
use serde_json::Value;

use crate::http::docs::{inline, list, text};

/// Where the schemas of the document are.
const SCHEMAS: &str = "#/components/schemas/";

/// What a reference names, or the thing itself.
pub(super) fn resolve<'a>(document: &'a Value, thing: &'a Value) -> &'a Value {
    let pointer = text(&thing["$ref"]).strip_prefix('#');
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(thing)
}

/// What type a value has, in a few words.
pub(super) fn type_of(schema: &Value) -> Markup {
    if let Some(name) = text(&schema["$ref"]).strip_prefix(SCHEMAS) {
        return html! { a href={ "#schema-" (name) } { (name) } };
    }
    let either = list(&schema["oneOf"]).chain(list(&schema["anyOf"]));
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        several => list(several).map(text).collect(),
    };
    let mut ways: Vec<Markup> = either.map(type_of).collect();
    ways.extend(types.into_iter().map(|name| of_name(name, schema)));
    if ways.is_empty() {
        return html! { "anything" };
    }
    html! {
        @for (place, way) in ways.iter().enumerate() {
            @if place > 0 { " or " }
            (way)
        }
        (bounds(schema))
    }
}

fn of_name(name: &str, schema: &Value) -> Markup {
    let values = || list(&schema["enum"]);
    html! {
        @if name == "array" {
            "list of " (type_of(&schema["items"]))
        } @else if let Some(of) = schema.get("additionalProperties").filter(|of| of.is_object()) {
            "object of "
            @if let Some(names) = schema.get("propertyNames") { (type_of(names)) " to " }
            (type_of(of))
        } @else if values().next().is_some() {
            @for (place, value) in values().enumerate() {
                @if place > 0 { ", " }
                code { (text(value)) }
            }
        } @else if name == "string" && schema["format"].is_string() {
            (text(&schema["format"]))
        } @else {
            (name)
        }
    }
}

/// Within which bounds a value is, and what it is where it is not said.
fn bounds(schema: &Value) -> Markup {
    const BOUNDS: [(&str, &str); 5] = [
        ("minimum", "from"),
        ("maximum", "to"),
        ("minLength", "at least"),
        ("maxLength", "at most"),
        ("default", "by default"),
    ];
    let has_lengths = schema.get("maxLength").is_some();
    let said = BOUNDS.iter().filter_map(|(name, word)| Some((word, schema.get(name)?)));
    let said: Vec<String> = said.map(|(word, value)| format!("{word} {value}")).collect();
    html! {
        @if !said.is_empty() {
            ", " (said.join(" ")) @if has_lengths { " characters" }
        }
    }
}

/// The fields of an object, or the values of what is no object.
pub(super) fn field_table(document: &Value, schema: &Value) -> Markup {
    let mut rows = Vec::new();
    gather(document, schema, "", &mut rows);
    html! {
        @if rows.is_empty() {
            p { (type_of(schema)) }
        } @else {
            div.wide { table {
                thead { tr { th { "field" } th { "type" } th { "what" } } }
                tbody {
                    @for Row { name, schema, is_required } in &rows {
                        tr {
                            td { code { (name) } @if !is_required { " " span.optional { "may be absent" } } }
                            td { (type_of(schema)) }
                            td { (inline(text(&schema["description"]))) }
                        }
                    }
                }
            } }
        }
    }
}

struct Row<'a> {
    name: String,
    schema: &'a Value,
    is_required: bool,
}

/// The fields of an object and of those that it holds, and those that it has
/// from others.
fn gather<'a>(document: &'a Value, schema: &'a Value, within: &str, rows: &mut Vec<Row<'a>>) {
    for part in list(&schema["allOf"]) {
        gather(document, resolve(document, part), within, rows);
    }
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        let is_required = list(&schema["required"]).any(|it| it == name);
        let path = format!("{within}{name}");
        rows.push(Row { name: path.clone(), schema: of, is_required });
        let (inner, separator) =
            if of["items"].is_object() { (&of["items"], "[].") } else { (of, ".") };
        gather(document, inner, &format!("{path}{separator}"), rows);
    }
}
