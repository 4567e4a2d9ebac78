//! Tables as CSV ([RFC 4180]): a header line, lines that end with CR LF, quotes
//! where they are needed.
//!
//! What holds nothing is an empty field. Times have six digits behind the
//! second, always, as readers take the form of the first for that of all. What
//! holds other fields is JSON text.
//!
//! A spreadsheet takes a text that begins as a formula for one, and what stands
//! in a webhook is not to be run on somebody's desk. So before such a text
//! stands an apostrophe, which spreadsheets take for "this is text"
//! ([OWASP]). Numbers and times are never touched; the other formats have every
//! text as it is.
//!
//! [RFC 4180]: https://www.rfc-editor.org/rfc/rfc4180
//! [OWASP]: https://owasp.org/www-community/attacks/CSV_Injection

use std::{
    borrow::Cow,
    io::{self, Write},
};

use chrono::SecondsFormat;

use super::{
    json,
    sheet::{Cell, Field},
};

/// What a formula begins with, and what a spreadsheet overlooks before one.
const FORMULA_BEGINNINGS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Writes rows as CSV.
#[derive(Debug)]
pub struct CsvWriter<W: Write> {
    fields: Vec<Field>,
    nested: Vec<u8>,
    out: ::csv::Writer<W>,
}

impl<W: Write> CsvWriter<W> {
    /// Begins a file with its header.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn new(fields: Vec<Field>, out: W) -> io::Result<Self> {
        let mut out =
            ::csv::WriterBuilder::new().terminator(::csv::Terminator::CRLF).from_writer(out);
        out.write_record(fields.iter().map(|field| field.name))?;
        Ok(Self { fields, nested: Vec::new(), out })
    }

    /// Writes a row.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn write(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        for (field, cell) in self.fields.iter().zip(cells) {
            match cell {
                Cell::Null => self.out.write_field("")?,
                Cell::Text(text) => self.out.write_field(&*harmless(text))?,
                Cell::Integer(number) => self.out.write_field(number.to_string())?,
                Cell::Number(number) => self.out.write_field(number.to_string())?,
                Cell::Flag(flag) => self.out.write_field(flag.to_string())?,
                Cell::Time(at) => {
                    self.out.write_field(at.to_rfc3339_opts(SecondsFormat::Micros, true))?;
                }
                Cell::Record(_) | Cell::List(_) => {
                    self.nested.clear();
                    json::write_cell(&mut self.nested, field, cell)?;
                    self.out.write_field(&self.nested)?;
                }
            }
        }
        // The end of the record.
        Ok(self.out.write_record(None::<&[u8]>)?)
    }

    /// Gives the file back.
    ///
    /// # Errors
    ///
    /// Where the rest cannot be written.
    pub fn finish(self) -> io::Result<W> {
        self.out.into_inner().map_err(::csv::IntoInnerError::into_error)
    }
}

/// The text as no spreadsheet takes it for a formula.
#[must_use]
pub fn harmless(text: &str) -> Cow<'_, str> {
    if text.starts_with(FORMULA_BEGINNINGS) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sheet::Kind;
    use super::*;

    #[test]
    fn fields_are_quoted_where_that_is_needed_and_numbers_are_as_they_are() {
        let fields = vec![
            Field::new("text", Kind::Text),
            Field::optional("number", Kind::Number),
            Field::new("list", Kind::List(vec![Field::optional("code", Kind::Text)])),
        ];
        let mut csv = CsvWriter::new(fields, Vec::new()).unwrap();
        for (text, number) in [("a,\"b\"\r\nc", Some(-1.5)), ("=SUM(A1)", None)] {
            let list = Cell::List(vec![vec!["=1".into()], vec![Cell::Null]]);
            csv.write(&[text.into(), number.into(), list]).unwrap();
        }
        assert_eq!(
            String::from_utf8(csv.finish().unwrap()).unwrap(),
            "text,number,list\r\n\
             \"a,\"\"b\"\"\r\nc\",-1.5,\"[{\"\"code\"\":\"\"=1\"\"},{\"\"code\"\":null}]\"\r\n\
             '=SUM(A1),,\"[{\"\"code\"\":\"\"=1\"\"},{\"\"code\"\":null}]\"\r\n",
        );
    }

    #[test]
    fn what_begins_as_a_formula_is_made_text() {
        for text in ["=1", "+1", "-1", "@a", "\t=1", "\r=1"] {
            assert_eq!(harmless(text), format!("'{text}"));
        }
        for text in ["", "1", "a=1", "'=1", "é"] {
            assert_eq!(harmless(text), text);
        }
    }
}
