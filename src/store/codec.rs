//! Domain types as Postgres types, and rows as domain types.

use std::{collections::BTreeMap, fmt::Display};

use super::Error;
use crate::call::{CallId, CallKey, Fingerprint, ProjectId, Status};

/// Names the table, the row and the column of a stored value that is invalid.
pub(super) struct Row<'a> {
    pub(super) table: &'static str,
    pub(super) key: &'a (dyn Display + Sync),
}

impl Row<'_> {
    /// The value, or the error that names its column.
    pub(super) fn read<T, E: Display>(
        &self,
        column: &'static str,
        value: Result<T, E>,
    ) -> Result<T, Error> {
        value.map_err(|problem| self.corrupt(column, problem))
    }

    /// The parsed text of a column that may be null.
    pub(super) fn parse<T: std::str::FromStr<Err: Display>>(
        &self,
        column: &'static str,
        text: Option<&str>,
    ) -> Result<Option<T>, Error> {
        self.read(column, text.map(str::parse).transpose())
    }

    /// The status of an id that may be null.
    pub(super) fn status(
        &self,
        column: &'static str,
        id: Option<i16>,
    ) -> Result<Option<Status>, Error> {
        self.read(column, id.map(status).transpose())
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

/// The call key that two columns make.
pub(super) fn key(
    table: &'static str,
    project_id: String,
    call_id: String,
) -> Result<CallKey, Error> {
    let name = format!("call {call_id} of project {project_id}");
    let row = Row { table, key: &name };
    Ok(CallKey {
        call_id: row.read("call_id", CallId::new(call_id))?,
        project_id: row.read("project_id", ProjectId::new(project_id))?,
    })
}

/// The status of an id.
pub(super) fn status(id: i16) -> Result<Status, String> {
    Status::from_id(id).ok_or_else(|| format!("{id} is not the id of a known status"))
}

/// The fingerprint that a column holds.
pub(super) fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, String> {
    bytes
        .try_into()
        .map(Fingerprint)
        .map_err(|_| format!("a fingerprint has 32 bytes, this one has {}", bytes.len()))
}

/// A number that is never negative.
pub(super) fn count(number: i32) -> Result<u32, String> {
    number.try_into().map_err(|_| format!("{number} is negative"))
}

/// A count as Postgres stores it.
pub(super) fn as_int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Values by status as an array by status id, whose first element is that of id 1.
pub(super) fn by_status_id<T: Clone>(
    values: impl IntoIterator<Item = (Status, T)>,
    missing: &T,
) -> Vec<T> {
    let mut array = Vec::new();
    for (status, value) in values {
        let Some(index) = usize::try_from(status.id()).ok().and_then(|id| id.checked_sub(1)) else {
            continue;
        };
        if array.len() <= index {
            array.resize(index + 1, missing.clone());
        }
        array[index] = value;
    }
    array
}

/// An array by status id as values by status.
pub(super) fn by_status<T>(array: Vec<Option<T>>) -> Result<BTreeMap<Status, T>, String> {
    let ids = 1_i16..;
    let values = ids.zip(array).filter_map(|(id, value)| Some((id, value?)));
    values.map(|(id, value)| Ok((status(id)?, value))).collect()
}
