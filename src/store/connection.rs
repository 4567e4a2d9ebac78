//! The settings of connections.
//!
//! They are set by statements rather than at the start of a connection, since
//! poolers reject most parameters there.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgExecutor};

use super::{Error, MIGRATOR, error::Class};

/// A lookup or a write by keys has one right plan, whatever the statistics say: the
/// index. So it is planned once, and never on the assumption that a table is small,
/// which a plan from its first minutes would keep as the table grows. A list is read
/// in the order of its index, which a bitmap would lose.
const BY_KEY: &str = "
    set plan_cache_mode = force_generic_plan;
    set enable_seqscan = off;
    set enable_bitmapscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off;
    set enable_material = off;
    set enable_memoize = off;
    set jit = off;
";

/// A range is read in the order of its index from where it begins, not collected and
/// sorted for the sake of its first page.
const IN_ORDER: &str = "
    set enable_bitmapscan = off;
    set enable_sort = off;
";

/// A report reads one snapshot. For the transaction only, and before its first query.
const ONE_SNAPSHOT: &str = "set transaction isolation level repeatable read, read only";

/// A report reads much or little, so each is planned by its parameters. All that it
/// counts is in indexes, which a bitmap would not read it from. Little is done sooner
/// than parallel workers are started. For the transaction only.
const BY_COST: &str = "
    set local plan_cache_mode = force_custom_plan;
    set local enable_seqscan = on;
    set local enable_hashjoin = on;
    set local enable_mergejoin = on;
    set local enable_material = on;
    set local enable_memoize = on;
    set local work_mem = '64MB';
    set local random_page_cost = 1.1;
    set local parallel_setup_cost = 10000;
";

/// Sets a connection up for lookups by keys.
pub async fn for_reading(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    conn.execute(BY_KEY).await?;
    Ok(())
}

/// Sets a connection of the pool up: for lookups by keys, each statement for at most
/// so long (zero for any time), and for commits that do not go through the writers, such as those of the
/// quarantine: they are on disk when they are reported, whatever the defaults of the
/// role or the database are.
pub async fn for_pool(
    conn: &mut PgConnection,
    statement_timeout: Duration,
) -> Result<(), sqlx::Error> {
    for_reading(conn).await?;
    durable(conn).await?;
    sqlx::query!(
        "select set_config('statement_timeout', $1, false) as timeout",
        statement_timeout.as_millis().to_string(),
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Makes commits wait for the disk.
async fn durable(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        -- the values weaker than 'on', which also waits for the disk of a synchronous standby;
        -- 'remote_apply' is stricter and stays
        select set_config('synchronous_commit', 'on', false) as durability
        where current_setting('synchronous_commit') in ('off', 'local', 'remote_write')
        "#
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Sets a connection up for reading in the order of an index.
pub async fn for_reading_on(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    for_reading(conn).await?;
    conn.execute(IN_ORDER).await?;
    Ok(())
}

/// Sets a transaction up for reporting, each statement for at most so long, on an
/// exported snapshot, or else on one of its own.
pub(super) async fn for_reporting(
    conn: &mut PgConnection,
    timeout: Duration,
    snapshot: Option<&str>,
) -> Result<(), Error> {
    conn.execute(ONE_SNAPSHOT).await?;
    if let Some(snapshot) = snapshot {
        // A name made by Postgres, of digits and hyphens. The statement takes no parameters.
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

/// Makes the rest of a transaction group by hashing where Postgres would sort, as it
/// overestimates what is collected in arrays.
pub(super) async fn for_hashing(conn: &mut PgConnection) -> Result<(), Error> {
    conn.execute("set local enable_sort = off").await?;
    Ok(())
}

/// Sets a connection up for writing. Commits are on disk when they are reported. A
/// statement ends in time even if nobody waits for it any more, or sooner where a row
/// that it writes is locked; so does a transaction that is not continued, such as that
/// of an instance that has lost its network, since its locks affect all others. Long
/// values are compressed by LZ4, several times faster than otherwise, where the server
/// supports it.
pub async fn for_writing(
    conn: &mut PgConnection,
    timeout: Duration,
    lock_timeout: Duration,
) -> Result<(), Error> {
    for_reading(conn).await?;
    durable(conn).await?;
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

/// Sets how long a connection waits for locks.
pub async fn set_lock_timeout(conn: &mut PgConnection, timeout: Duration) -> Result<(), Error> {
    let timeout = timeout.as_millis().to_string();
    sqlx::query!("select set_config('lock_timeout', $1, false) as lock_timeout", timeout)
        .fetch_one(conn)
        .await?;
    Ok(())
}

/// The time by the clock of the database server.
pub async fn server_time(executor: impl PgExecutor<'_>) -> Result<DateTime<Utc>, Error> {
    let time =
        sqlx::query_scalar!(r#"select clock_timestamp() as "time!""#).fetch_one(executor).await?;
    Ok(time)
}

/// Whether all migrations of this program were applied to the database. If the role may
/// not read which, they are assumed to be.
pub async fn is_migrated(executor: impl PgExecutor<'_>) -> Result<bool, Error> {
    let applied = sqlx::query_scalar!("select version from _sqlx_migrations where success")
        .fetch_all(executor)
        .await
        .map_err(Error::from);
    match applied {
        Ok(applied) => Ok(MIGRATOR.iter().all(|it| applied.contains(&it.version))),
        Err(error) => match error.class() {
            Class::Schema => Ok(false),
            Class::Privilege => Ok(true),
            _ => Err(error),
        },
    }
}

/// Whether the database can be written: a standby cannot.
pub async fn can_be_written(executor: impl PgExecutor<'_>) -> Result<bool, Error> {
    let read_only = sqlx::query_scalar!(
        r#"select current_setting('transaction_read_only')::boolean as "read_only!""#
    )
    .fetch_one(executor)
    .await?;
    Ok(!read_only)
}

/// About how many rows a table has: the planner's estimate.
pub async fn estimate_rows(executor: impl PgExecutor<'_>, table: &str) -> Result<u64, Error> {
    let rows = sqlx::query_scalar!(
        r#"
        select greatest(reltuples, 0)::bigint as "rows!"
        from pg_class
        where oid = $1::text::regclass
        "#,
        table,
    )
    .fetch_one(executor)
    .await?;
    Ok(rows.unsigned_abs())
}
