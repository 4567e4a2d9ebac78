//! The webhook endpoints: their names, who may deliver to them, for which projects.
//!
//! What is configured here is complete: an endpoint says how it authenticates,
//! has what that needs, and nothing that another method would need. So a typo
//! never leaves an endpoint open. Checking deliveries is not done here: that is
//! what [`Auth::authenticator`] is for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::call::ProjectId;
use crate::recho::{Authenticator, DEFAULT_ENDPOINT, PublicKey, SignatureVerifier, Tokens};

use super::layers::{Environment, Given, Reader};
use super::mistake::{Mistake, Source};
use super::secret::Secret;
use super::suggest::did_you_mean;
use super::value;

/// The token of the default endpoint where no endpoint is configured.
const TOKEN_VARIABLE: &str = "RECHO_WEBHOOK_TOKEN";

/// The keys of an endpoint.
pub(super) const FIELDS: [&str; 6] =
    ["auth", "tokens", "public_keys", "timestamp_tolerance", "default_project", "projects"];

/// How far a signature's time may be from ours, unless configured: five minutes.
const TOLERANCE: Duration = Duration::from_mins(5);
/// A second, for clocks that agree, to a week, as retries after an outage may carry the first
/// timestamp.
const TOLERANCES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(7 * 24);

/// Where deliveries are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// How a delivery proves where it comes from.
    pub auth: Auth,
    /// The project of deliveries that name none.
    pub default_project: ProjectId,
    /// The projects that it accepts; `None` for all.
    pub projects: Option<BTreeSet<ProjectId>>,
}

/// How a delivery proves where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// It does not.
    None,
    /// `Authorization: Bearer` with one of these tokens, at least one.
    Bearer {
        /// Several while they rotate.
        tokens: Vec<Secret>,
    },
    /// A signature by one of these keys, at least one.
    RsaSha256 {
        /// Several while they rotate.
        public_keys: Vec<PublicKey>,
        /// How far the signature's time may be from now, either way.
        timestamp_tolerance: Duration,
    },
}

impl Auth {
    /// The word for it in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bearer { .. } => "bearer",
            Self::RsaSha256 { .. } => "rsa-sha256",
        }
    }

    /// The authenticator of this method.
    #[must_use]
    pub fn authenticator(&self) -> Authenticator {
        match self {
            Self::None => Authenticator::None,
            Self::Bearer { tokens } => {
                Authenticator::Bearer(Tokens::new(tokens.iter().map(Secret::expose)))
            }
            Self::RsaSha256 { public_keys, timestamp_tolerance } => Authenticator::Signature(
                SignatureVerifier::new(public_keys.clone(), *timestamp_tolerance),
            ),
        }
    }

    /// The same method with the tokens or keys of another. It stays as it is
    /// where that has another method.
    pub(super) fn with_secrets_of(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Bearer { .. }, Self::Bearer { tokens }) => {
                Self::Bearer { tokens: tokens.clone() }
            }
            (Self::RsaSha256 { timestamp_tolerance, .. }, Self::RsaSha256 { public_keys, .. }) => {
                Self::RsaSha256 {
                    public_keys: public_keys.clone(),
                    timestamp_tolerance: *timestamp_tolerance,
                }
            }
            (Self::None | Self::Bearer { .. } | Self::RsaSha256 { .. }, _) => self.clone(),
        }
    }
}

/// The values of `auth`.
#[derive(Clone, Copy)]
enum Method {
    None,
    Bearer,
    RsaSha256,
}

const METHODS: [(&str, Method); 3] =
    [("none", Method::None), ("bearer", Method::Bearer), ("rsa-sha256", Method::RsaSha256)];

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bearer => "bearer",
            Self::RsaSha256 => "rsa-sha256",
        }
    }

    /// The fields that mean something with this method only.
    fn takes(self, field: &str) -> bool {
        match self {
            Self::None => false,
            Self::Bearer => field == "tokens",
            Self::RsaSha256 => matches!(field, "public_keys" | "timestamp_tolerance"),
        }
    }
}

