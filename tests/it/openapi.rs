//! `GET /openapi.json` compared with the responses of the service, and `GET /docs`.

use std::{collections::BTreeSet, process::Command};

use jsonschema::Draft;
use serde_json::{Value, json};

use crate::support::{
    Answer, Database, Service, callstate,
    delivery::{fixture, fixtures},
};

/// The OpenAPI document of a service.
struct Description(Value);

impl Description {
    async fn of(service: &Service) -> Self {
        Self(service.get("/openapi.json").await.ok())
    }

    /// Every operation: its method, path and description.
    fn operations(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = self.0["paths"].as_object().expect("it has paths");
        paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("it is an object").iter();
            methods.map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
        })
    }

    /// Checks that a response is described: its status, media type, headers and body, without a
    /// field that is not described.
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let operation = &self.0["paths"][path][method];
        let place = format!("{method} {path} {}", answer.status);
        let mut described = &operation["responses"][answer.status.to_string()];
        if let Some(name) = described["$ref"].as_str().and_then(|it| it.strip_prefix('#')) {
            described = self.0.pointer(name).expect("it leads somewhere");
        }
        assert!(described.is_object(), "{place} is not described");
        for header in described["headers"].as_object().into_iter().flatten() {
            let is_there = !answer.header(header.0).is_empty();
            assert!(is_there || header.0 == "www-authenticate", "{place} has no {}", header.0);
        }
        let media_type = answer.header("content-type");
        let content = &described["content"][media_type];
        assert!(content.is_object(), "{place} is not described as {media_type}");
        if media_type.ends_with("json") {
            let faults = self.faults(&content["schema"], &answer.json());
            assert_eq!(faults, [""; 0], "{place}: {}", answer.text);
        }
    }

    /// The differences between a value and a schema.
    fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut whole = json!({"components": self.0["components"], "allOf": [schema]});
        close(&mut whole["components"]["schemas"]);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .build(&whole)
            .expect("it is a schema");
        validator.iter_errors(value).map(|fault| fault.to_string()).collect()
    }
}

/// Allows no object a field that its schema does not name.
fn close(schemas: &mut Value) {
    let schemas = schemas.as_object_mut().expect("they have names");
    let parts =
        schemas.values().flat_map(|schema| schema["allOf"].as_array().into_iter().flatten());
    let parts: BTreeSet<String> = parts
        .filter_map(|part| Some(part["$ref"].as_str()?.rsplit_once('/')?.1.to_owned()))
        .collect();
    for (name, schema) in schemas {
        if schema["allOf"].is_array() || (schema["properties"].is_object() && !parts.contains(name))
        {
            schema["unevaluatedProperties"] = false.into();
        }
    }
}

#[tokio::test]
async fn responses_match_their_description() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let described = Description::of(&service).await;
    let mut calls = BTreeSet::new();
    // serde_json cannot parse the payload of this one.
    for name in fixtures().into_iter().filter(|name| name != "odd_lone_surrogate") {
        let answer = service.deliver(fixture(&name)).await;
        described.check("post", "/webhooks", &answer);
        if answer.status == 200 {
            calls.insert(answer.json()["call_id"].as_str().expect("it is text").to_owned());
        }
    }
    assert!(calls.len() > 10);
    for call in calls {
        let answer = service.get(&format!("/calls/{call}")).await;
        described.check("get", "/calls/{call_id}", &answer);
        for query in ["", "?include=payload", "?limit=1"] {
            let answer = service.get(&format!("/calls/{call}/history{query}")).await;
            described.check("get", "/calls/{call_id}/history", &answer);
        }
    }
    for project_id in ["p-1", "p-2"] {
        let body = json!({"eventType": "NEW", "callId": "twice", "projectId": project_id});
        let answer = service.deliver_to("/webhooks/default", body.to_string()).await;
        described.check("post", "/webhooks/{endpoint}", &answer);
    }
    for report in ["outcomes", "durations", "concurrency", "errors", "coverage"] {
        let path = format!("/reports/{report}");
        for query in ["", "&bucket=week&time_zone=Europe/Berlin&group_by=direction,project_id"] {
            let question = format!("{path}?from=2026-01-01T00:00:00Z{query}");
            described.check("get", &path, &service.get(&question).await);
            described.check("get", &path, &service.get(&format!("{question}&format=csv")).await);
        }
    }
    for (path, question) in [
        ("/calls", "/calls"),
        ("/calls", "/calls?limit=2&status=BUSY,COMPLETED"),
        ("/calls", "/calls?limit=0"),
        ("/calls/{call_id}", "/calls/out-08?as_of=2999-01-01T00:00:00Z"),
        ("/calls/{call_id}", "/calls/nobody"),
        ("/calls/{call_id}", "/calls/twice"),
        ("/calls/{call_id}", "/calls/twice?project_id=p-1"),
        ("/calls/{call_id}", "/calls/%00"),
        ("/calls/{call_id}/history", "/calls/nobody/history"),
        ("/calls/{call_id}/history", "/calls/twice/history"),
        ("/calls/{call_id}/history", "/calls/twice/history?limit=0"),
        ("/health/live", "/health/live"),
        ("/health/live", "/health/live?colour=red"),
        ("/health/ready", "/health/ready"),
        ("/metrics", "/metrics"),
        ("/openapi.json", "/openapi.json"),
        ("/state-machine", "/state-machine"),
    ] {
        described.check("get", path, &service.get(question).await);
    }
}

