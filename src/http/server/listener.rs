//! Connections: how many there are, what they may send, and how they end.
//!
//! What always holds: no more connections are accepted than there are places,
//! the others wait in the system's backlog; one that is too slow is cut off;
//! once it is to stop, none is accepted, idle ones are closed, and requests
//! under way are answered; one that goes on is ended by its handler, and who
//! does not take that in time is cut off.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody as _},
    http::{HeaderValue, header},
    response::Response,
};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep},
};

use crate::http::server::{
    HttpServer,
    deadlines::{ConnectionDeadlines, Phase, TimedStream},
    forwarded::ClientAddress,
    unread_body::{UnreadBody, discard},
};

/// The most bytes of a request's line and headers; more is 431. No more of a body is read at once. There may be a
/// hundred headers, which is hyper's own limit: any other would cost each
/// request an allocation.
const MAX_HEAD: usize = 64 * 1024;

/// How long a client may take to hear the end of an answer that goes on, when it
/// is to stop.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long nothing is accepted after the system could not, as when there are
/// no more file descriptors: trying at once would do nothing else.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections and has the router answer them until `stop`; then waits
/// for the requests under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    server: Arc<HttpServer>,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(server.settings.max_connections));
    let (stopping, stops) = watch::channel(());
    let router = TowerToHyperService::new(router);
    let mut stop = pin!(stop);
    loop {
        let (place, stream, peer) = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut stop => break,
        };
        let (router, server, stops) = (router.clone(), Arc::clone(&server), stops.clone());
        let connection = Connection { stream, peer, server, router, stops };
        tokio::spawn(async move {
            connection.run().await;
            drop(place);
        });
    }
    drop((listener, stops));
    // Fails where nobody is connected.
    let _ = stopping.send(());
    stopping.closed().await;
}

/// The next connection, as soon as there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    let place = Arc::clone(places).acquire_owned().await.expect("nobody closes it");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (place, stream, peer),
            // It went away before it was accepted.
            Err(error) if is_about_connection(&error) => {}
            Err(error) => {
                tracing::error!("cannot accept connections: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether it is the one connection that failed, and not accepting.
fn is_about_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    server: Arc<HttpServer>,
    router: TowerToHyperService<Router>,
    /// Changes when it is to stop; kept until the connection has ended.
    stops: watch::Receiver<()>,
}

impl Connection {
    /// Responses requests until either side closes, or it is too slow.
    async fn run(self) {
        let Self { mut stream, peer, server, router, mut stops } = self;
        // An answer is small and whole: it gains nothing by waiting for more to send.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("cannot set TCP_NODELAY: {error}");
        }
        server.connections.inc();
        if serve_requests(&mut stream, peer, &server, router, &mut stops).await == Ending::Unread {
            discard(&mut stream).await;
        }
        server.connections.dec();
    }
}

/// What a connection leaves when its last answer was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Nothing that the client may still be sending, or no answer.
    Read,
    /// A request that was answered and not read to its end.
    Unread,
}

/// Responses requests until either side closes, or it is too slow.
async fn serve_requests(
    stream: &mut TcpStream,
    peer: SocketAddr,
    server: &HttpServer,
    router: TowerToHyperService<Router>,
    stops: &mut watch::Receiver<()>,
) -> Ending {
    let deadlines = Arc::new(ConnectionDeadlines::new(
        server.settings.read_timeout,
        server.settings.idle_timeout,
    ));
    let unread = UnreadBody::default();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        deadlines.has_request();
        let mut request = request.map(|body| Body::new(unread.track(body)));
        request.extensions_mut().insert(ClientAddress::at(peer));
        let answer = router.call(request);
        async { answer.await.map(|answer| last_if_unread(paced(answer, &deadlines), &unread)) }
    });
    let io = TokioIo::new(TimedStream { stream, deadlines: Arc::clone(&deadlines) });
    let connection = http1::Builder::new()
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_HEAD)
        // The deadlines does that.
        .header_read_timeout(None)
        .serve_connection(io, service);
    let (mut connection, mut overdue) = (pin!(connection), pin!(deadlines.overdue()));
    let mut given_up = pin!(sleep(Duration::MAX));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                // hyper answers by itself what it cannot parse.
                let is_unread = match ended {
                    Ok(()) => unread.is_left(),
                    Err(error) => {
                        tracing::debug!(client = %peer, "a connection failed: {error}");
                        unread.is_left() || error.is_parse()
                    }
                };
                return if is_unread { Ending::Unread } else { Ending::Read };
            }
            waits_for = &mut overdue => {
                tracing::debug!(client = %peer, ?waits_for, "a connection was too slow");
                return Ending::Read;
            }
            _ = stops.changed(), if !is_stopping => {
                is_stopping = true;
                given_up.as_mut().reset(Instant::now() + LAST_WORDS);
                // What has not come whole by now is no request under way.
                if deadlines.waits_for() == Phase::Headers {
                    return Ending::Read;
                }
                connection.as_mut().graceful_shutdown();
            }
            () = &mut given_up, if is_stopping && deadlines.goes_on() => return Ending::Read,
        }
    }
}

/// An answer that announces the end of the connection if the request's body was not read.
fn last_if_unread(mut answer: Response, unread: &UnreadBody) -> Response {
    if unread.is_left() {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Reports a response to the deadlines: now if it is complete, else when its body ends.
fn paced(answer: Response, deadlines: &Arc<ConnectionDeadlines>) -> Response {
    if answer.body().size_hint().exact().is_some() {
        deadlines.has_answer();
        return answer;
    }
    deadlines.has_begun_to_answer();
    let goes_on = GoesOn(Arc::clone(deadlines));
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &goes_on;
            frame
        }))
    })
}

/// Held by an answer that goes on, until it ends.
struct GoesOn(Arc<ConnectionDeadlines>);

impl Drop for GoesOn {
    fn drop(&mut self) {
        self.0.has_answer();
    }
}
