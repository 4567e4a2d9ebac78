//! The cluster on disk: created once, completely or not at all, and made ready for each start.
//!
//! `initdb` works in a folder of another name, where the role, its database and the passwords are added too; the
//! folder is renamed to `data` when all of it is on disk. A kill or a power cut before that leaves a folder that the next
//! start removes; afterwards there is nothing left to do.
//!
//! Which roles it has, and what each may do, is told in [`roles`].

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
};

use super::{
    Error,
    binaries::Programs,
    diagnosis,
    layout::{self, Layout},
    lock::Transition,
    privilege::Privilege,
    roles,
    settings::{self, Machine, Setting},
};

/// Ports are taken from here, below what systems hand out to outgoing connections.
const FIRST_PORT: u16 = 15432;
const PORTS: u16 = 10_000;

/// A cluster with all that is needed to start its server.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub(super) layout: Layout,
    pub(super) programs: Programs,
    pub(super) privilege: Privilege,
}

impl Cluster {
    /// Makes everything ready for a start, creating the cluster if need be. Blocks.
    pub(super) fn prepare(
        root: &Path,
        programs: Programs,
        transition: &Transition,
    ) -> Result<Self, Error> {
        let layout = Layout::new(root, programs.major);
        layout::make_dir(&layout.dir())?;
        let socket = layout.socket();
        let above = socket.parent().unwrap_or(root);
        let privilege = Privilege::decide(&[&layout.dir(), &programs.dir, above])?;
        make_socket_dir(&socket, &privilege)?;
        let cluster = Self { layout, programs, privilege };
        layout::write(&cluster.layout.access(), settings::ACCESS, 0o644)?;
        cluster.remove_unfinished()?;
        if cluster.layout.data().is_dir() {
            cluster.privilege.give(&cluster.layout.data())?;
            cluster.check_version()?;
            cluster.mend_passwords()?;
        } else {
            cluster.create(transition)?;
        }
        Ok(cluster)
    }

    /// Writes the settings for a start at this port.
    pub(super) fn configure(&self, port: u16) -> Result<(), Error> {
        let machine = Machine::here(&self.layout.data());
        let (socket, access) = (self.layout.socket(), self.layout.access());
        let has_fast_compression = self.takes(settings::FAST_COMPRESSION)?;
        let conf = settings::conf(machine, has_fast_compression, port, &socket, &access);
        layout::write(&self.layout.settings(), &conf, 0o644)
    }

