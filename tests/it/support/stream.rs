//! Listens to a service as an `EventSource` does.

use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use super::{Answer, Service};

/// How long something may take to be told before a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// A block of a stream: what stands between two empty lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

impl Block {
    fn of(text: &str) -> Self {
        let field = |name: &str| {
            let values =
                text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            values.collect::<Vec<_>>().join("\n")
        };
        Self { event: field("event"), id: field("id"), data: field("data") }
    }

    /// The data of a message about a call.
    pub(crate) fn call(&self) -> Value {
        assert_eq!(self.event, "call", "{self:?}");
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The reason and the head of a reset.
    fn reset(&self) -> (String, String) {
        assert_eq!(self.event, "reset", "{self:?}");
        let data: Value = serde_json::from_str(&self.data).expect("it is JSON");
        let text = |name: &str| data[name].as_str().expect("a text").to_owned();
        (text("reason"), text("head"))
    }

    /// Why the stream ends.
    pub(crate) fn end(&self) -> String {
        assert_eq!(self.event, "end", "{self:?}");
        let data: Value = serde_json::from_str(&self.data).expect("it is JSON");
        data["reason"].as_str().expect("a reason").to_owned()
    }
}

/// A stream that was opened.
pub(crate) struct Stream {
    response: Response,
    /// What came and was not taken yet.
    came: Vec<u8>,
    /// The last id that was told, as a browser remembers it.
    pub(crate) last_id: String,
}

impl Stream {
    /// Opens it, and waits until it begins.
    pub(crate) async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("it answers");
        let headers = response.headers();
        assert_eq!(response.status(), 200, "{headers:?}");
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-accel-buffering"], "no");
        let mut stream = Self { response, came: Vec::new(), last_id: String::new() };
        let beginning = tokio::time::timeout(PATIENCE, stream.block()).await;
        let beginning = beginning.expect("it begins in time").expect("it begins with its place");
        assert_eq!((beginning.event.as_str(), beginning.data.as_str()), ("", ""));
        assert_ne!(beginning.id, "");
        stream
    }

    /// The next block, be it a message or a sign of life; `None` where the service ended the stream in order.
    async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some(block) = self.take() {
                return Some(block);
            }
            let chunk = self.response.chunk().await.expect("it goes on or ends in order")?;
            self.came.extend_from_slice(&chunk);
        }
    }

    /// A block of what came.
    fn take(&mut self) -> Option<Block> {
        let end = self.came.windows(2).position(|two| two == b"\n\n")?;
        let text: Vec<u8> = self.came.drain(..end + 2).collect();
        let block = Block::of(std::str::from_utf8(&text).expect("it is UTF-8"));
        if !block.id.is_empty() {
            self.last_id.clone_from(&block.id);
        }
        Some(block)
    }

    /// The next message, which signs of life are not.
    pub(crate) async fn next(&mut self) -> Option<Block> {
        let message = async {
            loop {
                match self.block().await {
                    Some(block) if block.event.is_empty() => {}
                    block => return block,
                }
            }
        };
        tokio::time::timeout(PATIENCE, message).await.expect("something is told in time")
    }

    /// The next message, which must be about a call.
    pub(crate) async fn call(&mut self) -> Value {
        self.next().await.expect("the stream goes on").call()
    }

    /// The next message, which must be a reset for that reason: the head of the feed.
    pub(crate) async fn reset(&mut self, reason: &str) -> String {
        let (actual, head) = self.next().await.expect("the stream goes on").reset();
        assert_eq!(actual, reason);
        head
    }

    /// So many messages about calls: the id of each and its event.
    pub(crate) async fn calls(&mut self, number: usize) -> Vec<(String, String)> {
        let mut calls = Vec::with_capacity(number);
        while calls.len() < number {
            let block = self.next().await.expect("the stream goes on");
            let event_id = block.call()["event_id"].as_str().expect("an id").to_owned();
            calls.push((block.id, event_id));
        }
        calls
    }

    /// Waits until the connection breaks, as by a service that is killed; gives what was told until then, and the last id.
    pub(crate) async fn breaks(mut self) -> (Vec<Block>, String) {
        let broken = async {
            while let Ok(Some(chunk)) = self.response.chunk().await {
                self.came.extend_from_slice(&chunk);
            }
        };
        tokio::time::timeout(PATIENCE, broken).await.expect("it breaks in time");
        let blocks: Vec<Block> = std::iter::from_fn(|| self.take()).collect();
        (blocks.into_iter().filter(|block| !block.event.is_empty()).collect(), self.last_id)
    }
}

impl Service {
    /// Listens from now on.
    pub(crate) async fn listen(&self, path: &str) -> Stream {
        Stream::open(self.request("GET", path)).await
    }

    /// Listens behind an id.
    pub(crate) async fn listen_after(&self, path: &str, last_id: &str) -> Stream {
        Stream::open(self.request("GET", path).header("Last-Event-ID", last_id)).await
    }

    /// Waits until so many questions wait for their calls.
    pub(crate) async fn so_many_wait(&self, number: usize) {
        self.counts("callstate_call_waits", number).await;
    }

    /// Waits until so many streams are open.
    pub(crate) async fn so_many_listen(&self, number: usize) {
        self.counts("callstate_stream_listeners", number).await;
    }

    /// Waits until a gauge has that value.
    pub(crate) async fn counts(&self, gauge: &str, number: usize) {
        let line = format!("\n{gauge} {number}\n");
        let counted = async { while !self.get("/metrics").await.text.contains(&line) {} };
        tokio::time::timeout(PATIENCE, counted).await.expect("there are so many in time");
    }

    /// Asks to listen behind an id, where that is refused.
    pub(crate) async fn may_not_listen_after(&self, path: &str, last_id: &str) -> Answer {
        self.send(self.request("GET", path).header("Last-Event-ID", last_id)).await
    }
}