#[tokio::test]
async fn error_responses_match_their_description() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_WEBHOOKS_DEFAULT_AUTH", "none");
        command.env("CALLSTATE_WEBHOOKS_DEFAULT_PROJECTS", "p-1");
        command.env("CALLSTATE_WEBHOOKS_PARTNER_AUTH", "bearer");
        command.env("CALLSTATE_WEBHOOKS_PARTNER_TOKENS", "secret");
    })
    .await;
    let described = Description::of(&service).await;
    let endpoint = "/webhooks/{endpoint}";
    for (path, body, status) in [
        ("/webhooks/default", "{", 202),
        ("/webhooks/default", "{}", 202),
        ("/webhooks/default", r#"{"eventType": "NEW", "callId": 1}"#, 403),
        ("/webhooks/partner", "{}", 401),
        ("/webhooks/nowhere", "{}", 404),
    ] {
        let answer = service.deliver_to(path, body).await;
        assert_eq!(answer.status, status);
        described.check("post", endpoint, &answer);
    }
    let large = service.deliver(vec![b' '; 2 * 1024 * 1024]).await;
    assert_eq!(large.status, 413);
    described.check("post", "/webhooks", &large);
    let text = service.request("POST", "/webhooks/default").header("Content-Type", "text/plain");
    described.check("post", endpoint, &service.send(text).await);
    let encoded = service.request("POST", "/webhooks").header("Content-Encoding", "compress");
    let encoded = service.send(encoded.body("{}")).await;
    assert_eq!(encoded.status, 415);
    described.check("post", "/webhooks", &encoded);

    let page = service.get("/quarantine").await;
    described.check("get", "/quarantine", &page);
    for entry in page.ok()["quarantine"].as_array().expect("a list") {
        let path = format!("/quarantine/{}", entry["id"].as_str().expect("it is text"));
        described.check("get", "/quarantine/{id}", &service.get(&path).await);
        let replay = service.request("POST", &format!("{path}/replay"));
        let answer = service.send(replay).await;
        assert_eq!(answer.status, 422);
        described.check("post", "/quarantine/{id}/replay", &answer);
    }
    for id in ["x", "00000000-0000-0000-0000-000000000000"] {
        let answer = service.get(&format!("/quarantine/{id}")).await;
        described.check("get", "/quarantine/{id}", &answer);
    }
    let elsewhere = service.request("GET", "/calls/c").header("Host", "elsewhere.example");
    let elsewhere = service.send(elsewhere).await;
    assert_eq!(elsewhere.status, 421);
    described.check("get", "/calls/{call_id}", &elsewhere);
    let long = service.get(&format!("/calls/c?project_id={}", "x".repeat(9000))).await;
    assert_eq!(long.status, 414);
    described.check("get", "/calls/{call_id}", &long);
}

#[tokio::test]
async fn routes_that_need_a_key_are_described_as_such() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.arg("--require-key");
    })
    .await;
    let described = Description::of(&service).await;
    for (method, path, operation) in described.operations().filter(|it| it.0 == "get") {
        let ways = operation["security"].as_array().into_iter().flatten();
        let needs_key = ways.into_iter().any(|way| way.get("api_key").is_some());
        let id = "00000000-0000-0000-0000-000000000000";
        let answer = service.get(&path.replace("{call_id}", "c").replace("{id}", id)).await;
        assert_eq!(answer.status == 401, needs_key, "{path}: {}", answer.text);
        described.check(method, path, &answer);
    }
}

