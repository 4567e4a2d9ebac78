//! What a route answers where it does not do as it is asked, described from
//! the problems themselves.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, header};
use serde_json::{Value, json};
use utoipa::{
    IntoResponses, ToSchema as _,
    openapi::{
        Content, ContentBuilder, Header, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder,
        Type,
        example::{Example, ExampleBuilder},
        header::HeaderBuilder,
    },
};

use crate::http::{
    Problem,
    auth::{self, CHALLENGE},
    openapi::API_KEY,
    problem::Body,
    server::{REQUEST_ID, bad_host, misdirected, url_too_long},
};

/// Responses by status.
pub(in crate::http) type Responses = BTreeMap<String, RefOr<Response>>;

/// The responses for these problems by status, with an example for each problem.
pub(in crate::http) fn problems(problems: impl IntoIterator<Item = Problem>) -> Responses {
    let mut by_status = BTreeMap::<u16, Vec<Problem>>::new();
    for problem in problems {
        by_status.entry(problem.status().as_u16()).or_default().push(problem);
    }
    let answers = by_status.into_iter();
    answers.map(|(status, problems)| (status.to_string(), answer(&problems).into())).collect()
}

/// The answer of one status.
fn answer(problems: &[Problem]) -> Response {
    let mut titles: Vec<&str> = problems.iter().map(Problem::title).collect();
    titles.dedup();
    let mut answer = ResponseBuilder::new().description(format!("{}.", titles.join("; or: ")));
    for (name, value) in problems.iter().filter_map(Problem::header) {
        answer = answer.header(name.as_str(), describe(name.as_str(), value.to_str().ok()));
    }
    answer.content("application/problem+json", content(problems)).build()
}

/// The body of each, by its kind.
fn content(problems: &[Problem]) -> Content {
    let mut examples = BTreeMap::<String, Example>::new();
    for problem in problems {
        let alike = examples.keys().filter(|name| name.starts_with(problem.name())).count();
        let name = match alike {
            0 => problem.name().to_owned(),
            before => format!("{}-{}", problem.name(), before + 1),
        };
        let value = serde_json::to_value(problem.body()).ok();
        let example = ExampleBuilder::new().summary(problem.title()).value(value);
        examples.insert(name, example.build());
    }
    ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Body::name())))
        .examples_from_iter(examples)
        .build()
}

/// A header and what it tells.
fn describe(name: &str, example: Option<&str>) -> Header {
    let description = match name {
        "allow" => Some("The methods that the route takes."),
        "retry-after" => Some("In how many seconds to ask again."),
        "www-authenticate" => Some("How to prove who asks (RFC 6750)."),
        "x-request-id" => Some("The id of the request: its own, or one that it was given."),
        _ => None,
    };
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(description)
        .example(example.map(Value::from))
        .build()
}

/// A parameter is not right.
pub(in crate::http) struct BadParameter;

impl IntoResponses for BadParameter {
    fn responses() -> Responses {
        problems([Problem::bad_parameter("colour: is no parameter here")])
    }
}

/// Adds to every operation of the document what any may be answered.
pub(super) fn add_common(document: &mut Value) {
    let (mut to_any, to_guarded) = (answers_of(edge()), answers_of(guard()));
    to_any.push(head_too_large());
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, item) in paths {
        for (_, operation) in item.as_object_mut().into_iter().flatten() {
            let is_guarded = is_guarded(operation);
            let Some(answers) = operation["responses"].as_object_mut() else { continue };
            answers.values_mut().for_each(add_request_id);
            let common = if is_guarded { to_guarded.as_slice() } else { &[] };
            for Common { status, name, .. } in to_any.iter().chain(common) {
                let reference = json!({"$ref": format!("#/components/responses/{name}")});
                answers.entry(status).or_insert(reference);
            }
        }
    }
    for Common { name, answer, .. } in to_any.into_iter().chain(to_guarded) {
        document["components"]["responses"][name] = answer;
    }
    let id = describe(REQUEST_ID.as_str(), Some("7f3c2a9d51e04b86-1c"));
    document["components"]["headers"][REQUEST_ID.as_str()] = json!(id);
}

fn add_request_id(answer: &mut Value) {
    let reference = format!("#/components/headers/{REQUEST_ID}");
    answer["headers"][REQUEST_ID.as_str()] = json!({"$ref": reference});
}

/// Whether an operation is one of those that may need a key.
pub(in crate::http) fn is_guarded(operation: &Value) -> bool {
    let ways = operation["security"].as_array().into_iter().flatten();
    ways.into_iter().any(|way| way.get(API_KEY).is_some())
}

/// An answer that several operations have in common.
struct Common {
    status: String,
    name: &'static str,
    answer: Value,
}

fn answers_of(problems: impl IntoIterator<Item = Problem>) -> Vec<Common> {
    let of = |problem: Problem| {
        let mut answer = json!(answer(std::slice::from_ref(&problem)));
        add_request_id(&mut answer);
        Common { status: problem.status().as_str().to_owned(), name: problem.name(), answer }
    };
    problems.into_iter().map(of).collect()
}

/// Told before there is a request, so that it has neither an id nor a body.
fn head_too_large() -> Common {
    let answer = json!({"description": "The request line and headers are too large."});
    Common { status: "431".to_owned(), name: "head-too-large", answer }
}

/// What any request may be answered.
fn edge() -> [Problem; 5] {
    [
        bad_host(),
        Problem::method_not_allowed("this does not take PUT")
            .with_header(header::ALLOW, HeaderValue::from_static("GET,HEAD")),
        url_too_long(),
        Problem::internal("the log tells"),
        Problem::unavailable("The database is away.", None),
    ]
}

/// What a request may be answered besides, that needs a key or one of our names.
fn guard() -> [Problem; 2] {
    [auth::refused(CHALLENGE, "the log tells"), misdirected()]
}
