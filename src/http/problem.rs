//! Errors as clients see them: `application/problem+json` of [RFC 9457].
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    call::ProjectId,
    ingest::IngestError,
    store::{self, error::Class},
};

/// How long a client should wait before it asks again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request was not answered as it wished.
#[derive(Debug)]
pub struct Problem {
    kind: &'static Kind,
    detail: String,
    /// What the log is told and the client is not.
    cause: Option<String>,
    /// Whether the cause is in the log already.
    is_logged: bool,
    /// Members beside those of RFC 9457.
    more: Vec<(&'static str, serde_json::Value)>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// Carries what the log is told to where it is logged.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) what: String,
    pub(crate) kind: CauseKind,
}

/// How a cause is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CauseKind {
    /// Something failed inside.
    Failure,
    /// The client met a limit, or has to correct its request.
    Refusal,
    /// It was logged where it happened, for all requests that it affects.
    Logged,
}

#[derive(Debug)]
struct Kind {
    status: StatusCode,
    /// The end of the problem type's URI.
    name: &'static str,
    title: &'static str,
}

/// Why a request was not answered as it wished (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body {
    /// What is wrong, as `urn:callstate:problem:` and a name: the same for all problems of a kind.
    #[serde(rename = "type")]
    #[schema(format = "uri")]
    uri: String,
    /// What is wrong, in one line.
    title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request.
    detail: String,
    #[serde(flatten)]
    #[schema(value_type = MoreOfProblem, inline)]
    more: BTreeMap<&'static str, serde_json::Value>,
}

/// What only some problems have.
#[derive(ToSchema)]
#[expect(dead_code, reason = "each problem brings its own members; this tells which there are")]
pub(crate) struct MoreOfProblem {
    /// With 409: the projects that have a call by that id.
    #[schema(nullable = false)]
    project_ids: Option<Vec<ProjectId>>,
    /// With 409 of the change feed: `other_feed`, where the database was restored from a copy or is
    /// another one, or `beyond_head`, where it lost events.
    #[schema(nullable = false)]
    reason: Option<String>,
    /// With 409 of the change feed: its last position.
    #[schema(nullable = false)]
    head: Option<String>,
}

