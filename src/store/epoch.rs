//! Where the database has lived, as far as the numbers of transactions go.
//!
//! Postgres counts transactions anew where a dump is restored, and takes numbers
//! again after a failover that lost some. [`epoch`] notices that by where the
//! database is, and moves the numbers up from there on, above all that are
//! stored. It is asked for each connection that writes or listens, before it
//! does; each of these changes ends the connections.

use sqlx::PgConnection;

use super::{Error, bucket::Buckets};

/// An epoch: a place where the database has lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// What is added to a transaction's number.
    pub transaction_offset: i64,
}

/// The present epoch, begun where the database turns out to be elsewhere.
///
/// # Errors
///
/// Where the database refuses.
pub async fn epoch(conn: &mut PgConnection) -> Result<Epoch, Error> {
    loop {
        let place = sqlx::query!(
            r#"
            select database as "database!", transaction_offset as "transaction_offset?"
            from (select callstate_place() as database) as present
            left join lateral (
                select database, transaction_offset
                from stream_epochs
                order by epoch desc
                limit 1
            ) as latest using (database)
            "#,
        )
        .fetch_one(&mut *conn)
        .await?;
        if let Some(transaction_offset) = place.transaction_offset {
            return Ok(Epoch { transaction_offset });
        }
        begin_epoch(conn, &place.database).await?;
    }
}

/// Begins an epoch, unless somebody else does.
async fn begin_epoch(conn: &mut PgConnection, database: &str) -> Result<(), Error> {
    let buckets = Buckets::of_database(&mut *conn).await?;
    sqlx::query!(
        r#"
        with
        present as (select pg_current_xact_id()::text::bigint as transaction),
        latest as (
            select epoch, transaction_offset, begins_at
            from stream_epochs
            order by epoch desc
            limit 1
        ),
        -- what must stay below all that is stored from here on
        stored as (
            select max(events.transaction) as transaction
            from unnest($1::int[]) as buckets (bucket)
            cross join lateral (
                select transaction
                from events
                where events.bucket = buckets.bucket
                order by transaction desc
                limit 1
            ) as events
        ),
        epoch as (
            select coalesce(latest.epoch, 0) + 1 as epoch,
                present.transaction as transaction,
                greatest(
                    latest.transaction_offset,
                    latest.begins_at + 1 - present.transaction,
                    stored.transaction + 1 - present.transaction,
                    0
                ) as transaction_offset
            from present
            cross join stored
            left join latest on true
        )
        insert into stream_epochs (epoch, database, transaction_offset, begins_at)
        select epoch, $2, transaction_offset, transaction + transaction_offset
        from epoch
        on conflict (epoch) do nothing
        "#,
        &buckets.all(),
        database,
    )
    .execute(conn)
    .await?;
    Ok(())
}
