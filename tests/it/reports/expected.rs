//! The expected reports: counted over the simulated calls, without a database.

use std::collections::{BTreeMap, BTreeSet};

use callstate::call::{Direction, KnownEvent, Status};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::simulated::SimulatedCall;

/// What is asked, in the time zone of Berlin.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
    pub(super) bucket: &'static str,
    pub(super) by_project: bool,
    pub(super) by_direction: bool,
    pub(super) project_id: Option<String>,
    pub(super) direction: Option<Direction>,
}

type Group = (Option<String>, Option<Direction>);

impl Ask {
    pub(super) fn query(&self) -> String {
        let groups = [(self.by_project, "project_id"), (self.by_direction, "direction")];
        let groups: Vec<&str> = groups.iter().filter(|it| it.0).map(|it| it.1).collect();
        format!(
            "from={}&to={}&bucket={}&time_zone=Europe/Berlin&group_by={}&project_id={}&direction={}",
            self.from.format("%FT%TZ"),
            self.to.format("%FT%TZ"),
            self.bucket,
            groups.join(","),
            self.project_id.as_deref().unwrap_or_default(),
            self.direction.map_or("", Direction::as_str),
        )
    }

    /// Each bucket that has a part in the span: from, to.
    pub(super) fn buckets(&self) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
        if self.bucket == "none" {
            return vec![(self.from, self.to)];
        }
        // Hour by hour, since all else begins with one.
        let mut starts = Vec::new();
        let mut hour = self.from.duration_trunc(TimeDelta::hours(1)).unwrap() - TimeDelta::days(8);
        while hour < self.to {
            let local = in_berlin(hour);
            let begins = match self.bucket {
                "hour" => true,
                "day" => local.format("%H").to_string() == "00",
                _ => local.format("%a %H").to_string() == "Mon 00",
            };
            if begins {
                starts.push(hour);
            }
            hour += TimeDelta::hours(1);
        }
        let first = starts.iter().rposition(|start| *start <= self.from).unwrap();
        let starts = &starts[first..];
        let ends = starts[1..].iter().copied().chain([self.to]);
        starts.iter().copied().zip(ends).collect()
    }

    fn group(&self, simulated: &SimulatedCall) -> Group {
        let project_id = self.by_project.then(|| simulated.key.project_id.to_string());
        (project_id, simulated.call.direction.filter(|_| self.by_direction))
    }

    /// The calls that are asked about, whenever they began.
    fn asked<'a>(&'a self, calls: &'a [SimulatedCall]) -> impl Iterator<Item = &'a SimulatedCall> {
        calls.iter().filter(|simulated| {
            let project_id = simulated.key.project_id.as_str();
            self.project_id.as_deref().is_none_or(|it| it == project_id)
                && self.direction.is_none_or(|it| simulated.call.direction == Some(it))
        })
    }

    fn began<'a>(&'a self, calls: &'a [SimulatedCall]) -> impl Iterator<Item = &'a SimulatedCall> {
        self.asked(calls)
            .filter(|simulated| (self.from..self.to).contains(&simulated.call.first_event_at))
    }

    fn groups(&self, seen: impl Iterator<Item = Group>) -> BTreeSet<Group> {
        let nothing = (!self.by_project && !self.by_direction).then_some((None, None));
        seen.chain(nothing).collect()
    }

    fn place(&self, start: DateTime<Utc>, group: &Group) -> Map<String, Value> {
        let mut place = Map::new();
        if self.bucket != "none" {
            place.insert("bucket_start".to_owned(), json!(start));
        }
        if self.by_project {
            place.insert("project_id".to_owned(), json!(group.0));
        }
        if self.by_direction {
            place.insert("direction".to_owned(), json!(group.1));
        }
        place
    }

    /// Rows of what the calls are that began in each bucket, for each group of which any call has
    /// something to tell.
    fn rows<'a>(
        &'a self,
        calls: &'a [SimulatedCall],
        tells: impl Fn(&SimulatedCall) -> bool,
        mut row: impl FnMut(&[&'a SimulatedCall]) -> Vec<Value>,
    ) -> Vec<Value> {
        let telling = self.began(calls).filter(|simulated| tells(simulated));
        let groups = self.groups(telling.map(|simulated| self.group(simulated)));
        let mut rows = Vec::new();
        for (start, end) in self.buckets() {
            for group in &groups {
                let of_cell: Vec<&SimulatedCall> = self
                    .began(calls)
                    .filter(|simulated| (start..end).contains(&simulated.call.first_event_at))
                    .filter(|simulated| self.group(simulated) == *group)
                    .collect();
                for fields in row(&of_cell) {
                    let mut whole = self.place(start, group);
                    whole.extend(fields.as_object().unwrap().clone());
                    rows.push(Value::Object(whole));
                }
            }
        }
        rows
    }

    pub(super) fn outcomes(&self, calls: &[SimulatedCall]) -> Vec<Value> {
        /// How many there are of each that there is.
        fn counted(statuses: impl Iterator<Item = Status>) -> BTreeMap<Status, usize> {
            let mut counts = BTreeMap::new();
            statuses.for_each(|status| *counts.entry(status).or_default() += 1);
            counts
        }
        self.rows(
            calls,
            |_| true,
            |calls| {
                let count =
                    |is: &dyn Fn(&SimulatedCall) -> bool| calls.iter().filter(|it| is(it)).count();
                let terminal = count(&|it| it.call.status.is_terminal());
                let completed = count(&|it| it.call.status == Status::Completed);
                let attempts: Vec<Status> = calls
                    .iter()
                    .flat_map(|simulated| {
                        simulated.call.attempts.iter().map(|attempt| attempt.status)
                    })
                    .collect();
                let by_status = counted(calls.iter().map(|simulated| simulated.call.status));
                let attempts_by_status = counted(attempts.iter().copied());
                let rate = (terminal > 0).then(|| ratio(completed, terminal));
                vec![json!({
                    "calls": calls.len(), "live": calls.len() - terminal, "terminal": terminal,
                    "completed": completed,
                    "completed_with_errors":
                        count(&|it| it.call.status == Status::Completed && it.call.has_errors),
                    "completion_rate": rate, "by_status": by_status,
                    "attempts": attempts.len(), "attempts_by_status": attempts_by_status,
                })]
            },
        )
    }

    pub(super) fn durations(&self, calls: &[SimulatedCall]) -> Vec<Value> {
        let seen: BTreeSet<Status> = self
            .began(calls)
            .flat_map(|simulated| simulated.call.microseconds_in_status.keys().copied())
            .collect();
        let names = seen.iter().map(Status::to_string).chain(["total".to_owned()]);
        let names: Vec<String> = names.collect();
        let tells = |simulated: &SimulatedCall| {
            !simulated.call.microseconds_in_status.is_empty() || simulated.call.ended_at().is_some()
        };
        self.rows(calls, tells, |calls| {
            let row = |name: &String| {
                let mut values: Vec<f64> = calls
                    .iter()
                    .filter_map(|simulated| {
                        let call = &simulated.call;
                        let microseconds = match name.parse::<Status>() {
                            Ok(status) => *call.microseconds_in_status.get(&status)?,
                            Err(_) => {
                                (call.ended_at()? - call.first_event_at).num_microseconds()?
                            }
                        };
                        Some(ratio(usize::try_from(microseconds).unwrap(), 1_000_000))
                    })
                    .collect();
                values.sort_by(f64::total_cmp);
                let mean = (!values.is_empty())
                    .then(|| values.iter().sum::<f64>() / ratio(values.len(), 1));
                json!({
                    "status": name, "count": values.len(), "mean_seconds": mean,
                    "p50_seconds": percentile(&values, 50), "p90_seconds": percentile(&values, 90),
                    "p99_seconds": percentile(&values, 99),
                })
            };
            names.iter().map(row).collect()
        })
    }

    pub(super) fn errors(&self, calls: &[SimulatedCall]) -> Vec<Value> {
        let with_errors = || self.began(calls).filter(|simulated| !simulated.errors.is_empty());
        let kinds: BTreeSet<_> = with_errors().flat_map(|simulated| &simulated.errors).collect();
        self.rows(
            calls,
            |simulated| !simulated.errors.is_empty(),
            |calls| {
                let row = |kind: &&(Option<String>, Option<String>)| {
                    let of_call = |simulated: &&SimulatedCall| {
                        simulated.errors.iter().filter(|it| it == kind).count()
                    };
                    json!({
                        "code": kind.0, "phase": kind.1,
                        "errors": calls.iter().map(of_call).sum::<usize>(),
                        "calls": calls.iter().filter(|simulated| of_call(simulated) > 0).count(),
                    })
                };
                kinds.iter().map(row).collect()
            },
        )
    }

    pub(super) fn concurrency(&self, calls: &[SimulatedCall]) -> Vec<Value> {
        let stays: Vec<(Group, DateTime<Utc>, DateTime<Utc>)> = self
            .asked(calls)
            .flat_map(|simulated| {
                let stays = simulated.calling().into_iter();
                stays.map(|(from, to)| {
                    (self.group(simulated), from, to.unwrap_or(DateTime::<Utc>::MAX_UTC))
                })
            })
            .filter(|(_, from, to)| from != to)
            .collect();
        let turned_away =
            || self.began(calls).filter(|it| it.call.status == Status::ConcurrencyLimitExceeded);
        let in_span =
            |from: &DateTime<Utc>, to: &DateTime<Utc>| *from < self.to && *to >= self.from;
        let seen = stays.iter().filter(|(_, from, to)| in_span(from, to)).map(|it| it.0.clone());
        let groups = self.groups(seen.chain(turned_away().map(|simulated| self.group(simulated))));
        let mut rows = Vec::new();
        for (start, end) in self.buckets() {
            for group in &groups {
                let (begins, ends) = (start.max(self.from), end.min(self.to));
                let of_group: Vec<_> = stays.iter().filter(|stay| stay.0 == *group).collect();
                let at = |moment: DateTime<Utc>| {
                    of_group.iter().filter(|(_, from, to)| (*from..*to).contains(&moment)).count()
                };
                let came = of_group.iter().map(|stay| stay.1);
                let came = came.filter(|moment| (begins..ends).contains(moment));
                let peak = came.chain([begins]).map(at).max();
                let busy: i64 = of_group
                    .iter()
                    .map(|(_, from, to)| (*to).min(ends) - (*from).max(begins))
                    .map(|overlap| overlap.num_seconds().max(0))
                    .sum();
                let length = usize::try_from((ends - begins).num_seconds()).unwrap();
                let turned_away = turned_away()
                    .filter(|simulated| (start..end).contains(&simulated.call.first_event_at))
                    .filter(|simulated| self.group(simulated) == *group)
                    .count();
                let mut row = self.place(start, group);
                row.insert("peak".to_owned(), json!(peak));
                row.insert("mean".to_owned(), json!(ratio(usize::try_from(busy).unwrap(), length)));
                row.insert("turned_away".to_owned(), json!(turned_away));
                rows.push(Value::Object(row));
            }
        }
        rows
    }

    pub(super) fn coverage(&self, calls: &[SimulatedCall]) -> Vec<Value> {
        let events: Vec<_> = calls
            .iter()
            .filter(|simulated| {
                self.project_id.as_deref().is_none_or(|it| it == simulated.key.project_id.as_str())
            })
            .flat_map(|simulated| {
                simulated.events.iter().map(|(event, _)| (&simulated.key.project_id, event))
            })
            .filter(|(_, event)| (self.from..self.to).contains(&event.effective_at()))
            .filter(|(_, event)| {
                self.direction.is_none_or(|it| event.event_type.direction() == Some(it))
            })
            .collect();
        let of_calls = self.began(calls).filter(|simulated| simulated.call.direction.is_some());
        let projects: BTreeSet<_> =
            events.iter().map(|it| it.0).chain(of_calls.map(|it| &it.key.project_id)).collect();
        let mut rows = Vec::new();
        for (start, end) in self.buckets() {
            for project_id in &projects {
                for known in KnownEvent::ALL {
                    if self.direction.is_some_and(|it| it != known.direction()) {
                        continue;
                    }
                    let times: Vec<DateTime<Utc>> = events
                        .iter()
                        .filter(|(project, event)| {
                            project == project_id && event.event_type.as_str() == known.as_str()
                        })
                        .map(|(_, event)| event.effective_at())
                        .filter(|at| (start..end).contains(at))
                        .collect();
                    let skipped = self
                        .began(calls)
                        .filter(|simulated| (start..end).contains(&simulated.call.first_event_at))
                        .filter(|simulated| simulated.key.project_id == **project_id)
                        .filter(|simulated| has_skipped(simulated, *known))
                        .count();
                    let group = (Some(project_id.to_string()), Some(known.direction()));
                    let mut row = Ask { by_project: true, ..self.clone() }.place(start, &group);
                    row.insert("event_type".to_owned(), json!(known));
                    row.insert("known".to_owned(), json!(true));
                    row.insert("events".to_owned(), json!(times.len()));
                    row.insert("first_seen_at".to_owned(), json!(times.iter().min()));
                    row.insert("last_seen_at".to_owned(), json!(times.iter().max()));
                    row.insert("calls_that_skipped".to_owned(), json!(skipped));
                    rows.push(Value::Object(row));
                }
                let mut unknown: BTreeMap<&str, Vec<DateTime<Utc>>> = BTreeMap::new();
                for (project, event) in &events {
                    let is_here = (start..end).contains(&event.effective_at());
                    if project == project_id && is_here && event.event_type.direction().is_none() {
                        unknown
                            .entry(event.event_type.as_str())
                            .or_default()
                            .push(event.effective_at());
                    }
                }
                for (event_type, times) in unknown {
                    let group = (Some(project_id.to_string()), None);
                    let mut row = Ask { by_project: true, ..self.clone() }.place(start, &group);
                    row.insert("event_type".to_owned(), json!(event_type));
                    row.insert("known".to_owned(), json!(false));
                    row.insert("events".to_owned(), json!(times.len()));
                    row.insert("first_seen_at".to_owned(), json!(times.iter().min()));
                    row.insert("last_seen_at".to_owned(), json!(times.iter().max()));
                    row.insert("calls_that_skipped".to_owned(), Value::Null);
                    rows.push(Value::Object(row));
                }
            }
        }
        rows
    }
}

