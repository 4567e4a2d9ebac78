//! The webhook endpoints: who may deliver to them, for which projects, and receiving a
//! delivery.
//!
//! What is checked, in this order: endpoint, method, size, authenticity, media type and
//! encoding. The endpoint, the method, the announced size and a bearer token are checked
//! before the body is read. Of a delivery that is not authentic nothing is kept, except
//! where only its timestamp is outside the window; the sender does not learn which check
//! failed, and the log does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    call::ProjectId,
    http::{
        Problem, Shared,
        body::{self, BodyError},
        routes::webhooks::metrics::{DeliveryMetrics, EndpointMetrics},
        server::{ClientAddress, HttpServer, RequestId},
    },
    ingest::{Quarantine, quarantine::ReplayEndpoint},
    log_limit,
    recho::{
        AuthError, Authenticator, Credentials, DEFAULT_ENDPOINT, DecodeError, ProviderTimeZone,
        auth, encoding,
    },
};

/// The headers that are kept with a quarantined delivery. Others may contain credentials.
const KEPT_HEADERS: [header::HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::DATE,
    header::USER_AGENT,
];

/// What a bearer endpoint answers without a valid token ([RFC 6750]).
///
/// [RFC 6750]: https://www.rfc-editor.org/rfc/rfc6750#section-3
pub(crate) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"callstate\"");

/// The configured endpoints.
#[derive(Debug)]
pub struct Endpoints {
    /// By name.
    pub by_name: BTreeMap<String, Arc<Endpoint>>,
    /// The time zone of the provider's `Time:` lines.
    pub time_zone: ProviderTimeZone,
    /// The largest body, in bytes, before and after decoding.
    pub max_body: usize,
    /// The metrics of all endpoints.
    pub metrics: DeliveryMetrics,
}

impl Endpoints {
    /// How deliveries of an endpoint are replayed, if it is configured.
    #[must_use]
    pub fn for_replay(&self, name: &str) -> Option<ReplayEndpoint<'_>> {
        let Endpoint { projects, default_project, .. } = &**self.by_name.get(name)?;
        let projects = projects.as_ref();
        Some(ReplayEndpoint { time_zone: self.time_zone, default_project, projects })
    }
}

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its name, the last part of its route.
    pub name: String,
    /// How its deliveries are authenticated.
    pub authenticator: Authenticator,
    /// The projects that it accepts; `None` for all.
    pub projects: Option<BTreeSet<ProjectId>>,
    /// The project of deliveries that name none.
    pub default_project: ProjectId,
    /// The metrics of its deliveries.
    pub metrics: EndpointMetrics,
}

impl Endpoint {
    /// Whether it accepts deliveries of a project.
    pub(crate) fn accepts(&self, project_id: &ProjectId) -> bool {
        self.projects.as_ref().is_none_or(|projects| projects.contains(project_id))
    }

    /// Reads the body of a delivery and authenticates it. What the headers decide is checked
    /// first.
    async fn receive(
        &self,
        parts: &Parts,
        body: Body,
        limits: Limits<'_>,
        received_at: DateTime<Utc>,
    ) -> Result<Bytes, Problem> {
        let Limits { max_body, edge, quarantine } = limits;
        if body::announces_more_than(max_body, &body) {
            return Err(unread_body(BodyError::TooLarge, max_body));
        }
        let header =
            |name: &str| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let credentials = Credentials {
            authorization: header(header::AUTHORIZATION.as_str()),
            timestamp: header(auth::TIMESTAMP_HEADER),
            signature: header(auth::SIGNATURE_HEADER),
        };
        let check = self.authenticator.check_headers(&credentials, received_at);
        let check = check.map_err(|error| self.not_authentic(parts, error))?;
        let mut reservation = match self.authenticator {
            Authenticator::Bearer(_) => None,
            Authenticator::None => {
                edge.check_origin(&parts.method, &parts.headers)?;
                Some(edge.unauthenticated_body())
            }
            Authenticator::Signature(_) => Some(edge.unauthenticated_body()),
        };
        let body = body::read(body, max_body, edge.read_timeout(), reservation.as_mut())
            .await
            .map_err(|unread| unread_body(unread, max_body))?;
        if let Err(error) = check.check(&body) {
            if let AuthError::StaleTimestamp { .. } = error {
                // Retries after an outage may carry their first timestamp.
                let headers = kept_headers(&parts.headers, true);
                let reason = error.as_str();
                quarantine.keep(&self.name, reason, &headers, &body, received_at).await?;
            }
            return Err(self.not_authentic(parts, error));
        }
        check_media_type(&parts.headers)?;
        Ok(body)
    }

