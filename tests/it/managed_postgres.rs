//! The managed server, from an empty directory to a killed process. Each test has a data directory of its own.
//!
//! Creating a cluster waits for the disk for a second or two, so most tests open a copy of one that was created, as a
//! user would who moves the data directory. Those about creation start from nothing.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use crate::support::Place;
use callstate::managed_postgres::{Claim, Error, Options, acquire, running};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

async fn ask(url: &str, sql: &'static str) -> String {
    let mut connection = PgConnection::connect(url).await.expect("the server accepts");
    let row = connection.fetch_one(sql).await.expect("the statement is right");
    row.get(0)
}

async fn run(url: &str, sql: &'static str) {
    let mut connection = PgConnection::connect(url).await.expect("the server accepts");
    connection.execute(sql).await.expect("the statement is right");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o777
}

#[tokio::test]
async fn a_first_start_makes_a_durable_database_that_only_we_can_reach() {
    let place = Place::new();
    let server = place.acquire(Claim::Serve).await;
    let url = server.url();
    assert_eq!(
        ask(url, "select current_user || '@' || current_database()").await,
        "callstate@callstate"
    );
    for (setting, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("password_encryption", "scram-sha-256"),
        ("listen_addresses", "127.0.0.1"),
        ("TimeZone", "UTC"),
    ] {
        let mut connection = PgConnection::connect(url).await.expect("the server accepts");
        let query = sqlx::AssertSqlSafe(format!("select current_setting('{setting}')"));
        let row = connection.fetch_one(query).await.expect("a setting");
        assert_eq!(row.get::<String, _>(0), value, "{setting}");
    }
    let log = "select (setting = 'lz4' or not 'lz4' = any(enumvals))::text from pg_settings where name = 'wal_compression'";
    assert_eq!(ask(url, log).await, "true", "pages are compressed by LZ4 where the server can");
    assert_eq!(mode(&place.cluster().join("password")), 0o600);
    assert_eq!(mode(&place.cluster().join("superuser-password")), 0o600);
    assert_eq!(mode(&place.cluster().join("data")), 0o700);
    assert_eq!(mode(server.socket_dir()), 0o700);
    assert!(!server.describe().contains("postgres://"), "{}", server.describe());

    let superuser = url.replace("callstate:", "postgres:");
    let refused = PgConnection::connect(&superuser).await.expect_err("no superuser over TCP");
    assert!(refused.to_string().contains("pg_hba.conf rejects connection"), "{refused}");
    let stranger = url.replace('@', "0@");
    PgConnection::connect(&stranger).await.expect_err("a wrong password");
    server.release().await.expect("it stops");
}

#[tokio::test]
async fn data_port_and_password_are_kept_across_starts() {
    let place = Place::with_cluster().await;
    assert_eq!(running(&place.options()).await.expect("nothing is wrong"), None);
    let first = place.acquire(Claim::Serve).await;
    let url = first.url().to_owned();
    run(&url, "create table kept (note text); insert into kept values ('still here')").await;
    first.release().await.expect("it stops");
    assert_eq!(running(&place.options()).await.expect("nothing is wrong"), None);

    let second = place.acquire(Claim::Serve).await;
    assert_eq!(second.url(), url);
    assert_eq!(ask(&url, "select note from kept").await, "still here");
    second.release().await.expect("it stops");
}

#[tokio::test]
async fn another_port_is_used_while_ours_is_taken() {
    let place = Place::with_cluster().await;
    let first = place.acquire(Claim::Serve).await;
    let home = first.url().to_owned();
    first.release().await.expect("it stops");
    let port = home.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port");
    let taken =
        std::net::TcpListener::bind(format!("127.0.0.1:{port}")).expect("it was free a moment ago");

    let away = place.acquire(Claim::Serve).await;
    assert_ne!(away.url(), home);
    assert_eq!(ask(away.url(), "select 'up'").await, "up");
    away.release().await.expect("it stops");
    drop(taken);

    let back = place.acquire(Claim::Serve).await;
    assert_eq!(back.url(), home);
    back.release().await.expect("it stops");
}

