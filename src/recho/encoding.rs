//! `Content-Encoding`: compressed bodies ([RFC 9110, section 8.4]).
//!
//! What always holds: the result of [`decode`] is within the bound, and so is the
//! memory that it uses, but for a constant: 16 MiB, the largest window of Brotli.
//! Bytes after the compressed data are an error, never ignored.
//!
//! [RFC 9110, section 8.4]: https://www.rfc-editor.org/rfc/rfc9110#section-8.4

use std::{
    borrow::Cow,
    io::{self, Read},
};

use brotli_decompressor::{
    BrotliDecompressStream, BrotliResult, BrotliState, reader::StandardAlloc,
};
use flate2::{Decompress, FlushDecompress, Status, read::MultiGzDecoder};

/// The most encodings on top of each other, `identity` not counted. A gzip file
/// can decompress to itself, so a header could ask for any amount of work.
const MAX_ENCODINGS: usize = 3;

/// How many bytes are decompressed at a time.
const CHUNK: usize = 16 * 1024;

/// The largest window that zstd as a content encoding has: 2^23 bytes ([RFC 9659]).
///
/// [RFC 9659]: https://www.rfc-editor.org/rfc/rfc9659
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The header names another encoding, or too many.
    #[error("Content-Encoding must be gzip, deflate, br, zstd or identity")]
    Unsupported,
    /// The decoded body is larger than the bound.
    #[error("the decoded body has more than {max_bytes} bytes")]
    TooLarge {
        /// The bound.
        max_bytes: usize,
    },
    /// The body is damaged, incomplete, or not of the encoding.
    #[error("the body is not valid {encoding}")]
    Corrupt {
        /// The encoding that failed.
        encoding: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// Decodes a body of which the values of the `Content-Encoding` headers are
/// `content_encoding`, in their order. A body without an encoding is borrowed.
///
/// # Errors
///
/// Fails if an encoding is not supported, if the body is not valid in it, or if
/// it has more than `max_bytes` after one of the encodings is removed.
pub fn decode<'b, 'h>(
    content_encoding: impl IntoIterator<Item = &'h [u8]>,
    body: &'b [u8],
    max_bytes: usize,
) -> Result<Cow<'b, [u8]>, DecodeError> {
    let encodings = parse(content_encoding)?;
    let mut decoded = Cow::Borrowed(body);
    // They are listed in the order in which they were applied.
    for encoding in encodings.into_iter().rev().flatten() {
        decoded = Cow::Owned(encoding.decode(&decoded, max_bytes)?);
    }
    if decoded.len() > max_bytes {
        return Err(DecodeError::TooLarge { max_bytes });
    }
    Ok(decoded)
}

/// The encodings of the headers, without `identity`.
fn parse<'h>(
    content_encoding: impl IntoIterator<Item = &'h [u8]>,
) -> Result<[Option<Encoding>; MAX_ENCODINGS], DecodeError> {
    let mut encodings = [None; MAX_ENCODINGS];
    let mut free = encodings.iter_mut();
    let names = content_encoding.into_iter().flat_map(|value| value.split(|byte| *byte == b','));
    for name in names.map(<[u8]>::trim_ascii) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let encoding = if name.is_empty() || is("identity") {
            continue;
        } else if is("gzip") || is("x-gzip") {
            Encoding::Gzip
        } else if is("deflate") {
            Encoding::Deflate
        } else if is("br") {
            Encoding::Brotli
        } else if is("zstd") {
            Encoding::Zstd
        } else {
            return Err(DecodeError::Unsupported);
        };
        *free.next().ok_or(DecodeError::Unsupported)? = Some(encoding);
    }
    Ok(encodings)
}

impl Encoding {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn decode(self, body: &[u8], max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
        let decoded = match self {
            Self::Gzip => collect(MultiGzDecoder::new(body), max_bytes),
            Self::Deflate => {
                let mut reader = Inflater::new(body);
                collect(&mut reader, max_bytes).and_then(|decoded| expect_end(decoded, reader.rest))
            }
            Self::Brotli => {
                let mut reader = BrotliReader::new(body);
                collect(&mut reader, max_bytes).and_then(|decoded| expect_end(decoded, reader.rest))
            }
            Self::Zstd => zstd::Decoder::with_buffer(body)
                .and_then(|mut reader| {
                    reader.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                    Ok(reader)
                })
                .and_then(|reader| collect(reader, max_bytes)),
        };
        match decoded {
            Ok(Some(decoded)) => Ok(decoded),
            Ok(None) => Err(DecodeError::TooLarge { max_bytes }),
            Err(_) => Err(DecodeError::Corrupt { encoding: self.name() }),
        }
    }
}

