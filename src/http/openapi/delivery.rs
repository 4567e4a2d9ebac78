//! What the provider sends, as a schema.
//!
//! It tells what is looked at. Whatever else a delivery holds is kept and not
//! looked at, and what is of another type than here counts as missing, so next to
//! nothing is required.

use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::call::{KnownEvent, id::MAX_CHARS};

/// A delivery, for its schema alone: how one is read is not told by a type.
pub(in crate::http) struct DeliverySchema;

impl ToSchema for DeliverySchema {
    fn name() -> std::borrow::Cow<'static, str> {
        "Delivery".into()
    }
}

impl PartialSchema for DeliverySchema {
    fn schema() -> RefOr<Schema> {
        let event_types: Vec<&str> = KnownEvent::ALL.iter().map(|it| it.as_str()).collect();
        let call_id = |place: &str| {
            json!({
                "type": ["string", "number"], "minLength": 1, "maxLength": MAX_CHARS,
                "description": format!("The provider's name of the call{place}. White space around it is removed, a number is read as its text, and a placeholder such as `undefined` counts as missing."),
            })
        };
        let text = |meaning| json!({"type": ["string", "null"], "description": meaning});
        let error = json!({
            "type": "object",
            "properties": {
                "code": text("The provider's code, such as `NETWORK_ERROR`."),
                "message": text("One line for people."),
                "phase": text("The phase of the call in which it happened."),
                "where": text("The part of the provider's program in which it happened."),
                "timestamp": text("When it happened."),
                "stacktrace": text("Where in the provider's program; kept with the payload alone."),
            },
        });
        let schema = json!({
            "type": "object",
            "description": "What the provider sends. It must name an event type, and a call by one of its three `callId`. Members besides these are kept, and not looked at.",
            "required": ["eventType"],
            "properties": {
                "eventType": {
                    "type": "string", "minLength": 1, "maxLength": MAX_CHARS, "examples": event_types,
                    "description": "What happened. A type that is not one of the examples is stored, and changes nothing.",
                },
                "projectId": {
                    "type": ["string", "number", "null"], "minLength": 1, "maxLength": MAX_CHARS,
                    "description": "The customer's project, read like a call id and in lower case where it is a UUID. Where it is missing or null, the endpoint's `default_project`, else `default`.",
                },
                "callId": call_id(", where neither `body.data` nor `body` has one"),
                "body": {
                    "type": "object",
                    "description": "What happened, for people and for programs.",
                    "properties": {
                        "subject": text("One line for people."),
                        "text": text("For people; its last line that begins with `Time:` states when it happened."),
                        "callId": call_id(", where `data` has none"),
                        "data": {
                            "type": "object",
                            "description": "What it is about.",
                            "properties": {
                                "callId": call_id(""),
                                "callStatus": text("The provider's own status of the call; informative only."),
                                "callSid": text("The telephony provider's id of the dial."),
                                "clientId": text("The customer's own id of the party."),
                            },
                        },
                        "errors": {
                            "type": ["array", "null"], "items": error,
                            "description": "What went wrong, whatever the type of the event. The first 1,000 are told apart.",
                        },
                    },
                },
            },
        });
        serde_json::from_value(schema).expect("it is a schema")
    }
}
