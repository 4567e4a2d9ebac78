//! A table in one of the formats.

use std::io::{self, Write};

use super::{
    csv::CsvWriter,
    json::JsonWriter,
    parquet::ParquetWriter,
    sheet::{Cell, Field},
};

/// What a table is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values.
    Csv,
    /// An object on each line.
    JsonLines,
    /// Parquet.
    Parquet,
}

/// Writes a table.
pub enum Writer<W: Write + Send> {
    /// As CSV.
    Csv(Box<CsvWriter<W>>),
    /// As JSON lines.
    JsonLines(JsonWriter<W>),
    /// As Parquet.
    Parquet(Box<ParquetWriter<W>>),
}

impl<W: Write + Send> Writer<W> {
    /// Begins a table of these columns.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn new(format: Format, fields: Vec<Field>, out: W) -> io::Result<Self> {
        Ok(match format {
            Format::Csv => Self::Csv(Box::new(CsvWriter::new(fields, out)?)),
            Format::JsonLines => Self::JsonLines(JsonWriter::new(fields, out)),
            Format::Parquet => Self::Parquet(Box::new(ParquetWriter::new(&fields, out)?)),
        })
    }

    /// Writes a row.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn write(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        match self {
            Self::Csv(writer) => writer.write(cells),
            Self::JsonLines(writer) => writer.write(cells),
            Self::Parquet(writer) => writer.write(cells),
        }
    }

    /// Writes what a table ends with; gives the file back.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Csv(writer) => writer.finish(),
            Self::JsonLines(writer) => Ok(writer.finish()),
            Self::Parquet(writer) => writer.finish(),
        }
    }
}
