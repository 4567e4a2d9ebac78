//! A TCP proxy in front of Postgres that can fail as proxies do.

use std::sync::Arc;

use reqwest::Url;
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::Database;

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It forwards them.
    Forward,
    /// It accepts and closes them.
    Close,
    /// It answers with something that is not Postgres's protocol.
    Garbage,
}

/// A running proxy.
pub(crate) struct Proxy {
    /// The URL of the database through the proxy.
    pub(crate) url: String,
    mode: Arc<watch::Sender<Mode>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy that forwards to the database.
    pub(crate) async fn start(database: &Database) -> Self {
        let mut url = Url::parse(&database.url()).expect("a URL");
        let port = url.port().expect("the test cluster listens on a port");
        let server = (url.host_str().expect("a host").to_owned(), port);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        url.set_port(Some(port)).expect("the URL has a host");
        let mode = Arc::new(watch::Sender::new(Mode::Forward));
        let modes = Arc::clone(&mode);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server.clone(), modes.subscribe()));
            }
        });
        Self { url: url.into(), mode, accepting }
    }

    /// Changes what it does, and closes all connections.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves a connection until the mode changes.
async fn serve(mut client: TcpStream, server: (String, u16), mut mode: watch::Receiver<Mode>) {
    let now = *mode.borrow_and_update();
    match now {
        Mode::Forward => {
            let Ok(mut server) = TcpStream::connect(server).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = mode.changed() => {}
            }
        }
        Mode::Close => {}
        // The client may have closed the connection already.
        Mode::Garbage => drop(client.write_all(b"\0\0\0\0").await),
    }
}