#[tokio::test]
async fn a_parameter_is_accepted_if_and_only_if_it_is_described() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    let described = Description::of(&service).await;
    for (method, path, operation) in described.operations().filter(|it| it.0 == "get") {
        let id = "00000000-0000-0000-0000-000000000000";
        let question = path.replace("{call_id}", "out-08").replace("{id}", id);
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let names = parameters.filter(|it| it["in"] == "query").map(|it| &it["name"]);
        let names = names.map(|name| name.as_str().expect("it is text")).chain(["colour"]);
        // No value is valid for all parameters, but an unknown name is an error whatever its value.
        let query = names.collect::<Vec<_>>().join("=%00&");
        let answer = service.get(&format!("{question}?{query}=red")).await;
        described.check(method, path, &answer);
        let detail = answer.problem(400);
        assert_eq!(detail.matches("is no parameter here").count(), 1, "{path}: {detail}");
        assert!(detail.contains("colour: is no parameter here"), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_route_accepts_the_methods_that_are_described() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let described = Description::of(&service).await;
    for (path, item) in described.0["paths"].as_object().expect("it has paths") {
        let methods = item.as_object().expect("it is an object").keys();
        let mut allowed: BTreeSet<String> = methods.map(|method| method.to_uppercase()).collect();
        if allowed.contains("GET") {
            allowed.insert("HEAD".to_owned());
        }
        let path = path.replace("{endpoint}", "default");
        for other in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if allowed.contains(other) {
                continue;
            }
            let answer = service.send(service.request(other, &path)).await;
            assert_eq!(answer.status, 405, "{other} {path}");
            let named = answer.header("allow").split(',').map(str::to_owned);
            assert_eq!(named.collect::<BTreeSet<_>>(), allowed, "{other} {path}");
        }
    }
}

/// Fields whose values depend on the time of the request.
const OF_THE_MOMENT: [&str; 5] =
    ["first_received_at", "last_delivered_at", "last_received_at", "received_at", "updated_at"];

/// The value without the fields that depend on the time.
fn lasting(mut value: Value) -> Value {
    fn leave_out(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !OF_THE_MOMENT.contains(&name.as_str()));
                fields.values_mut().for_each(leave_out);
            }
            Value::Array(values) => values.iter_mut().for_each(leave_out),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    leave_out(&mut value);
    value
}

#[tokio::test]
async fn the_examples_are_real_responses() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let described = Description::of(&service).await;
    let example = |method: &str, path: &str, status: &str| {
        let content = &described.0["paths"][path][method]["responses"][status]["content"];
        lasting(content["application/json"]["example"].clone())
    };
    let of = |method: &str, path: &str| example(method, path, "200");
    for (event_type, time, call_sid) in [
        ("CALLING", "10:24:02", "CA1"),
        ("BUSY", "10:24:20", "CA1"),
        ("CALLING", "10:30:00", "CA2"),
    ] {
        let body = json!({
            "projectId": "demo", "eventType": format!("OUTBOUND_CALL_{event_type}"),
            "body": {"text": format!("Time: 2026-05-12 {time}"),
                     "data": {"callId": "call-1", "callSid": call_sid, "clientId": "client-7"}},
        });
        service.deliver(body.to_string()).await.ok();
    }
    let body = &described.0["paths"]["/webhooks"]["post"]["requestBody"]["content"];
    let body = body["application/json"]["example"].to_string();
    let result = service.deliver_to("/webhooks/default", body).await.ok();
    assert_eq!(lasting(result), of("post", "/webhooks/{endpoint}"));
    let call = service.get("/calls/call-1").await.ok();
    assert_eq!(lasting(call), of("get", "/calls/{call_id}"));
    let list = service.get("/calls?client_id=client-7&direction=outbound").await.ok();
    assert_eq!(lasting(list), of("get", "/calls"));
    let history = service.get("/calls/call-1/history?limit=2").await.ok();
    assert_eq!(lasting(history), of("get", "/calls/{call_id}/history"));

    let unreadable = r#"{"eventType": "OUTBOUND_CALL_BUSY"}"#;
    let quarantined = service.deliver_to("/webhooks/default", unreadable).await.quarantined();
    assert_eq!(quarantined, example("post", "/webhooks/{endpoint}", "202"));
    let page = service.get("/quarantine").await.ok();
    let entry = page["quarantine"][0]["id"].as_str().expect("it is text").to_owned();
    assert_eq!(lasting(page), of("get", "/quarantine"));
    let entry = service.get(&format!("/quarantine/{entry}")).await.ok();
    assert_eq!(lasting(entry), of("get", "/quarantine/{id}"));
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(service.get(path).await.ok(), of("get", path));
    }
}

