//! Asks the service what became of the calls, and compares.
//!
//! Each call is held to the [`Picture`] of its scenario, for the events that
//! were answered 2xx; and its history to the answers: each event is there once,
//! under the id and as often as it was told. A call that may have events which
//! were never answered 2xx cannot be judged, and is counted apart.
//!
//! Deliberately absent: the state machine. Whether the store is what that makes
//! of the events is for `callstate verify` to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::call::{CallId, ProjectId};
use crate::config::Secret;

use super::account::{Account, Heard};
use super::pace::Halt;
use super::picture::Picture;
use super::plan::{Plan, PlannedCall};
use super::target::Target;

/// How many differences are kept to be told; all are counted.
pub const MOST_DIFFERENCES: usize = 200;

/// How long the next try waits where the service does not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks the service.
#[derive(Debug)]
pub struct Check {
    plan: Plan,
    target: Target,
    client: reqwest::Client,
    api_key: Option<Secret>,
    patience: Duration,
    halt: Halt,
    done: AtomicU64,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    /// How many calls are as they should be, or not.
    pub calls: u64,
    /// How many could not be judged.
    pub undecided: u64,
    /// How many differences there are.
    pub difference_count: u64,
    /// The first of them, [`MOST_DIFFERENCES`] at the most.
    pub differences: Vec<Difference>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// The number of the call in the plan.
    pub number: u64,
    /// The call's project.
    pub project_id: ProjectId,
    /// The call.
    pub call_id: CallId,
    /// Its [kind](super::scenario::Kind).
    pub kind: &'static str,
    /// What is different.
    pub what: String,
    /// What should be.
    pub expected: String,
    /// Who expects it.
    pub expected_by: Judge,
    /// What is.
    pub found: String,
}

/// Who says what should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// What happened in the call.
    Scenario,
    /// What the service answered to the deliveries.
    Answers,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service does not answer the question.
    #[error("the service answers {status} to {url}{}", hint(*.status))]
    Refused {
        /// What it answers.
        status: StatusCode,
        /// What was asked.
        url: Url,
    },
    /// The service answers something else.
    #[error("the answer to {url} is not as documented")]
    Odd {
        /// What was asked.
        url: Url,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The service does not answer.
    #[error("the service does not answer {url}")]
    Away {
        /// What was asked.
        url: Url,
        /// Why not.
        source: reqwest::Error,
    },
    /// It was asked to end.
    #[error("the check was interrupted")]
    Interrupted,
}

fn hint(status: StatusCode) -> &'static str {
    if status == StatusCode::UNAUTHORIZED { "; --api-key gives it a key that it knows" } else { "" }
}

#[derive(Deserialize)]
struct History {
    events: Vec<HistoryEvent>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct HistoryEvent {
    event_id: Uuid,
    event_type: String,
    effective_at: DateTime<Utc>,
    delivery_count: u32,
}

impl Check {
    /// Makes ready to ask.
    #[must_use]
    pub fn new(
        plan: Plan,
        target: Target,
        client: reqwest::Client,
        api_key: Option<Secret>,
        patience: Duration,
    ) -> Self {
        let (halt, done) = (Halt::default(), AtomicU64::new(0));
        Self { plan, target, client, api_key, patience, halt, done }
    }

    /// How many calls have been looked at.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// What ends the check before its end.
    pub fn halt(&self) -> &Halt {
        &self.halt
    }