/// Whether the call reached a status beyond that of the type, and no attempt reported the type.
fn has_skipped(simulated: &SimulatedCall, known: KnownEvent) -> bool {
    let call = &simulated.call;
    let said: BTreeSet<Status> =
        call.attempts.iter().flat_map(|attempt| attempt.statuses.clone()).collect();
    let mut reached = said.iter().chain([&call.status]);
    let passed = known.status();
    call.direction == Some(known.direction())
        && !said.contains(&passed)
        && reached.any(|status| match passed {
            Status::Pending => *status != Status::Pending && *status != Status::Unknown,
            Status::Connecting => {
                status.rank() > passed.rank() && *status != Status::ConcurrencyLimitExceeded
            }
            Status::Requested | Status::Calling => {
                status.rank() > passed.rank()
                    && !matches!(status, Status::Error | Status::Canceled | Status::Expired)
                    && *status != Status::ConcurrencyLimitExceeded
            }
            Status::Closing => *status == Status::Completed,
            _ => false,
        })
}

/// The time on the clocks of Berlin, as if it were UTC.
fn in_berlin(at: DateTime<Utc>) -> DateTime<Utc> {
    let forward: DateTime<Utc> = "2026-03-29T01:00:00Z".parse().unwrap();
    at + TimeDelta::hours(if at < forward { 1 } else { 2 })
}

/// The continuous percentile, from its definition.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let places = sorted.len().checked_sub(1)?;
    let before = places * percent / 100;
    let part = ratio(places * percent % 100, 100);
    let after = sorted.get(before + 1).unwrap_or(&sorted[before]);
    Some(sorted[before] * (1.0 - part) + after * part)
}

#[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}
