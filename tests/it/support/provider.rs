//! The provider under load: what is not answered 2xx is sent again.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex},
};

use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use super::{Service, client::client, delivery::delivery};

/// How many deliveries are under way at once.
const CONNECTIONS: usize = 16;

/// The deliveries of so many calls, each redialled once and each delivery `copies` times, in an order that has nothing to
/// do with that of the events but is always the same.
pub(crate) fn shuffled(calls: usize, copies: usize) -> Vec<String> {
    const EVENTS: [(&str, Option<&str>); 8] = [
        ("OUTBOUND_CALL_PENDING", None),
        ("OUTBOUND_CALL_REQUESTED", None),
        ("OUTBOUND_CALL_CALLING", Some("CA1")),
        ("OUTBOUND_CALL_BUSY", Some("CA1")),
        ("OUTBOUND_CALL_REQUESTED", Some("CA2")),
        ("OUTBOUND_CALL_CALLING", Some("CA2")),
        ("OUTBOUND_CALL_CLOSING", Some("CA2")),
        ("OUTBOUND_CALL_COMPLETED", Some("CA2")),
    ];
    let mut bodies: Vec<String> = (0..calls)
        .flat_map(|call| (0..).zip(EVENTS).map(move |(second, event)| (call, second, event)))
        .flat_map(|(call, second, (event_type, sid))| {
            let body = delivery(event_type, &format!("call-{call}"), second, sid).to_string();
            std::iter::repeat_n(body, copies)
        })
        .collect();
    // Fisher and Yates' shuffle with Knuth's generator.
    let mut state: u64 = 20_261_123;
    for last in (1..bodies.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(state >> 33).expect("31 bits") % (last + 1);
        bodies.swap(last, other);
    }
    bodies
}

/// Sends until every delivery is answered 2xx.
pub(crate) struct Provider {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

struct Shared {
    waiting: Mutex<VecDeque<String>>,
    answers: watch::Sender<Vec<Value>>,
    /// Where to send; each worker to one of them.
    urls: watch::Sender<Vec<String>>,
}

impl Provider {
    /// Begins to send, spread over the services.
    pub(crate) fn start(deliveries: Vec<String>, services: &[&Service]) -> Self {
        let shared = Arc::new(Shared {
            waiting: Mutex::new(deliveries.into()),
            answers: watch::Sender::new(Vec::new()),
            urls: watch::Sender::new(urls(services)),
        });
        let workers = (0..CONNECTIONS).map(|number| Arc::clone(&shared).work(number)).collect();
        Self { shared, workers }
    }

    /// Tells where the service is now.
    pub(crate) fn goes_to(&self, service: &Service) {
        self.shared.urls.send_replace(urls(&[service]));
    }

    /// Waits until so many deliveries are answered 2xx, and gives the events that they were.
    pub(crate) async fn answered(&self, at_least: usize) -> HashSet<Uuid> {
        let mut answers = self.shared.answers.subscribe();
        let answers = answers.wait_for(|answers| answers.len() >= at_least).await;
        answers.expect("the sender is ours").iter().map(event_id).collect()
    }

    /// What has been answered 2xx so far.
    pub(crate) fn answered_so_far(&self) -> HashSet<Uuid> {
        self.shared.answers.borrow().iter().map(event_id).collect()
    }

    /// Waits until all are answered, and gives the answers.
    pub(crate) async fn finish(self) -> Vec<Value> {
        self.workers.join_all().await;
        self.shared.answers.borrow().clone()
    }
}

impl Shared {
    async fn work(self: Arc<Self>, number: usize) {
        let mut urls = self.urls.subscribe();
        loop {
            let next = self.waiting.lock().expect("nobody panicked").pop_front();
            let Some(body) = next else {
                return;
            };
            let url = {
                let urls = urls.borrow_and_update();
                urls[number % urls.len()].clone()
            };
            let request =
                client().post(url).header(CONTENT_TYPE, "application/json").body(body.clone());
            let answer = match request.send().await {
                Ok(response) => {
                    let status = response.status();
                    response.text().await.map(|text| (status, text))
                }
                Err(error) => Err(error),
            };
            match answer {
                Ok((status, text)) if status.is_success() => {
                    let answer = serde_json::from_str(&text).expect("an answer is JSON");
                    self.answers.send_modify(|answers| answers.push(answer));
                }
                Ok((status, text)) => {
                    assert_eq!(status, 503, "the only other answer: {text}");
                    self.waiting.lock().expect("nobody panicked").push_back(body);
                }
                Err(_) => {
                    self.waiting.lock().expect("nobody panicked").push_back(body);
                    // Nobody is there. It will be said where somebody is.
                    urls.changed().await.expect("the sender is ours");
                }
            }
        }
    }
}

fn urls(services: &[&Service]) -> Vec<String> {
    services.iter().map(|service| format!("{}/webhooks", service.base_url())).collect()
}

fn event_id(answer: &Value) -> Uuid {
    answer["event_id"].as_str().and_then(|id| id.parse().ok()).expect("an answer has an event_id")
}