/// Reads everything; `None` where that is more than `max_bytes`.
///
/// The memory is reserved exactly: for the first chunk, which is all of most
/// deliveries, and then once for as much as is allowed. A vector that doubles
/// would hold up to one and a half times the bound while it grows.
fn collect(mut reader: impl Read, max_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let mut decoded = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        let length = fill(&mut reader, &mut chunk)?;
        if length > max_bytes - decoded.len() {
            return Ok(None);
        }
        if decoded.is_empty() {
            decoded.reserve_exact(length);
        } else if length > 0 {
            // Does nothing after the first time.
            decoded.reserve_exact(max_bytes - decoded.len());
        }
        decoded.extend_from_slice(&chunk[..length]);
        if length < CHUNK {
            return Ok(Some(decoded));
        }
    }
}

/// Fills the chunk as far as there are bytes.
fn fill(reader: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < chunk.len() {
        match reader.read(&mut chunk[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// Fails if the data was decoded and more bytes follow.
fn expect_end(decoded: Option<Vec<u8>>, rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    if decoded.is_some() && !rest.is_empty() { Err(corrupt()) } else { Ok(decoded) }
}

fn corrupt() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Reads `deflate`: a zlib stream, or a bare DEFLATE stream, which some senders
/// write instead (RFC 9110, section 8.4.1.2).
///
/// `flate2`'s own reader reports the end of an incomplete stream as a success.
struct Inflater<'b> {
    state: Decompress,
    rest: &'b [u8],
    is_at_end: bool,
}

impl<'b> Inflater<'b> {
    fn new(body: &'b [u8]) -> Self {
        // The method in the header of zlib (RFC 1950). A DEFLATE stream does not begin with
        // these bits: they would be the padding of a stored block, which is zero.
        let has_header = body.first().is_some_and(|first| first & 0x0f == 8);
        Self { state: Decompress::new(has_header), rest: body, is_at_end: false }
    }
}

impl Read for Inflater<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.is_at_end || out.is_empty() {
            return Ok(0);
        }
        let (total_in, total_out) = (self.state.total_in(), self.state.total_out());
        let status = self.state.decompress(self.rest, out, FlushDecompress::None);
        let count =
            |total: u64, before: u64| usize::try_from(total - before).map_err(io::Error::other);
        let consumed = count(self.state.total_in(), total_in)?;
        let produced = count(self.state.total_out(), total_out)?;
        self.rest = self.rest.get(consumed..).ok_or_else(corrupt)?;
        match status {
            Ok(Status::StreamEnd) => self.is_at_end = true,
            // The input is complete, so without output the stream is not.
            Ok(Status::Ok | Status::BufError) if produced == 0 => return Err(corrupt()),
            Ok(Status::Ok | Status::BufError) => {}
            Err(_) => return Err(corrupt()),
        }
        Ok(produced)
    }
}

/// Reads `br` (RFC 7932).
///
/// The crate's own reader accepts large windows too, which are no part of the
/// content encoding: a hundred bytes could have it allocate 256 MiB.
struct BrotliReader<'b> {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    rest: &'b [u8],
    is_at_end: bool,
}

impl<'b> BrotliReader<'b> {
    fn new(body: &'b [u8]) -> Self {
        let alloc = StandardAlloc::default;
        Self {
            state: BrotliState::new_strict(alloc(), alloc(), alloc()),
            rest: body,
            is_at_end: false,
        }
    }
}

