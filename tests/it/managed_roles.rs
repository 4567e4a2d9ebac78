//! What the roles of the managed server may do: whoever has its URL gets no further than the database.

use std::fs;

use callstate::managed_postgres::{Claim, superuser};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, migrate::Migrator,
};

use crate::{
    reporting_role::LARGE_OBJECTS,
    support::{Place, callstate},
};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Statements that a role may run only if it can leave its database.
const WAYS_OUT: [&str; 27] = [
    // Programs and files of the server.
    "copy output from program 'id'",
    "copy output to program 'cat'",
    "copy output from '/etc/passwd'",
    "copy output to '/tmp/callstate-was-here'",
    "select lo_import('/etc/passwd')",
    "select lo_export(1, '/tmp/callstate-was-here')",
    "select pg_read_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    // Code that is loaded into the server.
    "load 'dblink'",
    "set session_preload_libraries = 'dblink'",
    "alter database callstate set session_preload_libraries = 'dblink'",
    "create function run() returns void language c as 'libc.so.6', 'system'",
    "create function run() returns void language internal as 'pg_read_file_all'",
    "create tablespace elsewhere location '/tmp'",
    "create subscription others connection 'dbname=callstate' publication all_of_it",
    "alter system set archive_command = 'id'",
    // Roles that may.
    "create role x",
    "create role x superuser",
    "alter role callstate createrole",
    "alter role callstate superuser",
    "alter role postgres password 'known'",
    "grant postgres to callstate",
    "grant pg_execute_server_program to callstate",
    "grant pg_read_server_files to callstate_reporting",
    "grant pg_write_server_files to callstate",
    "set role postgres",
    "set session authorization postgres",
];

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the server accepts")
}

async fn run(url: &str, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut connect(url).await).await.expect("the statement is right");
}

async fn ask(url: &str, sql: &'static str) -> String {
    connect(url).await.fetch_one(sql).await.expect("the statement is right").get(0)
}

async fn superuser_of(place: &Place) -> String {
    superuser(&place.options()).await.expect("nothing is wrong").expect("it runs")
}

fn password(url: &str) -> &str {
    url.split([':', '@']).nth(2).expect("a password")
}

/// Asserts that Postgres refuses a statement for want of a privilege.
async fn assert_refused(connection: &mut PgConnection, sql: &str) {
    let refused = connection.execute(AssertSqlSafe(sql)).await.expect_err(sql);
    let code = refused.as_database_error().and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("42501"), "{sql}: {refused}");
}

async fn assert_no_way_out(url: &str) {
    let mut connection = connect(url).await;
    connection.execute("create table if not exists output (line text)").await.expect("it may");
    for sql in WAYS_OUT {
        assert_refused(&mut connection, sql).await;
    }
    // Extensions that reach beyond the database, and languages that do, as far as they are installed.
    let extensions = connection
        .fetch_all(
            "select name from pg_available_extensions \
             where name in ('dblink', 'postgres_fdw', 'file_fdw', 'adminpack', 'plperlu', 'pltclu', 'plpython3u')",
        )
        .await
        .expect("the extensions");
    for row in extensions {
        let name: String = row.get(0);
        assert_refused(&mut connection, &format!("create extension {name}")).await;
    }
}

/// What `callstate` may do by its attributes, and as a member of others.
async fn rights(url: &str) -> String {
    ask(
        url,
        "select concat_ws(' ', rolsuper, rolcreaterole, rolcreatedb, (
            select string_agg(roleid::regrole || ' ' || admin_option, ', ')
            from pg_auth_members where member = pg_roles.oid
        )) from pg_roles where rolname = 'callstate'",
    )
    .await
}

const RIGHTS: &str = "f f t callstate_reporting true";

#[tokio::test]
async fn who_has_the_url_gets_no_further_than_the_database() {
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    assert_eq!(rights(server.url()).await, RIGHTS);
    assert_no_way_out(server.url()).await;
    server.release().await.expect("it stops");
}

#[tokio::test]
async fn the_superuser_has_a_password_and_a_url_of_its_own() {
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    let url = superuser_of(&place).await;
    assert_eq!(
        ask(&url, "select current_user || '@' || current_database()").await,
        "postgres@postgres"
    );

    let by_the_others = url.replace(password(&url), password(server.url()));
    let refused =
        PgConnection::connect(&by_the_others).await.expect_err("not by that of callstate");
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");

    server.release().await.expect("it stops");
    assert_eq!(superuser(&place.options()).await.expect("nothing is wrong"), None);
}

