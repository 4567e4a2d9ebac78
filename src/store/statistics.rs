//! Planner statistics of a new database.
//!
//! A lookup by keys is planned once for a connection. While a table is empty and
//! has no statistics, all its indexes look alike to the planner, so the plan may
//! read through a wrong one, and keep doing so as the table grows. Postgres plans
//! anew once the table is analyzed, by autovacuum within a minute or so; in that
//! minute an import or a load test stores a million events. So a writer has the
//! tables analyzed as soon as they have rows.

use sqlx::PgConnection;

use super::Error;

/// The number of deliveries after which a writer checks for statistics: few enough
/// that reading all of them costs nothing.
const SOON: usize = 1000;

/// Counts deliveries until statistics should exist.
#[derive(Debug)]
pub struct Countdown {
    /// `None` once the check was due.
    left: Option<usize>,
}

impl Default for Countdown {
    fn default() -> Self {
        Self { left: Some(SOON) }
    }
}

impl Countdown {
    /// Counts recorded deliveries. True once, when the check is due.
    pub fn is_due_after(&mut self, deliveries: usize) -> bool {
        self.left = self.left.map(|left| left.saturating_sub(deliveries));
        self.left.take_if(|left| *left == 0).is_some()
    }
}

/// Has the tables analyzed, unless they have statistics.
pub async fn analyze_if_missing(conn: &mut PgConnection) -> Result<(), Error> {
    let exist = sqlx::query_scalar!(
        r#"
        select count(*) = 2 as "exist!"
        from pg_stats
        where schemaname = any(current_schemas(false))
            and (tablename, attname) in (('calls', 'id'), ('events', 'call'))
        "#
    )
    .fetch_one(&mut *conn)
    .await?;
    if !exist {
        // Another session that holds a table is about to do the same; deliveries must not wait.
        sqlx::query!("analyze (skip_locked) calls, events").execute(conn).await?;
    }
    Ok(())
}
