//! `GET /docs`: the interface's description as a page for people, and `GET
//! /docs/style.css`, how it looks.
//!
//! The page is made from the document that `GET /openapi.json` serves and from
//! nothing else, once. It loads nothing from elsewhere and runs no script: where
//! no key is asked for, whatever runs on a page of ours may do everything.
//!
//! Deliberately absent: a form that asks the service. Each route has a line for
//! the shell instead.

mod schema;

use std::sync::LazyLock;

use axum::{
    http::{HeaderMap, HeaderName, Uri, header},
    response::Html,
};
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

use crate::http::{
    Problem,
    openapi::{API_KEY, DOCUMENT, answers::is_guarded},
    query::Query,
};
use schema::{field_table, resolve, type_of};

/// Where the examples ask: the address that is listened on unless it is said. A reader is
/// shown the one that the page was asked of.
const ADDRESS: &str = "http://127.0.0.1:8080";

/// The media type of a stream.
const STREAM: &str = "text/event-stream";

/// The page.
pub(super) async fn show(uri: Uri, headers: HeaderMap) -> Result<Html<String>, Problem> {
    static PAGE: LazyLock<String> = LazyLock::new(|| page(&DOCUMENT).into_string());
    Query::of(&uri).finish()?;
    let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    Ok(Html(match asked.filter(|host| is_plain(host)) {
        Some(host) => PAGE.replace(ADDRESS, &format!("http://{host}")),
        None => PAGE.clone(),
    }))
}

/// Whether a host is a name or an address, perhaps with a port, and means nothing to a shell.
fn is_plain(host: &str) -> bool {
    !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte))
}

/// How it looks.
pub(super) async fn style(
    uri: Uri,
) -> Result<([(HeaderName, &'static str); 1], &'static str), Problem> {
    Query::of(&uri).finish()?;
    Ok(([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css")))
}

/// One operation of the document, and where it is.
#[derive(Clone, Copy)]
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    described: &'a Value,
}

impl<'a> Operation<'a> {
    /// All of a document, in the order of their paths.
    fn all(document: &'a Value) -> Vec<Self> {
        let of_path = |(path, item): (&'a String, &'a Value)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(move |(method, described)| Self { method, path, described })
        };
        document["paths"].as_object().into_iter().flatten().flat_map(of_path).collect()
    }

    fn id(self) -> &'a str {
        text(&self.described["operationId"])
    }

    fn has_tag(self, tag: &str) -> bool {
        list(&self.described["tags"]).any(|it| it == tag)
    }

    /// Its parameters in that place.
    fn parameters(self, place: &str) -> impl Iterator<Item = &'a Value> {
        list(&self.described["parameters"]).filter(move |it| it["in"] == place)
    }

    fn is_guarded(self) -> bool {
        is_guarded(self.described)
    }
}

fn page(document: &Value) -> Markup {
    let info = &document["info"];
    let operations = Operation::all(document);
    let of_tag = |tag: &Value| {
        let name = text(&tag["name"]).to_owned();
        operations.iter().copied().filter(move |it| it.has_tag(&name))
    };
    let schemas = || document["components"]["schemas"].as_object().into_iter().flatten();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (text(&info["title"])) ": the HTTP interface" }
                link rel="stylesheet" href="docs/style.css";
            }
            body {
                nav aria-label="Contents" {
                    p.name { a href="#top" { (text(&info["title"])) } " " (text(&info["version"])) }
                    @for tag in list(&document["tags"]) {
                        h2 { (text(&tag["name"])) }
                        ul { @for operation in of_tag(tag) {
                            li { a href={ "#" (operation.id()) } { (route(operation)) } }
                        } }
                    }
                    h2 { "schemas" }
                    ul { @for (name, _) in schemas() {
                        li { a href={ "#schema-" (name) } { (name) } }
                    } }
                }
                main id="top" {
                    h1 { "The HTTP interface" }
                    (prose(&info["description"]))
                    p {
                        "The same for programs: the " a href="openapi.json" { "OpenAPI document" }
                        ", from which clients can be generated."
                    }
                    @for tag in list(&document["tags"]) {
                        h2 { (text(&tag["name"])) }
                        (prose(&tag["description"]))
                        @for operation in of_tag(tag) { (article(document, operation)) }
                    }
                    h2 { "schemas" }
                    @for (name, schema) in schemas() {
                        section.schema id={ "schema-" (name) } {
                            h3 { (name) }
                            (prose(&schema["description"]))
                            (field_table(document, schema))
                        }
                    }
                }
            }
        }
    }
}

fn route(operation: Operation<'_>) -> Markup {
    html! {
        span.method { (operation.method.to_uppercase()) } " " span.path { (operation.path) }
    }
}

fn article(document: &Value, operation: Operation<'_>) -> Markup {
    let described = operation.described;
    html! {
        article id=(operation.id()) {
            h3 { a href={ "#" (operation.id()) } { (route(operation)) } }
            p.summary { (text(&described["summary"])) }
            (prose(&described["description"]))
            (who_may_ask(operation))
            @if list(&described["parameters"]).next().is_some() { (parameters(operation)) }
            @if let Some((media_type, body)) = contents(&described["requestBody"]).next() {
                h4 { "Body" }
                p { code { (media_type) } ": " (type_of(&body["schema"])) }
                (prose(&described["requestBody"]["description"]))
            }
            h4 { "Ask" }
            pre { code { (curl(document, operation)) } }
            h4 { "Responses" }
            @for (status, answer) in described["responses"].as_object().into_iter().flatten() {
                (answer_of(status, resolve(document, answer)))
            }
        }
    }
}

