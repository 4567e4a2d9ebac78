//! The program as its users run it: the real binary, in a clean environment.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{oneshot, watch};

use super::{Database, Place};

/// How long the service may take to start or to stop before a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_mins(1);
/// The line by which the service says where it listens.
const LISTENING: &str = "listening on ";

/// Runs the program to its end. It sees none of our environment; a database is named by an argument.
pub(crate) fn callstate(arguments: &[&str]) -> Output {
    command().args(arguments).stdin(Stdio::null()).output().expect("the program runs")
}

/// The program, for what more is to be said of how it runs.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callstate"));
    // Where no `callstate.toml` lies.
    command.env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// A running `callstate serve`. Dropped, it is killed; what it said is shown when its test fails.
pub(crate) struct Service {
    child: Child,
    base_url: String,
    said: watch::Sender<String>,
}

impl Service {
    /// Starts the service on a free port, and waits until it says that it listens.
    pub(crate) async fn start(database: &Database) -> Self {
        Self::start_with(database, |_| {}).await
    }

    /// Starts it with more arguments or environment.
    pub(crate) async fn start_with(database: &Database, more: impl FnOnce(&mut Command)) -> Self {
        Self::start_on("127.0.0.1:0", database, more).await
    }

    /// Starts it to listen elsewhere.
    pub(crate) async fn start_on(
        listen: &str,
        database: &Database,
        more: impl FnOnce(&mut Command),
    ) -> Self {
        Self::start_as(listen, |command| {
            command.args(["--database-url", &database.url()]);
            more(command);
        })
        .await
    }

    /// Starts it with the database at a URL.
    pub(crate) async fn start_at(database_url: &str) -> Self {
        Self::start_as("127.0.0.1:0", |command| {
            command.args(["--database-url", database_url]);
        })
        .await
    }

    /// Starts it with a database of its own in a data directory.
    pub(crate) async fn start_in(place: &Place) -> Self {
        Self::start_as("127.0.0.1:0", |command| {
            command.arg("--data-dir").arg(&place.0);
        })
        .await
    }

    async fn start_as(listen: &str, more: impl FnOnce(&mut Command)) -> Self {
        let mut command = command();
        command.args(["serve", "--listen", listen]);
        more(&mut command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let said = watch::Sender::new(String::new());
        let (listening, listens) = oneshot::channel();
        keep(child.stdout.take().expect("piped above"), &said, Some(listening));
        keep(child.stderr.take().expect("piped above"), &said, None);
        let mut service = Self { child, base_url: String::new(), said };
        // The sender goes with the service's output, so one that ends without a word fails the test at once.
        service.base_url = tokio::time::timeout(PATIENCE, listens)
            .await
            .expect("the service listens in time")
            .expect("the service says where it listens before it ends");
        service
    }

    /// `http://127.0.0.1:<port>`.
    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Waits until it has said something, and gives all that it has said by then.
    pub(crate) async fn said(&self, text: &str) -> String {
        let mut said = self.said.subscribe();
        let said = said.wait_for(|said| said.contains(text));
        let said = tokio::time::timeout(PATIENCE, said).await;
        said.unwrap_or_else(|_| panic!("it says {text:?} in time"))
            .expect("the sender is ours")
            .clone()
    }

    /// What it says, even after it has stopped.
    pub(crate) fn hears(&self) -> watch::Receiver<String> {
        self.said.subscribe()
    }

    /// Asks it to read tokens and keys again.
    pub(crate) fn hang_up(&self) {
        kill_process(self.process(), Signal::HUP).expect("it is running");
    }

    /// Ends it as a failing machine would, and waits until it is gone.
    pub(crate) fn kill_9(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Asks it to stop, and sees that it does so in order.
    pub(crate) async fn stop(mut self) {
        kill_process(self.process(), Signal::TERM).expect("it is running");
        let stopped =
            tokio::time::timeout(PATIENCE, self.wait()).await.expect("the service stops in time");
        assert_eq!(stopped.code(), Some(0), "the service stops in order");
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    async fn wait(&mut self) -> ExitStatus {
        // Its output ends with it.
        let process = self.process();
        tokio::task::spawn_blocking(move || {
            rustix::process::waitid(
                rustix::process::WaitId::Pid(process),
                rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
            )
        })
        .await
        .expect("no panic in it")
        .expect("it is ours");
        self.child.wait().expect("it is ours")
    }
}

/// Keeps what the service says, lest it wait for a reader; and picks the line out of it that says where it listens.
fn keep(
    output: impl Read + Send + 'static,
    said: &watch::Sender<String>,
    listening: Option<oneshot::Sender<String>>,
) {
    let said = said.clone();
    let mut listening = listening;
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(url) = line.strip_prefix(LISTENING)
                && let Some(listening) = listening.take()
            {
                // Nobody waits for it any more when the test has failed.
                let _ = listening.send(url.trim().to_owned());
            }
            said.send_modify(|said| {
                said.push_str(&line);
                said.push('\n');
            });
        }
    });
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail when it is gone already, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the service said:\n{}", *self.said.borrow());
        }
    }
}
