//! When to stop: SIGTERM and SIGINT.
//!
//! The first asks for an orderly stop. The second ends the process at once;
//! what was answered is committed by then, and our own server, which runs in a
//! process group of its own, is taken over by the next start.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Tells when an orderly stop was asked for.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Takes the two signals over from here on.
    pub(super) fn on_signals() -> io::Result<Self> {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            let (name, _) = signals.next().await;
            tracing::info!("{name}: stopping");
            sender.send_replace(true);
            let (name, number) = signals.next().await;
            tracing::warn!("{name} again: ending at once");
            // As a shell has it for a process that the signal ended.
            std::process::exit(128 + number);
        });
        Ok(Self(receiver))
    }

    /// Waits until it was asked for.
    pub(super) fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.clone();
        async move {
            // The sender lives as long as its task, and that as the process.
            let _ = receiver.wait_for(|stop| *stop).await;
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// The next one: its name and number.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
        }
    }
}
