//! `POST /webhooks/{endpoint}`: takes a delivery.
//!
//! What is checked, in this order: endpoint, method, size, authenticity, media
//! type ([`Authentic`]), then JSON and fields, then the project. The endpoint, the method,
//! the announced size and a bearer token are checked before the body is read. A delivery that
//! is authentic and cannot be understood goes to the quarantine before it is
//! refused. Of one that is not, nothing is kept: the sender is told that much
//! and no more, the log is told which check failed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
};
use chrono::{DateTime, FixedOffset, Utc};
use serde::Serialize;
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};
use uuid::Uuid;

use super::{
    Problem, Service, Shared,
    body::{self, Unread},
    edge::{Client, Edge, RequestId, foreign_origin},
    openapi::{
        Sent,
        answers::{Answers, problems},
        example,
    },
    tally::{DUPLICATE, Deliveries, Tally},
};
use crate::{
    call::{CallId, CallKey, Disposition, ProjectId, Status},
    ingest::{self, quarantine::NotTaken},
    recho::{
        self, DEFAULT_ENDPOINT, Guard, Receipt, Unreadable,
        proof::{SIGNATURE_HEADER, Shown, TIMESTAMP_HEADER},
    },
    store::Recorded,
};

/// The headers that are kept with a quarantined delivery. The others may prove
/// or carry secrets.
const KEPT_HEADERS: [header::HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::DATE,
    header::USER_AGENT,
];

/// What a bearer endpoint asks for ([RFC 6750]).
///
/// [RFC 6750]: https://www.rfc-editor.org/rfc/rfc6750#section-3
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"callstate\"");

/// The endpoints that take deliveries.
#[derive(Debug)]
pub struct Endpoints {
    /// By name.
    pub by_name: BTreeMap<String, Arc<Endpoint>>,
    /// The offset from UTC at which the provider writes its `Time:` line.
    pub provider_utc_offset: FixedOffset,
    /// The largest body that is taken, in bytes.
    pub max_body: usize,
    /// What is counted of all deliveries.
    pub deliveries: Deliveries,
}

impl Endpoints {
    /// Refuses an event that was taken into quarantine by an endpoint which now
    /// would not take it.
    ///
    /// # Errors
    ///
    /// Where there is no such endpoint, or it is not for the project.
    pub fn admit(&self, endpoint: &str, project_id: &ProjectId) -> Result<(), NotTaken> {
        match self.by_name.get(endpoint) {
            None => Err(NotTaken::NoEndpoint(endpoint.to_owned())),
            Some(it) if it.takes(project_id) => Ok(()),
            Some(_) => Err(NotTaken::Project {
                endpoint: endpoint.to_owned(),
                project_id: project_id.clone(),
            }),
        }
    }
}

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its name, the last part of its route.
    pub name: String,
    /// What it asks of a delivery.
    pub guard: Guard,
    /// The projects that it takes; `None` for all.
    pub projects: Option<BTreeSet<ProjectId>>,
    /// What is counted of its deliveries.
    pub tally: Tally,
}

impl Endpoint {
    fn takes(&self, project_id: &ProjectId) -> bool {
        self.projects.as_ref().is_none_or(|projects| projects.contains(project_id))
    }

    /// Reads the body of an authentic delivery. What the headers decide is checked before.
    async fn receive(
        &self,
        parts: &Parts,
        body: Body,
        max_body: usize,
        edge: &Edge,
        received_at: DateTime<Utc>,
    ) -> Result<Bytes, Problem> {
        if body::announces_more_than(max_body, &body) {
            return Err(unread_body(Unread::TooLarge, max_body));
        }
        let mut reservation = match self.guard {
            Guard::Bearer(_) => {
                // A token is proof without the body.
                self.admit(parts, &[], received_at)?;
                None
            }
            Guard::Open => {
                edge.check_origin(&parts.method, &parts.headers)?;
                Some(edge.unauthenticated_body())
            }
            Guard::Signature(_) => Some(edge.unauthenticated_body()),
        };
        let body = body::read(body, max_body, edge.read_timeout(), reservation.as_mut())
            .await
            .map_err(|unread| unread_body(unread, max_body))?;
        if let Guard::Signature(_) = self.guard {
            self.admit(parts, &body, received_at)?;
        }
        check_media_type(&parts.headers)?;
        Ok(body)
    }