    /// Counts and logs a failed authentication; the response says no more than that.
    fn not_authentic(
        &self,
        Parts { headers, extensions, .. }: &Parts,
        error: AuthError,
    ) -> Problem {
        self.metrics.not_authentic(error);
        let cause = error.as_str();
        if log_limit::admits("not_authentic", &format!("{} {cause}", self.name)) {
            tracing::warn!(
                endpoint = self.name,
                cause,
                request_id = RequestId::in_headers(headers).map(tracing::field::display),
                client = ClientAddress::of(extensions).map(tracing::field::display),
                "a delivery is not authentic: {error}",
            );
        }
        match self.authenticator {
            Authenticator::Bearer(_) => {
                not_authentic().with_header(header::WWW_AUTHENTICATE, CHALLENGE)
            }
            // No scheme is registered for signatures over the body.
            Authenticator::Signature(_) | Authenticator::None => not_authentic(),
        }
    }
}

/// What bounds the reading of a body, and where a stale delivery is kept.
struct Limits<'a> {
    max_body: usize,
    edge: &'a HttpServer,
    quarantine: &'a Quarantine,
}

/// An authentic delivery that is not parsed yet.
pub(crate) struct ReceivedDelivery {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) time_zone: ProviderTimeZone,
    pub(crate) headers: HeaderMap,
    pub(crate) received_at: DateTime<Utc>,
    /// The body as it was sent.
    body: Bytes,
    max_body: usize,
}

impl ReceivedDelivery {
    /// The body without its `Content-Encoding`.
    pub(crate) fn decode(&self) -> Result<std::borrow::Cow<'_, [u8]>, DecodeError> {
        let encodings = self.headers.get_all(header::CONTENT_ENCODING).iter();
        encoding::decode(encodings.map(HeaderValue::as_bytes), &self.body, self.max_body)
    }

    /// The headers and the body to be kept in the quarantine: decoded where that is possible.
    pub(crate) fn to_be_kept(&self) -> (Value, std::borrow::Cow<'_, [u8]>) {
        match self.decode() {
            Ok(body) => (kept_headers(&self.headers, false), body),
            Err(_) => (kept_headers(&self.headers, true), (&self.body[..]).into()),
        }
    }
}

#[derive(serde::Deserialize)]
struct PathParameters {
    endpoint: Option<String>,
}

impl FromRequest<Shared> for ReceivedDelivery {
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
            return Err(Problem::method_not_allowed("a webhook accepts POST")
                .with_header(header::ALLOW, HeaderValue::from_static("POST")));
        }
        let max_body = endpoints.max_body;
        let limits = Limits { max_body, edge: &service.server, quarantine: &service.quarantine };
        let body = endpoint
            .receive(&parts, body, limits, received_at)
            .await
            .inspect_err(|problem| endpoint.metrics.rejected(problem.status()))?;
        let (time_zone, headers) = (endpoints.time_zone, parts.headers);
        Ok(Self { endpoint, time_zone, headers, received_at, body, max_body })
    }
}

/// The headers to be kept, with `Content-Encoding` and the length of the body where that is
/// kept as it was sent.
fn kept_headers(headers: &HeaderMap, is_as_sent: bool) -> Value {
    let of_body = [header::CONTENT_ENCODING, header::CONTENT_LENGTH];
    KEPT_HEADERS
        .iter()
        .filter(|name| is_as_sent || !of_body.contains(name))
        .filter_map(|name| {
            // A header that occurs several times is one list (RFC 9110, section 5.3).
            let values: Result<Vec<_>, _> =
                headers.get_all(name).iter().map(HeaderValue::to_str).collect();
            let values = values.ok().filter(|values| !values.is_empty())?;
            Some((name.to_string(), Value::from(values.join(", "))))
        })
        .collect::<serde_json::Map<String, Value>>()
        .into()
}

/// The problem of a body that was not read to its end.
pub(crate) fn unread_body(unread: BodyError, max_body: usize) -> Problem {
    match unread {
        BodyError::TooLarge => {
            Problem::too_large(format!("a delivery has at most {max_body} bytes"))
        }
        BodyError::Broken => Problem::broken_body("the body ended before its end"),
        BodyError::TooSlow => Problem::too_slow("the body did not arrive in time"),
        BodyError::OverBudget => {
            Problem::unavailable("Too many bodies of unauthenticated senders are being read.", None)
        }
    }
}

/// Rejects a body whose media type is not JSON.
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

pub(crate) fn no_such_endpoint() -> Problem {
    Problem::not_found("there is no such endpoint")
}

pub(crate) fn not_authentic() -> Problem {
    Problem::not_authentic("the delivery is not authentic")
}

pub(crate) fn not_a_json_type() -> Problem {
    Problem::not_a_json_type("Content-Type must be application/json, or missing")
}
