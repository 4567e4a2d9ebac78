//! Talks to a service as nobody should: bytes on a socket.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Service;

/// How long the service may take to say something or to close before a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// An answer as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Service {
    /// Sends bytes, and gives all answers that come until the service closes the connection.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<RawAnswer> {
        self.talk(bytes, false).await
    }

    /// The same, but says after the bytes that there will be no more.
    pub(crate) async fn raw_to_its_end(&self, bytes: &[u8]) -> Vec<RawAnswer> {
        self.talk(bytes, true).await
    }

    async fn talk(&self, bytes: &[u8], is_all: bool) -> Vec<RawAnswer> {
        let address = self.base_url().strip_prefix("http://").expect("an address");
        let mut stream = TcpStream::connect(address).await.expect("it accepts");
        // It may close before all is sent, which is for the answers to show.
        let _ = stream.write_all(bytes).await;
        if is_all {
            let _ = stream.shutdown().await;
        }
        let mut said = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        // A connection that is reset ends as well; what was said until then counts.
        let _ = closed.expect("the service closes the connection in time");
        answers(&String::from_utf8(said).expect("it answers in UTF-8"))
    }
}

/// The answers one after the other.
fn answers(mut said: &str) -> Vec<RawAnswer> {
    let mut answers = Vec::new();
    while let Some((head, rest)) = said.split_once("\r\n\r\n") {
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|head| head.get(..3));
        let status = status.and_then(|status| status.parse().ok());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let (body, after) = rest.split_at(length.expect("an answer tells its length"));
        answers.push(RawAnswer {
            status: status.expect("an answer has a status"),
            body: body.to_owned(),
        });
        said = after;
    }
    assert_eq!(said, "", "something follows the last answer");
    answers
}
