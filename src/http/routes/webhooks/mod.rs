//! `POST /webhooks/{endpoint}`: receives a delivery.
//!
//! A delivery that is authentic is committed, or kept in the quarantine if it cannot be
//! parsed or processed, before it is answered with 2xx. [`crate::http::routes::webhooks::endpoints`] checks it
//! before.

pub mod endpoints;
pub mod metrics;

use std::borrow::Cow;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};
use uuid::Uuid;

use crate::{
    call::{CallId, CallKey, Disposition, ProjectId, Status},
    http::{
        Problem, Service, Shared,
        body::BodyError,
        openapi::{
            DeliverySchema,
            answers::{Responses, problems},
            example,
        },
        routes::webhooks::{
            endpoints::{
                CHALLENGE, ReceivedDelivery, no_such_endpoint, not_a_json_type, not_authentic,
                unread_body,
            },
            metrics::{DUPLICATE, ERASED},
        },
        server::{RequestId, foreign_origin},
    },
    ingest::IngestError,
    log_limit,
    recho::{self, DecodeError, Receipt},
    store::write::{RecordResult, Recorded},
};

/// The result of a delivery that was committed.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryResult {
    /// Identifies the event: the same for each of its deliveries.
    event_id: Uuid,
    /// The project of the call.
    project_id: ProjectId,
    /// The provider's id of the call.
    call_id: CallId,
    /// What the state machine did with the event, `duplicate` where it was stored before, or `erased`
    /// where its call or client was erased and nothing is stored.
    #[schema(value_type = DeliveryDisposition)]
    disposition: &'static str,
    /// The status of the call after it; null where it was erased.
    status: Option<Status>,
}

/// The values of [`DeliveryResult::disposition`].
struct DeliveryDisposition;

impl ToSchema for DeliveryDisposition {
    fn name() -> Cow<'static, str> {
        "DeliveryDisposition".into()
    }
}

impl PartialSchema for DeliveryDisposition {
    fn schema() -> RefOr<Schema> {
        let dispositions = Disposition::ALL.iter().map(|it| it.as_str());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(dispositions.chain([DUPLICATE, ERASED])))
            .description(Some("The disposition of the event, `duplicate`, or `erased`."))
            .into()
    }
}

impl DeliveryResult {
    /// The result of a delivery for a call.
    #[must_use]
    pub fn new(key: CallKey, recorded: Recorded) -> Self {
        let (disposition, status) = match recorded.result {
            RecordResult::Stored(disposition, status) => (disposition.as_str(), Some(status)),
            RecordResult::Duplicate(status) => (DUPLICATE, Some(status)),
            RecordResult::Erased => (ERASED, None),
        };
        Self {
            event_id: recorded.event_id,
            project_id: key.project_id,
            call_id: key.call_id,
            disposition,
            status,
        }
    }
}

/// The result of a delivery that is kept in the quarantine.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuarantineResult {
    /// Identifies the entry in the quarantine.
    quarantine_id: Uuid,
    /// Why the delivery cannot be processed.
    reason: String,
}

/// The outcome of an authentic delivery.
enum Outcome {
    Committed(CallKey, Recorded),
    Quarantined(QuarantineResult),
}

fn project_not_accepted() -> Problem {
    Problem::project_refused("this endpoint does not accept that project")
}

fn unsupported_encoding(error: &DecodeError) -> Problem {
    Problem::not_a_json_type(error.to_string())
}

/// Why a delivery is rejected.
struct Rejections;

impl IntoResponses for Rejections {
    fn responses() -> Responses {
        let unread =
            [BodyError::TooLarge, BodyError::Broken, BodyError::TooSlow, BodyError::OverBudget];
        let unread = unread.map(|unread| unread_body(unread, 1024 * 1024));
        problems(unread.into_iter().chain([
            no_such_endpoint(),
            foreign_origin(),
            not_authentic().with_header(header::WWW_AUTHENTICATE, CHALLENGE),
            not_a_json_type(),
            project_not_accepted(),
            IngestError::QueueFull.into(),
            IngestError::Stopping.into(),
        ]))
    }
}