impl Read for BrotliReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.is_at_end {
            return Ok(0);
        }
        let (mut available_in, mut consumed) = (self.rest.len(), 0);
        let (mut available_out, mut produced, mut total_out) = (out.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut available_in,
            &mut consumed,
            self.rest,
            &mut available_out,
            &mut produced,
            out,
            &mut total_out,
            &mut self.state,
        );
        self.rest = self.rest.get(consumed..).ok_or_else(corrupt)?;
        match result {
            BrotliResult::ResultSuccess => self.is_at_end = true,
            BrotliResult::NeedsMoreOutput => {}
            // The input is complete, so the stream is not.
            BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => return Err(corrupt()),
        }
        Ok(produced)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;

    use super::*;

    const BODY: &[u8] = br#"{"eventType": "OUTBOUND_CALL_CALLING"}"#;

    /// `BODY` as `brotliCompressSync` of Node.js 20 writes it.
    const BROTLI: &[u8] = b"\x8b\x12\x80{\"eventType\": \"OUTBOUND_CALL_CALLING\"}\x03";

    /// A mebibyte of zeros, by the same.
    const BROTLI_MEBIBYTE: &[u8] = b"\x5b\xff\xff\x8f\x7f\x02\x20\x1e\x0b\x04\x72\xef\x1f\x00";

    const MEBIBYTE: usize = 1024 * 1024;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn bare_deflate(body: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(body: &[u8]) -> Vec<u8> {
        zstd::encode_all(body, 3).unwrap()
    }

    fn decode_one<'b>(
        encoding: &str,
        body: &'b [u8],
        max_bytes: usize,
    ) -> Result<Cow<'b, [u8]>, DecodeError> {
        decode([encoding.as_bytes()], body, max_bytes)
    }

    /// The body in every encoding, with the encoding's name.
    fn encoded() -> [(&'static str, Vec<u8>); 5] {
        [
            ("gzip", gzip(BODY)),
            ("deflate", zlib(BODY)),
            ("deflate", bare_deflate(BODY)),
            ("br", BROTLI.to_vec()),
            ("zstd", zstd(BODY)),
        ]
    }

    #[test]
    fn a_body_without_an_encoding_is_borrowed() {
        for headers in [&[][..], &[&b""[..]], &[b"identity"], &[b" , Identity,", b"identity"]] {
            let decoded = decode(headers.iter().copied(), BODY, BODY.len()).unwrap();
            assert!(matches!(decoded, Cow::Borrowed(BODY)));
        }
    }

    #[test]
    fn every_encoding_is_decoded_under_its_name_in_any_case() {
        for (name, body) in encoded() {
            for name in [name.to_owned(), name.to_ascii_uppercase(), format!(" {name} ,identity")] {
                let decoded = decode_one(&name, &body, BODY.len());
                assert_eq!(decoded.as_deref(), Ok(BODY), "{name}");
            }
        }
        assert_eq!(decode_one("x-gzip", &gzip(BODY), 100).as_deref(), Ok(BODY));
    }

    #[test]
    fn several_encodings_are_removed_from_the_last_to_the_first() {
        let body = zstd(&gzip(&zlib(BODY)));
        for headers in [&["deflate, gzip, zstd"][..], &["deflate", "gzip,zstd"]] {
            let headers = headers.iter().map(|header| header.as_bytes());
            assert_eq!(decode(headers, &body, 1000).as_deref(), Ok(BODY));
        }
        assert_eq!(
            decode_one("zstd, gzip, deflate", &body, 1000),
            Err(DecodeError::Corrupt { encoding: "deflate" }),
        );
    }

    #[test]
    fn other_encodings_and_more_than_three_are_unsupported() {
        for name in [
            "compress",
            "x-compress",
            "gzip;q=1",
            "gzip br",
            "*",
            "\u{fffd}",
            "gzip,gzip,gzip,gzip",
        ] {
            assert_eq!(decode_one(name, BODY, 1000), Err(DecodeError::Unsupported), "{name}");
        }
    }

    #[test]
    fn a_body_that_breaks_off_or_goes_on_is_corrupt() {
        for (encoding, body) in encoded() {
            let error = Err(DecodeError::Corrupt { encoding });
            for end in 1..body.len() {
                assert_eq!(decode_one(encoding, &body[..end], 1000), error, "{encoding} {end}");
            }
            let longer = [&body, &b"more"[..]].concat();
            assert_eq!(decode_one(encoding, &longer, 1000), error, "{encoding}");
            assert_eq!(decode_one(encoding, BODY, 1000), error, "{encoding}");
        }
        let longer = [BROTLI, &vec![0; 3 * CHUNK]].concat();
        assert_eq!(decode_one("br", &longer, 1000), Err(DecodeError::Corrupt { encoding: "br" }));
    }

    #[test]
    fn an_empty_body_is_not_compressed_data() {
        for encoding in ["gzip", "deflate", "br", "zstd"] {
            let error = Err(DecodeError::Corrupt { encoding });
            assert_eq!(decode_one(encoding, b"", 1000), error);
        }
    }

    #[test]
    fn the_checksum_of_gzip_is_verified() {
        let mut body = gzip(BODY);
        let checksum = body.len() - 8;
        body[checksum] ^= 1;
        assert_eq!(decode_one("gzip", &body, 1000), Err(DecodeError::Corrupt { encoding: "gzip" }));
    }

    #[test]
    fn several_members_of_gzip_and_frames_of_zstd_are_one_body() {
        let (first, last) = BODY.split_at(10);
        let body = [gzip(first), gzip(last)].concat();
        assert_eq!(decode_one("gzip", &body, 1000).as_deref(), Ok(BODY));
        let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        let body = [zstd(first), skippable, zstd(last)].concat();
        assert_eq!(decode_one("zstd", &body, 1000).as_deref(), Ok(BODY));
    }

    #[test]
    fn the_bound_is_exact_and_holds_for_every_encoding() {
        let too_large = |max_bytes| Err(DecodeError::TooLarge { max_bytes });
        assert_eq!(decode([], BODY, BODY.len() - 1), too_large(BODY.len() - 1));
        for (encoding, body) in encoded() {
            assert_eq!(decode_one(encoding, &body, BODY.len()).as_deref(), Ok(BODY), "{encoding}");
            let max = BODY.len() - 1;
            assert_eq!(decode_one(encoding, &body, max), too_large(max), "{encoding}");
            assert_eq!(decode_one(encoding, &body, 0), too_large(0), "{encoding}");
        }
        let zeros = vec![0; MEBIBYTE];
        for (encoding, body) in [
            ("gzip", gzip(&zeros)),
            ("deflate", zlib(&zeros)),
            ("br", BROTLI_MEBIBYTE.to_vec()),
            ("zstd", zstd(&zeros)),
        ] {
            for max in [MEBIBYTE, MEBIBYTE + 1, 2 * MEBIBYTE] {
                let decoded = decode_one(encoding, &body, max).unwrap().into_owned();
                assert!(decoded == zeros, "{encoding}");
                assert!(decoded.capacity() <= max, "{encoding}");
            }
            for max in [MEBIBYTE - 1, CHUNK, CHUNK - 1, 0] {
                assert_eq!(decode_one(encoding, &body, max), too_large(max), "{encoding}");
            }
        }
    }

    #[test]
    fn a_small_body_takes_little_memory() {
        for (encoding, body) in encoded() {
            let decoded = decode_one(encoding, &body, 64 * MEBIBYTE).unwrap().into_owned();
            assert_eq!(decoded.capacity(), BODY.len(), "{encoding}");
        }
    }

    #[test]
    fn a_large_window_of_brotli_is_corrupt() {
        // 100 MiB of zeros with a window of 2^28 bytes, by Node.js 20.
        let body = b"\
            \x11\x1c\xff\xff\xff\x01\x90\x00\x88\xc7\x02\x21\xf7\xfe\x9f\xff\xff\xff\x00\x48\
            \x00\xc4\x61\x01\xa0\x7b\xff\xcf\xff\xff\x7f\x00\x24\x00\xe2\xb0\x00\xd0\xbd\xff\
            \xe7\xff\xff\x3f\x00\x12\x00\x71\x58\x00\xe8\xde\xff\xf3\xff\xff\x1f\x00\x09\x80\
            \x38\x2c\x00\x74\xef\xff\xf9\xff\xff\x0f\x80\x04\x40\x1c\x16\x00\xba\xf7\xff\xf9\
            \xff\xff\x03\x40\x02\x20\x0e\x0b\x00\xdd\xfb\x1f";
        let corrupt = Err(DecodeError::Corrupt { encoding: "br" });
        assert_eq!(decode_one("br", body, 1000), corrupt);
    }

    #[test]
    fn a_zstd_window_beyond_eight_mebibytes_is_corrupt() {
        // The header of a frame with a window of 16 MiB, then one empty last block.
        let frame = |window_log: u8| {
            [&b"\x28\xb5\x2f\xfd\x00"[..], &[(window_log - 10) << 3], b"\x01\0\0"].concat()
        };
        assert_eq!(decode_one("zstd", &frame(23), 1000).as_deref(), Ok(&b""[..]));
        let corrupt = Err(DecodeError::Corrupt { encoding: "zstd" });
        assert_eq!(decode_one("zstd", &frame(24), 1000), corrupt);
        assert_eq!(decode_one("zstd", &frame(41), 1000), corrupt);
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_bounded_whatever_is_sent(
            encoding in prop::sample::select(&["gzip", "deflate", "br", "zstd", "br, gzip"][..]),
            start in 0..6_usize,
            body: Vec<u8>,
            change in any::<(prop::sample::Index, u8)>(),
            max_bytes in 0..100_usize,
        ) {
            // Random bytes, or valid data with one byte changed.
            let mut bytes = encoded().get(start).map_or(body, |(_, body)| body.clone());
            if let Some(byte) = (!bytes.is_empty()).then(|| change.0.get(&bytes)) {
                let index = bytes.iter().position(|it| it == byte).unwrap_or(0);
                bytes[index] = change.1;
            }
            if let Ok(decoded) = decode_one(encoding, &bytes, max_bytes) {
                prop_assert!(decoded.len() <= max_bytes);
            }
        }

        #[test]
        fn any_body_is_decoded_as_it_was(
            body in prop::collection::vec(any::<u8>(), 0..40_000),
            repeated in 1..4_usize,
        ) {
            let body = body.repeat(repeated);
            for (encoding, encoded) in
                [("gzip", gzip(&body)), ("deflate", zlib(&body)), ("zstd", zstd(&body))]
            {
                let decoded = decode_one(encoding, &encoded, body.len());
                prop_assert_eq!(decoded.as_deref(), Ok(&body[..]));
            }
        }

        #[test]
        fn any_header_is_an_encoding_or_an_error(header: Vec<u8>) {
            let _ = decode([&header[..]], BODY, 1000);
        }
    }
}
