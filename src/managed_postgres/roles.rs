//! The roles of the cluster: what each may do, and that it stays so.
//!
//! | role | is let in | is there to |
//! | --- | --- | --- |
//! | `callstate` | by the password in `password`, on the port and the socket | own the database `callstate`; create others, as tools of the trade do |
//! | `callstate_reporting` | never | read the reporting views; `callstate` grants it to others |
//! | `postgres` | by the password in `superuser-password`, on the socket only | be the superuser |
//!
//! What always holds: `callstate` cannot leave the database. Its URL goes to Grafana and Metabase, and whoever reads files
//! or runs programs on the server does so as the user who owns the data. So it is no superuser; and it may not create
//! roles, as before Postgres 16 that includes granting any role but a superuser's, `pg_execute_server_program` among them,
//! to itself too. The reporting role, which migrations create elsewhere, is therefore there before them. The superuser's
//! password is another, so that no extension that connects from within the server (`dblink`, `postgres_fdw`) makes one of
//! the other.
//!
//! The first releases let `callstate` create roles, and had one password for both. Their clusters are put right when they
//! are next joined or started, the rights by [`settle`], the passwords by `cluster`.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::{
    Error,
    layout::{self, Layout},
    running::{self, Running},
};

/// The role that the program and its users have; its database has the same name.
pub(super) const OWNER: &str = "callstate";
/// The superuser, by the name that `initdb` is given.
pub(super) const SUPERUSER: &str = "postgres";

/// How long settling may take; it waits for nothing but the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes back what `callstate` was allowed, and what it may have taken by that: it leaves each role that leads to more
/// than the database, by whatever way. As one statement, all of it or nothing.
const TAKE_BACK: &str = "\
do $$
declare
    too_much regrole;
begin
    if to_regrole('callstate_reporting') is null then
        create role callstate_reporting nologin;
    end if;
    grant callstate_reporting to callstate with admin option;
    for too_much in
        select membership.roleid
        from pg_auth_members as membership
        where membership.member = 'callstate'::regrole and exists (
            select from pg_roles as reached
            where pg_has_role(membership.roleid, reached.oid, 'member') and (
                reached.rolsuper or reached.rolcreaterole
                or reached.rolname in (
                    'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'
                )
            )
        )
    loop
        execute format('revoke %s from callstate cascade', too_much);
    end loop;
    alter role callstate nocreaterole;
end
$$";

/// The statements that make the roles and the database of a new cluster, to be run in `template1`.
///
/// The last migration restricts the reporting role as far as `callstate` may do that, who runs it. The rest needs the
/// superuser: the settings of the role, and the functions that write large objects. Their privileges are stored in each
/// database. They are revoked in `template1`, so that `callstate` and later databases are created without them.
///
/// `callstate` keeps the privilege to execute them: `pg_dump` writes the revocation into a dump, and Postgres fails a
/// `revoke` by a role that has no privilege for the function, but only warns one that has. So `callstate` can restore.
pub(super) fn create(owner: &str, superuser: &str) -> [String; 10] {
    [
        set_password(SUPERUSER, superuser),
        format!("create role callstate login createdb password '{owner}'"),
        "create role callstate_reporting nologin".to_owned(),
        "grant callstate_reporting to callstate with admin option".to_owned(),
        "alter role callstate_reporting set default_transaction_read_only = on".to_owned(),
        "alter role callstate_reporting set statement_timeout = '5min'".to_owned(),
        "alter role callstate_reporting set idle_in_transaction_session_timeout = '1min'"
            .to_owned(),
        "revoke execute on function lo_creat, lo_create, lo_from_bytea, lo_put, lo_truncate, \
         lo_truncate64, lo_unlink, lowrite from public"
            .to_owned(),
        "grant execute on function lo_creat, lo_create, lo_from_bytea, lo_put, lo_truncate, \
         lo_truncate64, lo_unlink, lowrite to callstate"
            .to_owned(),
        "create database callstate owner callstate".to_owned(),
    ]
}

/// The statement that sets a password, which needs no quoting.
pub(super) fn set_password(role: &str, password: &str) -> String {
    format!("alter role {role} password '{password}'")
}

/// The superuser's password: that of `callstate` until it has one of its own.
pub(super) fn superuser_password(layout: &Layout) -> Result<String, Error> {
    let own = layout::read(&layout.superuser_password())?;
    let password = match own {
        Some(own) => Some(own),
        None => layout::read(&layout.password())?,
    };
    Ok(password.unwrap_or_default().trim().to_owned())
}

/// Puts the rights of `callstate` right where they are not, in a running server. To be called within a transition, so that
/// one does it at a time.
///
/// A failure is logged: deliveries are not refused because of a hole that was there before. The next to come tries again.
pub(super) async fn settle(layout: &Layout, running: &Running) {
    let data = layout.data();
    match tokio::time::timeout(PATIENCE, take_back(layout, running)).await {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => tracing::warn!(
            data = %data.display(),
            "the database's role callstate could create roles, which is for the superuser, and may no longer; \
             see whether it made any that should not be there: psql \"$(callstate db-url --superuser)\" -c '\\du'"
        ),
        Ok(Err(error)) => tracing::error!(
            %error,
            data = %data.display(),
            "could not make sure that the database's role callstate may not create roles; if it may, whoever has the \
             database's URL can run programs here: have the superuser run `alter role callstate nocreaterole`"
        ),
        Err(_) => tracing::error!(
            data = %data.display(),
            seconds = PATIENCE.as_secs(),
            "the database was too slow to make sure that its role callstate may not create roles"
        ),
    }
}

/// Whether there was something to take back.
async fn take_back(
    layout: &Layout,
    running: &Running,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let connect = async |role, password: &str| {
        running::options(&running.socket, running.port, role, password).connect().await
    };
    let password = layout::read(&layout.password())?.unwrap_or_default();
    let mut owner = connect(OWNER, password.trim()).await?;
    let too_much = sqlx::query_scalar!(
        r#"select rolcreaterole as "rolcreaterole!" from pg_roles where rolname = current_user"#
    )
    .fetch_one(&mut owner)
    .await?;
    owner.close().await?;
    if too_much {
        let mut superuser = connect(SUPERUSER, &superuser_password(layout)?).await?;
        superuser.execute(TAKE_BACK).await?;
        superuser.close().await?;
    }
    Ok(too_much)
}
