//! A `Content-Length` that no `u64` holds.
//!
//! hyper answers it with 400 by itself, before there is a request. It is a length all the same, and
//! larger than any limit, so here it becomes the largest one with as many digits that hyper reads,
//! and the request is answered as every one that announces too much.

const NAME: &[u8] = b"content-length:";

/// The digits of the largest number that is left as it is; every number that has no more fits a
/// `u64`.
const MAX_DIGITS: usize = 19;

/// Replaces such a length in what was read of a head. Nothing behind the head is changed.
///
/// A line that began in an earlier read is left as it is; hyper refuses it then.
pub(super) fn clamp(read: &mut [u8]) {
    for (number, line) in read.split_mut(|byte| *byte == b'\n').enumerate() {
        let line_end = line.trim_ascii_end().len();
        if line_end == 0 {
            return;
        }
        // The first line is the request's, or the rest of one that began before.
        if number > 0 && line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
        {
            clamp_digits(&mut line[NAME.len().min(line_end)..line_end]);
        }
    }
}

/// Replaces a number that has too many digits.
fn clamp_digits(value: &mut [u8]) {
    let blanks = value.len() - value.trim_ascii_start().len();
    let digits = &mut value[blanks..];
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    if digits.len() - zeros > MAX_DIGITS && digits.iter().all(u8::is_ascii_digit) {
        let (leading, last) = digits.split_at_mut(digits.len() - MAX_DIGITS);
        leading.fill(b'0');
        last.fill(b'9');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clamped(read: &str) -> String {
        let mut bytes = read.as_bytes().to_owned();
        clamp(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_length_that_no_u64_holds_becomes_a_large_one_with_as_many_digits() {
        for (given, expected) in [
            ("18446744073709551616", "09999999999999999999"),
            ("\t 18446744073709551615 ", "\t 09999999999999999999 "),
            ("00099999999999999999999999", "00000009999999999999999999"),
        ] {
            let request = |length| {
                format!("POST / HTTP/1.1\r\nHost: c\r\nContent-LENGTH:{length}\r\nA: b\r\n\r\n")
            };
            assert_eq!(clamped(&request(given)), request(expected));
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let huge = "9".repeat(40);
        for read in [
            String::new(),
            "\n".to_owned(),
            "POST / HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n".to_owned(),
            format!("POST / HTTP/1.1\r\nContent-Length: {}5\r\n\r\n", "0".repeat(40)),
            format!("POST / HTTP/1.1\r\nContent-Length: -{huge}\r\n\r\n"),
            format!("POST / HTTP/1.1\r\nContent-Length: {huge}, {huge}\r\n\r\n"),
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n".to_owned(),
            format!("POST / HTTP/1.1\r\nX-Content-Length: {huge}\r\n\r\n"),
            // In a body, and where the head ends with what was read before.
            format!("POST / HTTP/1.1\r\n\r\n\r\nContent-Length: {huge}\r\n"),
            format!("\r\n\r\nContent-Length: {huge}\r\n"),
            format!("\n\r\nContent-Length: {huge}\r\n"),
            format!("\nContent-Length: {huge}\r\n"),
            format!("Content-Length: {huge}\r\n"),
        ] {
            assert_eq!(clamped(&read), read);
        }
    }
}