#[tokio::test]
async fn the_documented_role_for_grafana_reads_the_reports_and_nothing_else() {
    const PAGE: &str = include_str!("../../docs/sql.md");
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    MIGRATOR.run(&mut connect(server.url()).await).await.expect("the migrations run");

    // As it is pasted: the URL comes from the command that the page names.
    let pasted = PAGE
        .lines()
        .find_map(|line| line.strip_prefix("$ psql \"$(callstate db-url --superuser)\" -c \""));
    let create = pasted.and_then(|sql| sql.strip_suffix('"')).expect("it tells");
    assert!(create.starts_with("create role grafana "), "{create}");
    let data_dir = place.0.to_str().expect("a name of letters");
    let printed = callstate(&["db-url", "--superuser", "--data-dir", data_dir]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let url = String::from_utf8(printed.stdout).expect("it prints text");
    assert_eq!(url.trim(), superuser_of(&place).await);
    connect(url.trim()).await.execute(AssertSqlSafe(create)).await.expect("it is right");

    let (_, at) = server.url().split_once('@').expect("a URL with a password");
    let password = create.split('\'').nth(1).expect("a password");
    let grafana = format!("postgres://grafana:{password}@{at}");
    assert_eq!(ask(&grafana, "select count(*)::text from reporting.calls").await, "0");
    assert_refused(&mut connect(&grafana).await, "select from calls").await;

    // The owner of the views grants, to whom it likes.
    run(server.url(), "grant select on reporting.payloads to grafana").await;
    run(server.url(), "revoke callstate_reporting from grafana").await;
    assert_refused(&mut connect(&grafana).await, "select from reporting.calls").await;
    run(server.url(), "grant callstate_reporting to grafana").await;
    assert_eq!(ask(&grafana, "select count(*)::text from reporting.calls").await, "0");
    server.release().await.expect("it stops");
}

#[tokio::test]
async fn the_reporting_role_of_the_managed_server_has_its_settings_and_writes_no_large_objects() {
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    MIGRATOR.run(&mut connect(server.url()).await).await.expect("the migrations run");

    let settings = "select array_to_string(rolconfig, ' ') from pg_roles
        where rolname = 'callstate_reporting'";
    assert_eq!(
        ask(server.url(), settings).await,
        "default_transaction_read_only=on statement_timeout=5min \
         idle_in_transaction_session_timeout=1min"
    );
    let mut connection = connect(server.url()).await;
    connection.execute("set role callstate_reporting").await.expect("it is a member");
    for sql in LARGE_OBJECTS.into_iter().chain(["create temporary table mine (id int)"]) {
        assert_refused(&mut connection, sql).await;
    }
    connection.execute("select from reporting.calls").await.expect("it reads the views");
    drop(connection);

    // Databases that are created later inherit the privileges of large objects.
    run(server.url(), "create database later").await;
    let (address, _) = server.url().rsplit_once('/').expect("a URL with a database");
    let mut connection = connect(&format!("{address}/later")).await;
    connection.execute("set role callstate_reporting").await.expect("it is a member");
    for sql in LARGE_OBJECTS {
        assert_refused(&mut connection, sql).await;
    }
    drop(connection);
    server.release().await.expect("it stops");
}

#[test]
fn the_superuser_of_somebody_elses_server_is_not_told() {
    let refused =
        callstate(&["db-url", "--superuser", "--database-url", "postgres://me@localhost/mine"]);
    assert_eq!((refused.status.code(), refused.stdout), (Some(1), Vec::new()));
    let said = String::from_utf8(refused.stderr).expect("it is text");
    assert!(said.contains("the database is not callstate's own"), "{said}");
}

/// A running server as the first releases left it, whose role used what it may.
async fn of_the_first_releases(place: &Place) {
    let server = place.acquire(Claim::Serve).await;
    let password = place.cluster().join("password");
    let shared = fs::read_to_string(&password).expect("a password");
    let url = superuser_of(place).await;
    let mut connection = connect(&url).await;
    let shared = format!("alter role postgres password '{}'", shared.trim());
    for sql in ["drop role callstate_reporting", "alter role callstate createrole", &shared] {
        connection.execute(AssertSqlSafe(sql)).await.expect("the superuser may");
    }
    fs::remove_file(place.cluster().join("superuser-password")).expect("it was there");

    MIGRATOR.run(&mut connect(server.url()).await).await.expect("it may create the role");
    run(server.url(), "create role grafana login password 'known' in role callstate_reporting")
        .await;
    if connection.server_version_num().expect("Postgres tells") < 160_000 {
        run(
            server.url(),
            "grant pg_execute_server_program to callstate;
            create role aside createrole;
            create role \"a way, too\" in role pg_read_server_files;
            grant aside, \"a way, too\" to callstate",
        )
        .await;
    }
    // What the system does for a process that is killed: its server stays.
    drop(server);
}

#[tokio::test]
async fn a_cluster_of_the_first_releases_is_put_right_when_it_is_joined_or_started() {
    let place = Place::with_cluster().await;
    of_the_first_releases(&place).await;
    let joined = place.acquire(Claim::Join).await;
    assert_eq!(rights(joined.url()).await, RIGHTS);
    assert_no_way_out(joined.url()).await;
    joined.release().await.expect("it stops");

    let started = place.acquire(Claim::Serve).await;
    assert!(place.cluster().join("superuser-password").exists());
    assert_eq!(rights(started.url()).await, RIGHTS);
    let (_, at) = started.url().split_once('@').expect("a URL with a password");
    let grafana = format!("postgres://grafana:known@{at}");
    assert_eq!(ask(&grafana, "select count(*)::text from reporting.calls").await, "0");
    let url = superuser_of(&place).await;
    assert_ne!(password(&url), password(started.url()));
    assert_eq!(ask(&url, "select current_user::text").await, "postgres");
    started.release().await.expect("it stops");
}

#[tokio::test]
async fn rights_that_cannot_be_taken_back_keep_nobody_from_starting() {
    let place = Place::with_cluster().await;
    let server = place.acquire(Claim::Serve).await;
    let statements = "alter role callstate createrole; alter role postgres password 'a person''s'";
    run(&superuser_of(&place).await, statements).await;
    server.release().await.expect("it stops");
    let server = place.acquire(Claim::Serve).await;
    assert_eq!(rights(server.url()).await, "f t t callstate_reporting true");
    server.release().await.expect("it stops");
}
