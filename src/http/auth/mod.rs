//! Who asks, and what they may do and see.
//!
//! [`guard`] stands before every route that is not open and lets a request in
//! or refuses it; a handler takes the [`ApiClient`] from there and asks the store
//! for nothing but what it [may see](ApiClient::projects). [`Admin`] is a caller
//! that may do more.
//!
//! Who needs no key must ask us by our own name, and not from somebody else's
//! page.
//!
//! What always holds: where a key is asked for there is no way in without one;
//! where none is, one that is given must be good all the same, and its limits
//! hold. The client is not told what was wrong with a key, the log is.

pub mod api_key_cache;

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use utoipa::IntoResponses;

use crate::{
    access::{KeyHash, KeyRecord, KeyState, Projects, Scope},
    call::ProjectId,
    http::{
        ApiKeyCache, Problem, Shared,
        auth::api_key_cache::Found,
        openapi::answers::{Responses, problems},
    },
    recho::auth::{Header, bearer},
};

/// What is said to who shows no key ([RFC 6750]).
///
/// [RFC 6750]: https://www.rfc-editor.org/rfc/rfc6750#section-3
pub(crate) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"callstate\"");

/// What is said to who shows one that is not good, whatever is wrong with it.
const INVALID: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"callstate\", error=\"invalid_token\"");

/// What is said to who shows one that is not good for this.
const INSUFFICIENT: HeaderValue = HeaderValue::from_static(
    "Bearer realm=\"callstate\", error=\"insufficient_scope\", scope=\"admin\"",
);

/// The client of a request to the API, as far as it is authenticated.
#[derive(Debug, Clone)]
pub enum ApiClient {
    /// No key was presented and none is required: has access to everything.
    Anonymous,
    /// The holder of this key.
    Key(Arc<KeyRecord>),
}

impl ApiClient {
    /// What it may do.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::Anonymous => Scope::Admin,
            Self::Key(record) => record.scope,
        }
    }

    /// The projects that its request is about: those that it may see, of which
    /// only the one that it asks about, if it asks about one.
    #[must_use]
    pub fn projects(&self, asked: Option<&ProjectId>) -> Projects {
        match self {
            Self::Anonymous => Projects::All.among(asked),
            Self::Key(record) => record.projects.among(asked),
        }
    }
}

/// What a request showed as a key, to be looked at again while its answer goes
/// on.
#[derive(Debug)]
pub(crate) struct PresentedKey(Option<KeyHash>);

impl PresentedKey {
    /// Refuses a key that is no longer good.
    pub(crate) async fn check(
        &self,
        api_keys: &ApiKeyCache,
        now: DateTime<Utc>,
    ) -> Result<(), Problem> {
        match self.0 {
            Some(hash) => good_key(api_keys, hash, now).await.map(drop),
            None => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for PresentedKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match shown(&parts.headers) {
            Shown::Key(hash) => Ok(Self(Some(hash))),
            // With these the guard let nobody in but where no key is asked for.
            Shown::Nothing | Shown::Repeated | Shown::NoKey => Ok(Self(None)),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for ApiClient {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| {
            Problem::internal(format!("{} is asked for without a guard", parts.uri.path()))
        })
    }
}

/// A caller that may administer what is not of one project, such as the
/// quarantine: its key has the scope `admin` and is not limited to projects.
#[derive(Debug, Clone)]
pub struct Admin(pub ApiClient);

impl Admin {
    /// Why a caller is none.
    pub(crate) fn refusals() -> [Problem; 2] {
        [needs_admin(), needs_all_projects()]
    }

    fn of(caller: ApiClient) -> Result<Self, Problem> {
        if caller.scope() < Scope::Admin {
            return Err(needs_admin());
        }
        UnrestrictedClient::of(caller).map(|UnrestrictedClient(caller)| Self(caller))
    }
}

/// A client with the scope `admin`, whose key may be limited to projects.
#[derive(Debug, Clone)]
pub(crate) struct ProjectAdmin(pub(crate) ApiClient);

impl ProjectAdmin {
    /// The response to a client without the scope.
    pub(crate) fn refusal() -> Problem {
        needs_admin()
    }
}

impl<S: Sync> FromRequestParts<S> for ProjectAdmin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let client = ApiClient::from_request_parts(parts, state).await?;
        if client.scope() < Scope::Admin { Err(needs_admin()) } else { Ok(Self(client)) }
    }
}

/// A caller that may see what is of all projects together, such as how much
/// there is of what: its key is not limited to projects.
#[derive(Debug, Clone)]
pub struct UnrestrictedClient(pub ApiClient);

impl UnrestrictedClient {
    fn of(caller: ApiClient) -> Result<Self, Problem> {
        match caller.projects(None) {
            Projects::All => Ok(Self(caller)),
            Projects::Only(_) => Err(needs_all_projects()),
        }
    }
}

fn needs_admin() -> Problem {
    Problem::not_allowed("this needs a key with the scope admin")
        .with_header(header::WWW_AUTHENTICATE, INSUFFICIENT)
}

fn needs_all_projects() -> Problem {
    Problem::not_allowed("this needs a key that is not limited to projects")
}

impl IntoResponses for Admin {
    fn responses() -> Responses {
        problems(Self::refusals())
    }
}

impl IntoResponses for UnrestrictedClient {
    fn responses() -> Responses {
        problems([needs_all_projects()])
    }
}

impl<S: Sync> FromRequestParts<S> for UnrestrictedClient {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Self::of(ApiClient::from_request_parts(parts, state).await?)
    }
}

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Self::of(ApiClient::from_request_parts(parts, state).await?)
    }
}

