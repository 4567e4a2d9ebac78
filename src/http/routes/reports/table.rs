//! An answer: its rows as JSON and as CSV.

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Array, ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, Type},
};

use crate::{
    call::Direction,
    http::{
        Problem,
        routes::reports::request::{Bucket, ReportFormat, ReportRequest},
    },
    transfer::csv::harmless,
};

/// The media type of CSV.
pub(crate) const CSV: &str = "text/csv; charset=utf-8; header=present";

/// A report.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Report)]
pub(crate) struct ReportDocument<R: ToSchema> {
    /// The least time, inclusive.
    from: DateTime<Utc>,
    /// The greatest time, exclusive.
    to: DateTime<Utc>,
    /// How the time is divided.
    #[schema(value_type = String, pattern = "^(hour|day|week|month|none)$")]
    bucket: Bucket,
    /// Whose hours, days, weeks and months.
    time_zone: String,
    /// The figures, in the order of time.
    #[schema(schema_with = list_of::<R>)]
    rows: Vec<R>,
}

/// The rows by their name, where the derived schema would hold all they are.
fn list_of<R: ToSchema>() -> Array {
    ArrayBuilder::new()
        .items(Ref::from_schema_name(R::name()))
        .description(Some("The figures, in the order of time."))
        .build()
}

/// What a row is of: what it begins with.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ReportPlace)]
pub(crate) struct RowKey {
    /// When the bucket begins, which may be before the span; absent where there are none.
    #[schema(value_type = String, format = DateTime, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bucket_start: Option<DateTime<Utc>>,
    /// The project; absent where it is not grouped by.
    #[schema(value_type = String, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) project_id: Option<String>,
    /// The direction; absent where it is not grouped by.
    #[schema(value_type = ShownDirection, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) direction: Option<ShownDirection>,
}

/// A direction as it is shown: null where it is not known.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub(crate) struct ShownDirection(pub(crate) Option<Direction>);

impl PartialSchema for ShownDirection {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(Ref::from_schema_name(Direction::name()))
            .item(ObjectBuilder::new().schema_type(Type::Null))
            .description(Some("Who dialled; null for calls of which it is not known."))
            .into()
    }
}

impl ToSchema for ShownDirection {}

/// A row of a report, as CSV has it. Its names are those of the JSON, and those
/// of a member's members follow it after a full stop.
pub(crate) trait ReportRow: Serialize + ToSchema {
    /// The names of what follows the key.
    fn names() -> Vec<String>;

    /// The key.
    fn key(&self) -> &RowKey;

    /// What follows it.
    fn values(&self) -> Vec<String>;
}

/// Responses a request.
pub(crate) fn answer<R: ReportRow>(
    request: ReportRequest,
    rows: Vec<R>,
) -> Result<Response, Problem> {
    let mut response = match request.format {
        ReportFormat::Json => {
            let ReportRequest { from, to, bucket, time_zone, .. } = request;
            Json(ReportDocument { from, to, bucket, time_zone, rows }).into_response()
        }
        ReportFormat::Csv => {
            let broken = |error: &dyn std::fmt::Display| Problem::internal(error.to_string());
            let csv = written(&request, &rows).map_err(|error| broken(&error))?;
            let content_type = HeaderValue::from_static(CSV);
            ([(header::CONTENT_TYPE, content_type)], csv).into_response()
        }
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// The rows as [RFC 4180] has them.
///
/// [RFC 4180]: https://www.rfc-editor.org/rfc/rfc4180
fn written<R: ReportRow>(request: &ReportRequest, rows: &[R]) -> Result<Vec<u8>, csv::Error> {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let places = [
        ("bucket_start", request.bucket != Bucket::Undivided),
        ("project_id", request.by_project),
        ("direction", request.by_direction),
    ];
    let grouped = places.iter().filter(|(_, is_shown)| *is_shown);
    writer.write_record(grouped.map(|(name, _)| (*name).to_owned()).chain(R::names()))?;
    for row in rows {
        let RowKey { bucket_start, project_id, direction } = row.key();
        let values = [
            bucket_start.map(time).unwrap_or_default(),
            project_id.clone().unwrap_or_default(),
            shown(direction.and_then(|ShownDirection(direction)| direction)),
        ];
        let grouped = places.iter().zip(values).filter(|((_, is_shown), _)| *is_shown);
        let record = grouped.map(|(_, value)| value).chain(row.values());
        writer.write_record(record.map(|value| harmless(&value).into_owned()))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// A time, with as many digits as all others: readers take the form of the first for that of all.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A value that may be missing.
pub(crate) fn shown<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
