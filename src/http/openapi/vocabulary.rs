//! The domain's types as schemas: their names and bounds are those of the code.
//!
//! They stand here since the domain knows nothing of how it is described.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type, schema::SchemaType},
};

use crate::{
    call::{
        CallError, CallId, CallSid, ClientId, Direction, Disposition, Kind, KnownEvent, Order,
        ProjectId, Rank, Relation, Status, TimeProblem, id::MAX_CHARS,
    },
    http::openapi::DeliverySchema,
};

/// Schemas of identifiers.
macro_rules! identifiers {
    ($($type:ident: $meaning:literal, $example:literal;)+) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .min_length(Some(1))
                        .max_length(Some(MAX_CHARS))
                        .pattern(Some(NO_CONTROL_CHARACTER))
                        .description(Some($meaning))
                        .examples([$example])
                        .into()
                }
            }

            impl ToSchema for $type {}
        )+
    };
}

/// Text without a character of Unicode's category Cc.
const NO_CONTROL_CHARACTER: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

identifiers! {
    ProjectId: "The customer's project at the provider: a UUID in practice; where a delivery names none, the endpoint's `default_project`, else `default`.",
        "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1";
    CallId: "The provider's name of a call, unique within its project only.", "call-1";
    CallSid: "The telephony provider's id of one dial.", "CA1";
    ClientId: "The customer's own id of the party that is called or calls.", "client-7";
}

/// Schemas of enums, with all their names.
macro_rules! named {
    ($($type:ident as $name:literal: $meaning:literal;)+) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .enum_values(Some($type::ALL.iter().map(|it| it.as_str())))
                        .description(Some($meaning))
                        .into()
                }
            }

            impl ToSchema for $type {
                fn name() -> std::borrow::Cow<'static, str> {
                    $name.into()
                }
            }
        )+
    };
}

named! {
    Direction as "Direction": "Who dialled: the platform the party, or the party the platform.";
    Status as "Status": "Where a call stands: the event type without its prefix. `UNKNOWN` while only events of unknown types have come.";
    Disposition as "Disposition": "What the state machine did with an event; `GET /state-machine` explains each.";
    TimeProblem as "TimeProblem": "Why the time that an event states is not used: it is in no format that is read, or before the year 2000 or more than 5 minutes after its receipt.";
    Kind as "StatusKind": "How a call may leave a status.";
    Relation as "Relation": "How an event relates to the attempts of its call; `GET /state-machine` explains each.";
    Order as "Order": "Whether the provider's clock proves that an event happened after the one that gave the call its status; `GET /state-machine` explains each.";
    KnownEvent as "KnownEvent": "One of the event types that the state machine knows.";
}

impl PartialSchema for Rank {
    fn schema() -> RefOr<Schema> {
        let ranks = || Status::ALL.iter().map(|status| status.rank().get());
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(ranks().min())
            .maximum(ranks().max())
            .description(Some(
                "How far along a status is: a call moves from lower ranks to higher.",
            ))
            .into()
    }
}

impl ToSchema for Rank {}

impl PartialSchema for CallError {
    fn schema() -> RefOr<Schema> {
        let text =
            || ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
        [
            ("code", "The provider's code, such as `NETWORK_ERROR`."),
            ("message", "One line for people."),
            ("phase", "The phase of the call in which it happened."),
            ("where", "The part of the provider's program in which it happened."),
            ("timestamp", "When it happened, as the provider wrote it; RFC 3339 in practice."),
        ]
        .into_iter()
        .fold(ObjectBuilder::new(), |object, (field, meaning)| {
            object.property(field, text().description(Some(meaning))).required(field)
        })
        .description(Some("Something that went wrong in a call, as an event told it. Every member may be missing."))
        .into()
    }
}

impl ToSchema for CallError {}

/// Puts right what is derived of fields that may be null, in every object that
/// is answered. What is sent says itself what it may lack.
pub(super) fn settle_nullable(document: &mut Value) {
    let schemas = document["components"]["schemas"].as_object_mut().into_iter().flatten();
    for (_, schema) in schemas.filter(|(name, _)| **name != DeliverySchema::name()) {
        settle(schema);
        // An object that holds another's fields beside its own.
        for part in schema.get_mut("allOf").and_then(Value::as_array_mut).into_iter().flatten() {
            settle(part);
        }
    }
}

/// The field that may be null and is answered only where it is requested.
const ON_REQUEST: &str = "payload";

/// What there is not is shown as null, so that a field that may be null is
/// always there; and what the field means holds for null as well.
fn settle(object: &mut Value) {
    let Some(fields) = object.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let mut always = BTreeSet::new();
    for (name, field) in fields {
        if is_nullable(field) {
            if name != ON_REQUEST {
                always.insert(name.clone());
            }
            lift_meaning(field);
        }
    }
    let required = object.get("required").and_then(Value::as_array).into_iter().flatten();
    always.extend(required.filter_map(Value::as_str).map(str::to_owned));
    if !always.is_empty() {
        object["required"] = json!(always);
    }
}

fn is_nullable(schema: &Value) -> bool {
    let any_of = |name: &str| schema.get(name).and_then(Value::as_array).into_iter().flatten();
    any_of("type").any(|it| it == "null") || any_of("oneOf").any(|it| it["type"] == "null")
}

/// Takes what a field means from one of the ways that it may be to the field.
fn lift_meaning(field: &mut Value) {
    let ways = field.get_mut("oneOf").and_then(Value::as_array_mut).into_iter().flatten();
    let meanings = ways.filter_map(|way| way.as_object_mut()?.remove("description"));
    if let Some(meaning) = meanings.last() {
        field["description"] = meaning;
    }
}