/// Lets a request in with its [`ApiClient`], or refuses it.
pub(crate) async fn guard(
    State(service): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = admit(&service.api_keys, request.headers(), service.clock.now()).await;
    let admitted = admitted.and_then(|caller| {
        if let ApiClient::Anonymous = caller {
            // Being here is all that it shows, and a browser is here for whoever wrote its page.
            service.server.check_host(request.uri(), request.headers())?;
            service.server.check_origin(request.method(), request.headers())?;
        }
        Ok(caller)
    });
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Tells who asks.
async fn admit(
    api_keys: &ApiKeyCache,
    headers: &HeaderMap,
    now: DateTime<Utc>,
) -> Result<ApiClient, Problem> {
    let hash = match shown(headers) {
        Shown::Nothing if api_keys.is_required() => return Err(refused(CHALLENGE, "no key")),
        Shown::Nothing => return Ok(ApiClient::Anonymous),
        Shown::Repeated => return Err(refused(CHALLENGE, "several Authorization headers")),
        Shown::NoKey => return Err(refused(INVALID, "no key has that form")),
        Shown::Key(hash) => hash,
    };
    good_key(api_keys, hash, now).await.map(ApiClient::Key)
}

/// What the key of that hash stands for, if it is good.
async fn good_key(
    api_keys: &ApiKeyCache,
    hash: KeyHash,
    now: DateTime<Utc>,
) -> Result<Arc<KeyRecord>, Problem> {
    let Found::Key(record) = api_keys.find(hash, now).await? else {
        return Err(refused(INVALID, "the key is unknown"));
    };
    match record.state(now) {
        KeyState::Active => Ok(record),
        state @ (KeyState::Expired | KeyState::Revoked) => {
            Err(refused(INVALID, &format!("key {} is {state}", record.id)))
        }
    }
}

/// The same words whatever was wrong; the log is told more.
pub(crate) fn refused(challenge: HeaderValue, cause: &str) -> Problem {
    Problem::key_needed("send a good API key as Authorization: Bearer")
        .with_header(header::WWW_AUTHENTICATE, challenge)
        .with_cause(cause)
}

/// What a request shows as a key.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// None, which another scheme than `Bearer` is too: it may be meant for a
    /// proxy before us.
    Nothing,
    /// Several things, of which a proxy and we might each believe another.
    Repeated,
    /// What can be no key.
    NoKey,
    /// What may be a key.
    Key(KeyHash),
}

fn shown(headers: &HeaderMap) -> Shown {
    let values = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    match values.collect() {
        Header::Missing => Shown::Nothing,
        Header::Repeated => Shown::Repeated,
        Header::Once(value) => match bearer::bearer_token(value) {
            Some(token) => KeyHash::of_presented(token).map_or(Shown::NoKey, Shown::Key),
            // As of a script whose variable is not set.
            None if value.trim_ascii().eq_ignore_ascii_case(b"Bearer") => Shown::NoKey,
            None => Shown::Nothing,
        },
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::access::KeyName;

    fn shown_in(values: &[&str]) -> Shown {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        shown(&headers)
    }

    #[test]
    fn a_key_stands_behind_bearer_in_any_case() {
        let key = format!("cs_{}", "0".repeat(64));
        let hash = KeyHash::of_presented(key.as_bytes()).unwrap();
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer  "] {
            assert_eq!(shown_in(&[&format!("{scheme} {key}")]), Shown::Key(hash), "{scheme}");
        }
        assert_eq!(shown_in(&[&format!("Bearer {key} ")]), Shown::Key(hash));
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_one() {
        let key = format!("cs_{}", "0".repeat(64));
        assert_eq!(shown_in(&[]), Shown::Nothing);
        for nothing in [key.as_str(), "", "Basic b2xk", &format!("Key {key}")] {
            assert_eq!(shown_in(&[nothing]), Shown::Nothing, "{nothing}");
        }
        for no_key in
            ["Bearer", "bearer ", "Bearer x", "Bearer cs_", &format!("Bearer {key}0"), "Bearer a b"]
        {
            assert_eq!(shown_in(&[no_key]), Shown::NoKey, "{no_key}");
        }
        let bearer = format!("Bearer {key}");
        assert_eq!(shown_in(&[&bearer, &bearer]), Shown::Repeated);
        assert_eq!(shown_in(&["Basic b2xk", &bearer]), Shown::Repeated);
    }

    fn bearer(scope: Scope, projects: Projects) -> ApiClient {
        ApiClient::Key(Arc::new(KeyRecord {
            id: Uuid::nil(),
            name: KeyName::new("grafana").unwrap(),
            scope,
            projects,
            created_at: DateTime::UNIX_EPOCH,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        }))
    }

    #[test]
    fn to_administer_takes_the_scope_admin_and_all_projects() {
        let one = || Projects::Only([ProjectId::unnamed()].into());
        assert!(Admin::of(bearer(Scope::Admin, Projects::All)).is_ok());
        for (caller, challenge) in [
            (bearer(Scope::Read, Projects::All), Some(INSUFFICIENT)),
            (bearer(Scope::Read, one()), Some(INSUFFICIENT)),
            (bearer(Scope::Admin, one()), None),
        ] {
            let response = Admin::of(caller).unwrap_err().into_response();
            assert_eq!(response.status(), 403);
            assert_eq!(response.headers().get(header::WWW_AUTHENTICATE), challenge.as_ref());
        }
    }

    #[test]
    fn where_no_key_is_asked_for_anyone_may_administer() {
        assert!(Admin::of(ApiClient::Anonymous).is_ok());
        assert_eq!(ApiClient::Anonymous.projects(None), Projects::All);
    }
}
