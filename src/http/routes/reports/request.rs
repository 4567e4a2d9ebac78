//! What may be asked of every report: which time, which calls, how divided, and
//! in what form.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    http::{HeaderMap, Uri, header},
    response::Response,
};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{
    IntoParams, ToSchema as _,
    openapi::{
        KnownFormat, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat, Type,
        path::{Parameter, ParameterIn},
    },
};

use crate::{
    access::Projects,
    call::{Direction, ProjectId, named},
    http::{
        Problem, Service,
        auth::ApiClient,
        query::{Query, list_parameter, parameter, read_instant, read_name},
        routes::reports::table::{RowKey, ShownDirection},
    },
    store::reports::{self, Cell, Group, ReportQuery, span},
};

/// The most buckets of a report.
const MAX_BUCKETS: usize = 10_000;

/// The most rows of a report.
const MAX_ROWS: usize = 100_000;

/// How much time is reported on, unless it is said.
const DEFAULT_SPAN: TimeDelta = TimeDelta::days(7);

/// How long the database may take for one statement of a report.
const TIMEOUT: Duration = Duration::from_secs(30);

const UTC: &str = "UTC";

named! {
    /// How the time is divided.
    pub enum Bucket as "bucket" {
        /// By the hour.
        Hour = "hour",
        /// By the day.
        Day = "day",
        /// By the week, which begins on Monday.
        Week = "week",
        /// By the month, which begins on its first day.
        Month = "month",
        /// Not at all.
        Undivided = "none",
    }
}

impl Bucket {
    /// The longest that one is, but for changes of the clock.
    fn length(self) -> Option<TimeDelta> {
        match self {
            Self::Hour => Some(TimeDelta::hours(1)),
            Self::Day => Some(TimeDelta::days(1)),
            Self::Week => Some(TimeDelta::weeks(1)),
            Self::Month => Some(TimeDelta::days(31)),
            Self::Undivided => None,
        }
    }
}

named! {
    /// What an answer may be written in.
    pub enum ReportFormat as "format" {
        /// As JSON.
        Json = "json",
        /// As CSV.
        Csv = "csv",
    }
}

/// The parameters of a report.
pub(crate) struct ReportParameters;

impl IntoParams for ReportParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let time = || text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        let named = |names: Vec<&'static str>| text().enum_values(Some(names));
        let buckets = Bucket::ALL.iter().map(|it| it.as_str()).collect();
        let formats = ReportFormat::ALL.iter().map(|it| it.as_str()).collect();
        let asked = |name, meaning, schema: RefOr<Schema>| {
            parameter(name, ParameterIn::Query, meaning, schema)
        };
        vec![
            asked(
                "from",
                "The least time, inclusive; 7 days before `to` by default.",
                time().into(),
            ),
            asked("to", "The greatest time, exclusive; now by default.", time().into()),
            asked(
                "bucket",
                "How the time is divided. A bucket begins where the time zone's hour, day, Monday or \
                 month does, the first perhaps before `from`. There are at most 10,000.",
                named(buckets).default(Some("none".into())).into(),
            ),
            asked(
                "time_zone",
                "Whose hours, days, weeks and months: a name of IANA.",
                text().default(Some(UTC.into())).examples(["Europe/Berlin"]).into(),
            ),
            list_parameter(
                "group_by",
                "What the figures are shown for each of.",
                named(vec!["project_id", "direction"]),
            ),
            asked(
                "project_id",
                "Only this project.",
                Ref::from_schema_name(ProjectId::name()).into(),
            ),
            asked("direction", "Only this one.", Ref::from_schema_name(Direction::name()).into()),
            asked("format", "Instead of what `Accept` prefers.", named(formats).into()),
        ]
    }
}

/// What is asked of a report.
#[derive(Debug)]
pub(crate) struct ReportRequest {
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
    /// When it was asked.
    pub(crate) now: DateTime<Utc>,
    pub(crate) bucket: Bucket,
    pub(crate) time_zone: String,
    pub(crate) by_project: bool,
    pub(crate) by_direction: bool,
    pub(crate) direction: Option<Direction>,
    projects: Projects,
    pub(crate) format: ReportFormat,
    /// Where the buckets begin.
    pub(crate) starts: Vec<DateTime<Utc>>,
}

/// A snapshot at the database for one report.
pub(crate) struct ReportSnapshot {
    pub(crate) tx: Transaction<'static, Postgres>,
    pool: PgPool,
    _turn: OwnedSemaphorePermit,
}

impl ReportSnapshot {
    /// A second snapshot at the same snapshot, where there is a connection for it.
    pub(crate) async fn beside(
        &mut self,
    ) -> Result<Option<Transaction<'static, Postgres>>, Problem> {
        Ok(reports::beside(&self.pool, &mut self.tx, TIMEOUT).await?)
    }
}

