//! What the role of people who write reports may do.

use std::path::Path;

use callstate::{
    managed_postgres::{Options, superuser},
    store::MIGRATOR,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _,
    postgres::PgConnectOptions,
};

use crate::support::Database;

/// Each reads a payload or writes something.
const DENIED: [&str; 4] = [
    "select from reporting.payloads",
    "delete from calls",
    "update calls set status = status",
    "create table reporting.mine (id int)",
];

/// Each writes a large object.
pub(crate) const LARGE_OBJECTS: [&str; 8] = [
    "select lo_creat(-1)",
    "select lo_create(0)",
    "select lo_from_bytea(0, 'text')",
    "select lo_put(1, 0, 'text')",
    "select lo_truncate(1, 1)",
    "select lo_truncate64(1, 1)",
    "select lo_unlink(1)",
    "select lowrite(1, 'text')",
];

/// A connection of the superuser of the test cluster, to that database.
async fn superuser_of(database: &Database) -> PgConnection {
    let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
    let url = superuser(&Options { data_dir, bin_dir: None }).await.unwrap().expect("it runs");
    let (_, name) = url_and_name(database);
    let options: PgConnectOptions = url.parse().unwrap();
    options.database(&name).connect().await.unwrap()
}

fn url_and_name(database: &Database) -> (String, String) {
    let url = database.url();
    let name = url.rsplit_once('/').expect("a URL").1.to_owned();
    (url, name)
}

/// Runs all migrations over an empty database. What they revoke on the database itself is not
/// copied with a template.
async fn migrate_anew(connection: &mut PgConnection) {
    let empty = "drop schema public cascade; drop schema reporting cascade; create schema public;
        grant usage on schema public to public";
    connection.execute(empty).await.unwrap();
    MIGRATOR.run(&mut *connection).await.unwrap();
}

/// Asserts that the role lacks the privilege for a statement.
async fn assert_denied(connection: &mut PgConnection, statement: &str) {
    let mut transaction = connection.begin().await.unwrap();
    transaction.execute("set local role callstate_reporting").await.unwrap();
    let result = transaction.execute(AssertSqlSafe(statement.to_owned())).await;
    let code = result.err().and_then(|error| Some(error.as_database_error()?.code()?.into_owned()));
    assert_eq!(code.as_deref(), Some("42501"), "{statement}");
}

/// Asserts that the role reads every view but that of the payloads.
async fn assert_reads(connection: &mut PgConnection) {
    let views = "select format('%I', table_name) from information_schema.views
        where table_schema = 'reporting' and table_name <> 'payloads' order by table_name";
    let views = connection.fetch_all(views).await.unwrap();
    assert!(!views.is_empty());
    let mut transaction = connection.begin().await.unwrap();
    transaction.execute("set local role callstate_reporting").await.unwrap();
    for view in views {
        let view: String = view.get(0);
        let select = format!("select * from reporting.{view} limit 1");
        transaction.execute(AssertSqlSafe(select)).await.unwrap();
    }
}

#[tokio::test]
async fn the_role_reads_and_writes_no_temporary_tables_where_the_owner_migrates() {
    let database = Database::create().await;
    let mut owner = database.connect().await;
    migrate_anew(&mut owner).await;
    assert_reads(&mut owner).await;
    for statement in DENIED.into_iter().chain(["create temporary table mine (id int)"]) {
        assert_denied(&mut owner, statement).await;
    }
    owner.execute("create temporary table mine (id int)").await.unwrap();
}

#[tokio::test]
async fn the_role_writes_no_large_objects_and_has_settings_where_a_superuser_migrates() {
    let database = Database::create().await;
    let mut superuser = superuser_of(&database).await;
    // As on a server that is not callstate's own.
    let grant = "grant execute on function lo_creat, lo_create, lo_from_bytea, lo_put, lo_truncate,
        lo_truncate64, lo_unlink, lowrite to public";
    superuser.execute(grant).await.unwrap();
    migrate_anew(&mut superuser).await;
    assert_reads(&mut superuser).await;
    for statement in DENIED.into_iter().chain(LARGE_OBJECTS) {
        assert_denied(&mut superuser, statement).await;
    }
    assert_denied(&mut superuser, "create temporary table mine (id int)").await;
    let settings = "select array_to_string(setconfig, ' ')
        from pg_db_role_setting
        where setrole = 'callstate_reporting'::regrole
            and setdatabase = (select oid from pg_database where datname = current_database())";
    let settings: String = superuser.fetch_one(settings).await.unwrap().get(0);
    assert_eq!(
        settings,
        "default_transaction_read_only=on statement_timeout=5min \
         idle_in_transaction_session_timeout=1min"
    );
    superuser.close().await.unwrap();
}
