//! `GET /openapi.json`: the interface described as an [OpenAPI 3.1] document,
//! generated from the code.
//!
//! | file | holds |
//! | --- | --- |
//! | `answers` | what a route answers where it does not do as it is asked |
//! | `vocabulary` | the domain's types as schemas |
//! | `machine` | the state machine's table as schemas |
//! | `delivery` | what the provider sends, as a schema |
//!
//! A handler tells its own: its parameters, its answers, its problems. What
//! holds for every request is added here, once.
//!
//! What always holds: every route but the pages is in it, and nothing else;
//! every field says what it means; every example fits its schema, and those of
//! calls are what the service answers.
//!
//! [OpenAPI 3.1]: https://spec.openapis.org/oas/v3.1.1.html

pub(super) mod answers;
mod delivery;
mod machine;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::{HeaderName, Uri, header},
};
use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        HttpMethod, Paths, RefOr,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{
    call::{
        CallError, CallId, CallSid, ClientId, Direction, Disposition, Kind, KnownEvent, Order,
        ProjectId, Rank, Relation, Status, TimeProblem,
        machine::{DispositionRow, EventRow, OrderRow, RelationRow, StatusRow, TransitionRow},
    },
    http::{
        Problem,
        problem::Body,
        query::Query,
        routes::{
            calls::{get, history, list},
            erasure, events, health, metrics, quarantine,
            reports::{
                self, concurrency::ConcurrencyRow, coverage::CoverageRow, durations::DurationsRow,
                errors::ErrorsRow, outcomes::OutcomesRow,
            },
            state_machine,
            streams::{
                self,
                page::{ErasureMessage, StreamMessage},
            },
            webhooks,
        },
    },
    recho::auth::{SIGNATURE_HEADER, TIMESTAMP_HEADER},
};
pub(super) use delivery::DeliverySchema;

/// The name of the scheme that a guarded route asks for.
pub(super) const API_KEY: &str = "api_key";

/// What is described, before that is added which holds for all.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "callstate",
        description = include_str!("introduction.md"),
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "where this document comes from")),
    paths(
        webhooks::receive,
        list::list,
        get::show,
        history::show,
        streams::of_call,
        streams::all,
        events::show,
        reports::outcomes::show,
        reports::durations::show,
        reports::concurrency::show,
        reports::errors::show,
        reports::coverage::show,
        state_machine::show,
        erasure::delete_call,
        erasure::delete_client,
        quarantine::list,
        quarantine::show,
        quarantine::delete,
        quarantine::replay,
        health::live,
        health::ready,
        metrics::show,
        show,
    ),
    tags(
        (name = "deliveries", description = "What the provider sends."),
        (name = "calls", description = "Where calls stand, and how they came to be there."),
        (name = "reports", description = "Figures over many calls."),
        (name = "quarantine", description = "Deliveries that could not be understood."),
        (name = "operations", description = "How the service fares, and what it is."),
    ),
    components(schemas(
        CallError, CallId, CallSid, ClientId, Direction, Disposition, Kind, KnownEvent, Order,
        ProjectId, Rank, Relation, Status, TimeProblem, StatusRow, EventRow, DispositionRow,
        RelationRow, OrderRow, TransitionRow, Body, DeliverySchema, StreamMessage, ErasureMessage, OutcomesRow, DurationsRow, ConcurrencyRow, ErrorsRow, CoverageRow,
    )),
    modifiers(&Schemes),
)]
struct Described;

/// The ways to prove who asks.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = |description| {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
            SecurityScheme::Http(scheme.description(Some(description)).build())
        };
        let header = |name, description| {
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, description)))
        };
        let schemes = &mut document.components.get_or_insert_default().security_schemes;
        for (name, scheme) in [
            (
                API_KEY,
                bearer(
                    "A key of `callstate keys create`. Asked for where `api.require_key` is set; \
                     what a route needs beyond the scope `read` stands with it.",
                ),
            ),
            ("webhook_token", bearer("A token of an endpoint with `auth = \"bearer\"`.")),
            (
                "webhook_signature",
                header(
                    SIGNATURE_HEADER,
                    "For an endpoint with `auth = \"rsa-sha256\"`: Base64 of an RSASSA-PKCS1-v1_5 \
                     signature with SHA-256 over the timestamp, a full stop, and the body.",
                ),
            ),
            ("webhook_timestamp", header(TIMESTAMP_HEADER, "When it was signed, in Unix seconds.")),
        ] {
            schemes.insert(name.to_owned(), RefOr::T(scheme));
        }
    }
}

/// The document.
pub(super) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut described = Described::openapi();
    add_default_endpoint(&mut described.paths);
    let mut document =
        serde_json::to_value(described).expect("it is made of names, texts and numbers");
    vocabulary::settle_nullable(&mut document);
    answers::add_common(&mut document);
    document
});

/// Adds `POST /webhooks`, which is the route of the endpoint named `default`.
fn add_default_endpoint(paths: &mut Paths) {
    let named = paths.get_path_operation("/webhooks/{endpoint}", HttpMethod::Post);
    let mut operation = named.expect("it is described beside its handler").clone();
    operation.operation_id = Some("deliver_to_default".to_owned());
    operation.summary = Some("Takes a delivery for the endpoint named default".to_owned());
    operation.description =
        Some("As `POST /webhooks/{endpoint}` for the endpoint named `default`.".to_owned());
    operation.parameters = None;
    paths.add_path_operation("/webhooks", vec![HttpMethod::Post], operation);
}

/// An example, written as JSON.
pub(super) fn example(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON, as a test sees")
}

/// This description
///
/// The interface as an OpenAPI 3.1 document, from which clients can be generated.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "get_description",
    tag = "operations",
    responses(
        (status = 200, description = "The document.", body = Object,
         example = json!({"openapi": "3.1.0", "info": {"title": "callstate", "version": "0.1.0"}, "paths": {}})),
        answers::BadParameter,
    ),
)]
pub(super) async fn show(uri: Uri) -> Result<([(HeaderName, &'static str); 1], Bytes), Problem> {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| DOCUMENT.to_string().into());
    Query::of(&uri).finish()?;
    Ok(([(header::CONTENT_TYPE, "application/json")], TEXT.clone()))
}
