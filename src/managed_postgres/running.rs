//! Is the server running? A connection says so, never a process id.
//!
//! `postmaster.pid` in the data only says where to knock: a server that was killed leaves it behind, and after a
//! restart of the machine (always, in containers) its process id may be anyone's.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{net::UnixStream, time::Instant};

use super::{
    Error,
    layout::{self, Layout},
    roles,
};

/// How long a server may take to come up or go down. Replaying the log after a crash takes the longest.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often to knock. Postgres tells nobody when it is ready, so asking is all there is.
pub(super) const INTERVAL: Duration = Duration::from_millis(20);
/// The longest pause between two knocks: each leaves a line in the log of a server that replays its own.
const LONGEST_INTERVAL: Duration = Duration::from_millis(500);
/// How long one connection may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A server that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) port: u16,
    pub(super) socket: PathBuf,
    /// As the server says it, `15.18`.
    pub(super) version: String,
    /// The process that holds the data, if the file is to be believed.
    pid: i32,
}

/// What came of knocking.
enum Answer {
    Up(String),
    /// Starting, recovering or stopping.
    NotNow,
    Silent,
}

/// Where a server would be, as it noted itself.
struct Note {
    pid: i32,
    port: u16,
    socket: PathBuf,
}

/// Looks for the server of a cluster; waits while it is coming up or going down.
pub(super) async fn find(layout: &Layout) -> Result<Option<Running>, Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = INTERVAL;
    loop {
        let Some(note) = note(layout)? else {
            return Ok(None);
        };
        match ask(layout, &note).await? {
            Answer::Up(version) => {
                return Ok(Some(Running {
                    port: note.port,
                    socket: note.socket,
                    version,
                    pid: note.pid,
                }));
            }
            Answer::Silent => return Ok(None),
            Answer::NotNow if Instant::now() < deadline => {
                tokio::time::sleep(pause).await;
                pause = (pause + pause / 4).min(LONGEST_INTERVAL);
            }
            Answer::NotNow => return Err(too_slow(layout, "come up")),
        }
    }
}

/// Options for connecting on the socket, whatever the environment says. Each role has its database, of the same name.
pub(super) fn options(socket: &Path, port: u16, role: &str, password: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket)
        .port(port)
        .username(role)
        .password(password)
        .database(role)
        .ssl_mode(PgSslMode::Disable)
        .application_name("callstate (its server)")
}

pub(super) fn too_slow(layout: &Layout, what: &'static str) -> Error {
    Error::TooSlow { what, path: layout.data(), seconds: PATIENCE.as_secs(), log: layout.log() }
}

/// Reads `postmaster.pid`: process, data, start time, port, socket folder, one a line.
fn note(layout: &Layout) -> Result<Option<Note>, Error> {
    let Some(file) = layout::read(&layout.data().join("postmaster.pid"))? else {
        return Ok(None);
    };
    let mut lines = file.lines();
    let mut field = |skip: usize| lines.nth(skip).map(str::trim).filter(|line| !line.is_empty());
    // Fewer lines: a server in the first moments of its start, which nobody can connect to yet.
    let (Some(pid), Some(port), Some(socket)) = (field(0), field(2), field(0)) else {
        return Ok(None);
    };
    let (Ok(pid), Ok(port)) = (pid.parse(), port.parse()) else {
        return Ok(None);
    };
    Ok(Some(Note { pid, port, socket: PathBuf::from(socket) }))
}

