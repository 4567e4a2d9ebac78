//! Talks to a service as nobody should: bytes on a socket.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::Service;

/// How long the service may take to say something or to close before a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// An answer as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    /// The status and the headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A connection that is held.
pub(crate) struct Line(TcpStream);

impl Line {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("it is open");
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self) -> RawAnswer {
        let mut said = Vec::new();
        let whole = async {
            loop {
                let text = String::from_utf8(said.clone()).expect("it answers in UTF-8");
                if let Some((answer, rest)) = first_answer(&text) {
                    assert_eq!(rest, "", "something follows the answer");
                    return answer;
                }
                assert_ne!(self.0.read_buf(&mut said).await.expect("it is open"), 0, "it closed");
            }
        };
        tokio::time::timeout(PATIENCE, whole).await.expect("the service answers in time")
    }

    /// The head of an answer that goes on in chunks.
    pub(crate) async fn head(&mut self) -> String {
        let head = self.read_until(b"\r\n\r\n", 1).await;
        String::from_utf8(head).expect("a head is ASCII").to_ascii_lowercase()
    }

    /// What the chunks hold that come until a text is in them.
    pub(crate) async fn chunks_until(&mut self, text: &str) -> String {
        let chunks = self.read_until(text.as_bytes(), 64 * 1024).await;
        dechunked(&String::from_utf8(chunks).expect("it answers in UTF-8"))
    }

    /// Reads until a text is in it, so many bytes at once.
    async fn read_until(&mut self, text: &[u8], at_once: usize) -> Vec<u8> {
        let mut said = Vec::new();
        let heard = async {
            let mut buffer = vec![0; at_once];
            loop {
                let read = self.0.read(&mut buffer).await.expect("it is open");
                assert_ne!(read, 0, "it closed: {}", String::from_utf8_lossy(&said));
                let begin = said.len().saturating_sub(text.len());
                said.extend_from_slice(&buffer[..read]);
                if said[begin..].windows(text.len()).any(|window| window == text) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("the service says it in time");
        said
    }

    /// Whether nothing came that was not read.
    pub(crate) fn is_silent(&self) -> bool {
        let read = self.0.try_read(&mut [0; 1]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Waits until the service closes it.
    pub(crate) async fn closes(mut self) {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await;
        let _ = closed.expect("the service closes the connection in time");
    }
}

impl Service {
    /// Connects to it.
    pub(crate) async fn line(&self) -> Line {
        Line(TcpStream::connect(self.address()).await.expect("it accepts"))
    }

    /// Connects to it as one who can hear but little at once.
    pub(crate) async fn narrow_line(&self) -> Line {
        let socket = TcpSocket::new_v4().expect("the system has sockets");
        socket.set_recv_buffer_size(4096).expect("it may be small");
        let address = self.address().parse().expect("an address");
        Line(socket.connect(address).await.expect("it accepts"))
    }

    fn address(&self) -> &str {
        self.base_url().strip_prefix("http://").expect("an address")
    }

    /// Sends bytes, and gives all answers that come until the service closes the connection.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<RawAnswer> {
        self.talk(bytes, false).await
    }

    /// The same, but says after the bytes that there will be no more.
    pub(crate) async fn raw_to_its_end(&self, bytes: &[u8]) -> Vec<RawAnswer> {
        self.talk(bytes, true).await
    }

    async fn talk(&self, bytes: &[u8], is_all: bool) -> Vec<RawAnswer> {
        let mut stream = TcpStream::connect(self.address()).await.expect("it accepts");
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

/// What whole chunks hold ([RFC 9112, 7.1]).
///
/// [RFC 9112, 7.1]: https://www.rfc-editor.org/rfc/rfc9112#section-7.1
fn dechunked(mut chunks: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk has a size");
        let Some((chunk, rest)) = rest.split_at_checked(size) else { break };
        text.push_str(chunk);
        chunks = rest.strip_prefix("\r\n").unwrap_or_default();
    }
    text
}

/// The answers one after the other.
fn answers(mut said: &str) -> Vec<RawAnswer> {
    let mut answers = Vec::new();
    while let Some((answer, rest)) = first_answer(said) {
        answers.push(answer);
        said = rest;
    }
    assert_eq!(said, "", "something follows the last answer");
    answers
}

/// The first answer, if it is whole, and what follows it.
fn first_answer(said: &str) -> Option<(RawAnswer, &str)> {
    let (head, rest) = said.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1).filter(|_| head.starts_with("http/1."));
    let status = status.and_then(|status| status.parse().ok()).expect("an answer has a status");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse().ok());
    let (body, after) = rest.split_at_checked(length.expect("an answer tells its length"))?;
    Some((RawAnswer { status, head, body: body.to_owned() }, after))
}
