//! Which bucket a call is in: its shard, where the database is distributed.
//!
//! The twin of the SQL function `callstate_bucket`, to which a check on each
//! table holds this one.

use std::num::NonZeroU32;

use md5::{Digest, Md5};
use sqlx::PgExecutor;

use super::Error;
use crate::call::CallKey;

/// How many buckets the database has: 1 unless it is distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets(NonZeroU32);

impl Buckets {
    /// A number of buckets.
    #[must_use]
    pub const fn new(number: NonZeroU32) -> Self {
        Self(number)
    }

    /// Asks the database, where the number is kept.
    ///
    /// # Errors
    ///
    /// Where the database cannot be asked, or the number makes no sense.
    pub async fn of_database(executor: impl PgExecutor<'_>) -> Result<Self, Error> {
        let number = sqlx::query_scalar!(r#"select callstate_buckets() as "buckets!""#)
            .fetch_one(executor)
            .await?;
        u32::try_from(number).ok().and_then(NonZeroU32::new).map(Self).ok_or_else(|| {
            Error::Corrupt {
                table: "callstate_buckets()",
                column: "buckets",
                row: "its result".to_owned(),
                problem: format!("{number} is no number of buckets"),
            }
        })
    }

    /// The bucket of a call, from 0.
    #[must_use]
    pub fn of(self, key: &CallKey) -> i32 {
        if self.0 == NonZeroU32::MIN {
            return 0;
        }
        let hash = Md5::new()
            .chain_update(key.project_id.as_str())
            .chain_update("\n")
            .chain_update(key.call_id.as_str())
            .finalize();
        let head = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        (head % self.0).cast_signed()
    }

    /// Every bucket, for the questions that name no project.
    #[must_use]
    pub fn all(self) -> Vec<i32> {
        (0..i32::try_from(self.0.get()).unwrap_or(i32::MAX)).collect()
    }
}
