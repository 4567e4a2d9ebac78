//! Sends what is planned, and keeps account of the answers.
//!
//! What always holds: the deliveries of one call are sent one after the other,
//! in their planned order, but that a copy right after its event is under way
//! beside it, as those to several endpoints are; no more requests are under way than there are
//! connections; what is not answered 2xx is sent again, later and later, until
//! [`Orders::patience`] has run out.
//!
//! Deliberately absent: what is in a delivery, and whether the answers are
//! right.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::Clock;

use super::account::{Account, Answer, Said, Tally};
use super::pace::{Halt, Turns};
use super::plan::{Plan, PlannedCall, PlannedDelivery, Timing};
use super::proof::Proof;
use super::target::Target;

/// How long the first retry waits; each further one twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// How long a retry waits at the most, also where the service asks for more.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3);
/// How many calls may be under way at a time in a window.
const MOST_UNDER_WAY: usize = 100_000;

/// What is to be sent, and how.
#[derive(Debug)]
pub struct Orders {
    /// What.
    pub plan: Plan,
    /// Where to.
    pub target: Target,
    /// What proves where it comes from.
    pub proof: Proof,
    /// How many calls; without end where there is a duration instead.
    pub calls: Option<u64>,
    /// How long to begin calls.
    pub duration: Option<Duration>,
    /// How many deliveries a second; as fast as it goes where `None`.
    pub rate: Option<f64>,
    /// How many requests may be under way.
    pub connections: usize,
    /// How long a delivery is tried.
    pub patience: Duration,
    /// Of how large a share of the calls an account is kept, to be checked.
    pub checked_share: f64,
}

/// A run under way.
#[derive(Debug)]
pub struct Sender {
    orders: Orders,
    client: reqwest::Client,
    clock: Clock,
    started: Instant,
    turns: Turns,
    connections: Semaphore,
    next: AtomicU64,
    told: AtomicU64,
    taken: AtomicU64,
    tally: Mutex<Tally>,
    accounts: Mutex<Vec<Account>>,
    halt: Halt,
    abandoned: OnceLock<String>,
}

/// What was sent.
#[derive(Debug)]
pub struct Sent {
    /// How it was answered.
    pub tally: Tally,
    /// What is to be checked, in the order of the plan.
    pub accounts: Vec<Account>,
    /// How long it took.
    pub elapsed: Duration,
    /// Why it ended before its end, if it did by itself.
    pub abandoned: Option<String>,
}

/// The part of the service's answer that is kept.
#[derive(Deserialize)]
struct Body {
    event_id: Uuid,
    disposition: String,
}

impl Sender {
    /// Makes ready to send.
    #[must_use]
    pub fn new(orders: Orders, client: reqwest::Client, clock: Clock) -> Self {
        let started = Instant::now();
        Self {
            turns: Turns::new(orders.rate, started),
            connections: Semaphore::new(orders.connections),
            orders,
            client,
            clock,
            started,
            next: AtomicU64::new(0),
            told: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            tally: Mutex::default(),
            accounts: Mutex::default(),
            halt: Halt::default(),
            abandoned: OnceLock::new(),
        }
    }

    /// What is to be sent.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// How many calls have been told.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// How many deliveries have been answered 2xx.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// What ends the run before its end.
    pub fn halt(&self) -> &Halt {
        &self.halt
    }

    /// Sends everything.
    pub async fn run(self: &Arc<Self>) -> Sent {
        match self.orders.plan.settings().timing {
            Timing::Past { .. } => self.run_by_connections().await,
            Timing::Window { calls, .. } => self.run_by_time(calls).await,
        }
        let mut accounts =
            std::mem::take(&mut *self.accounts.lock().unwrap_or_else(PoisonError::into_inner));
        accounts.sort_unstable_by_key(|account| account.number);
        Sent {
            tally: self.tally().clone(),
            accounts,
            elapsed: self.started.elapsed(),
            abandoned: self.abandoned.get().cloned(),
        }
    }

    /// Each connection tells one call after the other.
    async fn run_by_connections(self: &Arc<Self>) {
        let mut workers = JoinSet::new();
        for _ in 0..self.orders.connections {
            let sender = Arc::clone(self);
            workers.spawn(async move {
                while let Some(number) = sender.next_call() {
                    sender.tell(&sender.orders.plan.call(number)).await;
                }
            });
        }
        workers.join_all().await;
    }

    fn next_call(&self) -> Option<u64> {
        let is_over = self.orders.duration.is_some_and(|most| self.started.elapsed() >= most);
        if is_over || self.halt.is_asked_for() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.orders.calls.is_none_or(|calls| number < calls).then_some(number)
    }

    /// Each call is told when its time comes, beside those under way.
    async fn run_by_time(self: &Arc<Self>, calls: u64) {
        let under_way = Arc::new(Semaphore::new(MOST_UNDER_WAY));
        let mut tasks = JoinSet::new();
        for (offset, number) in self.schedule(calls) {
            let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else { break };
            if !self.halt.sleep_until(self.started + offset).await {
                break;
            }
            let sender = Arc::clone(self);
            tasks.spawn(async move {
                sender.tell(&sender.orders.plan.call(number)).await;
                drop(permit);
            });
            // What is done need not be kept.
            while tasks.try_join_next().is_some() {}
        }
        tasks.join_all().await;
    }