macro_rules! problems {
    ($($(#[$meta:meta])* $name:ident: $status:ident, $uri:literal, $title:literal;)+) => {
        impl Problem {
            $($(#[$meta])*
            pub fn $name(detail: impl Into<String>) -> Self {
                const KIND: &Kind =
                    &Kind { status: StatusCode::$status, name: $uri, title: $title };
                Self::new(KIND, detail.into())
            })+
        }
    };
}

problems! {
    /// A parameter is unknown or has a bad value.
    bad_parameter: BAD_REQUEST, "bad-parameter", "A parameter is not right";
    /// The `Host` header is missing, repeated or invalid.
    bad_host: BAD_REQUEST, "bad-host", "The Host header is missing or invalid";
    /// The body is not JSON.
    not_json: BAD_REQUEST, "not-json", "The body is not JSON";
    /// The body did not come whole.
    broken_body: BAD_REQUEST, "broken-body", "The body did not come whole";
    /// The sender has not proved who it is. What was wrong is not for it to know.
    not_authentic: UNAUTHORIZED, "not-authentic", "It is not proved where this comes from";
    /// The API asks for a key, or the one that was sent is not good. What is wrong with it is not
    /// for the client to know.
    key_needed: UNAUTHORIZED, "key-needed", "A good API key is needed";
    /// The key is good, but not for this.
    not_allowed: FORBIDDEN, "not-allowed", "The key does not allow this";
    /// The endpoint does not take deliveries of the project.
    project_refused: FORBIDDEN, "project-refused", "The project is not taken here";
    /// There is nothing by that name.
    not_found: NOT_FOUND, "not-found", "There is nothing by that name";
    /// The route does not take the method.
    method_not_allowed: METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here";
    /// Several projects have a call by that id.
    ambiguous_call: CONFLICT, "ambiguous-call", "Several projects have a call by that id";
    /// A position is not one of this change feed.
    feed_reset: CONFLICT, "feed-reset", "The position is not one of this change feed";
    /// What would change something comes from a page that may not.
    foreign_origin: FORBIDDEN, "foreign-origin", "Pages of that origin may not do this";
    /// The request is to a name that is not ours.
    misdirected: MISDIRECTED_REQUEST, "misdirected", "Nobody of that name is here";
    /// The body came too slowly.
    too_slow: REQUEST_TIMEOUT, "too-slow", "The body came too slowly";
    /// The URL is longer than the limit.
    url_too_long: URI_TOO_LONG, "url-too-long", "The URL is too long";
    /// The body is larger than the limit.
    too_large: PAYLOAD_TOO_LARGE, "too-large", "The body is too large";
    /// The body is said to be something other than JSON.
    not_a_json_type: UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON";
    /// The delivery cannot be understood or stored.
    unusable_delivery: UNPROCESSABLE_ENTITY, "unusable-delivery", "The delivery cannot be understood";
}

impl Problem {
    fn new(kind: &'static Kind, detail: String) -> Self {
        Self { kind, detail, cause: None, is_logged: false, more: Vec::new(), header: None }
    }

    /// Something is wrong inside; the client learns no more than that.
    pub fn internal(cause: impl Into<String>) -> Self {
        const KIND: &Kind = &Kind {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            name: "internal",
            title: "Something went wrong",
        };
        let detail = "The cause is in the service's log.".to_owned();
        Self { cause: Some(cause.into()), ..Self::new(KIND, detail) }
    }

    /// It cannot be done now; the same request may succeed later. Without a cause
    /// nothing failed: a limit is reached.
    pub fn unavailable(detail: impl Into<String>, cause: Option<String>) -> Self {
        const KIND: &Kind = &Kind {
            status: StatusCode::SERVICE_UNAVAILABLE,
            name: "unavailable",
            title: "Not now",
        };
        Self { cause, ..Self::new(KIND, detail.into()) }
            .with_header(header::RETRY_AFTER, RETRY_AFTER)
    }

    /// The status that it is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        self.kind.status
    }

    /// Its kind: the end of the problem type's URI.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name
    }

    /// Its kind, in one line.
    pub(crate) fn title(&self) -> &'static str {
        self.kind.title
    }

    /// The header that it is answered with, besides those of any answer.
    pub(crate) fn header(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.header.as_deref()
    }

    /// The body that it is answered with.
    pub(crate) fn body(&self) -> Body {
        let &Kind { status, name, title } = self.kind;
        Body {
            uri: format!("urn:callstate:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: self.detail.clone(),
            more: self.more.iter().cloned().collect(),
        }
    }

    /// Adds a header.
    pub(crate) fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some(Box::new((name, value))), ..self }
    }

    /// Adds what the log is told and the client is not.
    pub(crate) fn with_cause(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// Adds a member to the body.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.more.push((name, value.into()));
        self
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        (&error).into()
    }
}

impl From<&store::Error> for Problem {
    fn from(error: &store::Error) -> Self {
        if matches!(error.class(), Class::Unavailable | Class::RolledBack | Class::Locked) {
            Self::unavailable("The database is away.", Some(error.to_string()))
        } else {
            Self::internal(error.to_string())
        }
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        let cause = Some(error.to_string());
        // Ingest logs these, for all deliveries together.
        let is_logged = matches!(
            error,
            IngestError::QueueFull | IngestError::Unavailable(_) | IngestError::CallLocked
        );
        let problem = match error {
            IngestError::QueueFull => Self::unavailable("The queue of deliveries is full.", cause),
            IngestError::Stopping => Self::unavailable("The service is stopping.", cause),
            IngestError::Unavailable(_) => Self::unavailable("The database is away.", cause),
            IngestError::CallLocked => {
                Self::unavailable("The call is locked in the database.", cause)
            }
            IngestError::InvalidValue(_) => {
                Self { cause, ..Self::unusable_delivery("The database cannot store it.") }
            }
            IngestError::ProgramError(why) | IngestError::StoreError(why) => Self::internal(why),
        };
        Self { is_logged, ..problem }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = self.header.map(|header| *header) {
            headers.insert(name, value);
        }
        let is_ours = response.status().is_server_error();
        let is_failure = is_ours && self.cause.is_some();
        if let Some(what) = self.cause.or_else(|| is_ours.then_some(self.detail)) {
            let kind = match (self.is_logged, is_failure) {
                (true, _) => CauseKind::Logged,
                (false, true) => CauseKind::Failure,
                (false, false) => CauseKind::Refusal,
            };
            response.extensions_mut().insert(Cause { what, kind });
        }
        response
    }
}