/// Reads all endpoints. Without any, there is the default one.
pub(super) fn read(reader: &mut Reader<'_>) -> BTreeMap<String, Endpoint> {
    let before = reader.mistakes.len();
    let names = names(reader);
    if names.is_empty() && !reader.file.table.contains_key("webhooks") {
        return without_configuration(reader);
    }
    // One whose name cannot be one was told.
    if names.is_empty() && reader.mistakes.len() == before {
        let source = Source::file(&reader.file.name, "webhooks");
        reader.mistakes.push(source.mistake(
            "names no endpoint; leave it out for the default one, or write [webhooks.default]",
        ));
    }
    names
        .into_iter()
        .filter_map(|name| {
            let endpoint = endpoint(reader, &name)?;
            Some((name, endpoint))
        })
        .collect()
}

/// The endpoint there is when none is configured.
fn without_configuration(reader: &mut Reader<'_>) -> BTreeMap<String, Endpoint> {
    let source = Source::variable(TOKEN_VARIABLE);
    let auth = match reader.environment.get_even_empty(TOKEN_VARIABLE) {
        Ok(None) => Auth::None,
        Ok(Some(token)) if value::is_token(token.trim()) => {
            Auth::Bearer { tokens: vec![Secret::new(token.trim())] }
        }
        // An empty token is not taken for none: it would leave the endpoint open.
        Ok(Some(_)) => {
            let text = "is no token: one consists of visible ASCII characters without spaces";
            reader.mistakes.push(source.mistake(text));
            return BTreeMap::new();
        }
        Err(mistake) => {
            reader.mistakes.push(mistake);
            return BTreeMap::new();
        }
    };
    let default_project = ProjectId::unnamed();
    let endpoint = Endpoint { auth, default_project, projects: None };
    BTreeMap::from([(DEFAULT_ENDPOINT.to_owned(), endpoint)])
}

/// The names of the endpoints that the file or the environment give, those that
/// cannot be one noted as mistakes.
fn names(reader: &mut Reader<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    match reader.file.table.get("webhooks") {
        None => {}
        Some(toml::Value::Table(endpoints)) => names.extend(endpoints.keys().cloned()),
        Some(_) => {
            let source = Source::file(&reader.file.name, "webhooks");
            let text = "expected a table of endpoints, such as [webhooks.default]";
            reader.mistakes.push(source.mistake(text));
        }
    }
    names.retain(|name| {
        let path = format!("webhooks.{name}");
        let source = Source::file(&reader.file.name, &path);
        if !is_name(name) {
            reader.mistakes.push(source.mistake(
                "an endpoint's name has 1 to 64 letters, digits, - and _, as it is part of the path",
            ));
            return false;
        }
        let Some(toml::Value::Table(fields)) = reader.file.table["webhooks"].get(name) else {
            let text = "expected a table with the key auth";
            reader.mistakes.push(source.mistake(text));
            return false;
        };
        for field in fields.keys().filter(|key| !FIELDS.contains(&key.as_str())) {
            let source = Source::file(&reader.file.name, &format!("{path}.{field}"));
            let text = format!("unknown key{}", did_you_mean(field, FIELDS));
            reader.mistakes.push(source.mistake(text));
        }
        true
    });
    let mut of_file = BTreeMap::new();
    for name in &names {
        if let Some(other) = of_file.insert(variable_name(name), name.clone()) {
            let source = Source::file(&reader.file.name, &format!("webhooks.{name}"));
            let text = format!("has the same variables as webhooks.{other}; give one another name");
            reader.mistakes.push(source.mistake(text));
        }
    }
    let of_environment = names_in(reader.environment);
    names.extend(
        of_environment.into_iter().filter(|name| !of_file.contains_key(&variable_name(name))),
    );
    names
}

/// The names of endpoints in `CALLSTATE_WEBHOOKS_<NAME>_<FIELD>`, in lower case.
fn names_in(environment: &Environment) -> BTreeSet<String> {
    environment
        .names()
        .filter_map(|variable| {
            let rest = variable.strip_prefix("CALLSTATE_WEBHOOKS_")?;
            let name = FIELDS
                .iter()
                .find_map(|field| rest.strip_suffix(&format!("_{}", variable_name(field))))?;
            let name = name.to_ascii_lowercase();
            is_name(&name).then_some(name)
        })
        .collect()
}