/// Receive a delivery
///
/// A 2xx response means that the delivery is committed to disk: as an event with its effect on the
/// call (200), or in the quarantine (202) where it is authentic but is not JSON, lacks a usable
/// `eventType` or `callId`, or cannot be processed. After any other response the provider sends it
/// again. A trailing slash is accepted.
///
/// Checked in this order: endpoint, method, size, authenticity, media type, JSON and fields, project.
/// Endpoint, method, `Content-Length` and a bearer token are checked before the body is read; a
/// response to a request whose body is unread closes the connection. An event that was stored before
/// is answered with the present status of the call. `Content-Encoding` may be gzip, deflate, br or
/// zstd. How an endpoint authenticates is configured: not at all, by a bearer token, or by a
/// signature over the body.
#[utoipa::path(
    post,
    path = "/webhooks/{endpoint}",
    operation_id = "deliver",
    tag = "deliveries",
    params(("endpoint" = String, Path, description = "The name of the endpoint.", example = json!("default"))),
    request_body(
        content = DeliverySchema,
        description = "What the provider sends; `Content-Type` may be missing.",
        example = json!(example(include_str!("../../openapi/examples/delivery.json"))),
    ),
    responses(
        (status = 200, description = "The event is committed.", body = DeliveryResult,
         example = json!(example(include_str!("../../openapi/examples/delivery_result.json")))),
        (status = 202, description = "The delivery is kept in the quarantine.", body = QuarantineResult,
         example = json!({"quarantine_id": "22d6f27c-bfc5-80bb-9f06-e980c1674281", "reason": "body.data.callId is missing"})),
        Rejections,
    ),
    security((), ("webhook_token" = []), ("webhook_signature" = [], "webhook_timestamp" = [])),
)]
#[tracing::instrument(level = "debug", skip_all, fields(endpoint = delivery.endpoint.name))]
pub(crate) async fn receive(
    State(service): State<Shared>,
    delivery: ReceivedDelivery,
) -> Result<Response, Problem> {
    let metrics = &delivery.endpoint.metrics;
    match process(&service, &delivery).await {
        Ok(Outcome::Committed(key, recorded)) => {
            metrics.accepted(recorded.result);
            Ok(Json(DeliveryResult::new(key, recorded)).into_response())
        }
        Ok(Outcome::Quarantined(result)) => {
            metrics.quarantined();
            Ok((StatusCode::ACCEPTED, Json(result)).into_response())
        }
        Err(problem) => {
            metrics.rejected(problem.status());
            Err(problem)
        }
    }
}

/// Parses a delivery and commits it, or keeps it in the quarantine.
async fn process(service: &Service, received: &ReceivedDelivery) -> Result<Outcome, Problem> {
    let body = match received.decode() {
        Ok(body) => body,
        Err(error @ DecodeError::Unsupported) => return Err(unsupported_encoding(&error)),
        Err(DecodeError::TooLarge { max_bytes }) => {
            return Err(unread_body(BodyError::TooLarge, max_bytes));
        }
        Err(error @ DecodeError::Corrupt { .. }) => {
            return Ok(Outcome::Quarantined(
                quarantine(service, received, error.to_string()).await?,
            ));
        }
    };
    let receipt = Receipt {
        endpoint: &received.endpoint.name,
        received_at: received.received_at,
        time_zone: received.time_zone,
        default_project: &received.endpoint.default_project,
    };
    let reading = match recho::read(&body, receipt) {
        Ok(reading) => reading,
        Err(error) => {
            return Ok(Outcome::Quarantined(
                quarantine(service, received, error.to_string()).await?,
            ));
        }
    };
    let key = reading.delivery.key.clone();
    if !received.endpoint.accepts(&key.project_id) {
        if log_limit::admits("project_not_accepted", &received.endpoint.name) {
            tracing::warn!(
                endpoint = received.endpoint.name,
                project_id = %key.project_id,
                request_id = RequestId::in_headers(&received.headers).map(tracing::field::display),
                "a delivery is of a project that its endpoint does not accept",
            );
        }
        return Err(project_not_accepted());
    }
    match service.ingest.commit(reading.delivery).await {
        Ok(recorded) => {
            if let RecordResult::Stored(..) = recorded.result {
                received.endpoint.metrics.time_read(&reading.time, received.received_at);
            }
            Ok(Outcome::Committed(key, recorded))
        }
        // A retry could not do better.
        Err(error) if error.is_permanent() => {
            if log_limit::admits("delivery_not_processed", &received.endpoint.name) {
                tracing::error!(%error, %key, "a delivery cannot be processed");
            }
            let result = quarantine(service, received, error.to_string()).await?;
            // The details are for the operator.
            let reason = error.kind().to_owned();
            Ok(Outcome::Quarantined(QuarantineResult { reason, ..result }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Keeps a delivery in the quarantine.
async fn quarantine(
    service: &Service,
    received: &ReceivedDelivery,
    reason: String,
) -> Result<QuarantineResult, Problem> {
    let endpoint = &received.endpoint.name;
    let (headers, body) = received.to_be_kept();
    let quarantine_id =
        service.quarantine.keep(endpoint, &reason, &headers, &body, received.received_at).await?;
    if log_limit::admits("quarantined", endpoint) {
        tracing::warn!(
            endpoint,
            bytes = body.len(),
            request_id = RequestId::in_headers(&received.headers).map(tracing::field::display),
            reason,
            %quarantine_id,
            "a delivery is kept in the quarantine",
        );
    }
    Ok(QuarantineResult { quarantine_id, reason })
}
