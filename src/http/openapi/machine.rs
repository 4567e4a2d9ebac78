//! The state machine's table as schemas.
//!
//! The rows are the domain's, which knows nothing of schemas; a test holds these
//! to what is served.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema, schema::OneOfBuilder},
};

use crate::call::{
    Direction, Disposition, Kind, KnownEvent, Order, Rank, Relation, Status,
    machine::{DispositionRow, EventRow, Machine, OrderRow, RelationRow, StatusRow, TransitionRow},
};

/// One of these.
fn one<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}

/// Several of these.
fn many<T: ToSchema>() -> RefOr<Schema> {
    ArrayBuilder::new().items(one::<T>()).into()
}

/// One of these, or null.
fn maybe<T: ToSchema>() -> RefOr<Schema> {
    let null = ObjectBuilder::new().schema_type(utoipa::openapi::Type::Null);
    OneOfBuilder::new().item(null).item(one::<T>()).into()
}

/// An object that has all of these fields.
fn object<const N: usize>(
    meaning: &str,
    fields: [(&'static str, RefOr<Schema>, &str); N],
) -> RefOr<Schema> {
    let object = ObjectBuilder::new().description(Some(meaning));
    let object = fields.into_iter().fold(object, |object, (name, of, meaning)| {
        object.property(name, with_meaning(of, meaning)).required(name)
    });
    object.into()
}

fn with_meaning(mut schema: RefOr<Schema>, meaning: &str) -> RefOr<Schema> {
    match &mut schema {
        RefOr::Ref(name) => meaning.clone_into(&mut name.description),
        RefOr::T(Schema::Array(list)) => list.description = Some(meaning.to_owned()),
        RefOr::T(Schema::Object(object)) => object.description = Some(meaning.to_owned()),
        RefOr::T(Schema::OneOf(either)) => either.description = Some(meaning.to_owned()),
        RefOr::T(_) => {}
    }
    schema
}

impl PartialSchema for Machine {
    fn schema() -> RefOr<Schema> {
        let transitions = "What each event does wherever it is possible. An event of an unknown \
                           type is always unrecognized and one of the other direction always \
                           conflicting; these have no rows.";
        object(
            "The state machine: its terms and its table.",
            [
                ("statuses", many::<StatusRow>(), "The statuses of a call, by rank."),
                ("events", many::<EventRow>(), "The event types of the provider."),
                ("dispositions", many::<DispositionRow>(), "What an event can do."),
                (
                    "relations",
                    many::<RelationRow>(),
                    "How an event can relate to the attempts of its call.",
                ),
                (
                    "orders",
                    many::<OrderRow>(),
                    "Whether an event is proven to have happened later.",
                ),
                ("transitions", many::<TransitionRow>(), transitions),
            ],
        )
    }
}

impl ToSchema for Machine {
    fn name() -> Cow<'static, str> {
        "StateMachine".into()
    }
}

impl PartialSchema for StatusRow {
    fn schema() -> RefOr<Schema> {
        object(
            "A status.",
            [
                ("status", one::<Status>(), "Its name."),
                ("rank", one::<Rank>(), "How far along it is."),
                ("kind", one::<Kind>(), "How a call may leave it."),
                ("terminal", bool::schema(), "Whether the call has ended, at least for now."),
                (
                    "final",
                    bool::schema(),
                    "Whether the call has ended for good, unless the provider dials later.",
                ),
                (
                    "directions",
                    many::<Direction>(),
                    "The directions of the calls that can be in it.",
                ),
            ],
        )
    }
}

impl PartialSchema for EventRow {
    fn schema() -> RefOr<Schema> {
        object(
            "An event type.",
            [
                ("event_type", one::<KnownEvent>(), "Its name."),
                ("direction", one::<Direction>(), "The direction of the calls that have it."),
                ("status", one::<Status>(), "The status that it reports."),
            ],
        )
    }
}

impl PartialSchema for DispositionRow {
    fn schema() -> RefOr<Schema> {
        object(
            "A disposition.",
            [
                ("disposition", one::<Disposition>(), "Its name."),
                ("meaning", String::schema(), "It explained in one line."),
                ("changes_status", bool::schema(), "Whether the event gives the call its status."),
                ("anomaly", bool::schema(), "Whether the event counts among the call's anomalies."),
            ],
        )
    }
}

impl PartialSchema for RelationRow {
    fn schema() -> RefOr<Schema> {
        object(
            "A relation of an event to the attempts of its call.",
            [
                ("relation", one::<Relation>(), "Its name."),
                ("meaning", String::schema(), "It explained in one line."),
            ],
        )
    }
}

impl PartialSchema for OrderRow {
    fn schema() -> RefOr<Schema> {
        object(
            "Whether an event is proven to have happened later.",
            [
                ("order", one::<Order>(), "Its name."),
                ("meaning", String::schema(), "It explained in one line."),
            ],
        )
    }
}

impl PartialSchema for TransitionRow {
    fn schema() -> RefOr<Schema> {
        let interrupted = "For a call in ERROR: the status that the ERROR interrupted; null where \
                           the ERROR opened the attempt. If the event then takes the call to a \
                           status of the attempt, or repeats the interrupted one, the ERROR is \
                           nonfatal.";
        object(
            "What an event does to a call in a status, in a relation to its attempts.",
            [
                ("direction", one::<Direction>(), "The direction of the call."),
                (
                    "from",
                    maybe::<Status>(),
                    "The status of the call; null where the event is its first.",
                ),
                ("interrupted", maybe::<Status>(), interrupted),
                ("event_type", one::<KnownEvent>(), "The event."),
                ("relation", one::<Relation>(), "How it relates to the attempts of the call."),
                (
                    "order",
                    maybe::<Order>(),
                    "Whether it is proven to have happened later; null where that makes no \
                     difference.",
                ),
                ("disposition", one::<Disposition>(), "What it does."),
                ("to", one::<Status>(), "The status of the call after it."),
            ],
        )
    }
}

impl ToSchema for StatusRow {}
impl ToSchema for EventRow {}
impl ToSchema for DispositionRow {}
impl ToSchema for RelationRow {}
impl ToSchema for OrderRow {}
impl ToSchema for TransitionRow {}
