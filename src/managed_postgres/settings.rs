//! The server's settings, fitted to the machine.
//!
//! They are written anew at each start, so that a newer callstate reaches clusters that an older one created. A user's own
//! go into `postgresql.local.conf` in the data directory, which is read after these and never touched.
//!
//! What always holds: a commit that was answered is on disk (`fsync`, `synchronous_commit`, `full_page_writes`); no
//! checkpoint stalls commits (long ones, spread out, with room for the log); no superuser over TCP.

use std::{fmt::Write as _, path::Path, process::Command};

/// How many connections the server takes: the service's pool, people with `psql`, Grafana.
const CONNECTIONS: u32 = 100;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What the settings depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    /// Bytes of memory that may be used.
    pub(super) memory: u64,
    /// Bytes of the file system that holds the data.
    pub(super) disk: u64,
}

impl Machine {
    /// Looks at this machine; what cannot be told is taken to be small.
    pub(super) fn here(data: &Path) -> Self {
        let disk = rustix::fs::statvfs(data)
            .map_or(8 * GIB, |found| found.f_blocks.saturating_mul(found.f_frsize));
        Self { memory: memory().unwrap_or(GIB), disk }
    }
}

/// The machine's memory, or what a container may use of it.
fn memory() -> Option<u64> {
    if cfg!(target_os = "macos") {
        let output = Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
        return std::str::from_utf8(&output.stdout).ok()?.trim().parse().ok();
    }
    let total = in_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|limit| limit.trim().parse().ok());
    Some(limit.map_or(total, |limit: u64| limit.min(total)))
}

fn in_meminfo(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// How whole pages are compressed in the log, where the server was built with it: several times as fast as its own
/// `pglz`, which a commit would wait for after each checkpoint.
pub(super) const FAST_COMPRESSION: Setting = ("wal_compression", "lz4");

/// A setting's name and value.
pub(super) type Setting = (&'static str, &'static str);

/// The contents of `callstate.conf`, for a server that has [`FAST_COMPRESSION`] or not.
pub(super) fn conf(
    machine: Machine,
    has_fast_compression: bool,
    port: u16,
    socket: &Path,
    access: &Path,
) -> String {
    // A quarter of the memory, as the manual advises; above 4 GiB the system's own cache serves as well.
    let buffers = (machine.memory / 4).clamp(128 * MIB, 4 * GIB) / MIB;
    // What the planner may assume to be cached, by Postgres or the system.
    let cache = (machine.memory / 2).max(256 * MIB) / MIB;
    // Sorts of reports; each of some connections may use several.
    let work = (machine.memory / 512).clamp(4 * MIB, 64 * MIB) / MIB;
    let maintenance = (machine.memory / 16).clamp(64 * MIB, GIB) / MIB;
    // Room for the log between checkpoints; after a crash it is replayed, at some 100 MiB a second or faster.
    let wal = (machine.disk / 16).clamp(GIB, 8 * GIB) / MIB;
    let min_wal = wal / 4;
    let compression = if has_fast_compression { FAST_COMPRESSION.1 } else { "on" };
    let socket = quote(&socket.to_string_lossy());
    let access = quote(&access.to_string_lossy());

    let mut conf = String::from(
        "# Written by callstate at each start: changes here are lost.\n\
         # Settings of your own go into postgresql.local.conf in the data directory, which is read after this.\n",
    );
    for (why, settings) in [
        (
            "Reached on this machine only",
            format!(
                "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = {socket}\n\
                 unix_socket_permissions = 0700\nhba_file = {access}\npassword_encryption = 'scram-sha-256'\n\
                 max_connections = {CONNECTIONS}\nssl = off"
            ),
        ),
        (
            "An answered commit is on disk",
            "fsync = on\nsynchronous_commit = on\nfull_page_writes = on".to_owned(),
        ),
        (
            "Memory",
            format!(
                "shared_buffers = {buffers}MB\neffective_cache_size = {cache}MB\nwork_mem = {work}MB\n\
                 maintenance_work_mem = {maintenance}MB"
            ),
        ),
        (
            "Checkpoints that do not stall commits: rare, spread out, with room for the log",
            format!(
                "checkpoint_timeout = 15min\ncheckpoint_completion_target = 0.9\nmax_wal_size = {wal}MB\n\
                 min_wal_size = {min_wal}MB\nwal_compression = {compression}\nwal_buffers = 16MB"
            ),
        ),
        (
            "Short statements on a fast disk: compiling plans costs more than it gives",
            "jit = off\nrandom_page_cost = 1.1".to_owned(),
        ),
        (
            "Dead rows of busy tables are cleared early",
            "autovacuum_vacuum_scale_factor = 0.05\nautovacuum_analyze_scale_factor = 0.02".to_owned(),
        ),
        (
            "Plain times and messages, whatever the machine's language",
            "timezone = 'UTC'\nlog_timezone = 'UTC'\nlc_messages = 'C'\ncluster_name = 'callstate'\n\
             logging_collector = off\nlog_destination = 'stderr'\nlog_line_prefix = '%m [%p] %q%u@%d '\n\
             log_checkpoints = off"
                .to_owned(),
        ),
    ] {
        write!(conf, "\n# {why}\n{settings}\n").expect("a String takes all");
    }
    conf.push_str("\ninclude_if_exists '../postgresql.local.conf'\n");
    conf
}

/// The contents of `pg_hba.conf`: passwords everywhere, and the superuser on the socket only, whose folder is closed to others.
pub(super) const ACCESS: &str = "\
# Written by callstate at each start: changes here are lost (set hba_file in postgresql.local.conf to use another).
# TYPE  DATABASE     USER      ADDRESS       METHOD
local   all          all                     scram-sha-256
host    all          postgres  all           reject
host    all          all       127.0.0.1/32  scram-sha-256
";

/// A string as configuration files write it.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::{GIB, MIB, Machine, conf, in_meminfo, quote};

    #[test]
    fn settings_fit_small_and_large_machines() {
        let of = |memory, disk| {
            conf(Machine { memory, disk }, true, 15432, "/s".as_ref(), "/a".as_ref())
        };
        let small = of(512 * MIB, 4 * GIB);
        assert!(small.contains("shared_buffers = 128MB\n"), "{small}");
        assert!(small.contains("max_wal_size = 1024MB\n"), "{small}");
        let large = of(256 * GIB, 4096 * GIB);
        assert!(large.contains("shared_buffers = 4096MB\n"), "{large}");
        assert!(large.contains("max_wal_size = 8192MB\n"), "{large}");
    }

    #[test]
    fn the_log_is_compressed_in_any_case() {
        let machine = Machine { memory: GIB, disk: GIB };
        for (has_fast, expected) in [(true, "lz4"), (false, "on")] {
            let conf = conf(machine, has_fast, 15432, "/s".as_ref(), "/a".as_ref());
            assert!(conf.contains(&format!("\nwal_compression = {expected}\n")), "{conf}");
        }
    }

    #[test]
    fn the_users_own_settings_come_last() {
        let machine = Machine { memory: GIB, disk: GIB };
        let conf = conf(machine, true, 15432, "/s".as_ref(), "/a".as_ref());
        assert_eq!(conf.lines().last(), Some("include_if_exists '../postgresql.local.conf'"));
    }

    #[test]
    fn a_path_with_a_quote_stays_one_string() {
        assert_eq!(quote(r"/it's\here"), r"'/it''s\\here'");
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(
            in_meminfo("MemTotal:       24685000 kB\nMemFree: 1 kB\n"),
            Some(24_685_000 * 1024)
        );
        assert_eq!(in_meminfo("nothing of the kind"), None);
    }
}
