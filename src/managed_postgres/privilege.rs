//! As whom the server runs. Postgres refuses to run as root.
//!
//! | we are | the data can be reached by others | the server runs as |
//! | --- | --- | --- |
//! | anyone but root | | ourselves |
//! | root | yes | `postgres`, else `nobody` |
//! | root | no (`/root`, `mktemp -d`) | root on the file system, without any of its capabilities, and an unprivileged user in its own eyes |
//!
//! The third is a user namespace of one entry, made by util-linux' `unshare`, which then runs the program in its own
//! place, so that the process id stays. A file belongs to the server in Postgres' eyes when it belongs to *root* outside.
//! Which of the two holds may change between starts, when a folder is opened or closed: the data are given to whom they
//! must belong each time.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Error;

/// The users to run the server as, in order.
const USERS: [&str; 3] = ["postgres", "_postgres", "nobody"];
/// Where a program finds others, when its environment is otherwise empty.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a batch of deliveries takes, Postgres gives back at its end, and glibc to the system, to be faulted in
/// page by page with the next one: two microseconds a delivery. So it keeps some (mallopt(3)).
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TOP_PAD_", "16777216"),
    ("MALLOC_TRIM_THRESHOLD_", "67108864"),
];

/// As whom the server runs.
#[derive(Debug, Clone)]
pub(super) enum Privilege {
    /// As we do ourselves.
    Own,
    /// As another user.
    Switched(User),
    /// As root without its capabilities, who sees itself as another user.
    Mapped(User),
}

/// An unprivileged user of the system.
#[derive(Debug, Clone)]
pub(super) struct User {
    name: &'static str,
    uid: u32,
    gid: u32,
}

impl Privilege {
    /// Finds out as whom a server can run that has to reach these folders, all of which exist.
    pub(super) fn decide(folders: &[&Path]) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        let user = USERS.into_iter().find_map(User::look_up).ok_or(Error::NoUnprivilegedUser)?;
        let Some(path) = folders.iter().find_map(|folder| closed(folder, user.uid, user.gid))
        else {
            return Ok(Self::Switched(user));
        };
        let refuse = |path: PathBuf, reason: String| Error::Closed {
            path,
            user: user.name.to_owned(),
            reason,
        };
        if let Some(path) = folders.iter().find_map(|folder| closed(folder, 0, 0)) {
            return Err(refuse(path, "it does not belong to root either".to_owned()));
        }
        let trial = user.unshare("true".as_ref()).stdin(Stdio::null()).output();
        match trial {
            Ok(output) if output.status.success() => Ok(Self::Mapped(user)),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let reason =
                    format!("a user namespace was refused: {} {}", output.status, said.trim());
                Err(refuse(path, reason.trim_end().to_owned()))
            }
            Err(error) => Err(refuse(
                path,
                format!("`unshare` of util-linux 2.34 or later did not run: {error}"),
            )),
        }
    }

    /// A program of the server, with an empty environment: the service's has secrets in it, and `PG…` variables
    /// that are meant for others.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = match self {
            Self::Own => Command::new(program),
            Self::Switched(user) => {
                let mut command = Command::new(program);
                command.uid(user.uid).gid(user.gid);
                command
            }
            Self::Mapped(user) => user.unshare(program),
        };
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").envs(ALLOCATOR);
        for name in ["TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Gives a folder and all in it to the user of the server, if it is not theirs yet.
    pub(super) fn give(&self, path: &Path) -> Result<(), Error> {
        let owner = fs::symlink_metadata(path)
            .map_err(|source| Error::files("look at", path, source))?
            .uid();
        let (uid, gid) = match self {
            Self::Own => {
                let user = rustix::process::geteuid().as_raw();
                return if owner == user {
                    Ok(())
                } else {
                    Err(Error::WrongOwner { path: path.to_owned(), owner, user })
                };
            }
            Self::Switched(user) => (user.uid, user.gid),
            Self::Mapped(_) => (0, 0),
        };
        if owner == uid {
            return Ok(());
        }
        // Only what an earlier start of ours can have left; anyone else's files stay theirs.
        let ours =
            owner == 0 || USERS.into_iter().filter_map(User::look_up).any(|user| user.uid == owner);
        if ours {
            give_all(path, uid, gid)
        } else {
            Err(Error::WrongOwner { path: path.to_owned(), owner, user: 0 })
        }
    }
}

impl User {
    /// `id` asks whatever the system keeps its users in, `/etc/passwd` or not.
    fn look_up(name: &'static str) -> Option<Self> {
        let number = |which| {
            let output = Command::new("id")
                .args([which, name])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .ok()?;
            std::str::from_utf8(&output.stdout).ok()?.trim().parse().ok()
        };
        Some(Self { name, uid: number("-u").filter(|&uid| uid != 0)?, gid: number("-g")? })
    }

    fn unshare(&self, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command
            .arg("--user")
            .arg(format!("--map-user={}", self.uid))
            .arg(format!("--map-group={}", self.gid))
            .arg("--")
            .arg(program);
        command
    }
}

/// The first folder on the way to `path` that a user may not pass, by the classic permissions.
fn closed(path: &Path, uid: u32, gid: u32) -> Option<PathBuf> {
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    ancestors
        .into_iter()
        .find(|folder| {
            fs::metadata(folder).is_ok_and(|found| {
                let pass = if found.uid() == uid {
                    0o100
                } else if found.gid() == gid {
                    0o010
                } else {
                    0o001
                };
                found.mode() & pass == 0
            })
        })
        .map(Path::to_owned)
}

/// Changes the owner of everything below a folder, and of the folder last: cut off in between, it is done again.
fn give_all(path: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    let failed = |source| Error::files("change the owner of", path, source);
    if fs::symlink_metadata(path).map_err(failed)?.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            give_all(&entry.map_err(failed)?.path(), uid, gid)?;
        }
    }
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(failed)
}
