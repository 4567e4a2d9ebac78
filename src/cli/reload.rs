//! SIGHUP: the tokens and keys of the webhook endpoints are read again.
//!
//! So they rotate without a restart: put the new one beside the old one, send
//! the signal, change it at the provider, take the old one away, send the
//! signal again. The configuration is read as it was at the start, from the same
//! flags and the same environment, and only what a sender proves itself with is
//! taken over. Where it has a mistake, all stays as it is.
//!
//! A request sees the endpoints as they were before or after, never in between.

use std::convert::Infallible;
use std::future;
use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, Flags, Mistakes};
use crate::http::routes::webhooks::endpoints::{Endpoint, Endpoints};
use crate::http::routes::webhooks::metrics::DeliveryMetrics;

/// The endpoints, and what they are read from.
pub(super) struct Reload {
    hangups: Signal,
    flags: Flags,
    /// As it is in effect.
    config: Config,
    endpoints: watch::Sender<Arc<Endpoints>>,
}

impl Reload {
    /// Takes the signal over from here on. The flags are those of which the
    /// configuration was read.
    pub(super) fn on_signal(config: Config, flags: Flags) -> io::Result<Self> {
        let hangups = signal(SignalKind::hangup())?;
        let endpoints =
            watch::Sender::new(Arc::new(endpoints(&config, DeliveryMetrics::default())));
        Ok(Self { hangups, flags, config, endpoints })
    }

    /// The endpoints as they are at any time.
    pub(super) fn endpoints(&self) -> watch::Receiver<Arc<Endpoints>> {
        self.endpoints.subscribe()
    }

    /// Reads them again at every signal.
    pub(super) async fn keep(mut self) -> Infallible {
        while self.hangups.recv().await.is_some() {
            let flags = self.flags.clone();
            // A file may lie on a disk that is slow, or gone.
            match tokio::task::spawn_blocking(move || Config::load(&flags)).await {
                Ok(read) => self.take_over(read),
                Err(panicked) => tracing::error!("the configuration was not read: {panicked}"),
            }
        }
        // There are no more signals: the runtime goes down.
        future::pending().await
    }

    fn take_over(&mut self, read: Result<Config, Mistakes>) {
        let read = match read {
            Ok(read) => read,
            Err(mistakes) => {
                for mistake in mistakes.iter() {
                    tracing::error!("SIGHUP: {mistake}");
                }
                tracing::error!("SIGHUP: tokens and keys stay as they are");
                return;
            }
        };
        let config = self.config.with_secrets_of(&read);
        for (name, endpoint) in &config.webhooks {
            if self.config.webhooks.get(name) != Some(endpoint) {
                tracing::info!(endpoint = name, "SIGHUP: its tokens or keys have changed");
            }
        }
        if config != read {
            tracing::warn!(
                "SIGHUP: other changes of the configuration take effect at the next start"
            );
        }
        let metrics = self.endpoints.borrow().metrics.clone();
        self.endpoints.send_replace(Arc::new(endpoints(&config, metrics)));
        self.config = config;
        tracing::info!("SIGHUP: tokens and keys were read again");
    }
}

/// The configured endpoints, with these metrics.
pub(super) fn endpoints(config: &Config, metrics: DeliveryMetrics) -> Endpoints {
    let by_name = config.webhooks.iter().map(|(name, configured)| {
        let endpoint = Endpoint {
            name: name.clone(),
            authenticator: configured.auth.authenticator(),
            projects: configured.projects.clone(),
            default_project: configured.default_project.clone(),
            metrics: metrics.of_endpoint(name),
        };
        (name.clone(), Arc::new(endpoint))
    });
    Endpoints {
        by_name: by_name.collect(),
        time_zone: config.provider_time_zone,
        max_body: config.max_delivery_bytes,
        metrics,
    }
}