    /// When each call is first heard of, in order.
    fn schedule(&self, calls: u64) -> Vec<(Duration, u64)> {
        let plan = &self.orders.plan;
        let mut schedule: Vec<_> = (0..calls)
            .map(|number| {
                let call = plan.call(number);
                let offset = call.deliveries.first().and_then(|first| plan.offset(first.due));
                (offset.unwrap_or_default(), number)
            })
            .collect();
        schedule.sort_unstable();
        schedule
    }

    /// Tells a call from its first delivery to its last.
    async fn tell(&self, call: &PlannedCall) {
        let mut account = Account::new(call);
        for together in call.deliveries.chunk_by(|one, next| one.event == next.event) {
            let copied = async {
                match together.get(1) {
                    Some(copy) => self.deliver(call, copy).await,
                    None => Vec::new(),
                }
            };
            let (answers, to_copy) = tokio::join!(self.deliver(call, &together[0]), copied);
            for answer in answers.iter().chain(&to_copy) {
                account.note(together[0].event, answer);
            }
        }
        {
            let mut tally = self.tally();
            tally.events += account.events.iter().filter(|heard| heard.taken > 0).count() as u64;
            *tally.calls.entry(call.kind).or_default() += 1;
            tally.lost += call.events.iter().filter(|event| event.is_lost).count() as u64;
        }
        if self.orders.plan.is_sampled(call.number, self.orders.checked_share) {
            self.accounts.lock().unwrap_or_else(PoisonError::into_inner).push(account);
        }
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends one delivery, when its time has come, until it is taken or given up.
    async fn deliver(&self, call: &PlannedCall, delivery: &PlannedDelivery) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(1);
        let due = self.orders.plan.offset(delivery.due).unwrap_or_default();
        if !self.halt.sleep_until(self.started + due).await
            || !self.halt.sleep_until(self.turns.take(Instant::now())).await
        {
            return answers;
        }
        let body = call.body(delivery);
        let first_sent = Instant::now();
        let give_up_at = first_sent + self.orders.patience;
        let mut backoff = FIRST_BACKOFF;
        {
            let mut tally = self.tally();
            tally.deliveries += 1;
            tally.copies += u64::from(delivery.is_copy);
        }
        loop {
            let (answer, latency) = self.send(body.clone()).await;
            let now = Instant::now();
            self.tally().note(&answer, latency, now);
            let wait = match answer {
                Answer::Taken { .. } => {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    answers.push(answer);
                    return answers;
                }
                Answer::Refused { status, .. } if self.is_pointless(status) => {
                    self.abandon(format!("the service refuses every delivery: {status}"));
                    backoff
                }
                Answer::Refused { retry_after, .. } => {
                    backoff.max(retry_after.unwrap_or_default()).min(LONGEST_BACKOFF)
                }
                Answer::Missing { .. } => backoff,
            };
            // However long it should wait, it tries once more before it gives up.
            let again_at = (now + wait).min(give_up_at);
            if now >= give_up_at || !self.halt.sleep_until(again_at).await {
                self.give_up(&answer, first_sent);
                answers.push(answer);
                return answers;
            }
            answers.push(answer);
            self.tally().retries += 1;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    async fn send(&self, body: Vec<u8>) -> (Answer, Duration) {
        let _connection = self.connections.acquire().await.expect("it is never closed");
        let mut request = self
            .client
            .post(self.orders.target.endpoint().clone())
            .header(CONTENT_TYPE, "application/json");
        // Signed anew each time: a signature is good for minutes only.
        for (name, value) in self.orders.proof.headers(&body, self.clock.now()) {
            request = request.header(name, value);
        }
        let sent = Instant::now();
        let answer = answer(request.body(body)).await;
        (answer, sent.elapsed())
    }

    /// Whether a refusal is of what all deliveries have in common: nothing has
    /// been taken yet, and the service says that the client is wrong.
    fn is_pointless(&self, status: u16) -> bool {
        let may_pass = matches!(status, 408 | 425 | 429);
        (300..500).contains(&status) && !may_pass && self.taken() == 0
    }

    /// Notes that a delivery is given up, and the whole run where nothing at
    /// all has been taken while it was tried.
    fn give_up(&self, last: &Answer, first_sent: Instant) {
        let mut tally = self.tally();
        tally.given_up += 1;
        let was_silent = tally.last_taken.is_none_or(|at| at < first_sent);
        drop(tally);
        if was_silent && !self.halt.is_asked_for() {
            let silence = first_sent.elapsed().as_secs_f64();
            self.abandon(format!("no delivery was taken for {silence:.1} s: {last}"));
        }
    }

    fn abandon(&self, why: String) {
        // The first reason is the one that counts.
        let _ = self.abandoned.set(why);
        self.halt.halt();
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Answer::missing(&error),
    };
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    // Read to its end, so that the connection can be used again.
    let body = response.bytes().await;
    if !status.is_success() {
        return Answer::Refused { status: status.as_u16(), retry_after };
    }
    let said = match body.map(|body| serde_json::from_slice::<Body>(&body)) {
        Ok(Ok(body)) => {
            Said::Event { id: body.event_id, is_duplicate: body.disposition == "duplicate" }
        }
        Ok(Err(_)) => Said::Odd,
        Err(_) => Said::Nothing,
    };
    Answer::Taken { status: status.as_u16(), said }
}
