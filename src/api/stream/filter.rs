//! Which messages somebody listens to.

use std::collections::BTreeSet;

use utoipa::{
    IntoParams, ToSchema as _,
    openapi::{
        Ref,
        path::{Parameter, ParameterIn},
    },
};

use crate::{
    access::Projects,
    api::{
        caller::Caller,
        query::{Query, parameter, read_name, read_statuses, statuses_parameter},
    },
    call::{CallId, Direction, ProjectId, Status},
    store::stream::Message,
};

/// What a message must be about.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) call_id: Option<CallId>,
    /// Those that the caller may see, of which the one it asked for.
    pub(super) projects: Projects,
    direction: Option<Direction>,
    statuses: Option<BTreeSet<Status>>,
}

impl Filter {
    /// Reads the parameters `project_id`, `direction` and `status`.
    pub(super) fn read(query: &mut Query, caller: &Caller, call_id: Option<CallId>) -> Self {
        Self {
            call_id,
            projects: caller.projects(query.take_project_id().as_ref()),
            direction: query.take("direction", read_name),
            statuses: query.take("status", read_statuses),
        }
    }

    /// Whether a message is about what was asked for.
    pub(super) fn takes(&self, message: &Message) -> bool {
        self.call_id.as_ref().is_none_or(|it| *it == message.key.call_id)
            && self.projects.contains(&message.key.project_id)
            && self.direction.is_none_or(|it| Some(it) == message.direction)
            && self.statuses.as_ref().is_none_or(|them| them.contains(&message.status))
    }
}

/// The parameters of a filter.
pub(in crate::api) struct Filtering;

impl IntoParams for Filtering {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let query = ParameterIn::Query;
        vec![
            parameter(
                "project_id",
                query.clone(),
                "The project whose calls are told.",
                Ref::from_schema_name(ProjectId::name()),
            ),
            parameter(
                "direction",
                query,
                "Who dialled the calls that are told.",
                Ref::from_schema_name(Direction::name()),
            ),
            statuses_parameter("The statuses of calls that are told, separated by commas."),
        ]
    }
}
