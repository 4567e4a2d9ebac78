//! Tables as JSON lines: an object for each row, as the HTTP interface writes
//! it.

use std::io::{self, Write};

use serde::Serialize;

use super::sheet::{Cell, Field, Kind};

/// Writes rows as lines.
#[derive(Debug)]
pub struct JsonWriter<W> {
    fields: Vec<Field>,
    line: Vec<u8>,
    out: W,
}

impl<W: Write> JsonWriter<W> {
    /// Begins a file of these columns.
    pub const fn new(fields: Vec<Field>, out: W) -> Self {
        Self { fields, line: Vec::new(), out }
    }

    /// Writes a row.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn write(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        self.line.clear();
        write_object(&mut self.line, self.fields.iter().zip(cells))?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }

    /// Gives the file back.
    pub fn finish(self) -> W {
        self.out
    }
}

/// Writes what a field has, as JSON.
pub(super) fn write_cell(out: &mut Vec<u8>, field: &Field, cell: &Cell<'_>) -> io::Result<()> {
    match (cell, &field.kind) {
        (Cell::Text(text), _) => value(out, text),
        (Cell::Integer(number), _) => value(out, number),
        (Cell::Number(number), _) => value(out, number),
        (Cell::Flag(flag), _) => value(out, flag),
        (Cell::Time(at), _) => value(out, at),
        (Cell::Record(cells), Kind::Record(fields)) => {
            let given = fields.iter().zip(cells).filter(|(_, cell)| **cell != Cell::Null);
            write_object(out, given)
        }
        (Cell::List(records), Kind::List(fields)) => {
            out.push(b'[');
            for (index, cells) in records.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_object(out, fields.iter().zip(cells))?;
            }
            out.push(b']');
            Ok(())
        }
        (Cell::Null | Cell::Record(_) | Cell::List(_), _) => {
            out.extend_from_slice(b"null");
            Ok(())
        }
    }
}

fn write_object<'c>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (&'c Field, &'c Cell<'c>)>,
) -> io::Result<()> {
    out.push(b'{');
    for (index, (field, cell)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        value(out, field.name)?;
        out.push(b':');
        write_cell(out, field, cell)?;
    }
    out.push(b'}');
    Ok(())
}

fn value(out: &mut Vec<u8>, value: impl Serialize) -> io::Result<()> {
    Ok(serde_json::to_writer(out, &value)?)
}
