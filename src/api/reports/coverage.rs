//! `GET /reports/coverage`: which types of events come, and which seem to be
//! switched off.

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    question::{Asking, Look, Question},
    table::{Place, ReportDocument, Row, ShownDirection, answer, shown, time},
};
use crate::{
    api::{
        Problem, Shared,
        caller::Caller,
        openapi::{answers::BadParameter, example},
    },
    call::KnownEvent,
    store::reports::coverage::{Kind, coverage},
};

/// One of the 18 types of events in a project. Whatever is grouped by, each
/// project is shown for itself.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct CoverageRow {
    #[serde(flatten)]
    place: Place,
    /// The type.
    event_type: KnownEvent,
    /// How many happened in the bucket.
    events: u64,
    /// When the first of them happened; null where there was none.
    first_seen_at: Option<DateTime<Utc>>,
    /// When the last of them happened; null where there was none.
    last_seen_at: Option<DateTime<Utc>>,
    /// How many of the calls that began in the bucket came to a status beyond it, none of whose
    /// attempts was told of it.
    calls_that_skipped: u64,
}

impl Row for CoverageRow {
    fn names() -> Vec<String> {
        ["event_type", "events", "first_seen_at", "last_seen_at", "calls_that_skipped"]
            .map(str::to_owned)
            .into()
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn values(&self) -> Vec<String> {
        vec![
            self.event_type.to_string(),
            self.events.to_string(),
            shown(self.first_seen_at.map(time)),
            shown(self.last_seen_at.map(time)),
            self.calls_that_skipped.to_string(),
        ]
    }
}

/// Which types of events come
///
/// A row for each project and type of events. Shows which types are switched off at the provider.
#[utoipa::path(
    get,
    path = "/reports/coverage",
    operation_id = "get_coverage",
    tag = "reports",
    params(Asking),
    responses(
        (status = 200, description = "The report.", content(
            (ReportDocument<CoverageRow> = "application/json",
             example = json!(example(include_str!("../openapi/examples/coverage.json")))),
            (String = "text/csv; charset=utf-8; header=present",
             example = json!("project_id,event_type,events,first_seen_at,last_seen_at,calls_that_skipped\r\ndemo,OUTBOUND_CALL_CALLING,2,2026-05-12T10:24:02.000000Z,2026-05-12T10:30:00.000000Z,0\r\n")),
        )),
        BadParameter,
    ),
    security((), ("api_key" = [])),
)]
pub(in crate::api) async fn show(
    State(service): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Question::answer(&service, &caller, &uri, &headers, report).await
}

/// The report.
async fn report(mut question: Question, mut look: Look) -> Result<Response, Problem> {
    let mut beside = look.beside().await?;
    let found = coverage(&mut look.tx, beside.as_deref_mut(), &question.asked()).await?;
    let types: Vec<KnownEvent> = KnownEvent::ALL
        .iter()
        .copied()
        .filter(|known| question.direction.is_none_or(|it| it == known.direction()))
        .collect();
    question.check_rows(found.projects.len() * types.len())?;
    question.by_project = true;
    let mut rows = Vec::with_capacity(question.starts.len() * found.projects.len() * types.len());
    for bucket in 0..question.starts.len() {
        for project_id in &found.projects {
            for event_type in &types {
                let kind = Kind {
                    bucket,
                    project_id: project_id.clone(),
                    event_type: event_type.to_string(),
                };
                let seen = found.seen.get(&kind);
                rows.push(CoverageRow {
                    event_type: *event_type,
                    events: seen.map_or(0, |seen| seen.events),
                    first_seen_at: seen.map(|seen| seen.first_seen_at),
                    last_seen_at: seen.map(|seen| seen.last_seen_at),
                    calls_that_skipped: found.skipped.get(&kind).copied().unwrap_or_default(),
                    place: Place {
                        bucket_start: question.bucket_start(bucket),
                        project_id: Some(kind.project_id),
                        direction: question
                            .by_direction
                            .then_some(ShownDirection(Some(event_type.direction()))),
                    },
                });
            }
        }
    }
    answer(question, rows)
}
