//! Which events a stream, or a page of the change feed, selects.

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
    call::{CallId, CallKey, Direction, ProjectId, Status},
    http::{
        auth::ApiClient,
        query::{Query, parameter, read_name, read_statuses, statuses_parameter},
    },
    store::events::{feed::FeedItem, feed_details::FeedFilter},
};

/// The filter of a stream.
#[derive(Debug)]
pub(in crate::http) struct Filter {
    pub(crate) call_id: Option<CallId>,
    /// The projects that the caller may see, or the requested one of them.
    pub(crate) projects: Projects,
    direction: Option<Direction>,
    statuses: Option<BTreeSet<Status>>,
}

impl Filter {
    /// Reads the parameters `project_id`, `direction` and `status`.
    pub(in crate::http) fn read(
        query: &mut Query,
        caller: &ApiClient,
        call_id: Option<CallId>,
    ) -> Self {
        Self {
            call_id,
            projects: caller.projects(query.take_project_id().as_ref()),
            direction: query.take("direction", read_name),
            statuses: query.take("status", read_statuses),
        }
    }

    /// The same filter as a query has it.
    pub(in crate::http) fn of_feed(&self) -> FeedFilter<'_> {
        FeedFilter {
            projects: self.projects.ids(),
            direction: self.direction,
            statuses: self.statuses.as_ref().map(|them| them.iter().map(|it| it.id()).collect()),
        }
    }

    /// Whether it selects an event, or an erasure, whose direction and status are gone.
    pub(crate) fn selects(&self, item: &FeedItem) -> bool {
        let CallKey { call_id, project_id } = item.key();
        let selects_call = self.call_id.as_ref().is_none_or(|it| it == call_id)
            && self.projects.contains(project_id);
        selects_call
            && match item {
                FeedItem::Event(event) => {
                    self.direction.is_none_or(|it| Some(it) == event.direction)
                        && self.statuses.as_ref().is_none_or(|them| them.contains(&event.status))
                }
                FeedItem::Erased(_) => true,
            }
    }
}

/// The parameters of a filter.
pub(in crate::http) struct FilterParameters;

impl IntoParams for FilterParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let query = ParameterIn::Query;
        vec![
            parameter(
                "project_id",
                query.clone(),
                "The project of the calls.",
                Ref::from_schema_name(ProjectId::name()),
            ),
            parameter(
                "direction",
                query,
                "The direction of the calls.",
                Ref::from_schema_name(Direction::name()),
            ),
            statuses_parameter("The statuses of the calls after the event."),
        ]
    }
}