/// As the part of a variable that stands for it.
pub(super) fn variable_name(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Where a field of an endpoint is given: its path in the file, its variable.
fn places(endpoint: &str, field: &str) -> (String, String) {
    (
        format!("webhooks.{endpoint}.{field}"),
        format!("CALLSTATE_WEBHOOKS_{}_{}", variable_name(endpoint), variable_name(field)),
    )
}

/// Where a missing field is wanted: where the rest of its endpoint is.
fn place_to_give(reader: &Reader<'_>, endpoint: &str, field: &str) -> Source {
    let (path, variable) = places(endpoint, field);
    let endpoints = reader.file.table.get("webhooks");
    if endpoints.is_some_and(|endpoints| endpoints.get(endpoint).is_some()) {
        Source::file(&reader.file.name, &path)
    } else {
        Source::variable(&variable)
    }
}

/// One endpoint, or nothing where it has a mistake.
fn endpoint(reader: &mut Reader<'_>, name: &str) -> Option<Endpoint> {
    let before = reader.mistakes.len();
    let (path, variable) = places(name, "auth");
    let method = reader.read_below(&path, &[&variable], |given| value::one_of(given, &METHODS));
    let Some(method) = method else {
        if reader.mistakes.len() == before {
            let source = place_to_give(reader, name, "auth");
            let words: Vec<_> = METHODS.iter().map(|(word, _)| *word).collect();
            let text = format!("is missing, expected one of {}", words.join(", "));
            reader.mistakes.push(source.mistake(text));
        }
        return None;
    };

    let environment = reader.environment;
    let read_file = reader.read_file;
    for field in ["tokens", "public_keys", "timestamp_tolerance"] {
        if !method.takes(field) {
            let (path, variable) = places(name, field);
            reader.read_below(&path, &[&variable], |given| -> Result<(), _> {
                Err(given.mistake(format!("means nothing with auth = \"{}\"", method.name())))
            });
        }
    }
    let auth = match method {
        Method::None => Some(Auth::None),
        Method::Bearer => {
            list(reader, name, "tokens", |item| value::token(item, environment, read_file))
                .map(|tokens| Auth::Bearer { tokens })
        }
        Method::RsaSha256 => {
            let (path, variable) = places(name, "timestamp_tolerance");
            let timestamp_tolerance = reader
                .read_below(&path, &[&variable], |given| value::duration(given, TOLERANCES))
                .unwrap_or(TOLERANCE);
            list(reader, name, "public_keys", |item| {
                value::public_key(item, environment, read_file)
            })
            .map(|public_keys| Auth::RsaSha256 { public_keys, timestamp_tolerance })
        }
    };
    let (path, variable) = places(name, "projects");
    let projects = reader.read_below(&path, &[&variable], |given| {
        given.list()?.iter().map(value::project).collect()
    });
    let (path, variable) = places(name, "default_project");
    let default_project =
        reader.read_below(&path, &[&variable], value::project).unwrap_or_else(ProjectId::unnamed);
    auth.map(|auth| Endpoint { auth, default_project, projects })
}

/// The items of a list that the endpoint's method cannot do without.
fn list<T>(
    reader: &mut Reader<'_>,
    endpoint: &str,
    field: &str,
    understand: impl Fn(&Given) -> Result<T, Mistake>,
) -> Option<Vec<T>> {
    let before = reader.mistakes.len();
    let (path, variable) = places(endpoint, field);
    let items = reader
        .read_below(&path, &[&variable], |given| given.list()?.iter().map(&understand).collect());
    if items.is_none() && reader.mistakes.len() == before {
        let (auth, _) = places(endpoint, "auth");
        let place = place_to_give(reader, endpoint, field);
        let text = format!("is missing, {auth} needs it");
        reader.mistakes.push(place.mistake(text));
    }
    items
}
