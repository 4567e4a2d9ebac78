//! A stand-in for the managed server.
use std::path::PathBuf;
/// Options.
#[derive(Debug)]
pub struct Options {
    /// Data.
    pub data_dir: PathBuf,
    /// Binaries.
    pub bin_dir: Option<PathBuf>,
}
/// Claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Serve.
    Serve,
    /// Join.
    Join,
}
/// Error.
#[derive(Debug, thiserror::Error)]
#[error("there is no managed server yet")]
pub struct Error;
/// Server.
#[derive(Debug)]
pub struct Server(String);
/// Acquires.
/// # Errors
/// Always.
pub async fn acquire(_: &Options, _: Claim) -> Result<Server, Error> {
    std::future::ready(Err(Error)).await
}
/// Looks.
/// # Errors
/// Never.
pub async fn running(_: &Options) -> Result<Option<String>, Error> {
    std::future::ready(Ok(None)).await
}
impl Server {
    /// URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0
    }
    /// Text.
    #[must_use]
    pub fn describe(&self) -> String {
        self.0.clone()
    }
    /// Watches.
    pub async fn watch(&self) -> std::convert::Infallible {
        std::future::pending().await
    }
    /// Releases.
    /// # Errors
    /// Never.
    pub async fn release(self) -> Result<(), Error> {
        std::future::ready(Ok(())).await
    }
}
