//! What was sent and how it was answered: of one call, and of the whole run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::latency::Latencies;
use super::plan::PlannedCall;
use super::scenario::Kind;

/// How a delivery was answered, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With 2xx.
    Taken {
        /// The status.
        status: u16,
        /// What the body says.
        said: Said,
    },
    /// With another status.
    Refused {
        /// The status.
        status: u16,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
    /// Not at all.
    Missing {
        /// How it failed.
        how: Missing,
        /// What the system says of that.
        why: String,
    },
}

/// What the body of an answer with 2xx says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// What the service did.
    Event {
        /// The event's id.
        id: Uuid,
        /// Whether the service had the event already.
        is_duplicate: bool,
    },
    /// Something that is not documented.
    Odd,
    /// It was cut off. The status counts all the same, as it does for the
    /// provider.
    Nothing,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// There was no connection, so that nothing was sent.
    NoConnection,
    /// The connection broke.
    Broken,
    /// It took too long.
    TimedOut,
}

impl Answer {
    pub(super) fn missing(error: &reqwest::Error) -> Self {
        let how = if error.is_connect() {
            Missing::NoConnection
        } else if error.is_timeout() {
            Missing::TimedOut
        } else {
            Missing::Broken
        };
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self::Missing { how, why: cause.to_string() }
    }

    /// Whether the event may have been committed all the same.
    #[must_use]
    pub fn leaves_open(&self) -> bool {
        match self {
            Self::Taken { .. } | Self::Missing { how: Missing::NoConnection, .. } => false,
            Self::Refused { status, .. } => *status >= 500,
            Self::Missing { how: Missing::Broken | Missing::TimedOut, .. } => true,
        }
    }

    /// What it is counted as.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Taken { status, .. } | Self::Refused { status, .. } => status.to_string(),
            Self::Missing { how, .. } => how.label().to_owned(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())?;
        match self {
            Self::Missing { why, .. } => write!(f, " ({why})"),
            Self::Taken { .. } | Self::Refused { .. } => Ok(()),
        }
    }
}

impl Missing {
    fn label(self) -> &'static str {
        match self {
            Self::NoConnection => "no connection",
            Self::Broken => "connection broken",
            Self::TimedOut => "timed out",
        }
    }
}

/// What became of the deliveries of one event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// How many were answered 2xx.
    pub taken: u32,
    /// How many of those answers said that the event was new.
    pub fresh: u32,
    /// How many may have been committed without such an answer.
    pub open: u32,
    /// The ids that the answers gave the event, each once.
    pub event_ids: Vec<Uuid>,
    /// How many of the answers were odd.
    pub odd: u32,
}

impl Heard {
    /// Whether the service has the event; `None` where that is not known.
    #[must_use]
    pub fn is_stored(&self) -> Option<bool> {
        if self.taken > 0 {
            Some(true)
        } else if self.open > 0 {
            None
        } else {
            Some(false)
        }
    }

    fn note(&mut self, answer: &Answer) {
        self.open += u32::from(answer.leaves_open());
        let Answer::Taken { said, .. } = answer else { return };
        self.taken += 1;
        match said {
            Said::Event { id, is_duplicate } => {
                self.fresh += u32::from(!is_duplicate);
                if !self.event_ids.contains(id) {
                    self.event_ids.push(*id);
                }
            }
            Said::Odd => self.odd += 1,
            Said::Nothing => {}
        }
    }
}

/// What became of the deliveries of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The number of the call in the plan.
    pub number: u64,
    /// For each of its events.
    pub events: Vec<Heard>,
}

impl Account {
    pub(super) fn new(call: &PlannedCall) -> Self {
        Self { number: call.number, events: vec![Heard::default(); call.events.len()] }
    }

    pub(super) fn note(&mut self, event: usize, answer: &Answer) {
        self.events[event].note(answer);
    }
}

/// What became of all deliveries.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many calls of each kind were told, as far as they were told.
    pub calls: BTreeMap<Kind, u64>,
    /// How many events were answered 2xx.
    pub events: u64,
    /// How many events never came, as was wanted.
    pub lost: u64,
    /// How many deliveries were sent, copies included, retries not.
    pub deliveries: u64,
    /// How many of those were copies.
    pub copies: u64,
    /// How many times a delivery was sent again as it was not answered 2xx.
    pub retries: u64,
    /// How many deliveries were never answered 2xx, however often sent.
    pub given_up: u64,
    /// How many answers of each kind there were.
    pub answers: BTreeMap<String, u64>,
    /// How long the answers with 2xx took.
    pub latencies: Latencies,
    /// When the last of those came.
    pub last_taken: Option<Instant>,
}

impl Tally {
    pub(super) fn note(&mut self, answer: &Answer, latency: Duration, now: Instant) {
        *self.answers.entry(answer.label()).or_default() += 1;
        if matches!(answer, Answer::Taken { .. }) {
            self.latencies.note(latency);
            self.last_taken = Some(now);
        }
    }
}