async fn ask(layout: &Layout, note: &Note) -> Result<Answer, Error> {
    let password = layout::read(&layout.password())?.unwrap_or_default();
    let refused =
        |source| Error::Refused { path: layout.data(), password: layout.password(), source };
    let options =
        options(&note.socket, note.port, roles::OWNER, password.trim()).disable_statement_logging();
    match tokio::time::timeout(ANSWER, sqlx::PgConnection::connect_with(&options)).await {
        // It accepts, and has no time for us: very busy, or stopped by a debugger.
        Err(_) => Ok(Answer::NotNow),
        Ok(Ok(connection)) => {
            let number = connection.server_version_num().unwrap_or(layout.major * 10_000);
            // A connection that served its purpose; how it ends is of no interest.
            let _ = connection.close().await;
            Ok(Answer::Up(format!("{}.{}", number / 10_000, number % 10_000)))
        }
        Ok(Err(sqlx::Error::Database(error))) => match error.code().as_deref() {
            // cannot_connect_now; admin_shutdown and crash_shutdown while it goes down
            Some("57P03" | "57P01" | "57P02") => Ok(Answer::NotNow),
            // too_many_connections: it could not say so if it were not up
            Some("53300") => Ok(Answer::Up(layout.major.to_string())),
            _ => Err(refused(sqlx::Error::Database(error))),
        },
        Ok(Err(sqlx::Error::Io(_))) => Ok(Answer::Silent),
        Ok(Err(error)) => Err(refused(error)),
    }
}

/// Stops a server: no new connections, open transactions rolled back, a checkpoint, gone ("fast shutdown").
pub(super) async fn stop(layout: &Layout, running: &Running) -> Result<(), Error> {
    let out_of_reach = || Error::OutOfReach { path: layout.data() };
    // The kernel knows who listens on the socket; in another container the file's number would be anyone's here.
    // (macOS tells the last process that touched the socket, which need not be that one.)
    let socket = running.socket.join(format!(".s.PGSQL.{}", running.port));
    let listener = UnixStream::connect(&socket).await.and_then(|stream| stream.peer_cred());
    let Ok(listener) = listener else {
        return Ok(());
    };
    if cfg!(target_os = "linux") && listener.pid() != Some(running.pid) {
        return Err(out_of_reach());
    }
    let pid = rustix::process::Pid::from_raw(running.pid)
        .filter(|_| running.pid > 1)
        .ok_or_else(out_of_reach)?;
    match rustix::process::kill_process(pid, rustix::process::Signal::INT) {
        Ok(()) => {}
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(_) => return Err(out_of_reach()),
    }
    let deadline = Instant::now() + PATIENCE;
    // The file is the last thing that an orderly server removes; a killed one leaves it.
    while note(layout)?.is_some_and(|note| note.pid == running.pid)
        && holder(layout) != Holder::Nobody
    {
        if Instant::now() >= deadline {
            return Err(too_slow(layout, "stop"));
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

/// Clears what a killed server left where that would keep a new one from starting.
///
/// Postgres does this itself unless another process got the old one's number. So: only when the process of that
/// number is known not to be a server of these data. Against backends that are still alive its shared memory guards.
pub(super) fn clear_stale(layout: &Layout) -> Result<(), Error> {
    if holder(layout) != Holder::Nobody {
        return Ok(());
    }
    let mut stale = vec![layout.data().join("postmaster.pid")];
    let socket = layout.socket();
    for entry in
        fs::read_dir(&socket).map_err(|source| Error::files("read", &socket, source))?.flatten()
    {
        if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
            stale.push(entry.path());
        }
    }
    for path in stale {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::files("remove", &path, source));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the process that `postmaster.pid` names is a server of these data.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    Perhaps,
}

fn holder(layout: &Layout) -> Holder {
    let data = layout.data();
    let Ok(file) = fs::read_to_string(data.join("postmaster.pid")) else {
        return Holder::Nobody;
    };
    let Some(pid) = file.lines().next().and_then(|pid| pid.trim().parse::<u32>().ok()) else {
        return Holder::Perhaps;
    };
    if cfg!(target_os = "linux") {
        // A server's working directory is its data.
        match fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(cwd) if cwd == data => Holder::Perhaps,
            Ok(_) => Holder::Nobody,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Holder::Nobody,
            Err(_) => Holder::Perhaps,
        }
    } else {
        let ps =
            std::process::Command::new("ps").args(["-o", "comm=", "-p", &pid.to_string()]).output();
        match ps {
            Ok(output) if !String::from_utf8_lossy(&output.stdout).contains("postgres") => {
                Holder::Nobody
            }
            _ => Holder::Perhaps,
        }
    }
}
