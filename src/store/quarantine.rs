//! The table `quarantine`: deliveries that could not be understood.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Error;

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

/// Keeps a delivery, once for each distinct body that an endpoint gets.
///
/// # Errors
///
/// Where the database refuses.
pub async fn keep(executor: impl PgExecutor<'_>, delivery: &Quarantined<'_>) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into quarantine as kept (
            id, endpoint, reason, headers, body, first_received_at, last_received_at, count
        )
        values ($1, $2, $3, $4, $5, $6, $6, 1)
        on conflict (id) do update set
            reason = excluded.reason,
            last_received_at = greatest(kept.last_received_at, excluded.last_received_at),
            count = kept.count + 1
        "#,
        delivery.id,
        delivery.endpoint,
        delivery.reason,
        delivery.headers,
        delivery.body,
        delivery.received_at,
    )
    .execute(executor)
    .await?;
    Ok(())
}
