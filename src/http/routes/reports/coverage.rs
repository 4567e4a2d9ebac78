//! `GET /reports/coverage`: which types of events come, and which seem to be
//! switched off.

use std::iter::from_fn;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    call::KnownEvent,
    http::{
        Problem, Shared,
        auth::ApiClient,
        openapi::{answers::BadParameter, example},
        routes::reports::{
            request::{ReportParameters, ReportRequest, ReportSnapshot},
            table::{ReportDocument, ReportRow, RowKey, ShownDirection, answer, shown, time},
        },
    },
    store::reports::coverage::{Kind, coverage},
};

/// An event type in a project: each of the 18 known types, and unknown ones that were
/// received. Always grouped by project.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct CoverageRow {
    #[serde(flatten)]
    key: RowKey,
    /// The provider's name of the type.
    event_type: String,
    /// Whether the provider describes the type: it is one of the 18.
    known: bool,
    /// How many happened in the bucket.
    events: u64,
    /// When the first of them happened; null where there was none.
    first_seen_at: Option<DateTime<Utc>>,
    /// When the last of them happened; null where there was none.
    last_seen_at: Option<DateTime<Utc>>,
    /// Calls that began in the bucket and reached a status beyond it, while none of their attempts
    /// reported it; null for types that are not known.
    calls_that_skipped: Option<u64>,
}

impl ReportRow for CoverageRow {
    fn names() -> Vec<String> {
        ["event_type", "known", "events", "first_seen_at", "last_seen_at", "calls_that_skipped"]
            .map(str::to_owned)
            .into()
    }

    fn key(&self) -> &RowKey {
        &self.key
    }

    fn values(&self) -> Vec<String> {
        vec![
            self.event_type.clone(),
            self.known.to_string(),
            self.events.to_string(),
            shown(self.first_seen_at.map(time)),
            shown(self.last_seen_at.map(time)),
            self.calls_that_skipped.map_or_else(String::new, |calls| calls.to_string()),
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
    params(ReportParameters),
    responses(
        (status = 200, description = "The report.", content(
            (ReportDocument<CoverageRow> = "application/json",
             example = json!(example(include_str!("../../openapi/examples/coverage.json")))),
            (String = "text/csv; charset=utf-8; header=present",
             example = json!("project_id,event_type,known,events,first_seen_at,last_seen_at,calls_that_skipped\r\ndemo,OUTBOUND_CALL_CALLING,true,2,2026-05-12T10:24:02.000000Z,2026-05-12T10:30:00.000000Z,0\r\n")),
        )),
        BadParameter,
    ),
    security((), ("api_key" = [])),
)]
pub(in crate::http) async fn show(
    State(service): State<Shared>,
    caller: ApiClient,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    ReportRequest::answer(&service, &caller, &uri, &headers, report).await
}

/// The report.
async fn report(
    mut request: ReportRequest,
    mut snapshot: ReportSnapshot,
) -> Result<Response, Problem> {
    let mut beside = snapshot.beside().await?;
    let found = coverage(&mut snapshot.tx, beside.as_deref_mut(), &request.query()).await?;
    let types: Vec<KnownEvent> = KnownEvent::ALL
        .iter()
        .copied()
        .filter(|known| request.direction.is_none_or(|it| it == known.direction()))
        .collect();
    let is_unknown = |kind: &&Kind| kind.event_type.parse::<KnownEvent>().is_err();
    let unknown: Vec<&Kind> = found.seen.keys().filter(is_unknown).collect();
    request.check_rows(found.projects.len() * types.len() + unknown.len())?;
    request.by_project = true;
    let row = |kind: &Kind, known: Option<KnownEvent>| {
        let seen = found.seen.get(kind);
        let skipped = found.skipped.get(kind).copied().unwrap_or_default();
        CoverageRow {
            event_type: kind.event_type.clone(),
            known: known.is_some(),
            events: seen.map_or(0, |seen| seen.events),
            first_seen_at: seen.map(|seen| seen.first_seen_at),
            last_seen_at: seen.map(|seen| seen.last_seen_at),
            calls_that_skipped: known.map(|_| skipped),
            key: RowKey {
                bucket_start: request.bucket_start(kind.bucket),
                project_id: Some(kind.project_id.clone()),
                direction: request
                    .by_direction
                    .then_some(ShownDirection(known.map(KnownEvent::direction))),
            },
        }
    };
    // In the order of the rows.
    let mut unknown = unknown.into_iter().peekable();
    let mut rows = Vec::with_capacity(request.starts.len() * found.projects.len() * types.len());
    for bucket in 0..request.starts.len() {
        for project_id in &found.projects {
            let kind = |event_type: &str| Kind {
                bucket,
                project_id: project_id.clone(),
                event_type: event_type.to_owned(),
            };
            rows.extend(types.iter().map(|known| row(&kind(known.as_str()), Some(*known))));
            let is_here = |kind: &&Kind| kind.bucket == bucket && kind.project_id == *project_id;
            rows.extend(from_fn(|| unknown.next_if(is_here)).map(|kind| row(kind, None)));
        }
    }
    answer(request, rows)
}
