//! The statistics by which Postgres plans, for a database that is new.
//!
//! A look-up by keys is planned once for a connection. While a table is empty and
//! nothing is known of it, all its indexes begin alike and cost the same, so the
//! plan may read all of a bucket through one of them, and goes on to as the table
//! grows. Postgres plans anew once it has analyzed the table, by itself within a
//! minute or so; in that minute an import or a test of what the service can take
//! stores a million events. So a writer has the tables analyzed as soon as there is
//! something in them.

use sqlx::PgConnection;

use super::Error;

/// After how many deliveries a writer looks whether there are statistics: few enough events
/// to be read through, and enough to be told from none.
const SOON: usize = 1000;

/// Counts until there should be statistics.
#[derive(Debug)]
pub struct Watch {
    /// `None` once that was looked after.
    left: Option<usize>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { left: Some(SOON) }
    }
}

impl Watch {
    /// Counts deliveries that were recorded. Whether it is time to look; says so once.
    pub fn is_due_after(&mut self, deliveries: usize) -> bool {
        self.left = self.left.map(|left| left.saturating_sub(deliveries));
        self.left.take_if(|left| *left == 0).is_some()
    }
}

/// Has the tables analyzed, if nobody did.
///
/// # Errors
///
/// Where the database refuses.
pub async fn tend(conn: &mut PgConnection) -> Result<(), Error> {
    let are_there = sqlx::query_scalar!(
        r#"
            select count(*) = 2 as "are_there!"
            from pg_stats
            where schemaname = any(current_schemas(false)) and attname = 'bucket'
                and tablename in ('calls', 'events')
            "#
    )
    .fetch_one(&mut *conn)
    .await?;
    if !are_there {
        // Whoever holds a table is about to do as much, and deliveries are not to wait for it.
        sqlx::query!("analyze (skip_locked) calls, events").execute(conn).await?;
    }
    Ok(())
}
