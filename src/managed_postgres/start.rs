//! Starts the server: `postgres` itself, in a process group of its own, its log in a file.
//!
//! Not by `pg_ctl`, which hides why a start failed. Its own group, or Ctrl-C in the service's terminal would reach it
//! first. The child is not waited for and not killed with us: a service that is killed leaves a server that the next one
//! adopts, and every open transaction of others lives on.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{process::Child, time::Instant};

use super::{
    Error,
    cluster::Cluster,
    diagnosis::{self, Cause, Diagnosis},
    layout::Layout,
    running::{self, Running},
};

/// How long to wait for the processes of a killed server to end, or for a server that someone else is starting.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(30);
/// How often another port is tried.
const PORT_ATTEMPTS: u32 = 8;
/// The log is put aside when it has grown to this, so that there are at most twice as many bytes of it.
const LOG_LIMIT: u64 = 16 << 20;
/// How much of a log is read for an error.
const TAIL: u64 = 16 << 10;

/// Starts the server. A `port` that is given is insisted on; otherwise it is the cluster's, or another free one.
pub(super) async fn start(cluster: &Cluster, port: Option<u16>) -> Result<Running, Error> {
    let deadline = Instant::now() + LEFTOVER_PATIENCE;
    let mut attempts = 0;
    loop {
        running::clear_stale(&cluster.layout)?;
        let chosen = match port {
            Some(port) => port,
            None => cluster.port()?,
        };
        cluster.configure(chosen)?;
        let diagnosis = match attempt(cluster).await? {
            Ok(running) => return Ok(running),
            Err(diagnosis) => diagnosis,
        };
        match diagnosis.cause {
            Cause::PortInUse if port.is_some() => return Err(Error::PortInUse { port: chosen }),
            // Between our look and Postgres' own, someone else took it.
            Cause::PortInUse if attempts < PORT_ATTEMPTS => attempts += 1,
            Cause::PortInUse => return Err(Error::PortInUse { port: chosen }),
            Cause::Leftovers if Instant::now() < deadline => {
                tokio::time::sleep(running::INTERVAL).await;
            }
            // An orphan of a callstate that was killed while it started it.
            Cause::AlreadyRunning if Instant::now() < deadline => {
                if let Some(running) = running::find(&cluster.layout).await? {
                    return Ok(running);
                }
                tokio::time::sleep(running::INTERVAL).await;
            }
            _ => return Err(diagnosis.into_error(&cluster.layout)),
        }
    }
}

/// One attempt: a server that answers, or what it said when it gave up.
async fn attempt(cluster: &Cluster) -> Result<Result<Running, Diagnosis>, Error> {
    let layout = &cluster.layout;
    let path = layout.log();
    bound_log(&path)?;
    let failed = |source| Error::files("open", &path, source);
    let log =
        OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    let begin = log.metadata().map_err(failed)?.len();

    let mut command = cluster.command("postgres");
    command.arg("-D").arg(layout.data());
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
    let mut command = tokio::process::Command::from(command);
    let program = cluster.programs.dir.join("postgres");
    let run = |source| Error::files("run", &program, source);
    let mut server = command.process_group(0).kill_on_drop(false).spawn().map_err(run)?;
    match up(layout, &mut server).await? {
        Some(running) => Ok(Ok(running)),
        None => {
            Ok(Err(diagnosis::of("postgres", &layout.data(), &tail(&path, begin).map_err(failed)?)))
        }
    }
}

/// Waits until the server answers; `None` if it ended instead.
async fn up(layout: &Layout, server: &mut Child) -> Result<Option<Running>, Error> {
    let program = layout.data();
    loop {
        if let Some(running) = running::find(layout).await? {
            return Ok(Some(running));
        }
        if server.try_wait().map_err(|source| Error::files("wait for", &program, source))?.is_some()
        {
            return Ok(None);
        }
        tokio::time::sleep(running::INTERVAL).await;
    }
}

/// Keeps the log within bounds. The server appends, so the file can be emptied under it; a line that it writes
/// between the copy and the cut is lost.
pub(super) fn bound_log(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::files("rotate", path, source);
    match fs::metadata(path) {
        Ok(log) if log.len() > LOG_LIMIT => {}
        _ => return Ok(()),
    }
    fs::copy(path, path.with_extension("log.old")).map_err(failed)?;
    OpenOptions::new().write(true).open(path).and_then(|log| log.set_len(0)).map_err(failed)
}

/// The end of a log, as far as it was written since `begin`.
fn tail(path: &Path, begin: u64) -> std::io::Result<String> {
    let mut log = File::open(path)?;
    let end = log.metadata()?.len();
    log.seek(SeekFrom::Start(begin.max(end.saturating_sub(TAIL))))?;
    let mut bytes = Vec::new();
    log.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
