//! How long a connection may be slow.
//!
//! A [`ConnectionDeadlines`] notes what a connection waits for, and since when: for a
//! request's headers to come whole, for the next request, for us, or for the
//! client to take an answer. [`ConnectionDeadlines::overdue`] tells when that has been too long.
//! What it costs a request is three looks at the clock; a timer is set once in a
//! while for each connection, not for each request.
//!
//! How long a body may take is for who reads it, who can still answer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::http::server::content_length;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The rest of a request's headers.
    Headers = 0,
    /// Another request.
    Request = 1,
    /// Our answer.
    Us = 2,
    /// The client, to take what was answered.
    Reader = 3,
    /// The rest of an answer that goes on.
    Rest = 4,
}

/// What a connection waits for, and since when. One task uses it; the atomics
/// are there so that it may be any thread's.
#[derive(Debug)]
pub(super) struct ConnectionDeadlines {
    read_timeout: Duration,
    idle_timeout: Duration,
    begun: Instant,
    waits: AtomicU8,
    /// Microseconds since it began.
    since: AtomicU64,
    /// The same for a write that the client does not take, or `u64::MAX`.
    unread_since: AtomicU64,
}

impl ConnectionDeadlines {
    /// The deadlines of a connection that was just accepted: its first request is due.
    pub(super) fn new(read_timeout: Duration, idle_timeout: Duration) -> Self {
        Self {
            read_timeout,
            idle_timeout,
            begun: Instant::now(),
            waits: AtomicU8::new(Phase::Headers as u8),
            since: AtomicU64::new(0),
            unread_since: AtomicU64::new(u64::MAX),
        }
    }

    /// A request's headers have come.
    pub(super) fn has_request(&self) {
        self.now_waits(Phase::Us);
    }

    /// Its answer's headers go out, and what else there is of it. An answer that
    /// goes on has been given when it ends.
    pub(super) fn has_answer(&self) {
        self.now_waits(Phase::Request);
    }

    /// Its answer's headers go out, but it goes on.
    pub(super) fn has_begun_to_answer(&self) {
        self.now_waits(Phase::Rest);
    }

    /// Whether it is in the midst of an answer that goes on.
    pub(super) fn goes_on(&self) -> bool {
        self.waits_for() == Phase::Rest
    }

    fn now_waits(&self, waits: Phase) {
        self.waits.store(waits as u8, Relaxed);
        self.since.store(self.now(), Relaxed);
    }

    /// What the connection waits for, but for the client to read.
    pub(super) fn waits_for(&self) -> Phase {
        match self.waits.load(Relaxed) {
            it if it == Phase::Headers as u8 => Phase::Headers,
            it if it == Phase::Request as u8 => Phase::Request,
            it if it == Phase::Rest as u8 => Phase::Rest,
            _ => Phase::Us,
        }
    }

    fn is_idle(&self) -> bool {
        self.waits_for() == Phase::Request
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn has_read(&self, bytes: usize) {
        if bytes > 0 && self.is_idle() {
            self.now_waits(Phase::Headers);
        }
    }

    fn has_written(&self, done: bool) {
        let unread = self.unread_since.load(Relaxed) != u64::MAX;
        match (done, unread) {
            (true, true) => self.unread_since.store(u64::MAX, Relaxed),
            (false, false) => self.unread_since.store(self.now(), Relaxed),
            (true, false) | (false, true) => {}
        }
        // A stream that goes on is not idle.
        if done && self.is_idle() {
            self.since.store(self.now(), Relaxed);
        }
    }

    /// What has been waited for and until when it may be, if that has an end.
    fn deadline(&self) -> Option<(Phase, Instant)> {
        let at = |since, timeout| self.begun + Duration::from_micros(since) + timeout;
        let unread_since = self.unread_since.load(Relaxed);
        if unread_since != u64::MAX {
            return Some((Phase::Reader, at(unread_since, self.read_timeout)));
        }
        let since = self.since.load(Relaxed);
        match self.waits_for() {
            Phase::Headers => Some((Phase::Headers, at(since, self.read_timeout))),
            Phase::Request => Some((Phase::Request, at(since, self.idle_timeout))),
            Phase::Us | Phase::Rest | Phase::Reader => None,
        }
    }

    /// Phase until it has been too long, and tells for what.
    ///
    /// It looks so often that nothing may begin and be overdue in between.
    pub(super) async fn overdue(&self) -> Phase {
        let look_every = self.read_timeout.min(self.idle_timeout);
        loop {
            let now = Instant::now();
            let look_at = match self.deadline() {
                Some((waits, deadline)) if deadline <= now => return waits,
                Some((_, deadline)) => deadline.min(now + look_every),
                None => now + look_every,
            };
            sleep_until(look_at).await;
        }
    }
}

/// A connection that keeps its [`ConnectionDeadlines`].
#[derive(Debug)]
pub(super) struct TimedStream<'a> {
    pub(super) stream: &'a mut TcpStream,
    pub(super) deadlines: Arc<ConnectionDeadlines>,
}

impl AsyncRead for TimedStream<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut *self.stream).poll_read(context, buffer);
        let bytes = &mut buffer.filled_mut()[before..];
        if matches!(self.deadlines.waits_for(), Phase::Headers | Phase::Request) {
            content_length::clamp(bytes);
        }
        self.deadlines.has_read(bytes.len());
        read
    }
}

impl AsyncWrite for TimedStream<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write(context, bytes);
        self.deadlines.has_written(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream).poll_write_vectored(context, slices);
        self.deadlines.has_written(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}
