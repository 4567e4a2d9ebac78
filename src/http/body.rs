//! The body of a request, read whole and within bounds.
//!
//! What always holds: the bodies of senders that are not yet authenticated hold no more bytes
//! together than their [`BodyBudget`] has. A body reserves bytes as they arrive, not as they are
//! announced, so that a connection that announces much and sends nothing reserves little.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody as _};
use http_body_util::BodyExt as _;
use prometheus::IntGauge;
use tokio::time::timeout;

/// What a body reserves before its first byte arrives, unless it announces less. Most deliveries
/// have fewer bytes.
const FIRST_RESERVATION: usize = 16 * 1024;

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is larger than the limit.
    TooLarge,
    /// It ended before its end, or was not framed as a body is.
    Broken,
    /// It did not arrive in time.
    TooSlow,
    /// The [`BodyBudget`] is used up.
    OverBudget,
}

/// How many bytes the bodies of senders that are not yet authenticated may hold together.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    bytes: usize,
    reserved: AtomicUsize,
    gauge: IntGauge,
}

impl BodyBudget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let gauge = IntGauge::new(
            "callstate_http_unauthenticated_body_bytes",
            "Bytes that are reserved for request bodies of senders that are not yet authenticated.",
        );
        Self {
            bytes,
            reserved: AtomicUsize::new(0),
            gauge: gauge.expect("the name is well-formed"),
        }
    }

    /// How many bytes are reserved, to be registered.
    pub(crate) fn gauge(&self) -> IntGauge {
        self.gauge.clone()
    }

    /// A reservation of nothing, for one body.
    pub(crate) fn reservation(self: &Arc<Self>) -> Reservation {
        Reservation { budget: Arc::clone(self), bytes: 0 }
    }

    fn reserve(&self, more: usize) -> bool {
        let fits =
            |reserved: usize| reserved.checked_add(more).filter(|reserved| *reserved <= self.bytes);
        let is_reserved = self.reserved.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if is_reserved {
            self.gauge.add(i64::try_from(more).unwrap_or(i64::MAX));
        }
        is_reserved
    }
}

/// The bytes that one body has reserved; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<BodyBudget>,
    bytes: usize,
}

impl Reservation {
    /// Reserves `bytes` in all.
    fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        let more = bytes.saturating_sub(self.bytes);
        if !self.budget.reserve(more) {
            return Err(BodyError::OverBudget);
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.reserved.fetch_sub(self.bytes, Relaxed);
        self.budget.gauge.sub(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

/// Whether a body announces more than `limit` bytes.
pub(crate) fn announces_more_than(limit: usize, body: &Body) -> bool {
    usize::try_from(body.size_hint().lower()).map_or(true, |announced| announced > limit)
}

/// Reads a body of at most `limit` bytes that arrives within `patience`. With a reservation, its
/// bytes are reserved there, and the caller keeps that until the sender is authenticated.
///
/// # Errors
///
/// Fails if the body is larger, does not arrive whole and in time, or does not fit the budget. The
/// rest is then not read.
pub(crate) async fn read(
    body: Body,
    limit: usize,
    patience: Duration,
    reservation: Option<&mut Reservation>,
) -> Result<Bytes, BodyError> {
    timeout(patience, gather(body, limit, reservation)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn gather(
    mut body: Body,
    limit: usize,
    mut reservation: Option<&mut Reservation>,
) -> Result<Bytes, BodyError> {
    let mut reserve = |bytes| match &mut reservation {
        Some(reservation) => reservation.grow_to(bytes),
        None => Ok(()),
    };
    let announced = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let largest = announced.unwrap_or(limit).min(limit);
    reserve(largest.min(FIRST_RESERVATION))?;
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            continue; // Nothing in a trailer is used.
        };
        let length = whole.len() + part.len();
        if length > limit {
            return Err(BodyError::TooLarge);
        }
        if whole.is_empty() && body.is_end_stream() {
            // Most come in one piece, which need not be copied.
            reserve(length)?;
            return Ok(part);
        }
        if length > whole.capacity() {
            let doubled = whole.capacity().max(FIRST_RESERVATION).saturating_mul(2);
            let capacity = doubled.min(largest).max(length);
            reserve(capacity)?;
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, pin::Pin, task};

    use axum::body::HttpBody;
    use http_body_util::Full;
    use hyper::body::Frame;

    use super::*;

    /// A body of so many pieces of 10,000 bytes that announces no length.
    struct Pieces(usize);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let rest = self.0.checked_sub(1);
            let frame = rest.map(|rest| {
                self.0 = rest;
                Ok(Frame::data(Bytes::from_static(&[b'x'; 10_000])))
            });
            task::Poll::Ready(frame)
        }
    }

    async fn read_within(
        budget: &Arc<BodyBudget>,
        limit: usize,
        body: impl HttpBody<Data = Bytes, Error = Infallible> + Send + 'static,
    ) -> (Result<usize, BodyError>, Reservation) {
        let mut reservation = budget.reservation();
        let read = read(Body::new(body), limit, Duration::MAX, Some(&mut reservation)).await;
        (read.map(|bytes| bytes.len()), reservation)
    }

    #[tokio::test]
    async fn a_body_reserves_as_much_as_has_arrived_until_its_reservation_is_dropped() {
        let budget = Arc::new(BodyBudget::new(100_000));
        let reserved = || usize::try_from(budget.gauge().get()).unwrap();
        let (read, first) = read_within(&budget, 80_000, Pieces(3)).await;
        assert_eq!(read, Ok(30_000));
        assert!((30_000..70_000).contains(&reserved()), "{}", reserved());
        let (read, second) = read_within(&budget, 80_000, Pieces(8)).await;
        assert_eq!(read, Err(BodyError::OverBudget));
        drop(second);
        let (read, third) = read_within(&budget, 80_000, Full::from(vec![b'x'; 20_000])).await;
        assert_eq!(read, Ok(20_000));
        drop((first, third));
        assert_eq!(reserved(), 0);
        assert_eq!(read_within(&budget, 80_000, Pieces(8)).await.0, Ok(80_000));
        assert_eq!(reserved(), 0);
    }

    #[tokio::test]
    async fn the_limit_holds_whatever_the_budget_is() {
        let budget = Arc::new(BodyBudget::new(usize::MAX));
        assert_eq!(read_within(&budget, 79_999, Pieces(8)).await.0, Err(BodyError::TooLarge));
        let unbounded = read(Body::new(Pieces(9)), 90_000, Duration::MAX, None).await;
        assert_eq!(unbounded.map(|bytes| bytes.len()), Ok(90_000));
        assert!(announces_more_than(9, &Body::from("ten bytes.")));
        assert!(!announces_more_than(10, &Body::from("ten bytes.")));
    }
}
