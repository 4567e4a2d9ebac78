//! The table `quarantine`: deliveries that could not be understood.
//!
//! Its order is that of the first receipt, which never changes: an entry keeps
//! its [`Place`] however often the same delivery comes again. The newest are
//! listed first and the oldest go first, where there are more than the
//! [`Bounds`] allow.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Error;

/// How many entries are dropped in one statement, so that a retry which waits
/// for one of them does not wait for long.
const DROPPED_AT_ONCE: i64 = 1000;

/// A delivery that could not be understood.
#[derive(Debug)]
pub struct Quarantined<'a> {
    /// Made of the endpoint and the body, so that a retry finds its row.
    pub id: Uuid,
    /// The endpoint that took it.
    pub endpoint: &'a str,
    /// Why it could not be understood.
    pub reason: &'a str,
    /// Its headers as a JSON object, without those that prove or carry secrets.
    pub headers: &'a serde_json::Value,
    /// The body, byte for byte.
    pub body: &'a [u8],
    /// When it came.
    pub received_at: DateTime<Utc>,
}

/// How much the quarantine may hold. Of what is beyond, the oldest goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most entries.
    pub max_entries: u32,
    /// The most bytes of all their bodies together.
    pub max_bytes: u64,
    /// How long after its first receipt an entry is kept.
    pub max_age: Duration,
}

/// Where an entry stands in the order of the quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it first came, to the microsecond.
    pub first_received_at: DateTime<Utc>,
    /// Which it is, among those that came at once.
    pub id: Uuid,
}

/// An entry, but for its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands; holds its id and when it first came.
    pub place: Place,
    /// Why it could not be understood.
    pub reason: String,
    /// The endpoint that took it.
    pub endpoint: String,
    /// When it last came.
    pub last_received_at: DateTime<Utc>,
    /// How often it came.
    pub count: i64,
    /// How many bytes the body has.
    pub size: i32,
}

/// An entry with its body, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeEntry {
    /// All but headers and body.
    pub entry: Entry,
    /// The headers that were kept, as a JSON object.
    pub headers: serde_json::Value,
    /// The body.
    pub body: Vec<u8>,
}

/// Keeps a delivery, once for each distinct body that an endpoint gets. Tells
/// whether there was none like it.
pub async fn keep(
    executor: impl PgExecutor<'_>,
    delivery: &Quarantined<'_>,
) -> Result<bool, Error> {
    let count = sqlx::query_scalar!(
        r#"
        insert into quarantine as kept (
            id, endpoint, reason, headers, body, first_received_at, last_received_at, count
        )
        values ($1, $2, $3, $4, $5, $6, $6, 1)
        on conflict (id) do update set
            reason = excluded.reason,
            headers = excluded.headers,
            last_received_at = greatest(kept.last_received_at, excluded.last_received_at),
            count = kept.count + 1
        returning count
        "#,
        delivery.id,
        delivery.endpoint,
        delivery.reason,
        delivery.headers,
        delivery.body,
        delivery.received_at,
    )
    .fetch_one(executor)
    .await?;
    Ok(count == 1)
}

/// The newest entries, those older than `after`, at most `limit`.
pub async fn newest(
    executor: impl PgExecutor<'_>,
    after: Option<Place>,
    limit: u16,
) -> Result<Vec<Entry>, Error> {
    let rows = sqlx::query!(
        r#"
        select id, first_received_at, reason, endpoint, last_received_at, count,
            octet_length(body) as "size!"
        from quarantine
        where $1::timestamptz is null or (first_received_at, id) < ($1, $2)
        order by first_received_at desc, id desc
        limit $3
        "#,
        after.map(|place| place.first_received_at),
        after.map_or(Uuid::nil(), |place| place.id),
        i64::from(limit),
    )
    .fetch_all(executor)
    .await?;
    let entries = rows.into_iter().map(|row| Entry {
        place: Place { first_received_at: row.first_received_at, id: row.id },
        reason: row.reason,
        endpoint: row.endpoint,
        last_received_at: row.last_received_at,
        count: row.count,
        size: row.size,
    });
    Ok(entries.collect())
}