    /// Whether the server takes a setting, which depends on how it was built.
    fn takes(&self, (name, value): Setting) -> Result<bool, Error> {
        let answer = self
            .command("postgres")
            .args(["-C", name, "-c", &format!("{name}={value}")])
            // The settings of this cluster are still to be written, or may be wrong.
            .args(["-c", "config_file=/dev/null", "-D"])
            .arg(self.layout.data())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|source| Error::files("run", &self.programs.dir.join("postgres"), source))?;
        Ok(answer.success())
    }

    /// The port of this cluster: chosen at its first start and kept, so that what was set up with it stays right. When
    /// another program has it, another is used until that one has gone.
    pub(super) fn port(&self) -> Result<u16, Error> {
        let path = self.layout.port();
        let kept = layout::read(&path)?.and_then(|port| port.trim().parse().ok());
        // Different places open at different ports, so that two clusters seldom want the same.
        let number = self.layout.number() % u64::from(PORTS);
        let home = kept.unwrap_or(FIRST_PORT + u16::try_from(number).expect("below PORTS"));
        let port = free_port_from(home).ok_or(Error::PortInUse { port: home })?;
        match kept {
            None => layout::write(&path, &format!("{port}\n"), 0o644)?,
            Some(kept) if kept != port => {
                tracing::warn!(
                    kept,
                    port,
                    "the database's port is in use by another program: using another for now"
                );
            }
            Some(_) => {}
        }
        Ok(port)
    }

    fn remove_unfinished(&self) -> Result<(), Error> {
        let dir = self.layout.dir();
        let failed = |source| Error::files("clear", &dir, source);
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with("unfinished-") {
                tracing::info!(path = %entry.path().display(), "removing a database cluster whose creation was cut off");
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn check_version(&self) -> Result<(), Error> {
        let path = self.layout.data();
        let cluster =
            layout::read(&path.join("PG_VERSION"))?.and_then(|version| version.trim().parse().ok());
        match cluster {
            Some(cluster) if cluster != self.programs.major => Err(Error::OtherMajor {
                path,
                cluster,
                found: format!("{}.{}", self.programs.major, self.programs.minor),
                fetching: String::new(),
            }),
            _ => Ok(()),
        }
    }

    fn create(&self, transition: &Transition) -> Result<(), Error> {
        let data = self.layout.data();
        tracing::info!(path = %data.display(), "creating the database cluster");
        let building = self.layout.dir().join(format!("unfinished-{}", std::process::id()));
        let failed = |source| Error::files("create", &building, source);
        layout::make_dir(&building)?;
        fs::set_permissions(&building, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        self.privilege.give(&building)?;

        // An initdb that outlives us keeps the lock: nobody clears the folder under it.
        let lock = transition.share().map_err(failed)?;
        let initdb = self
            .command("initdb")
            .arg("-D")
            .arg(&building)
            .args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--data-checksums"])
            // Who is let in is decided by the file that each start writes.
            .args(["--auth=reject", "--no-instructions"])
            .stdin(lock)
            .output()
            .map_err(|source| Error::files("run", &self.programs.dir.join("initdb"), source))?;
        if !initdb.status.success() {
            return Err(diagnosis::of(
                "initdb",
                &building,
                &String::from_utf8_lossy(&initdb.stderr),
            )
            .into_error(&self.layout));
        }

        let owner = password(&self.layout.password())?;
        let superuser = password(&self.layout.superuser_password())?;
        self.alone(&building, "template1", &roles::create(&owner, &superuser))?;

        let main = building.join("postgresql.conf");
        fs::OpenOptions::new()
            .append(true)
            .open(&main)
            .and_then(|mut conf| {
                conf.write_all(b"\n# Settings of callstate, then the user's own\ninclude '../callstate.conf'\n")?;
                conf.sync_all()
            })
            .map_err(|source| Error::files("write", &main, source))?;
        fs::rename(&building, &data).and_then(|()| layout::sync_parent(&data)).map_err(failed)
    }

    /// A lost password file is no lost cluster: without a server running, a new one can be set. Clusters of the first
    /// releases have none for the superuser, who had that of `callstate`, and get it here.
    fn mend_passwords(&self) -> Result<(), Error> {
        if self.layout.data().join("postmaster.pid").exists() {
            return Ok(());
        }
        let files = [
            (roles::OWNER, self.layout.password()),
            (roles::SUPERUSER, self.layout.superuser_password()),
        ];
        for (role, path) in files.into_iter().filter(|(_, path)| !path.exists()) {
            tracing::warn!(path = %path.display(), "the database's role {role} has no password file: setting a new password");
            let password = new_password()?;
            self.configure(FIRST_PORT)?; // the settings are read, the port is not opened
            self.alone(&self.layout.data(), "postgres", &[roles::set_password(role, &password)])?;
            layout::write(&path, &password, 0o600)?;
        }
        Ok(())
    }

    /// Runs statements in single-user mode: no server that others could connect to, and no password needed.
    fn alone(&self, data: &Path, database: &str, statements: &[String]) -> Result<(), Error> {
        let program = self.programs.dir.join("postgres");
        let failed = |source| Error::files("run", &program, source);
        let mut child = self
            .command("postgres")
            .args(["--single", "-c", "exit_on_error=on", "-c", "log_min_messages=error", "-D"])
            .arg(data)
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut input = child.stdin.take().expect("piped above");
        // When it gives up early, what it says is of more interest than the broken pipe.
        let _ = statements.iter().try_for_each(|statement| writeln!(input, "{statement}"));
        drop(input);
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // A failing statement is quoted in the log, and it holds a password.
        let said: Vec<&str> = said.lines().filter(|line| !line.contains("STATEMENT:")).collect();
        Err(diagnosis::of("postgres", data, &said.join("\n")).into_error(&self.layout))
    }

    /// One of Postgres' programs, as the user of the server.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = self.privilege.command(&self.programs.dir.join(program));
        command.current_dir(self.layout.dir());
        command
    }
}

/// The password in a file, made on the first need. It is on disk before the cluster that knows it.
fn password(path: &Path) -> Result<String, Error> {
    if let Some(password) = layout::read(path)? {
        return Ok(password.trim().to_owned());
    }
    let password = new_password()?;
    layout::write(path, &password, 0o600)?;
    Ok(password)
}

fn make_socket_dir(path: &Path, privilege: &Privilege) -> Result<(), Error> {
    let failed = |source| Error::files("create", path, source);
    match fs::symlink_metadata(path) {
        // Under the temporary folder anyone can put something in our place.
        Ok(found) if !found.is_dir() => {
            let user = rustix::process::geteuid().as_raw();
            return Err(Error::WrongOwner { path: path.to_owned(), owner: found.uid(), user });
        }
        Ok(_) => {}
        Err(_) => layout::make_dir(path)?,
    }
    privilege.give(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)
}

fn free_port_from(home: u16) -> Option<u16> {
    let range = (home..=u16::MAX).chain(FIRST_PORT..home);
    range
        .into_iter()
        .take(PORTS.into())
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

const RANDOM: &str = "/dev/urandom";

/// 128 bits of the system's randomness, in letters that need no quoting in SQL, URLs or shells.
fn new_password() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    File::open(RANDOM)
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|source| Error::files("read", RANDOM.as_ref(), source))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
