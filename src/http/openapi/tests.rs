use std::collections::BTreeSet;

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::http::{ROUTES, openapi::DOCUMENT};

/// The routes that are pages for people, and what these load.
const PAGES: [&str; 2] = ["/docs", "/docs/style.css"];

/// Every operation, with its path and method.
fn operations() -> Vec<(&'static str, &'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().unwrap().iter();
    let of_path = |(path, item): (&'static String, &'static Value)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    };
    paths.flat_map(of_path).collect()
}

/// Checks a schema of the document, which may refer to others of it.
fn validator(schema: &Value) -> Validator {
    let mut whole = json!({"components": DOCUMENT["components"]});
    whole["allOf"] = json!([schema]);
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .build(&whole)
        .unwrap()
}

/// What a reference names, or the thing itself.
fn resolve(thing: &'static Value) -> &'static Value {
    let pointer = thing["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.map_or(thing, |pointer| DOCUMENT.pointer(pointer).unwrap())
}

/// Every content of the document, with where it is.
fn contents() -> Vec<(String, &'static Value)> {
    let mut contents = Vec::new();
    for (path, method, operation) in operations() {
        let answers = operation["responses"].as_object().unwrap().iter();
        let bodies = answers.map(|(status, answer)| (status.as_str(), resolve(answer)));
        for (name, body) in bodies.chain([("body", &operation["requestBody"])]) {
            for (media_type, content) in body["content"].as_object().into_iter().flatten() {
                contents.push((format!("{method} {path} {name} {media_type}"), content));
            }
        }
    }
    contents
}

fn examples(content: &Value) -> Vec<&Value> {
    let named = content["examples"].as_object().into_iter().flatten();
    content.get("example").into_iter().chain(named.map(|(_, example)| &example["value"])).collect()
}

#[test]
fn the_description_is_the_one_that_was_reviewed() {
    let mut described = DOCUMENT.clone();
    assert_eq!(described["info"]["version"].take(), env!("CARGO_PKG_VERSION"));
    insta::assert_json_snapshot!(described);
}

#[test]
fn every_route_but_the_pages_is_described_and_none_that_is_not_there() {
    let described: BTreeSet<&str> = operations().into_iter().map(|(path, ..)| path).collect();
    let routes = ROUTES.iter().map(|route| route.trim_end_matches('/'));
    let routes: BTreeSet<&str> = routes.filter(|route| !PAGES.contains(route)).collect();
    assert_eq!(described, routes);
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_it_does() {
    let mut names = BTreeSet::new();
    for (path, method, operation) in operations() {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        for member in ["summary", "description"] {
            let text = operation[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{method} {path} has no {member}");
        }
        let tags = DOCUMENT["tags"].as_array().unwrap();
        assert!(tags.iter().any(|tag| tag["name"] == operation["tags"][0]), "{method} {path}");
    }
}

#[test]
fn every_operation_names_the_parameters_of_its_path_and_these_alone_are_required() {
    for (path, method, operation) in operations() {
        let in_path = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let given = operation["parameters"].as_array().into_iter().flatten();
        let given = given.filter(|it| it["in"] == "path").map(|it| it["name"].as_str().unwrap());
        assert!(in_path.eq(given), "{method} {path}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = &parameter["name"];
            assert_eq!(parameter["required"], parameter["in"] == "path", "{method} {path} {name}");
        }
    }
}

#[test]
fn every_example_fits_its_schema() {
    let contents = contents();
    assert!(!contents.is_empty());
    for (place, content) in contents {
        let examples = examples(content);
        assert!(!examples.is_empty(), "{place} has no example");
        let validator = validator(&content["schema"]);
        for example in examples {
            let faults: Vec<String> =
                validator.iter_errors(example).map(|fault| fault.to_string()).collect();
            assert_eq!(faults, [""; 0], "{place}: {example}");
        }
    }
}

#[test]
fn every_message_of_a_stream_that_is_shown_fits_its_schema() {
    let validator = validator(&json!({"$ref": "#/components/schemas/StreamMessage"}));
    let mut shown = 0;
    for (place, content) in contents() {
        if !place.ends_with("text/event-stream") {
            continue;
        }
        let stream = content["example"].as_str().unwrap();
        for data in stream.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let data = serde_json::from_str(data).unwrap();
            assert!(validator.is_valid(&data), "{place}: {data}");
            shown += 1;
        }
    }
    assert_eq!(shown, 2);
}

#[test]
fn every_schema_is_referred_to_but_that_of_what_comes_in_a_stream() {
    let whole = DOCUMENT.to_string();
    for name in DOCUMENT["components"]["schemas"].as_object().unwrap().keys() {
        // OpenAPI 3.1 has no place for it but the words that describe the stream.
        let is_named = whole.contains(&format!("\"#/components/schemas/{name}\""));
        assert!(
            is_named || name == "StreamMessage" || name == "StreamErasure",
            "nothing refers to {name}"
        );
    }
}

#[test]
fn every_field_parameter_header_and_schema_says_what_it_means() {
    fn says(place: &str, schema: &Value) {
        let meaning = schema["description"].as_str().unwrap_or_default();
        assert!(meaning.ends_with('.'), "{place} does not say what it means: {meaning:?}");
    }
    for (path, method, operation) in operations() {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            says(&format!("{method} {path} {}", parameter["name"]), parameter);
        }
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let answer = resolve(answer);
            says(&format!("{method} {path} {status}"), answer);
            for (name, header) in answer["headers"].as_object().into_iter().flatten() {
                says(&format!("{method} {path} {status} {name}"), resolve(header));
            }
        }
    }
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().unwrap() {
        says(name, schema);
        let parts = schema["allOf"].as_array().into_iter().flatten();
        for object in parts.chain([schema]) {
            for (field, schema) in object["properties"].as_object().into_iter().flatten() {
                says(&format!("{name}.{field}"), schema);
            }
        }
    }
}

#[test]
fn what_may_be_null_is_always_answered_and_may_be_left_out_of_what_is_sent() {
    let call = &DOCUMENT["components"]["schemas"]["Call"];
    let required = call["required"].as_array().unwrap();
    assert_eq!(required.len(), call["properties"].as_object().unwrap().len());
    let event = &DOCUMENT["components"]["schemas"]["EventDetails"];
    assert!(event["required"].as_array().unwrap().iter().all(|field| field != "payload"));
    let delivery = &DOCUMENT["components"]["schemas"]["Delivery"];
    assert_eq!(delivery["required"], json!(["eventType"]));
}