    /// Refuses a delivery that does not prove where it comes from.
    fn admit(
        &self,
        Parts { headers, extensions, .. }: &Parts,
        body: &[u8],
        received_at: DateTime<Utc>,
    ) -> Result<(), Problem> {
        let header = |name: &str| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let shown = Shown {
            authorization: header(header::AUTHORIZATION.as_str()),
            timestamp: header(TIMESTAMP_HEADER),
            signature: header(SIGNATURE_HEADER),
            body,
        };
        let Err(refusal) = self.guard.check(&shown, received_at) else {
            return Ok(());
        };
        self.tally.not_authentic(refusal);
        tracing::warn!(
            endpoint = self.name,
            cause = refusal.as_str(),
            request_id = RequestId::in_headers(headers).map(tracing::field::display),
            client = Client::of(extensions).map(tracing::field::display),
            "a delivery is not authentic: {refusal}",
        );
        Err(match self.guard {
            Guard::Bearer(_) => not_authentic().with_header(header::WWW_AUTHENTICATE, CHALLENGE),
            // No scheme is registered for signatures over the body.
            Guard::Signature(_) | Guard::Open => not_authentic(),
        })
    }
}

/// What became of a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub struct Taken {
    /// Identifies the event: the same for each of its deliveries.
    event_id: Uuid,
    /// The project that the call is of.
    project_id: ProjectId,
    /// The provider's name of the call.
    call_id: CallId,
    /// What the state machine did with the event, or `duplicate` where it was stored before.
    #[schema(value_type = Became)]
    disposition: &'static str,
    /// Where the call stands after it.
    status: Status,
}

/// What [`Taken::disposition`] may say.
struct Became;

impl ToSchema for Became {
    fn name() -> Cow<'static, str> {
        "DispositionOfDelivery".into()
    }
}

impl PartialSchema for Became {
    fn schema() -> RefOr<Schema> {
        let dispositions = Disposition::ALL.iter().map(|it| it.as_str());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(dispositions.chain([DUPLICATE])))
            .description(Some("What a delivery did: the disposition of its event, or `duplicate`."))
            .into()
    }
}

impl Taken {
    /// The answer to a delivery of a call.
    #[must_use]
    pub fn new(key: CallKey, recorded: Recorded) -> Self {
        Self {
            event_id: recorded.event_id,
            project_id: key.project_id,
            call_id: key.call_id,
            disposition: recorded.disposition.map_or(DUPLICATE, |it| it.as_str()),
            status: recorded.status,
        }
    }
}

/// A body of which is known where it comes from, to the endpoint's satisfaction.
pub(super) struct Authentic {
    endpoint: Arc<Endpoint>,
    provider_utc_offset: FixedOffset,
    headers: HeaderMap,
    body: Bytes,
    received_at: DateTime<Utc>,
}

#[derive(serde::Deserialize)]
struct PathParameters {
    endpoint: Option<String>,
}

impl FromRequest<Shared> for Authentic {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Shared) -> Result<Self, Problem> {
        let received_at = service.clock.now();
        let endpoints = Arc::clone(&service.endpoints.borrow());
        let (mut parts, body) = request.into_parts();
        let Path(path) = Path::<PathParameters>::from_request_parts(&mut parts, service)
            .await
            .map_err(|_| no_such_endpoint())?;
        let name = path.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
        let endpoint = endpoints.by_name.get(name).cloned().ok_or_else(no_such_endpoint)?;
        if parts.method != Method::POST {
            return Err(Problem::method_not_allowed("a webhook takes POST")
                .with_header(header::ALLOW, HeaderValue::from_static("POST")));
        }
        let body = endpoint
            .receive(&parts, body, endpoints.max_body, &service.edge, received_at)
            .await
            .inspect_err(|problem| endpoint.tally.refused(problem.status()))?;
        Ok(Self {
            body,
            endpoint,
            provider_utc_offset: endpoints.provider_utc_offset,
            headers: parts.headers,
            received_at,
        })
    }
}

fn unread_body(unread: Unread, max_body: usize) -> Problem {
    match unread {
        Unread::TooLarge => Problem::too_large(format!("a delivery has at most {max_body} bytes")),
        Unread::Broken => Problem::broken_body("the body ended before its end"),
        Unread::TooSlow => Problem::too_slow("the body did not come in time"),
        Unread::OverBudget => {
            Problem::unavailable("Too many bodies of unauthenticated senders are being read.", None)
        }
    }
}

/// Refuses a body that is said to be something other than JSON.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).filter(|value| !value.is_empty());
    let Some(content_type) = content_type else {
        return Ok(());
    };
    let essence = content_type
        .to_str()
        .ok()
        .and_then(|value| value.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase());
    let is_json = essence.is_some_and(|essence| {
        essence == "application/json"
            || essence == "text/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"))
    });
    if is_json { Ok(()) } else { Err(not_a_json_type()) }
}

fn no_such_endpoint() -> Problem {
    Problem::not_found("there is no such endpoint")
}

fn not_authentic() -> Problem {
    Problem::not_authentic("the delivery does not prove where it comes from")
}

fn not_a_json_type() -> Problem {
    Problem::not_a_json_type("Content-Type must be application/json, or missing")
}

fn project_refused() -> Problem {
    Problem::project_refused("this endpoint does not take that project")
}

