//! Query parameters, read strictly: a parameter that is unknown, given twice or
//! has a bad value is refused, and all such are named at once. An empty one
//! counts as absent. Lists are written `a,b` or as a parameter for each item.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    str::FromStr,
};

use axum::{
    extract::{FromRequestParts, Path},
    http::{Uri, request::Parts},
};
use chrono::{DateTime, SubsecRound, Utc};
use percent_encoding::percent_decode_str;
use utoipa::{
    IntoParams, ToSchema as _,
    openapi::{
        ArrayBuilder, Ref, RefOr, Required, Schema,
        path::{Parameter, ParameterBuilder, ParameterIn, ParameterStyle},
        schema::ArrayItems,
    },
};

use crate::{
    call::{CallId, ProjectId, Status, UnknownName},
    http::Problem,
    recho::identifier::project_id,
};

/// The parameters that are lists.
const LISTS: [&str; 3] = ["status", "group_by", "call_id"];

/// What separates the items of a list.
const SEPARATOR: char = ',';

/// The parameters of a request that nobody has asked for yet, and what was
/// wrong with those that were.
pub(crate) struct Query {
    given: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Query {
    /// Takes the parameters apart.
    pub(crate) fn of(uri: &Uri) -> Self {
        let mut query = Self { given: BTreeMap::new(), faults: Vec::new() };
        let text = uri.query().unwrap_or("");
        if percent_decode_str(text).decode_utf8().is_err() {
            query.faults.push("the query is not UTF-8".to_owned());
        }
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            query.add(&name, &value);
        }
        query
    }

    fn add(&mut self, name: &str, value: &str) {
        let given = self.given.entry(name.to_owned()).or_default();
        let is_list = LISTS.contains(&name);
        let has_outer_blanks = |text: &str| text.trim() != text;
        let is_bad = if is_list {
            value.split(SEPARATOR).any(has_outer_blanks)
        } else {
            has_outer_blanks(value)
        };
        if is_bad {
            self.faults.push(format!("{name}: begins or ends with a blank; + is written %2B"));
        } else if given.is_empty() {
            value.clone_into(given);
        } else if value.is_empty() {
            // Counts as absent.
        } else if is_list {
            given.push(SEPARATOR);
            given.push_str(value);
        } else {
            value.clone_into(given);
            self.faults.push(format!("{name}: is given twice"));
        }
    }

    /// The parameter of that name, if it is given, as `read` reads it.
    pub(crate) fn take<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.given.remove(name).filter(|value| !value.is_empty())?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.faults.push(format!("{name}: {fault}"));
                None
            }
        }
    }

    /// The parameter `project_id`, if it is given.
    pub(crate) fn take_project_id(&mut self) -> Option<ProjectId> {
        self.take("project_id", |value| project_id(value).map_err(|why| why.to_string()))
    }

    /// Notes that something is wrong together with what else is asked, to be named with the rest.
    pub(crate) fn fault(&mut self, name: &str, fault: &str) {
        self.faults.push(format!("{name}: {fault}"));
    }

    /// Refuses what was wrong, and what nobody asked for.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        self.faults
            .extend(self.given.into_keys().map(|name| format!("{name}: is no parameter here")));
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(Problem::bad_parameter(self.faults.join("; ")))
        }
    }
}

/// Reads `true` or `false`.
pub(crate) fn read_flag(flag: &str) -> Result<bool, String> {
    flag.parse().map_err(|_| "must be true or false".to_owned())
}

/// Reads a name of one of the domain's enums.
pub(crate) fn read_name<T: FromStr<Err = UnknownName>>(name: &str) -> Result<T, String> {
    name.parse().map_err(|unknown: UnknownName| unknown.to_string())
}

/// Reads a list of statuses.
pub(crate) fn read_statuses(statuses: &str) -> Result<BTreeSet<Status>, String> {
    statuses.split(SEPARATOR).map(read_name).collect()
}

/// Reads a list of calls, at most so many.
pub(crate) fn read_call_ids(call_ids: &str, most: usize) -> Result<BTreeSet<CallId>, String> {
    let read = |call_id| CallId::new(call_id).map_err(|why| why.to_string());
    let call_ids: BTreeSet<CallId> =
        call_ids.split(SEPARATOR).map(read).collect::<Result<_, _>>()?;
    if call_ids.len() > most {
        return Err(format!("must be at most {most} calls"));
    }
    Ok(call_ids)
}

/// Reads a time ([RFC 3339]), to the microsecond.
///
/// [RFC 3339]: https://www.rfc-editor.org/rfc/rfc3339
pub(crate) fn read_instant(time: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(time)
        .map(|time| time.to_utc().trunc_subsecs(6))
        .map_err(|_| "must be a time such as 2026-05-12T10:24:00Z, with %2B for +".to_owned())
}

