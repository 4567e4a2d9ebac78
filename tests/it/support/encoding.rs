//! Compressed bodies.

use std::io::{Read, Write as _};

use flate2::{
    Compression,
    read::{DeflateEncoder, GzEncoder, ZlibEncoder},
};

/// The body as gzip.
pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    read_all(GzEncoder::new(body, Compression::default()))
}

/// The body as a zlib stream, which is `deflate` by RFC 9110.
pub(crate) fn zlib(body: &[u8]) -> Vec<u8> {
    read_all(ZlibEncoder::new(body, Compression::default()))
}

/// The body as a bare DEFLATE stream, which some senders write as `deflate`.
pub(crate) fn bare_deflate(body: &[u8]) -> Vec<u8> {
    read_all(DeflateEncoder::new(body, Compression::default()))
}

fn read_all(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("memory can be read");
    bytes
}

/// The body as zstd.
pub(crate) fn zstd(body: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 0).expect("the level exists");
    encoder.write_all(body).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

/// The body as Brotli, in uncompressed meta-blocks (RFC 7932, section 9.2): no
/// crate that compresses to Brotli is a dependency.
pub(crate) fn brotli(body: &[u8]) -> Vec<u8> {
    // The window of 2^16 bytes is the bit 0.
    let mut bits = Bits { bytes: Vec::new(), length: 0 };
    bits.push(0, 1);
    for block in body.chunks(1 << 16) {
        let length = u32::try_from(block.len()).expect("at most 65,536") - 1;
        // Not the last block; its length has 4 nibbles; it is not compressed.
        bits.push(0, 1);
        bits.push(0, 2);
        bits.push(length, 16);
        bits.push(1, 1);
        bits.align();
        bits.bytes.extend_from_slice(block);
    }
    // The last block, which is empty.
    bits.push(0b11, 2);
    bits.bytes
}

/// Bits, the least significant of each byte first.
struct Bits {
    bytes: Vec<u8>,
    /// How many bits of the last byte are used; 0 where all are.
    length: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for bit in 0..count {
            if self.length == 0 {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("pushed above");
            *last |= u8::from(value >> bit & 1 == 1) << self.length;
            self.length = (self.length + 1) % u8::BITS;
        }
    }

    fn align(&mut self) {
        self.length = 0;
    }
}
