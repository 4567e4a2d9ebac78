//! Stops the throw-away cluster when all test processes are gone.
//!
//! A test process cannot do it: the test runner ends it without a word, and with a process for each test none knows to be
//! the last. So the first one starts this, the test binary once more with the one test below, which waits for
//! `tests.lock` and then stops the server. Killed, it leaves the cluster running, and the next run adopts it.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use callstate::managed_postgres::{Claim, acquire, running};

use super::cluster::{lock_file, options};

/// Says that a test binary was started to supervise.
const MARK: &str = "CALLSTATE_TEST_SUPERVISOR";
/// With a process for each test there are moments without any; the cluster is not stopped for those.
const LINGER: Duration = Duration::from_secs(3);

/// Starts a supervisor unless there is one. The caller holds `tests.lock`, so one that is there stays.
#[expect(
    clippy::zombie_processes,
    reason = "it outlives this process, and the system waits for it"
)]
pub(super) fn ensure() {
    // Let go of at once: two test processes may start one each, and the second leaves.
    if lock_file("supervisor.lock").try_lock().is_err() {
        return;
    }
    Command::new(std::env::current_exe().expect("the test binary"))
        .args([
            "--exact",
            "support::supervisor::stops_the_cluster_when_all_tests_are_gone",
            "--ignored",
        ])
        .env(MARK, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C ends the tests, and this after them.
        .process_group(0)
        .spawn()
        .expect("the test binary runs once more");
}

#[tokio::test]
#[ignore = "no test: the tests start it as a process beside them"]
async fn stops_the_cluster_when_all_tests_are_gone() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let only = lock_file("supervisor.lock");
    if only.try_lock().is_err() {
        return;
    }
    let gone = lock_file("tests.lock");
    loop {
        gone.lock().and_then(|()| gone.unlock()).expect("a lock of the file system");
        std::thread::sleep(LINGER);
        if gone.try_lock().is_ok() {
            break;
        }
    }
    // Tests that come now wait for `tests.lock`, which goes with this process, and start a supervisor of their own.
    if let Ok(Some(_)) = running(&options()).await {
        let server = acquire(&options(), Claim::Join).await.expect("the running server is joined");
        server.release().await.expect("the last one out stops the server");
    }
}