#[tokio::test]
async fn a_second_service_is_refused_by_the_name_of_the_directory() {
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    let refused =
        acquire(&place.options(), Claim::Serve).await.expect_err("one service a data directory");
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    let name = place.0.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(refused.to_string().contains(&name), "{refused}");
    server.release().await.expect("it stops");
}

#[tokio::test]
async fn commands_share_the_server_and_the_last_one_out_stops_it() {
    let place = Place::with_cluster().await;
    let service = place.acquire(Claim::Serve).await;
    let command = place.acquire(Claim::Join).await;
    assert_eq!(command.url(), service.url());
    service.release().await.expect("it leaves");
    assert_eq!(ask(command.url(), "select 'still up'").await, "still up");
    let url = command.url().to_owned();
    assert_eq!(running(&place.options()).await.expect("nothing is wrong").as_deref(), Some(&*url));
    command.release().await.expect("it stops");
    assert_eq!(running(&place.options()).await.expect("nothing is wrong"), None);
    assert!(PgConnection::connect(&url).await.is_err());
}

#[tokio::test]
async fn many_that_start_at_once_get_one_server() {
    let place = Place::new();
    let (options, other, third) = (place.options(), place.options(), place.options());
    let (a, b, c) = tokio::join!(
        acquire(&options, Claim::Join),
        acquire(&other, Claim::Join),
        acquire(&third, Claim::Join)
    );
    let servers = [a, b, c].map(|server| server.expect("the server comes up"));
    assert!(servers.iter().all(|server| server.url() == servers[0].url()));
    for server in servers {
        server.release().await.expect("it leaves");
    }
    assert_eq!(running(&place.options()).await.expect("nothing is wrong"), None);
}

#[tokio::test]
async fn a_killed_server_is_started_again_at_the_same_port() {
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    run(server.url(), "create table kept (note text); insert into kept values ('committed')").await;
    let first = place.server_pid();
    let watched = async {
        place.kill_server();
        loop {
            // Another process is up when its file says so and it accepts.
            if place.server_pid() != first
                && let Ok(mut connection) = PgConnection::connect(server.url()).await
            {
                let row = connection.fetch_one("select note from kept").await.expect("it is there");
                break row.get::<String, _>(0);
            }
            tokio::task::yield_now().await;
        }
    };
    let note = tokio::select! {
        never = server.watch() => match never {},
        note = watched => note,
    };
    assert_eq!(note, "committed");
    server.release().await.expect("it stops");
}

#[tokio::test]
async fn a_server_whose_owner_vanished_is_adopted() {
    let place = Place::with_cluster().await;
    let vanished = place.acquire(Claim::Serve).await;
    let url = vanished.url().to_owned();
    let pid = place.server_pid();
    // What the system does for a process that is killed: its locks go, its server stays.
    drop(vanished);
    let next = place.acquire(Claim::Serve).await;
    assert_eq!((next.url(), place.server_pid()), (&*url, pid));
    next.release().await.expect("it stops a server that it did not start");
    assert_eq!(running(&place.options()).await.expect("nothing is wrong"), None);
}

#[tokio::test]
async fn a_killed_server_is_recovered_by_the_next_start() {
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    run(server.url(), "create table kept (note text); insert into kept values ('committed')").await;
    place.kill_server();
    drop(server);
    let next = place.acquire(Claim::Serve).await;
    assert_eq!(ask(next.url(), "select note from kept").await, "committed");
    next.release().await.expect("it stops");
}

#[tokio::test]
async fn a_process_id_that_now_is_someone_elses_keeps_nobody_from_starting() {
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    server.release().await.expect("it stops");
    // As after a restart of the machine or of a container.
    let stale = format!("{}\n/elsewhere\n1\n15432\n/tmp\n127.0.0.1\n", std::process::id());
    fs::write(place.cluster().join("data/postmaster.pid"), stale).expect("a file");
    let next = place.acquire(Claim::Serve).await;
    assert_eq!(ask(next.url(), "select 'up'").await, "up");
    next.release().await.expect("it stops");
}

