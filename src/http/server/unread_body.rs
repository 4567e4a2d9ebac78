//! Requests that are answered before their body was read.
//!
//! If a socket is closed while bytes in it are unread, the system resets the connection, and the
//! client may lose the answer ([RFC 9112, 9.6]). So such an answer announces the end of the
//! connection, and what the client still sends is read and discarded for a while.
//!
//! [RFC 9112, 9.6]: https://www.rfc-editor.org/rfc/rfc9112#section-9.6

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// The most bytes that are discarded.
const MAX_DISCARDED: usize = 8 * 1024 * 1024;

/// How long bytes are discarded.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// How many bytes are discarded at once.
const DISCARDED_AT_ONCE: usize = 16 * 1024;

/// Whether a connection has a request whose body was not read to its end.
#[derive(Debug, Clone, Default)]
pub(super) struct UnreadBody(Arc<AtomicBool>);

impl UnreadBody {
    /// Whether it has.
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// A request's body, whose end is noted here.
    pub(super) fn track(&self, body: Incoming) -> TrackedBody {
        TrackedBody { body, has_ended: false, unread: self.clone() }
    }
}

/// A request's body that notes when it is dropped before its end.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Incoming,
    has_ended: bool,
    unread: UnreadBody,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.has_ended |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if !self.has_ended && !self.body.is_end_stream() {
            self.unread.0.store(true, Relaxed);
        }
    }
}

/// Says that nothing more is sent, then discards what arrives until the client closes, within
/// [`MAX_DISCARDED`] and [`DISCARD_TIMEOUT`].
pub(super) async fn discard(stream: &mut TcpStream) {
    let discarded = async {
        // Fails if the connection has failed, which the read shows too.
        let _ = stream.shutdown().await;
        let mut buffer = vec![0; DISCARDED_AT_ONCE];
        let mut left = MAX_DISCARDED;
        while left > 0 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    // Beyond the bounds the connection is closed as it is.
    let _ = timeout(DISCARD_TIMEOUT, discarded).await;
}