#[tokio::test]
async fn the_page_documents_every_operation_and_loads_nothing_from_elsewhere() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.arg("--require-key");
    })
    .await;
    let described = Description::of(&service).await;
    let page = service.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    for (method, path, operation) in described.operations() {
        let id = operation["operationId"].as_str().expect("it is text");
        let mut articles = page.text.split("<article ");
        let article = articles.find(|it| it.starts_with(&format!("id=\"{id}\"")));
        let article = article.unwrap_or_else(|| panic!("{method} {path} is nowhere"));
        assert!(article.contains(path), "{path}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("it is text");
            assert!(article.contains(&format!("<code>{name}</code>")), "{method} {path} {name}");
        }
        assert_eq!(article.contains("curl -N"), path.ends_with("/stream"), "{method} {path}");
    }
    for schema in described.0["components"]["schemas"].as_object().expect("they have names").keys()
    {
        assert!(page.text.contains(&format!("id=\"schema-{schema}\"")), "{schema}");
    }
    for target in page.text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        match target.strip_prefix('#') {
            Some(id) => assert!(page.text.contains(&format!("id=\"{id}\"")), "#{id} is nowhere"),
            None => assert_eq!(service.get(&format!("/{target}")).await.status, 200, "{target}"),
        }
    }
    // The content security policy of the page forbids these.
    for foreign in ["<script", " style=", " src=", "href=\"http", " onclick="] {
        assert!(!page.text.contains(foreign), "{foreign}");
    }
    let style = service.get("/docs/style.css").await;
    assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
    assert!(!style.text.contains("url("));
    for path in ["/docs?colour=red", "/docs/style.css?colour=red"] {
        service.get(path).await.problem(400);
    }
}

/// Runs a shell command of the page, with a key or without one, and returns the status of the response.
fn run(line: &str, key: Option<&str>) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{line} -sS -o /dev/null -w '%{{http_code}}'")]);
    match key {
        Some(key) => shell.env("CALLSTATE_KEY", key),
        None => shell.env_remove("CALLSTATE_KEY"),
    };
    let output = shell.output().expect("the shell runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    String::from_utf8(output.stdout).expect("a status is ASCII")
}

#[tokio::test]
async fn the_shell_commands_work_with_a_key_and_without_one_where_none_is_needed() {
    let database = Database::create().await;
    let open = Service::start(&database).await;
    let closed = Service::start_with(&database, |command| {
        command.arg("--require-key");
    })
    .await;
    let url = database.url();
    let created = callstate(&[
        "keys",
        "create",
        "--name",
        "k",
        "--scope",
        "admin",
        "--format",
        "json",
        "--database-url",
        &url,
    ]);
    let created: Value = serde_json::from_slice(&created.stdout).expect("it is JSON");
    let key = created["key"].as_str().expect("it is text");

    let page = open.get("/docs").await.text;
    let lines = page.split("<pre><code>curl ").skip(1).filter_map(|it| it.split("</code>").next());
    let lines =
        lines.map(|it| format!("curl {}", it.replace("&quot;", "\"").replace("&amp;", "&")));
    // A stream would not end.
    let guarded = |it: &String| it.contains("CALLSTATE_KEY") && !it.starts_with("curl -N");
    let guarded: Vec<String> = lines.filter(guarded).collect();
    assert!(guarded.len() > 10, "{guarded:?}");
    for line in guarded {
        let answered = run(&line, None);
        // Nothing is stored yet.
        assert!(["200", "404"].contains(&answered.as_str()), "{answered}: {line}");
        assert_eq!(run(&line, Some(key)), answered, "{line}");
        // Each is for the service that served the page.
        let of_closed = line.replace(open.base_url(), closed.base_url());
        assert_ne!(of_closed, line);
        assert_eq!(run(&of_closed, Some(key)), answered, "{line}");
        assert_eq!(run(&of_closed, None), "401", "{line}");
    }
}