/// Why a delivery is not taken.
struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> Answers {
        let unread = [Unread::TooLarge, Unread::Broken, Unread::TooSlow, Unread::OverBudget];
        let unread = unread.map(|unread| unread_body(unread, 1024 * 1024));
        problems(unread.into_iter().chain([
            no_such_endpoint(),
            foreign_origin(),
            not_authentic().with_header(header::WWW_AUTHENTICATE, CHALLENGE),
            not_a_json_type(),
            Problem::not_json("the body is not JSON: expected value at line 1 column 1"),
            Problem::unusable_delivery("eventType is missing; body.data.callId is missing"),
            project_refused(),
            ingest::Refused::Full.into(),
            ingest::Refused::Stopping.into(),
        ]))
    }
}

/// Takes a delivery
///
/// Answered only after the event, and what it did to the call, are committed to disk. Any other
/// answer than 2xx has the provider send it again. A trailing slash is taken too.
///
/// Checked in this order: endpoint, method, size, authenticity, media type, JSON, fields, project. Endpoint, method,
/// `Content-Length` and a bearer token are checked before the body is read; an answer to a request whose body is unread
/// closes the connection.
/// What is authentic and cannot be understood (400, 422) is kept in the quarantine. An event that
/// was stored before is answered with the call's present status. Which proof an endpoint asks for
/// is for the operator to say: none, a bearer token, or a signature over the body.
#[utoipa::path(
    post,
    path = "/webhooks/{endpoint}",
    operation_id = "deliver",
    tag = "deliveries",
    params(("endpoint" = String, Path, description = "The name of the endpoint.", example = json!("default"))),
    request_body(
        content = Sent,
        description = "What the provider sends; `Content-Type` may be missing.",
        example = json!(example(include_str!("openapi/examples/delivery.json"))),
    ),
    responses(
        (status = 200, description = "It is committed.", body = Taken,
         example = json!(example(include_str!("openapi/examples/taken.json")))),
        Refusals,
    ),
    security((), ("webhook_token" = []), ("webhook_signature" = [], "webhook_timestamp" = [])),
)]
pub(super) async fn take(
    State(service): State<Shared>,
    delivery: Authentic,
) -> Result<Json<Taken>, Problem> {
    let tally = &delivery.endpoint.tally;
    match record(&service, &delivery).await {
        Ok((key, recorded)) => {
            tally.taken(recorded.disposition);
            Ok(Json(Taken::new(key, recorded)))
        }
        Err(problem) => {
            tally.refused(problem.status());
            Err(problem)
        }
    }
}

/// Has a delivery committed, and tells of which call it was and what it did.
async fn record(service: &Service, delivery: &Authentic) -> Result<(CallKey, Recorded), Problem> {
    let receipt = Receipt {
        endpoint: &delivery.endpoint.name,
        received_at: delivery.received_at,
        provider_utc_offset: delivery.provider_utc_offset,
    };
    let understood = match recho::read(&delivery.body, receipt) {
        Ok(understood) => understood,
        Err(unreadable) => return Err(keep(service, delivery, unreadable).await),
    };
    let key = understood.key.clone();
    if !delivery.endpoint.takes(&key.project_id) {
        tracing::warn!(
            endpoint = delivery.endpoint.name,
            project_id = %key.project_id,
            request_id = RequestId::in_headers(&delivery.headers).map(tracing::field::display),
            "a delivery is of a project that its endpoint does not take",
        );
        return Err(project_refused());
    }
    match service.ingest.take(understood).await {
        Ok(recorded) => Ok((key, recorded)),
        Err(refused) => {
            if refused.is_about_delivery() {
                quarantine(service, delivery, &refused.to_string()).await?;
            }
            Err(refused.into())
        }
    }
}

/// Keeps a delivery that cannot be understood, then says why it was refused.
async fn keep(service: &Service, delivery: &Authentic, unreadable: Unreadable) -> Problem {
    let reason = unreadable.to_string();
    if let Err(problem) = quarantine(service, delivery, &reason).await {
        return problem;
    }
    match unreadable {
        Unreadable::NotJson(_) => Problem::not_json(reason),
        Unreadable::Fields(_) => Problem::unusable_delivery(reason),
    }
}

async fn quarantine(service: &Service, delivery: &Authentic, reason: &str) -> Result<(), Problem> {
    let headers: serde_json::Map<String, serde_json::Value> = KEPT_HEADERS
        .iter()
        .filter_map(|name| {
            let value = delivery.headers.get(name)?.to_str().ok()?;
            Some((name.to_string(), value.into()))
        })
        .collect();
    let Authentic { endpoint, body, received_at, .. } = delivery;
    service.quarantine.keep(&endpoint.name, reason, &headers.into(), body, *received_at).await?;
    tracing::warn!(
        endpoint = delivery.endpoint.name,
        bytes = delivery.body.len(),
        request_id = RequestId::in_headers(&delivery.headers).map(tracing::field::display),
        reason,
        "a delivery that cannot be understood is in quarantine",
    );
    Ok(())
}
