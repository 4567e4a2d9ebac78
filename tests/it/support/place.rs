//! A data directory for a managed server.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use callstate::managed_postgres::{Claim, Options, Server, acquire};
use tokio::sync::OnceCell;

/// A data directory that goes with its test. A server that a failing test left in it is ended first.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("callstate-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a folder under the temporary folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its owner may");
        Self(path)
    }

    /// With a cluster that has been stopped in order.
    pub(crate) async fn with_cluster() -> Self {
        static ORIGINAL: OnceCell<Option<Original>> = OnceCell::const_new();
        let place = Self::new();
        if let Some(original) = ORIGINAL.get_or_init(Original::create).await {
            let copied = Command::new("cp").arg("-a").arg(&original.cluster).arg(&place.0).status();
            assert!(copied.expect("cp runs").success());
        } else {
            place.acquire(Claim::Join).await.release().await.expect("it stops");
        }
        // Another place, another port: tests run side by side.
        fs::remove_file(place.cluster().join("port")).expect("it was there");
        place
    }

    /// A copy of its files, whose server must have been stopped.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        let copied = Command::new("cp").arg("-aT").args([&self.0, &copy.0]).status();
        assert!(copied.expect("cp runs").success());
        copy
    }

    /// As `mktemp -d` makes them.
    pub(crate) fn closed() -> Self {
        let place = Self::new();
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o700)).expect("its owner may");
        place
    }

    pub(crate) fn options(&self) -> Options {
        Options { data_dir: self.0.clone(), bin_dir: None }
    }

    pub(crate) async fn acquire(&self, claim: Claim) -> Server {
        acquire(&self.options(), claim).await.expect("the server comes up")
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        cluster_in(&self.0)
    }

    pub(crate) fn has_cluster(&self) -> bool {
        let mut entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.any(|entry| entry.path().join("data").is_dir())
    }

    pub(crate) fn server_pid(&self) -> Option<rustix::process::Pid> {
        let file = fs::read_to_string(self.cluster().join("data/postmaster.pid")).ok()?;
        rustix::process::Pid::from_raw(file.lines().next()?.parse().expect("a number"))
    }

    pub(crate) fn kill_server(&self) {
        let pid = self.server_pid().expect("a running server");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking()
            && self.has_cluster()
            && let Some(pid) = self.server_pid()
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The cluster that tests copy. Replaced by each run, so that it is always of the code under test.
struct Original {
    cluster: PathBuf,
    /// Held for its lock: a second run at the same time goes without.
    _one_at_a_time: File,
}

impl Original {
    async fn create() -> Option<Self> {
        // A process for each test would create one for each.
        if std::env::var_os("NEXTEST").is_some() {
            return None;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let lock = File::create(folder.join("managed.lock")).ok()?;
        lock.try_lock().ok()?;
        let place = folder.join("managed");
        if place.exists() {
            fs::remove_dir_all(&place).ok()?;
        }
        let options = Options { data_dir: place.clone(), bin_dir: None };
        let server = acquire(&options, Claim::Join).await.expect("the server comes up");
        server.release().await.expect("it stops");
        Some(Self { cluster: cluster_in(&place), _one_at_a_time: lock })
    }
}

/// The folder of the cluster, whichever major version is installed.
fn cluster_in(place: &Path) -> PathBuf {
    let is_cluster = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pg"))
    };
    let mut entries = fs::read_dir(place)
        .expect("the data directory")
        .map(|entry| entry.expect("an entry").path());
    entries.find(is_cluster).expect("a cluster")
}
