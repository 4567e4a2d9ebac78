//! A run in numbers: as JSON for programs, as lines for people.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::check::{Difference, Found, Judge};
use super::plan::Plan;
use super::sender::Sent;
use super::target::Target;

/// What a run did and found.
#[derive(Debug, Serialize)]
pub struct Report {
    url: String,
    seed: u64,
    at: DateTime<Utc>,
    calls: u64,
    calls_by_kind: BTreeMap<&'static str, u64>,
    events: Events,
    deliveries: Deliveries,
    answers: BTreeMap<String, u64>,
    latency_ms: Option<Latency>,
    seconds: f64,
    deliveries_per_second: f64,
    /// Why the run ended before its end.
    ended_early: Option<String>,
    /// What the service said of the calls; `None` where it was not asked.
    check: Option<Found>,
}

/// Events are counted once, however often they are delivered.
#[derive(Debug, Serialize)]
struct Events {
    /// Answered 2xx.
    taken: u64,
    /// Never sent, as was wanted.
    lost: u64,
}

#[derive(Debug, Serialize)]
struct Deliveries {
    sent: u64,
    copies: u64,
    retries: u64,
    given_up: u64,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Report {
    /// Makes a report of what was sent and what was found.
    #[must_use]
    pub fn new(
        target: &Target,
        plan: &Plan,
        sent: &Sent,
        ended_early: Option<String>,
        check: Option<Found>,
    ) -> Self {
        let tally = &sent.tally;
        let latency_ms = tally.latencies.max().map(|max| {
            let percentile =
                |percent| milliseconds(tally.latencies.percentile(percent).unwrap_or(max));
            Latency {
                p50: percentile(50),
                p90: percentile(90),
                p99: percentile(99),
                max: milliseconds(max),
            }
        });
        let seconds = sent.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let deliveries_per_second = (tally.deliveries - tally.given_up) as f64 / seconds.max(1e-6);
        let settings = plan.settings();
        Self {
            url: target.endpoint().to_string(),
            seed: settings.seed,
            at: settings.at,
            calls: tally.calls.values().sum(),
            calls_by_kind: tally.calls.iter().map(|(kind, calls)| (kind.name(), *calls)).collect(),
            events: Events { taken: tally.events, lost: tally.lost },
            deliveries: Deliveries {
                sent: tally.deliveries,
                copies: tally.copies,
                retries: tally.retries,
                given_up: tally.given_up,
            },
            answers: tally.answers.clone(),
            latency_ms,
            seconds: (seconds * 1e3).round() / 1e3,
            deliveries_per_second: (deliveries_per_second * 10.0).round() / 10.0,
            ended_early,
            check,
        }
    }

    /// Whether every delivery was taken and every call is as it should be.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.deliveries.given_up == 0
            && self.check.as_ref().is_none_or(|check| check.difference_count == 0)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 1e2
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, seed, at, calls, events, deliveries, .. } = self;
        let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        writeln!(f, "to          {url}")?;
        writeln!(f, "seed        {seed} (the same again: --seed {seed} --at {at})")?;
        writeln!(f, "calls       {calls}: {}", listed(&self.calls_by_kind, " "))?;
        writeln!(f, "events      {} taken, {} lost on purpose", events.taken, events.lost)?;
        let Deliveries { sent, copies, retries, given_up } = deliveries;
        writeln!(
            f,
            "deliveries  {sent} sent, {copies} of them copies; {retries} retries, {given_up} given up"
        )?;
        writeln!(f, "answers     {}", listed(&self.answers, " × "))?;
        if let Some(Latency { p50, p90, p99, max }) = &self.latency_ms {
            writeln!(f, "latency     p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, max {max} ms")?;
        }
        let Self { seconds, deliveries_per_second, .. } = self;
        write!(f, "rate        {deliveries_per_second} deliveries/s for {seconds} s")?;
        if let Some(why) = &self.ended_early {
            write!(f, "\nended early {why}")?;
        }
        let Some(check) = &self.check else {
            return write!(f, "\nchecked     nothing");
        };
        write!(f, "\nchecked     {} calls: ", check.calls)?;
        match check.difference_count {
            0 => write!(f, "no difference")?,
            1 => write!(f, "1 difference")?,
            several => write!(f, "{several} differences")?,
        }
        if check.undecided > 0 {
            write!(f, "; {} more could not be judged", check.undecided)?;
        }
        for difference in &check.differences {
            write!(f, "\n{difference}")?;
        }
        let untold = check.difference_count - check.differences.len() as u64;
        if untold > 0 {
            write!(f, "\nand {untold} more")?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { project_id, call_id, kind, what, expected, expected_by, found, .. } = self;
        let expected_by = match expected_by {
            Judge::Scenario => "what happened in it",
            Judge::Answers => "the answers",
        };
        write!(
            f,
            "call {call_id} of project {project_id} ({kind}): {what} is {found}, should be \
             {expected} by {expected_by}",
        )
    }
}

/// The counted things one after the other, the count before the name.
fn listed(counts: &BTreeMap<impl fmt::Display, u64>, between: &str) -> String {
    let items = counts.iter().map(|(name, count)| format!("{count}{between}{name}"));
    items.collect::<Vec<_>>().join(", ")
}