fn who_may_ask(operation: Operation<'_>) -> Markup {
    let ways = || list(&operation.described["security"]);
    let admin = ways().any(|way| list(&way[API_KEY]).any(|scope| scope == "admin"));
    html! {
        p.who {
            @if operation.is_guarded() {
                "Needs an API key where the service asks for keys"
                @if admin { ", with the scope " code { "admin" } " and for all projects" }
                "."
            } @else if ways().next().is_some() {
                "Needs the proof that the endpoint is configured to ask for: a bearer token, a signature, or none."
            } @else {
                "Open."
            }
        }
    }
}

fn parameters(operation: Operation<'_>) -> Markup {
    html! {
        h4 { "Parameters" }
        div.wide { table {
            thead { tr { th { "name" } th { "in" } th { "type" } th { "what" } } }
            tbody {
                @for parameter in ["path", "query", "header"].into_iter().flat_map(|it| operation.parameters(it)) {
                    tr {
                        td { code { (text(&parameter["name"])) } }
                        td { (text(&parameter["in"])) }
                        td { (type_of(&parameter["schema"])) }
                        td { (inline(text(&parameter["description"]))) }
                    }
                }
            }
        } }
    }
}

/// One answer, with its examples, and its headers but for those that every
/// answer has. What was asked for is open.
fn answer_of(status: &str, answer: &Value) -> Markup {
    let headers = || answer["headers"].as_object().into_iter().flatten();
    let own = || headers().filter(|(_, header)| header.get("$ref").is_none());
    html! {
        details open[status.starts_with('2')] {
            summary { span.status { (status) } " " (inline(text(&answer["description"]))) }
            @if own().next().is_some() {
                ul.headers { @for (name, header) in own() {
                    li { code { (name) } " " (inline(text(&header["description"]))) }
                } }
            }
            @for (media_type, content) in contents(answer) {
                p { code { (media_type) } ": " (type_of(&content["schema"])) }
                @for example in examples(content) { pre { code { (shown(example)) } } }
            }
        }
    }
}

/// What a body may be, by media type.
fn contents(of: &Value) -> impl Iterator<Item = (&String, &Value)> {
    of["content"].as_object().into_iter().flatten()
}

/// The examples of a content.
fn examples(content: &Value) -> impl Iterator<Item = &Value> {
    let named = content["examples"].as_object().into_iter().flatten();
    content.get("example").into_iter().chain(named.map(|(_, example)| &example["value"]))
}

/// An example as it would come, laid out, and cut where it goes on alike.
fn shown(example: &Value) -> String {
    const LONGEST: usize = 60;
    let whole = match example {
        Value::String(text) => text.clone(),
        _ => serde_json::to_string_pretty(example).unwrap_or_default(),
    };
    match whole.lines().nth(LONGEST) {
        None => whole,
        Some(_) => whole.lines().take(LONGEST).chain(["…"]).collect::<Vec<_>>().join("\n"),
    }
}

/// A line for the shell that asks.
fn curl(document: &Value, operation: Operation<'_>) -> String {
    let mut path = operation.path.to_owned();
    for parameter in operation.parameters("path") {
        let placeholder = format!("{{{}}}", text(&parameter["name"]));
        path = path.replace(&placeholder, text(example_of(document, parameter)));
    }
    let is_stream = contents(&operation.described["responses"]["200"]).any(|(it, _)| it == STREAM);
    // What comes of a stream is shown as it comes.
    let options = if is_stream { " -N" } else { "" };
    let mut parts = vec![format!("curl{options} {ADDRESS}{path}")];
    if operation.is_guarded() {
        // Where there is no key, curl sends no header that has nothing behind its colon.
        parts.push(r#"-H "Authorization:${CALLSTATE_KEY:+ Bearer $CALLSTATE_KEY}""#.to_owned());
    }
    match contents(&operation.described["requestBody"]).next() {
        Some((media_type, body)) => {
            let body = examples(body).next().map(shown).unwrap_or_default();
            let quoted = body.replace('\'', r"'\''");
            parts.push(format!("-H 'Content-Type: {media_type}' -d '{quoted}'"));
        }
        None if operation.method == "post" => parts.push("-X POST".to_owned()),
        None if operation.method == "delete" => parts.push("-X DELETE".to_owned()),
        None => {}
    }
    parts.join(" \\\n    ")
}

/// What a parameter may be, for example.
fn example_of<'a>(document: &'a Value, parameter: &'a Value) -> &'a Value {
    let schema = resolve(document, &parameter["schema"]);
    parameter.get("example").unwrap_or(&schema["examples"][0])
}

/// Text in paragraphs.
fn prose(value: &Value) -> Markup {
    html! {
        @for paragraph in text(value).split("\n\n").filter(|it| !it.trim().is_empty()) {
            p { (inline(paragraph)) }
        }
    }
}

/// Text in which code stands between backticks.
fn inline(text: &str) -> Markup {
    html! {
        @for (place, part) in text.split('`').enumerate() {
            @if place % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