/// The call that the path names.
pub(crate) struct CallIdInPath(pub(crate) CallId);

impl<S: Send + Sync> FromRequestParts<S> for CallIdInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refuse = |why: &dyn Display| Problem::bad_parameter(format!("call_id: {why}"));
        let Path(call_id) = Path::<PathParameters>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| refuse(&rejection.body_text()))?;
        CallId::new(call_id.call_id).map(Self).map_err(|error| refuse(&error))
    }
}

#[derive(serde::Deserialize)]
struct PathParameters {
    call_id: String,
}

impl IntoParams for CallIdInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let call_id = Ref::from_schema_name(CallId::name());
        vec![parameter("call_id", ParameterIn::Path, "The call.", call_id)]
    }
}

/// The parameter `project_id` of a request for one call.
pub(crate) struct InProject;

impl IntoParams for InProject {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = "The project of the call, where several have one by that id.";
        let project_id = Ref::from_schema_name(ProjectId::name());
        vec![parameter("project_id", ParameterIn::Query, meaning, project_id)]
    }
}

/// A parameter as the interface's description has it.
pub(crate) fn parameter(
    name: &str,
    place: ParameterIn,
    meaning: &str,
    schema: impl Into<RefOr<Schema>>,
) -> Parameter {
    let is_required = if place == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(is_required)
        .description(Some(meaning))
        .schema(Some(schema))
        .build()
}

/// The parameter `status` of what is filtered by several statuses.
pub(crate) fn statuses_parameter(meaning: &str) -> Parameter {
    list_parameter("status", meaning, Ref::from_schema_name(Status::name()))
}

/// A parameter that is a list.
pub(crate) fn list_parameter(name: &str, meaning: &str, item: impl Into<ArrayItems>) -> Parameter {
    debug_assert!(LISTS.contains(&name), "{name} is not read as a list");
    let meaning = format!("{meaning} `{name}=a,b` is the same as `{name}=a&{name}=b`.");
    let items = ArrayBuilder::new().items(item);
    let mut list = parameter(name, ParameterIn::Query, &meaning, items);
    list.style = Some(ParameterStyle::Form);
    list.explode = Some(true);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u16, String> {
        text.parse().map_err(|_| "must be a number".to_owned())
    }

    fn query(text: &str) -> Query {
        Query::of(&format!("/calls?{text}").parse().unwrap())
    }

    #[test]
    fn every_bad_parameter_is_named_at_once() {
        let mut query = query("limit=many&colour=red&project_id=a&project_id=b");
        assert_eq!(query.take("limit", number), None);
        assert_eq!(query.take_project_id(), ProjectId::new("b").ok());
        let detail = format!("{:?}", query.finish().unwrap_err());
        for fault in [
            "limit: must be a number",
            "colour: is no parameter here",
            "project_id: is given twice",
        ] {
            assert!(detail.contains(fault), "{fault} is not in {detail}");
        }
    }

    #[test]
    fn a_project_id_that_is_a_uuid_is_read_in_any_case() {
        let mut query = query("project_id=3C9ACFB1-C6B7-4BBC-B6C3-628AF54D56C1");
        let read = query.take_project_id().unwrap();
        assert_eq!(read.as_str(), "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1");
    }

    #[test]
    fn what_is_not_utf_8_is_refused() {
        for wrong in ["project_id=%FF", "project_id=a%C3&limit=3", "%C3%28=a"] {
            let mut query = query(wrong);
            query.take_project_id();
            let detail = format!("{:?}", query.finish().unwrap_err());
            assert!(detail.contains("the query is not UTF-8"), "{wrong}: {detail}");
        }
        assert_eq!(
            query("project_id=%EF%BF%BD%C3%A9").take_project_id().unwrap().as_str(),
            "\u{FFFD}é"
        );
    }

    #[test]
    fn statuses_are_separated_by_commas() {
        let statuses = read_statuses("BUSY,ERROR,BUSY").unwrap();
        assert_eq!(statuses, [Status::Busy, Status::Error].into());
        for wrong in ["busy", "BUSY,", "BUSY ,ERROR", ","] {
            assert!(read_statuses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_value_that_begins_or_ends_with_a_blank_is_refused() {
        for wrong in ["limit=+3", "limit=3%20", "limit=+", "limit=%093", "limit=&limit=%C2%A03"] {
            let mut query = query(wrong);
            assert_eq!(query.take("limit", number), None);
            let detail = format!("{:?}", query.finish().unwrap_err());
            assert!(detail.contains("limit: ") && detail.contains("%2B"), "{wrong}: {detail}");
        }
    }

    #[test]
    fn an_empty_parameter_counts_as_absent() {
        let mut query = query("limit=&limit=3&cursor=");
        assert_eq!(query.take("limit", number), Some(3));
        assert_eq!(query.take("cursor", number), None);
        assert!(query.finish().is_ok());
    }
}