    /// Looks at each call of which there is an account.
    ///
    /// # Errors
    ///
    /// Where the service does not answer what it is asked.
    ///
    /// # Panics
    ///
    /// Where a worker does, which is a mistake of ours.
    pub async fn run(
        self: &Arc<Self>,
        accounts: Vec<Account>,
        connections: usize,
    ) -> Result<Found, Error> {
        let accounts = Arc::new(accounts);
        let next = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..connections {
            let (check, accounts, next) =
                (Arc::clone(self), Arc::clone(&accounts), Arc::clone(&next));
            workers.spawn(async move {
                let mut found = Found::default();
                loop {
                    if check.halt.is_asked_for() {
                        return Err(Error::Interrupted);
                    }
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let account = usize::try_from(index).ok().and_then(|index| accounts.get(index));
                    let Some(account) = account else { return Ok(found) };
                    check.look_at(account, &mut found).await?;
                    check.done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut all = Found::default();
        // The first that fails ends the others, as they are dropped with it.
        while let Some(found) = workers.join_next().await {
            let found = found.expect("a worker does not panic and is not aborted")?;
            all.calls += found.calls;
            all.undecided += found.undecided;
            all.difference_count += found.difference_count;
            all.differences.extend(found.differences);
        }
        all.differences.sort_unstable();
        all.differences.truncate(MOST_DIFFERENCES);
        Ok(all)
    }

    async fn look_at(&self, account: &Account, all: &mut Found) -> Result<(), Error> {
        if account.events.iter().any(|heard| heard.is_stored().is_none()) {
            all.undecided += 1;
            return Ok(());
        }
        let call = self.plan.call(account.number);
        let arrived = |event: usize| account.events[event].is_stored() == Some(true);
        let expected = Picture::of_scenario(&call, arrived);
        let found: Option<Picture> = self.ask(self.url(&call, &["calls"], &[], None)).await?;
        let mut findings = Findings { call: &call, differences: Vec::new() };
        match (&expected, &found) {
            (Some(expected), Some(found)) => {
                for (what, expected, found) in expected.differences(found) {
                    findings.note(Judge::Scenario, what, expected, found);
                }
                let history = self.history(&call).await?;
                findings.compare_history(account, &history);
            }
            (None, None) => {}
            (expected, found) => {
                let say = |picture: &Option<Picture>| match picture {
                    Some(picture) => format!("a call that is {}", picture.status),
                    None => "no such call".to_owned(),
                };
                findings.note(Judge::Scenario, "call", say(expected), say(found));
            }
        }
        all.calls += 1;
        all.difference_count += findings.differences.len() as u64;
        let room = MOST_DIFFERENCES.saturating_sub(all.differences.len());
        all.differences.extend(findings.differences.into_iter().take(room));
        Ok(())
    }

    async fn history(&self, call: &PlannedCall) -> Result<Vec<HistoryEvent>, Error> {
        let mut events = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let url = self.url(call, &["calls"], &["history"], cursor.as_deref());
            let Some(page) = self.ask::<History>(url).await? else { return Ok(events) };
            events.extend(page.events);
            match page.next_cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(events),
            }
        }
    }

    fn url(
        &self,
        call: &PlannedCall,
        before: &[&str],
        after: &[&str],
        cursor: Option<&str>,
    ) -> Url {
        let segments = [before, &[call.key.call_id.as_str()], after].concat();
        let mut url = self.target.route(&segments);
        url.query_pairs_mut().append_pair("project_id", call.key.project_id.as_str());
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        url
    }

    /// What the service answers; `None` where it is 404. It is asked again
    /// while it is away.
    async fn ask<T: for<'de> Deserialize<'de>>(&self, url: Url) -> Result<Option<T>, Error> {
        let give_up_at = Instant::now() + self.patience;
        loop {
            let mut request = self.client.get(url.clone());
            if let Some(key) = &self.api_key {
                request = request.bearer_auth(key.expose());
            }
            let away = match request.send().await {
                Ok(response) if response.status() == StatusCode::OK => {
                    match response.bytes().await {
                        Ok(body) => {
                            let read = serde_json::from_slice(&body).map(Some);
                            return read.map_err(|source| Error::Odd { url, source });
                        }
                        Err(source) => Error::Away { url: url.clone(), source },
                    }
                }
                Ok(response) if response.status() == StatusCode::NOT_FOUND => return Ok(None),
                Ok(response) if response.status().is_server_error() => {
                    Error::Refused { status: response.status(), url: url.clone() }
                }
                Ok(response) => return Err(Error::Refused { status: response.status(), url }),
                Err(source) => Error::Away { url: url.clone(), source },
            };
            let again_at = Instant::now() + PAUSE;
            if again_at > give_up_at {
                return Err(away);
            }
            if !self.halt.sleep_until(again_at).await {
                return Err(Error::Interrupted);
            }
        }
    }
}

/// The differences of one call.
struct Findings<'a> {
    call: &'a PlannedCall,
    differences: Vec<Difference>,
}

impl Findings<'_> {
    fn note(
        &mut self,
        expected_by: Judge,
        what: impl Into<String>,
        expected: String,
        found: String,
    ) {
        self.differences.push(Difference {
            number: self.call.number,
            project_id: self.call.key.project_id.clone(),
            call_id: self.call.key.call_id.clone(),
            kind: self.call.kind.name(),
            what: what.into(),
            expected,
            expected_by,
            found,
        });
    }

    /// Each event that was answered 2xx is there once, and no other is.
    fn compare_history(&mut self, account: &Account, history: &[HistoryEvent]) {
        let mut by_id: BTreeMap<Uuid, Vec<&HistoryEvent>> = BTreeMap::new();
        for event in history {
            by_id.entry(event.event_id).or_default().push(event);
        }
        for (planned, heard) in self.call.events.iter().zip(&account.events) {
            let name = format!("{} at {}", planned.event_type, planned.at);
            if heard.odd > 0 {
                let found = format!("{} answers without event_id", heard.odd);
                self.note(Judge::Answers, name.clone(), "an event_id".to_owned(), found);
            }
            let [id] = heard.event_ids.as_slice() else {
                if heard.event_ids.len() > 1 {
                    let found = format!("{:?}", heard.event_ids);
                    self.note(Judge::Answers, name, "one event_id".to_owned(), found);
                }
                continue;
            };
            if heard.fresh > 1 {
                let found = format!("{} answers that it is new", heard.fresh);
                self.note(Judge::Answers, name.clone(), "1".to_owned(), found);
            }
            let stored = by_id.remove(id).unwrap_or_default();
            let [stored] = stored.as_slice() else {
                let found = format!("there {} times", stored.len());
                self.note(Judge::Answers, name, "in the history once".to_owned(), found);
                continue;
            };
            let said = format!("{} at {}", stored.event_type, stored.effective_at);
            if said != name {
                self.note(Judge::Answers, format!("event {id}"), name.clone(), said);
            }
            if let Some(expected) = wrong_count(heard, stored.delivery_count) {
                let found = stored.delivery_count.to_string();
                self.note(Judge::Answers, format!("delivery_count of {name}"), expected, found);
            }
        }
        // Of an answer that was cut off the id is not known; so count.
        let unknown = account.events.iter().filter(|it| it.taken > 0 && it.event_ids.is_empty());
        if by_id.len() != unknown.count() {
            let found = by_id.keys().map(Uuid::to_string).collect::<Vec<_>>().join(", ");
            self.note(Judge::Answers, "history", "no other events".to_owned(), found);
        }
    }
}

/// What the count of deliveries should be, if it cannot be what it is.
fn wrong_count(heard: &Heard, count: u32) -> Option<String> {
    // An event that was never new was there before this run.
    let most = if heard.fresh > 0 { heard.taken + heard.open } else { u32::MAX };
    if (heard.taken..=most).contains(&count) {
        return None;
    }
    Some(if heard.taken == most { most.to_string() } else { format!("{} to {most}", heard.taken) })
}
