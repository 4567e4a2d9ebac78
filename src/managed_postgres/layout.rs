//! Where things are in a data directory, and files that survive a crash.
//!
//! ```text
//! <data dir>/
//!   serve.lock users.lock transition.lock
//!   postgresql.local.conf      the user's own settings, if any: read last, never written here
//!   fetched/<version>/bin      programs, where none were installed
//!   pg<major>/
//!     data/                    the cluster; it gets this name only when it is complete
//!     unfinished-<pid>/        a cluster that is being created, or was when the power went
//!     callstate.conf pg_hba.conf   written anew at each start
//!     password superuser-password port   made once
//!     socket/                  unless its path is too long for a socket
//!     server.log server.log.old
//! ```
//!
//! Files are written beside their place, synced, and renamed: there is the old one or the new one, never half of it.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use super::Error;

/// A socket's path has 104 bytes on macOS and 108 on Linux, with the file's name (`/.s.PGSQL.65535`) and a NUL.
const LONGEST_SOCKET_DIR: usize = 104 - 16;

/// Opens the data directory, creating it where it is not there yet, and returns its real path.
pub(super) fn open(path: &Path) -> Result<PathBuf, Error> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            return Err(Error::NotADirectory { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(_) => make_dir(path)?,
    }
    let root = fs::canonicalize(path).map_err(|source| Error::files("open", path, source))?;
    let owner = fs::metadata(&root).map_err(|source| Error::files("open", &root, source))?.uid();
    let user = rustix::process::geteuid().as_raw();
    // Root may use a folder of its own only: in another's it would leave files that the other cannot touch.
    if owner == user { Ok(root) } else { Err(Error::WrongOwner { path: root, owner, user }) }
}

/// The data directory's real path, if it is there.
pub(super) fn existing(path: &Path) -> Result<Option<PathBuf>, Error> {
    match fs::canonicalize(path) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::files("open", path, source)),
    }
}

/// Creates a folder and those above it. As root it can be passed through by others, because the server runs as
/// another user and has to reach its data; what is in it is closed to them all the same.
pub(super) fn make_dir(path: &Path) -> Result<(), Error> {
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| Error::files("create", path, source))
}

/// Replaces a file so that a crash leaves the old one or the new one.
pub(super) fn write(path: &Path, contents: &str, mode: u32) -> Result<(), Error> {
    let beside = path.with_added_extension("new");
    let attempt = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(contents.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_parent(path)
    };
    attempt().map_err(|source| Error::files("write", path, source))
}

/// Makes a file's name as durable as its contents.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Reads a small file, if it is there.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::files("read", path, source)),
    }
}

/// The place of one cluster.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The data directory.
    pub(super) root: PathBuf,
    /// The major version of Postgres.
    pub(super) major: u32,
}

impl Layout {
    pub(super) fn new(root: &Path, major: u32) -> Self {
        Self { root: root.to_owned(), major }
    }

    /// The place of the cluster that is there, the newest if a user has moved from one version to another.
    pub(super) fn find(root: &Path) -> Result<Option<Self>, Error> {
        let mut newest: Option<u32> = None;
        for entry in fs::read_dir(root).map_err(|source| Error::files("read", root, source))? {
            let entry = entry.map_err(|source| Error::files("read", root, source))?;
            let major =
                entry.file_name().to_str().and_then(|name| name.strip_prefix("pg")?.parse().ok());
            if major > newest && entry.path().join("data").is_dir() {
                newest = major;
            }
        }
        Ok(newest.map(|major| Self::new(root, major)))
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.root.join(format!("pg{}", self.major))
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    pub(super) fn password(&self) -> PathBuf {
        self.dir().join("password")
    }

    /// Of the superuser, which no URL that is handed on has.
    pub(super) fn superuser_password(&self) -> PathBuf {
        self.dir().join("superuser-password")
    }

    pub(super) fn port(&self) -> PathBuf {
        self.dir().join("port")
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.dir().join("callstate.conf")
    }

    pub(super) fn access(&self) -> PathBuf {
        self.dir().join("pg_hba.conf")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir().join("server.log")
    }

    /// The folder of the Unix socket: beside the data, or under the temporary folder where that path is too long.
    pub(super) fn socket(&self) -> PathBuf {
        let here = self.dir().join("socket");
        if fits_socket(&here) {
            return here;
        }
        let name = format!("callstate-{:016x}", self.number());
        let temporary = std::env::temp_dir().join(&name);
        if fits_socket(&temporary) { temporary } else { Path::new("/tmp").join(name) }
    }

    /// A number that stays the same for a place and differs between places (FNV-1a).
    pub(super) fn number(&self) -> u64 {
        self.dir()
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
    }
}

fn fits_socket(path: &Path) -> bool {
    path.as_os_str().len() <= LONGEST_SOCKET_DIR
}
