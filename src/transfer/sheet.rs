//! What a table is, whatever it is written as.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

/// A name and what stands under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// As JSON and SQL have it.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may hold nothing.
    pub is_optional: bool,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Yes or no.
    Flag,
    /// A moment, to the microsecond.
    Time,
    /// One of each of these fields, none of which holds others in turn. JSON
    /// leaves out those that hold nothing.
    Record(Vec<Field>),
    /// Any number of records of these fields, none of which holds others in
    /// turn.
    List(Vec<Field>),
}

/// What one row has in a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// Nothing.
    Null,
    /// Of [`Kind::Text`].
    Text(Cow<'a, str>),
    /// Of [`Kind::Integer`].
    Integer(i64),
    /// Of [`Kind::Number`].
    Number(f64),
    /// Of [`Kind::Flag`].
    Flag(bool),
    /// Of [`Kind::Time`].
    Time(DateTime<Utc>),
    /// Of [`Kind::Record`], in the order of its fields.
    Record(Vec<Cell<'a>>),
    /// Of [`Kind::List`], each in the order of its fields.
    List(Vec<Vec<Cell<'a>>>),
}

/// A table of rows that are made of `R`.
#[derive(Debug)]
pub struct Sheet<R>(Vec<Column<R>>);

/// A field, and how it is filled.
#[derive(Debug)]
pub(super) struct Column<R> {
    field: Field,
    cell: for<'a> fn(&'a R) -> Cell<'a>,
}

impl<R> Sheet<R> {
    pub(super) const fn new(columns: Vec<Column<R>>) -> Self {
        Self(columns)
    }

    /// Its fields, in order.
    #[must_use]
    pub fn fields(&self) -> Vec<Field> {
        self.0.iter().map(|column| column.field.clone()).collect()
    }

    /// A row, in the order of the fields.
    #[must_use]
    pub fn cells<'a>(&self, row: &'a R) -> Vec<Cell<'a>> {
        self.0.iter().map(|column| (column.cell)(row)).collect()
    }
}

impl Field {
    /// A field that always holds something.
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, is_optional: false }
    }

    /// A field that may hold nothing.
    pub(super) const fn optional(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, is_optional: true }
    }

    /// The field, filled like that.
    pub(super) fn of<R>(self, cell: for<'a> fn(&'a R) -> Cell<'a>) -> Column<R> {
        Column { field: self, cell }
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u32> for Cell<'_> {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Cell<'_> {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Cell<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<DateTime<Utc>> for Cell<'_> {
    fn from(at: DateTime<Utc>) -> Self {
        Self::Time(at)
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
