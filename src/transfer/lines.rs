//! The lines of a file that comes in.

use std::io::{self, BufRead as _, BufReader, Read};

/// Reads lines of a bounded length. Blank ones are passed over.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    max_length: usize,
    number: u64,
    bytes: u64,
    line: Vec<u8>,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub number: u64,
    /// What it says, without its end; `None` where it is longer than may be.
    pub text: Option<&'a [u8]>,
}

impl<R: Read> Lines<R> {
    /// Reads lines of at most so many bytes.
    pub const fn new(reader: BufReader<R>, max_length: usize) -> Self {
        Self { reader, max_length, number: 0, bytes: 0, line: Vec::new() }
    }

    /// The next line, if there is one.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.line.clear();
            // One more than may be, and its end, tell that it is too long.
            let most = self.max_length as u64 + 2;
            let read = self.reader.by_ref().take(most).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.bytes += read as u64;
            let is_cut = read as u64 == most && self.line.last() != Some(&b'\n');
            if is_cut {
                self.bytes += self.reader.skip_until(b'\n')? as u64;
            }
            let end = self.line.trim_ascii_end().len();
            if is_cut || end > self.max_length {
                return Ok(Some(Line { number: self.number, text: None }));
            }
            if end > 0 {
                return Ok(Some(Line { number: self.number, text: Some(&self.line[..end]) }));
            }
        }
    }

    /// Whether the next line has still to come from where the file is.
    pub fn is_drained(&self) -> bool {
        self.reader.buffer().is_empty()
    }

    /// How many bytes of the file have been read.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(file: &str) -> Lines<&[u8]> {
        // A buffer that holds less than a line.
        Lines::new(BufReader::with_capacity(4, file.as_bytes()), 5)
    }

    #[test]
    fn lines_are_numbered_and_blank_ones_passed_over() {
        let mut lines = lines_of("one\r\n\n \nfour\n12345678\nsix");
        let mut next = || {
            let line = lines.next_line().unwrap()?;
            Some((line.number, line.text.map(|text| String::from_utf8_lossy(text).into_owned())))
        };
        assert_eq!(next(), Some((1, Some("one".to_owned()))));
        assert_eq!(next(), Some((4, Some("four".to_owned()))));
        assert_eq!(next(), Some((5, None)));
        assert_eq!(next(), Some((6, Some("six".to_owned()))));
        assert_eq!(next(), None);
        assert_eq!(lines.bytes(), 25);
    }

    #[test]
    fn a_line_of_the_greatest_length_is_not_too_long() {
        for (file, is_whole) in [("12345", true), ("12345\n", true), ("123456\n", false)] {
            let mut lines = lines_of(file);
            let line = lines.next_line().unwrap().unwrap();
            assert_eq!(line.text.is_some(), is_whole, "{file:?}");
            assert_eq!(lines.next_line().unwrap(), None);
        }
    }
}