/// The places of the oldest entries, those newer than `after`, at most `limit`.
pub async fn oldest(
    executor: impl PgExecutor<'_>,
    after: Option<Place>,
    limit: u16,
) -> Result<Vec<Place>, Error> {
    let places = sqlx::query_as!(
        Place,
        r#"
        select first_received_at, id
        from quarantine
        where $1::timestamptz is null or (first_received_at, id) > ($1, $2)
        order by first_received_at, id
        limit $3
        "#,
        after.map(|place| place.first_received_at),
        after.map_or(Uuid::nil(), |place| place.id),
        i64::from(limit),
    )
    .fetch_all(executor)
    .await?;
    Ok(places)
}

/// How many entries there are.
pub async fn count(executor: impl PgExecutor<'_>) -> Result<u64, Error> {
    let entries = sqlx::query_scalar!(r#"select count(*) as "count!" from quarantine"#)
        .fetch_one(executor)
        .await?;
    Ok(entries.unsigned_abs())
}

/// The entry of that id, if there is one.
pub async fn by_id(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<WholeEntry>, Error> {
    let row = sqlx::query!(
        r#"
        select first_received_at, reason, endpoint, last_received_at, count,
            octet_length(body) as "size!", headers, body
        from quarantine
        where id = $1
        "#,
        id,
    )
    .fetch_optional(executor)
    .await?;
    Ok(row.map(|row| WholeEntry {
        entry: Entry {
            place: Place { first_received_at: row.first_received_at, id },
            reason: row.reason,
            endpoint: row.endpoint,
            last_received_at: row.last_received_at,
            count: row.count,
            size: row.size,
        },
        headers: row.headers,
        body: row.body,
    }))
}

/// Removes an entry; false if there is none.
pub async fn remove(executor: impl PgExecutor<'_>, id: Uuid) -> Result<bool, Error> {
    let removed =
        sqlx::query!("delete from quarantine where id = $1", id).execute(executor).await?;
    Ok(removed.rows_affected() > 0)
}

/// The newest of the entries that are too many, too large together, or too old;
/// all that are older are so as well. `None` where nothing is. Without the time,
/// nothing is too old.
///
/// It walks from the newest entry on and reads no body, so it takes as long as
/// what may stay has entries.
pub async fn first_beyond(
    executor: impl PgExecutor<'_>,
    bounds: Bounds,
    now: Option<DateTime<Utc>>,
) -> Result<Option<Place>, Error> {
    // What is older than time itself is never too old.
    let max_age = chrono::TimeDelta::from_std(bounds.max_age).unwrap_or(chrono::TimeDelta::MAX);
    let oldest = now.and_then(|now| now.checked_sub_signed(max_age));
    let place = sqlx::query_as!(
        Place,
        r#"
        with
        -- each entry with how much there is down to it, itself included
        counted as (
            select first_received_at, id,
                row_number() over from_newest as entries,
                sum(octet_length(body)) over from_newest as bytes
            from quarantine
            window from_newest as (
                order by first_received_at desc, id desc
                rows unbounded preceding
            )
        )
        select first_received_at, id
        from counted
        where entries > $1 or bytes > $2 or first_received_at < $3
        order by first_received_at desc, id desc
        limit 1
        "#,
        i64::from(bounds.max_entries),
        i64::try_from(bounds.max_bytes).unwrap_or(i64::MAX),
        oldest,
    )
    .fetch_optional(executor)
    .await?;
    Ok(place)
}

/// Drops some of the entries from that place on, downwards; gives how many.
/// None means that all are gone, or that somebody else is at the last of them.
///
/// It waits for nobody: who is held by another is left to them. Since a place
/// and not a number says what goes, several instances that do this at once drop
/// no more than one would.
pub async fn drop_from(executor: impl PgExecutor<'_>, place: Place) -> Result<usize, Error> {
    let dropped = sqlx::query_scalar!(
        r#"
        delete from quarantine
        where id = any(array(
            select id
            from quarantine
            where (first_received_at, id) <= ($1, $2)
            order by first_received_at, id
            limit $3
            for update skip locked
        ))
        returning id
        "#,
        place.first_received_at,
        place.id,
        DROPPED_AT_ONCE,
    )
    .fetch_all(executor)
    .await?;
    Ok(dropped.len())
}
