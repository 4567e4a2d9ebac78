//! Tables as CSV ([RFC 4180]): a header line, lines that end with CR LF, quotes
//! where they are needed.
//!
//! What holds nothing is an empty field. Times have six digits behind the
//! second, always, as readers take the form of the first for that of all. What
//! holds other fields is JSON text.
//!
//! A spreadsheet runs a text that begins as a formula, and the text of a webhook
//! must not be run. So such a text has an apostrophe before it, by which
//! spreadsheets know that it is text ([OWASP]). Phone numbers, numbers and times
//! are never changed; the other formats have every text as it is.
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

/// What a formula begins with, or a spreadsheet ignores before one. Some spreadsheets read the
/// full-width forms as the plain ones.
const FORMULA_BEGINNINGS: [char; 9] = ['=', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// A sign begins a formula or a phone number.
const SIGNS: [char; 2] = ['+', '-'];

/// The characters of a phone number behind its sign, besides digits.
const PHONE_NUMBER_PUNCTUATION: [char; 5] = [' ', '.', '-', '(', ')'];

/// A spreadsheet ignores it at the beginning.
const BYTE_ORDER_MARK: char = '\u{feff}';

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
        out.write_record(fields.iter().map(|field| field.name)).map_err(io_error)?;
        Ok(Self { fields, nested: Vec::new(), out })
    }

    /// Writes a row.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to.
    pub fn write(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        for (field, cell) in self.fields.iter().zip(cells) {
            let text = match cell {
                Cell::Null => Cow::Borrowed(""),
                Cell::Text(text) => harmless(text),
                Cell::Integer(number) => number.to_string().into(),
                Cell::Number(number) => number.to_string().into(),
                Cell::Flag(flag) => flag.to_string().into(),
                Cell::Time(at) => at.to_rfc3339_opts(SecondsFormat::Micros, true).into(),
                Cell::Record(_) | Cell::List(_) => {
                    self.nested.clear();
                    json::write_cell(&mut self.nested, field, cell)?;
                    String::from_utf8_lossy(&self.nested)
                }
            };
            self.out.write_field(text.as_bytes()).map_err(io_error)?;
        }
        // The end of the record.
        self.out.write_record(None::<&[u8]>).map_err(io_error)
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

/// The error of the file, whose kind the conversion of the library loses.
fn io_error(error: ::csv::Error) -> io::Error {
    match error.into_kind() {
        ::csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// The text, with an apostrophe before it if a spreadsheet may run it as a formula.
#[must_use]
pub fn harmless(text: &str) -> Cow<'_, str> {
    if is_formula(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// Whether a spreadsheet may run a text as a formula.
fn is_formula(text: &str) -> bool {
    let text = text.trim_start_matches(BYTE_ORDER_MARK);
    let is_number = |rest: &str| {
        rest.chars().all(|c| c.is_ascii_digit() || PHONE_NUMBER_PUNCTUATION.contains(&c))
    };
    match text.strip_prefix(SIGNS) {
        Some(rest) => !is_number(rest),
        None => text.starts_with(FORMULA_BEGINNINGS),
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
    fn text_that_begins_as_a_formula_has_an_apostrophe_before_it() {
        for text in [
            "=1+1",
            "@SUM(1)",
            "\t=1",
            "\r=1",
            "\n=1",
            "+1+cmd|' /C calc'!A0",
            "-1+cmd|' /C calc'!A0",
            "+A1",
            "-(A1)",
            "+1\t2",
            "＝1+1",
            "＋1",
            "－1",
            "＠SUM(1)",
            "\u{feff}=1",
            "\u{feff}\u{feff}@SUM(1)",
            "\u{feff}\t",
            "\u{feff}＝1",
            "\u{feff}-A1",
        ] {
            assert_eq!(harmless(text), format!("'{text}"));
        }
    }

    #[test]
    fn phone_numbers_and_other_text_are_written_as_they_are() {
        for text in [
            "",
            "1",
            "a=1",
            "'=1",
            "é",
            "\u{feff}",
            "\u{feff}a",
            "+15551234567",
            "-1 (555) 123.4567",
            "+49 30-12.34",
            "\u{feff}+15551234567",
        ] {
            assert_eq!(harmless(text), text);
        }
    }
}
