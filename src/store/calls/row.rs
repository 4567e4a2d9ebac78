//! A row of `calls` and the call in it.

use chrono::{DateTime, Utc};

use crate::{
    call::{Call, CallKey, Position},
    store::{
        Error,
        codec::{self, Row, by_status, count, fingerprint, key},
    },
};

/// A call as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCall {
    /// The number by which its events refer to it.
    pub id: i64,
    /// The provider's names of it.
    pub key: CallKey,
    /// The version that a writer must replace.
    pub version: i32,
    /// The fold of its events.
    pub call: Call,
    /// When the last delivery for it was received, repeated ones included.
    pub last_delivered_at: DateTime<Utc>,
}

/// A call's number and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallName {
    /// The number by which its events refer to it.
    pub id: i64,
    /// The provider's names of it.
    pub key: CallKey,
}

/// A row of `calls` as Postgres returns it. Enums and JSON are text, so that an
/// invalid value is reported with its column.
pub(in crate::store) struct CallRow {
    pub(in crate::store) id: i64,
    pub(in crate::store) project_id: String,
    pub(in crate::store) call_id: String,
    pub(in crate::store) version: i32,
    pub(in crate::store) direction: Option<String>,
    pub(in crate::store) status: i16,
    pub(in crate::store) attempts: String,
    pub(in crate::store) client_id: Option<String>,
    pub(in crate::store) provider_status: Option<String>,
    pub(in crate::store) has_errors: bool,
    pub(in crate::store) event_count: i32,
    pub(in crate::store) anomaly_count: i32,
    pub(in crate::store) microseconds_in_status: Vec<Option<i64>>,
    pub(in crate::store) status_since: Option<DateTime<Utc>>,
    pub(in crate::store) is_status_since_reported: bool,
    pub(in crate::store) first_event_at: DateTime<Utc>,
    pub(in crate::store) last_event_at: DateTime<Utc>,
    pub(in crate::store) last_event_rank: i16,
    pub(in crate::store) last_event_fingerprint: Vec<u8>,
    pub(in crate::store) updated_at: DateTime<Utc>,
    pub(in crate::store) last_delivered_at: DateTime<Utc>,
}

impl TryFrom<CallRow> for StoredCall {
    type Error = Error;

    fn try_from(row: CallRow) -> Result<Self, Error> {
        let key = key("calls", row.project_id, row.call_id)?;
        let at = Row { table: "calls", key: &key };
        let times = by_status(row.microseconds_in_status);
        let call = Call {
            direction: at.parse("direction", row.direction.as_deref())?,
            status: at.read("status", codec::status(row.status))?,
            attempts: at.read("attempts", serde_json::from_str(&row.attempts))?,
            client_id: at.read("client_id", row.client_id.map(TryInto::try_into).transpose())?,
            provider_status: row.provider_status,
            has_errors: row.has_errors,
            event_count: at.read("event_count", count(row.event_count))?,
            anomaly_count: at.read("anomaly_count", count(row.anomaly_count))?,
            microseconds_in_status: at.read("microseconds_in_status", times)?,
            status_since: row.status_since,
            is_status_since_reported: row.is_status_since_reported,
            first_event_at: row.first_event_at,
            updated_at: row.updated_at,
            last: Position {
                effective_at: row.last_event_at,
                rank: at.read("last_event_rank", row.last_event_rank.try_into())?,
                fingerprint: at
                    .read("last_event_fingerprint", fingerprint(&row.last_event_fingerprint))?,
            },
        };
        let (id, version, last_delivered_at) = (row.id, row.version, row.last_delivered_at);
        Ok(Self { id, key, version, call, last_delivered_at })
    }
}

/// Selects calls as [`CallRow`]s: the columns, written once for the text that
/// follows them and its arguments. The text may be given in pieces.
macro_rules! select_calls {
    ($($following:literal)+, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            $crate::store::calls::row::CallRow,
            r#"
            select calls.id as "id!", calls.project_id as "project_id!",
                calls.call_id as "call_id!", calls.version as "version!",
                calls.direction::text as direction, calls.status as "status!",
                calls.attempts::text as "attempts!", calls.client_id, calls.provider_status,
                calls.has_errors as "has_errors!", calls.event_count as "event_count!",
                calls.anomaly_count as "anomaly_count!",
                calls.microseconds_in_status as "microseconds_in_status!: Vec<Option<i64>>",
                calls.status_since,
                calls.is_status_since_reported as "is_status_since_reported!",
                calls.first_event_at as "first_event_at!",
                calls.last_event_at as "last_event_at!",
                calls.last_event_rank as "last_event_rank!",
                calls.last_event_fingerprint as "last_event_fingerprint!",
                calls.updated_at as "updated_at!", calls.last_delivered_at as "last_delivered_at!"
            "# $(+ $following)+,
            $($argument),+
        )
    };
}
pub(in crate::store) use select_calls;
