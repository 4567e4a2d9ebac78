//! What connections are set to, and waiting for one.
//!
//! By statements rather than at the start of the connection, since poolers refuse
//! most parameters there.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgExecutor};

use super::{Error, MIGRATOR};

/// A connection that may have to be waited for. What needs none is done before.
pub trait Line: Send {
    /// The connection, as soon as it is free; from then on it is held.
    ///
    /// # Errors
    ///
    /// Where there is none, or what the recorder remembers is of another.
    fn connection(&mut self) -> impl Future<Output = Result<&mut PgConnection, Error>> + Send;
}

impl Line for PgConnection {
    async fn connection(&mut self) -> Result<&mut PgConnection, Error> {
        Ok(self)
    }
}

/// A look-up or a write by keys has one right plan, whatever the statistics say:
/// the index. So it is planned once, and never in the belief that a table is
/// small, which a plan from its first minutes would keep as the table grows. A
/// list is read in the order of its index, which a bitmap would lose.
const BY_KEY: &str = "
    set plan_cache_mode = force_generic_plan;
    set enable_seqscan = off;
    set enable_bitmapscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off;
    set jit = off;
";

/// What is read in the order of an index is read from where it begins, not
/// gathered whole and sorted for the sake of its first page.
const IN_ORDER: &str = "
    set enable_bitmapscan = off;
    set enable_sort = off;
";

/// What a report looks at stays the same meanwhile. For the transaction only, and
/// before anything is asked in it.
const ONE_SNAPSHOT: &str = "set transaction isolation level repeatable read, read only";

/// A report looks at much or little, so each is planned by what it asks for. All that
/// it counts is in indexes, which a bitmap would not read it from. A little is sooner
/// done than other processes are started to help. For the transaction only.
const BY_COST: &str = "
    set local plan_cache_mode = force_custom_plan;
    set local enable_seqscan = on;
    set local enable_hashjoin = on;
    set local enable_mergejoin = on;
    set local work_mem = '64MB';
    set local random_page_cost = 1.1;
    set local parallel_setup_cost = 10000;
";

/// Sets a connection up for looking up by keys.
///
/// # Errors
///
/// Where the database refuses.
pub async fn for_reading(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    conn.execute(BY_KEY).await?;
    Ok(())
}

/// Sets a connection up for looking up by keys, and for keeping what does not go
/// through the writers, such as a delivery that cannot be understood: a commit is
/// on disk when it is told, whatever the role or the database says.
///
/// # Errors
///
/// Where the database refuses.
pub async fn for_keeping(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    for_reading(conn).await?;
    sqlx::query!(
        r#"
        -- what is weaker than 'on', which waits for the disk of a synchronous standby
        -- too; 'remote_apply' is stricter and stays
        select set_config('synchronous_commit', 'on', false) as durability
        where current_setting('synchronous_commit') in ('off', 'local', 'remote_write')
        "#
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Sets a connection up for reading on in the order of an index.
///
/// # Errors
///
/// Where the database refuses.
pub async fn for_reading_on(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    for_reading(conn).await?;
    conn.execute(IN_ORDER).await?;
    Ok(())
}

/// Sets a transaction up for reporting, each statement for at most so long, on the
/// snapshot that another has exported, or else on one of its own.
///
/// # Errors
///
/// Where the database refuses.
pub(super) async fn for_reporting(
    conn: &mut PgConnection,
    timeout: Duration,
    snapshot: Option<&str>,
) -> Result<(), Error> {
    conn.execute(ONE_SNAPSHOT).await?;
    if let Some(snapshot) = snapshot {
        // A name that Postgres made, of digits and hyphens. The statement takes no parameters.
        conn.execute(AssertSqlSafe(format!("set transaction snapshot '{snapshot}'"))).await?;
    }
    conn.execute(BY_COST).await?;
    sqlx::query!(
        "select set_config('statement_timeout', $1, true) as timeout",
        timeout.as_millis().to_string(),
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Has the rest of a transaction group by hashing, where Postgres would sort: it
/// takes what is gathered in arrays for much more than it is.
///
/// # Errors
///
/// Where the database refuses.
pub(super) async fn for_hashing(conn: &mut PgConnection) -> Result<(), Error> {
    conn.execute("set local enable_sort = off").await?;
    Ok(())
}

/// Sets a connection up for committing, as [`for_keeping`] does; and a statement
/// ends in time even if nobody waits for it any more, or sooner where what it
/// writes is locked; and so does a transaction that nobody goes on with, as of an instance
/// that has gone without a word, since what it has locked is locked for all. What is long is
/// compressed by LZ4, several times faster than otherwise, where the server was built with it.
///
/// # Errors
///
/// Where the database refuses.
pub async fn for_writing(
    conn: &mut PgConnection,
    timeout: Duration,
    lock_timeout: Duration,
) -> Result<(), Error> {
    for_keeping(conn).await?;
    sqlx::query!(
        r#"
        select set_config('statement_timeout', $1, false) as timeout,
            set_config('idle_in_transaction_session_timeout', $1, false) as idle_timeout,
            set_config('lock_timeout', $2, false) as lock_timeout,
            (
                select set_config(name, 'lz4', false)
                from pg_settings
                where name = 'default_toast_compression' and 'lz4' = any(enumvals)
            ) as compression
        "#,
        timeout.as_millis().to_string(),
        lock_timeout.as_millis().to_string(),
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Has a connection wait for so long where what it writes is locked.
///
/// # Errors
///
/// Where the database refuses.
pub async fn wait_for_locks(conn: &mut PgConnection, timeout: Duration) -> Result<(), Error> {
    let timeout = timeout.as_millis().to_string();
    sqlx::query!("select set_config('lock_timeout', $1, false) as lock_timeout", timeout)
        .fetch_one(conn)
        .await?;
    Ok(())
}

/// Whether the database has had all our migrations. One that has none of our tables
/// has not; where the role may not see which it had, they are taken to be there.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn is_migrated(executor: impl PgExecutor<'_>) -> Result<bool, Error> {
    let applied = sqlx::query_scalar!("select version from _sqlx_migrations where success")
        .fetch_all(executor)
        .await
        .map_err(Error::from);
    match applied {
        Ok(applied) => Ok(MIGRATOR.iter().all(|it| applied.contains(&it.version))),
        Err(error) if error.is_about_schema() => Ok(false),
        Err(error) if error.is_about_rights() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether the database takes writes: a standby does not.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn can_be_written(executor: impl PgExecutor<'_>) -> Result<bool, Error> {
    let read_only = sqlx::query_scalar!(
        r#"select current_setting('transaction_read_only')::boolean as "read_only!""#
    )
    .fetch_one(executor)
    .await?;
    Ok(!read_only)
}