impl ReportRequest {
    /// Reads the parameters, waits for a turn, and has the report made.
    ///
    /// Whoever asked may go, or be told that it takes too long; the database goes on with a statement
    /// all the same. So a report that was begun is made to its end, and only then its turn and its
    /// connection are free.
    pub(crate) async fn answer<R>(
        service: &Service,
        caller: &ApiClient,
        uri: &Uri,
        headers: &HeaderMap,
        report: impl FnOnce(Self, ReportSnapshot) -> R + Send + 'static,
    ) -> Result<Response, Problem>
    where
        R: Future<Output = Result<Response, Problem>> + Send,
    {
        let time_zones = service.reports.time_zones(&service.pool).await?;
        let request = Self::read(uri, headers, caller, time_zones, service.clock.now())?;
        let turn = service.reports.turn().await?;
        let pool = service.pool.clone();
        let made = tokio::spawn(async move {
            let (request, snapshot) = request.begin(pool, turn).await?;
            report(request, snapshot).await
        });
        made.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
    }

    /// Begins to snapshot.
    async fn begin(
        mut self,
        pool: PgPool,
        turn: OwnedSemaphorePermit,
    ) -> Result<(Self, ReportSnapshot), Problem> {
        let mut tx = reports::begin(&pool, TIMEOUT).await?;
        self.starts = match self.bucket {
            Bucket::Undivided => vec![self.from],
            bucket => {
                let (from, to) = (self.from, self.to);
                span::starts(&mut *tx, from, to, bucket.as_str(), &self.time_zone).await?
            }
        };
        if self.starts.len() > MAX_BUCKETS {
            return Err(Problem::bad_parameter(format!("bucket: {}", too_many())));
        }
        Ok((self, ReportSnapshot { tx, pool, _turn: turn }))
    }

    fn read(
        uri: &Uri,
        headers: &HeaderMap,
        caller: &ApiClient,
        time_zones: &BTreeSet<String>,
        now: DateTime<Utc>,
    ) -> Result<Self, Problem> {
        let mut query = Query::of(uri);
        let to = query.take("to", read_instant).unwrap_or(now);
        let from = query.take("from", read_instant).unwrap_or(to - DEFAULT_SPAN);
        let bucket = query.take("bucket", read_name).unwrap_or(Bucket::Undivided);
        let time_zone = query.take("time_zone", |zone| {
            time_zones.get(zone).cloned().ok_or_else(|| {
                "must be the name of a time zone such as Europe/Berlin, \
                     and no abbreviation as CET is"
                    .to_owned()
            })
        });
        let (by_project, by_direction) = query.take("group_by", groups).unwrap_or_default();
        let projects = caller.projects(query.take_project_id().as_ref());
        let direction = query.take("direction", read_name);
        let format = query.take("format", read_name).unwrap_or_else(|| preferred(headers));
        if from >= to {
            query.fault("from", "must be before to");
        } else if bucket.length().is_some_and(|length| {
            // How many there are exactly, the database tells of spans that it may be asked about.
            (to - from) / i32::try_from(MAX_BUCKETS + 2).unwrap_or(i32::MAX) > length
        }) {
            query.fault("bucket", &too_many());
        }
        query.finish()?;
        Ok(Self {
            from,
            to,
            now,
            bucket,
            time_zone: time_zone.unwrap_or_else(|| UTC.to_owned()),
            by_project,
            by_direction,
            direction,
            projects,
            format,
            starts: Vec::new(),
        })
    }

    /// The request as the store takes it.
    pub(crate) fn query(&self) -> ReportQuery<'_> {
        ReportQuery {
            from: self.from,
            to: self.to,
            starts: &self.starts,
            projects: self.projects.ids(),
            direction: self.direction,
            by_project: self.by_project,
            by_direction: self.by_direction,
            max_rows: MAX_ROWS,
        }
    }

    /// The cells of the report, in order: each bucket for each group that was seen. `rows` is how
    /// many rows each has.
    pub(crate) fn cells(
        &self,
        seen: impl IntoIterator<Item = Group>,
        rows: usize,
    ) -> Result<Vec<Cell>, Problem> {
        let mut groups: BTreeSet<Group> = seen.into_iter().collect();
        if !self.by_project && !self.by_direction {
            groups.insert(Group::default());
        }
        self.check_rows(groups.len() * rows)?;
        let cells = (0..self.starts.len()).flat_map(|bucket| {
            groups.iter().map(move |group| Cell { bucket, group: group.clone() })
        });
        Ok(cells.collect())
    }

    /// Refuses a report that would have more rows than one may, with so many in each bucket.
    pub(crate) fn check_rows(&self, in_bucket: usize) -> Result<(), Problem> {
        if self.starts.len().saturating_mul(in_bucket) > MAX_ROWS {
            let named = [
                ("from, to", true),
                (", bucket", self.bucket != Bucket::Undivided),
                (", group_by", self.by_project || self.by_direction),
            ];
            let named: String =
                named.iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| *name).collect();
            return Err(Problem::bad_parameter(format!(
                "{named}: there would be more than {MAX_ROWS} rows"
            )));
        }
        Ok(())
    }

    /// What a row of a cell begins with.
    pub(crate) fn key(&self, cell: &Cell) -> RowKey {
        RowKey {
            bucket_start: self.bucket_start(cell.bucket),
            project_id: cell.group.project_id.clone(),
            direction: self.by_direction.then_some(ShownDirection(cell.group.direction)),
        }
    }

    /// When a bucket begins, if there are any.
    pub(crate) fn bucket_start(&self, bucket: usize) -> Option<DateTime<Utc>> {
        self.starts.get(bucket).copied().filter(|_| self.bucket != Bucket::Undivided)
    }

    /// The part of a bucket that is asked about.
    pub(crate) fn span(&self, bucket: usize) -> (DateTime<Utc>, DateTime<Utc>) {
        let begins = self.starts[bucket].max(self.from);
        let ends = self.starts.get(bucket + 1).copied().unwrap_or(self.to);
        (begins, ends)
    }
}