#[tokio::test]
async fn a_cluster_whose_creation_was_cut_off_is_created_again() {
    let place = Place::new();
    let server = place.acquire(Claim::Serve).await;
    server.release().await.expect("it stops");
    // As a kill during the first start leaves it: a password, and files under another name.
    let cluster = place.cluster();
    fs::rename(cluster.join("data"), cluster.join("unfinished-1")).expect("one file system");
    fs::remove_file(cluster.join("unfinished-1/PG_VERSION")).expect("it was there");
    let next = place.acquire(Claim::Serve).await;
    assert_eq!(ask(next.url(), "select 'up'").await, "up");
    assert!(!cluster.join("unfinished-1").exists());
    next.release().await.expect("it stops");
}

#[tokio::test]
async fn a_lost_password_is_replaced() {
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    let url = server.url().to_owned();
    server.release().await.expect("it stops");
    fs::remove_file(place.cluster().join("password")).expect("it was there");
    let next = place.acquire(Claim::Serve).await;
    assert_ne!(next.url(), url);
    assert_eq!(ask(next.url(), "select 'up'").await, "up");
    next.release().await.expect("it stops");
}

#[tokio::test]
async fn a_closed_folder_above_works_for_root_too() {
    let place = Place::closed();
    let server = place.acquire(Claim::Serve).await;
    assert_eq!(ask(server.url(), "select 'up'").await, "up");
    server.release().await.expect("it stops");
    // Opened and closed again, the same data go on working.
    for mode in [0o755, 0o700] {
        fs::set_permissions(&place.0, fs::Permissions::from_mode(mode)).expect("its owner may");
        let server = place.acquire(Claim::Join).await;
        assert_eq!(ask(server.url(), "select 'up'").await, "up");
        server.release().await.expect("it stops");
    }
}

#[tokio::test]
async fn a_long_path_still_has_a_socket() {
    let place = Place::new();
    let options = Options { data_dir: place.0.join("deep".repeat(30)), bin_dir: None };
    let server = acquire(&options, Claim::Join).await.expect("the server comes up");
    assert!(server.socket_dir().as_os_str().len() < 90, "{}", server.socket_dir().display());
    let socket = server.socket_dir().to_owned();
    server.release().await.expect("it stops");
    fs::remove_dir(socket).expect("the server left nothing in it");
}

#[tokio::test]
async fn data_of_another_major_version_are_refused_by_both_numbers() {
    let place = Place::new();
    let data = place.0.join("pg99/data");
    fs::create_dir_all(&data).expect("a folder");
    fs::write(data.join("PG_VERSION"), "99\n").expect("a file");
    let refused =
        acquire(&place.options(), Claim::Serve).await.expect_err("no such version is installed");
    let Error::OtherMajor { cluster: 99, found, .. } = &refused else { panic!("{refused}") };
    assert!(found.starts_with(|c: char| c.is_ascii_digit()), "{refused}");
}

#[tokio::test]
async fn a_data_directory_that_is_a_file_is_refused() {
    let place = Place::new();
    let path = place.0.join("file");
    fs::write(&path, "").expect("a file");
    for data_dir in [path.clone(), path.join("below")] {
        let refused = acquire(&Options { data_dir, bin_dir: None }, Claim::Join)
            .await
            .expect_err("no directory");
        assert!(matches!(refused, Error::NotADirectory { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_configured_folder_without_programs_is_refused() {
    let place = Place::new();
    let options = Options { bin_dir: Some(place.0.clone()), ..place.options() };
    let refused = acquire(&options, Claim::Join).await.expect_err("nothing there");
    assert!(matches!(refused, Error::NoProgramsThere { .. }), "{refused}");
}

#[tokio::test]
async fn a_setting_of_the_users_that_is_wrong_is_quoted_from_the_log() {
    let place = Place::new();
    fs::write(place.0.join("postgresql.local.conf"), "shared_bufers = '1GB'\n").expect("a file");
    let refused =
        acquire(&place.options(), Claim::Join).await.expect_err("Postgres knows no such setting");
    assert!(refused.to_string().contains("shared_bufers"), "{refused}");
    fs::write(place.0.join("postgresql.local.conf"), "work_mem = '7MB'\n").expect("a file");
    let server = place.acquire(Claim::Join).await;
    assert_eq!(ask(server.url(), "select current_setting('work_mem')").await, "7MB");
    server.release().await.expect("it stops");
}
