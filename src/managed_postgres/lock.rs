//! Who uses a data directory, as advisory locks on three files in it.
//!
//! | file | held | says |
//! | --- | --- | --- |
//! | `serve.lock` | exclusive, for the life of a service | one service a data directory |
//! | `users.lock` | shared, by everyone who uses the server | who gets it exclusively without waiting is the last |
//! | `transition.lock` | exclusive, while the server is started or stopped | one at a time |
//!
//! The system drops a lock with its process, so a killed one leaves nothing behind; for the same reason no lock file is
//! ever removed. `users.lock` changes hands only under `transition.lock`, which makes "I am the last" true until said
//! otherwise. Locks are let go by `unlock`, not only by closing: a child that is being forked at that moment
//! holds a copy of the file until it runs its own program.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use tokio::time::Instant;

use super::Error;

/// How long to wait for another process that starts or stops the server. A first start takes a second or two, a
/// recovery or a shutdown checkpoint on a slow disk may take minutes.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often to look again. Asking instead of sleeping in `flock` keeps the wait cancellable.
const INTERVAL: Duration = Duration::from_millis(20);

/// A lock that is let go when dropped.
#[derive(Debug)]
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // Nothing to do about a failure here: the file is closed next, which lets go as well.
        let _ = self.0.unlock();
    }
}

fn open(root: &Path, name: &str) -> Result<File, Error> {
    let path = root.join(name);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| Error::files("open", &path, source))
}

/// Takes `file` exclusively if nobody holds it.
fn try_exclusive(file: &File, path: &Path) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(Error::files("lock", path, source)),
    }
}

/// The one service of a data directory.
#[derive(Debug)]
pub(super) struct Service {
    #[expect(dead_code, reason = "held for its lock")]
    held: Held,
}

impl Service {
    pub(super) fn claim(root: &Path) -> Result<Self, Error> {
        let file = open(root, "serve.lock")?;
        if try_exclusive(&file, root)? {
            Ok(Self { held: Held(file) })
        } else {
            Err(Error::InUse { path: root.to_owned() })
        }
    }
}

/// The right to start or stop the server.
#[derive(Debug)]
pub(super) struct Transition(Held);

impl Transition {
    /// Waits its turn.
    pub(super) async fn enter(root: &Path) -> Result<Self, Error> {
        let file = open(root, "transition.lock")?;
        let deadline = Instant::now() + PATIENCE;
        while !try_exclusive(&file, root)? {
            if Instant::now() >= deadline {
                return Err(Error::Busy { path: root.to_owned(), seconds: PATIENCE.as_secs() });
            }
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(Self(Held(file)))
    }

    /// The same lock for a child process: whoever inherits it keeps others out for as long as it lives, even when
    /// this process is killed.
    pub(super) fn share(&self) -> std::io::Result<File> {
        self.0.0.try_clone()
    }
}

/// One of the users of the server.
#[derive(Debug)]
pub(super) struct User(Held);

impl User {
    /// Joins the users; the transition keeps the last of them from leaving meanwhile.
    pub(super) fn join(root: &Path, _transition: &Transition) -> Result<Self, Error> {
        let file = open(root, "users.lock")?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Self(Held(file))),
            // Exclusively it is held only within a transition, and that is ours.
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path: root.to_owned(), seconds: 0 }),
            Err(TryLockError::Error(source)) => Err(Error::files("lock", root, source)),
        }
    }

    /// Leaves the users. `true` says that nobody else is left, and stays true for the transition.
    pub(super) fn leave(self, root: &Path, _transition: &Transition) -> Result<bool, Error> {
        self.0.0.unlock().map_err(|source| Error::files("unlock", root, source))?;
        try_exclusive(&self.0.0, root)
    }
}