fn too_many() -> String {
    format!("there would be more than {MAX_BUCKETS}")
}

/// Reads `group_by`: whether by project, and whether by direction.
fn groups(text: &str) -> Result<(bool, bool), String> {
    let mut groups = (false, false);
    for group in text.split(',') {
        match group {
            "project_id" => groups.0 = true,
            "direction" => groups.1 = true,
            _ => return Err("may have project_id and direction, separated by a comma".to_owned()),
        }
    }
    Ok(groups)
}

/// The format that `Accept` prefers: CSV where it is liked better than JSON.
fn preferred(headers: &HeaderMap) -> ReportFormat {
    let accepted: Vec<(&str, f32)> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| {
            let (range, parameters) = range.split_once(';').unwrap_or((range, ""));
            let weight = parameters
                .split(';')
                .find_map(|parameter| parameter.trim().strip_prefix("q="))
                .map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            (range.trim(), weight)
        })
        .collect();
    // The most exact range that fits counts (RFC 9110, 12.5.1).
    let weight = |ranges: [&str; 3]| {
        let weigh = |range: &str| accepted.iter().find(|it| it.0.eq_ignore_ascii_case(range));
        ranges.into_iter().find_map(weigh).map_or(0.0, |(_, weight)| *weight)
    };
    let csv = weight(["text/csv", "text/*", "*/*"]);
    let json = weight(["application/json", "application/*", "*/*"]);
    if csv > json { ReportFormat::Csv } else { ReportFormat::Json }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())])
    }

    #[test]
    fn csv_is_given_to_who_likes_it_better_than_json() {
        for (accept, format) in [
            ("text/csv", ReportFormat::Csv),
            ("TEXT/CSV;header=present", ReportFormat::Csv),
            ("text/csv, */*;q=0.8", ReportFormat::Csv),
            ("text/*;q=0.5", ReportFormat::Csv),
            ("application/json;q=0.2, text/csv;q=0.3", ReportFormat::Csv),
            ("text/html, application/json", ReportFormat::Json),
            ("text/csv, application/json", ReportFormat::Json),
            ("text/csv;q=0, */*", ReportFormat::Json),
            ("*/*", ReportFormat::Json),
            ("text/csv;q=much", ReportFormat::Json),
        ] {
            assert_eq!(preferred(&headers(accept)), format, "{accept}");
        }
        assert_eq!(preferred(&HeaderMap::new()), ReportFormat::Json);
    }

    #[test]
    fn every_bad_parameter_is_named_at_once() {
        let uri = "/reports/outcomes?from=yesterday&to=2026-05-12&bucket=decade&time_zone=Mars/Olympus\
                   &group_by=status&project_id=%00&direction=up&format=xml&colour=red";
        let zones = BTreeSet::from(["UTC".to_owned()]);
        let now = DateTime::UNIX_EPOCH;
        let read = |uri: &str| {
            ReportRequest::read(
                &uri.parse().unwrap(),
                &HeaderMap::new(),
                &ApiClient::Anonymous,
                &zones,
                now,
            )
        };
        let detail = format!("{:?}", read(uri).unwrap_err());
        for parameter in [
            "from",
            "to",
            "bucket",
            "time_zone",
            "group_by",
            "project_id",
            "direction",
            "format",
            "colour",
        ] {
            assert!(detail.contains(&format!("{parameter}: ")), "{parameter}: {detail}");
        }
        let long = "/r?from=0001-01-01T00:00:00Z&to=9999-01-01T00:00:00Z&bucket=week";
        assert!(format!("{:?}", read(long).unwrap_err()).contains("bucket: there would be more"));
        let backwards = "/r?from=2026-05-12T00:00:00Z&to=2026-05-12T00:00:00Z";
        assert!(format!("{:?}", read(backwards).unwrap_err()).contains("from: must be before to"));
    }
}
