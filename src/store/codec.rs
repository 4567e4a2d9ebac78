//! Domain types as Postgres types, and rows as domain types.

use std::fmt::Display;

use sqlx::{
    Decode, Postgres, Type,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueRef},
};

use super::Error;
use crate::{
    access::Scope,
    call::{CallKey, Direction, Disposition, Fingerprint, Status},
};

/// Reads an enum of Postgres as the enum of the same names.
macro_rules! postgres_enum {
    ($rust:ty, $postgres:literal) => {
        impl Type<Postgres> for $rust {
            fn type_info() -> PgTypeInfo {
                PgTypeInfo::with_name($postgres)
            }
        }

        impl<'r> Decode<'r, Postgres> for $rust {
            fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
                Ok(value.as_str()?.parse()?)
            }
        }
    };
}

postgres_enum!(Direction, "call_direction");
postgres_enum!(Status, "call_status");
postgres_enum!(Disposition, "event_disposition");
postgres_enum!(Scope, "api_key_scope");

/// Names the table, the row and the column of a value that cannot be.
pub(super) struct Row<'a> {
    pub(super) table: &'static str,
    pub(super) key: &'a CallKey,
}

impl Row<'_> {
    pub(super) fn read<T, E: Display>(
        &self,
        column: &'static str,
        value: Result<T, E>,
    ) -> Result<T, Error> {
        value.map_err(|problem| self.corrupt(column, problem))
    }

    pub(super) fn corrupt(&self, column: &'static str, problem: impl Display) -> Error {
        Error::Corrupt {
            table: self.table,
            column,
            row: self.key.to_string(),
            problem: problem.to_string(),
        }
    }
}

/// The key that a row's two columns make.
pub(super) fn key(
    table: &'static str,
    project_id: String,
    call_id: String,
) -> Result<CallKey, Error> {
    let row = format!("call {call_id} of project {project_id}");
    let corrupt = |column, problem: &dyn Display| Error::Corrupt {
        table,
        column,
        row: row.clone(),
        problem: problem.to_string(),
    };
    Ok(CallKey {
        call_id: call_id.try_into().map_err(|problem| corrupt("call_id", &problem))?,
        project_id: project_id.try_into().map_err(|problem| corrupt("project_id", &problem))?,
    })
}

/// The fingerprint that a column holds.
pub(super) fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, String> {
    bytes
        .try_into()
        .map(Fingerprint)
        .map_err(|_| format!("a fingerprint has 32 bytes, this has {}", bytes.len()))
}

/// A number that is never negative.
pub(super) fn count(number: i32) -> Result<u32, String> {
    number.try_into().map_err(|_| format!("{number} is negative"))
}
