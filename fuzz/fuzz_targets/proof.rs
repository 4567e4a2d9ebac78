//! The headers by which a delivery proves where it comes from.

#![no_main]

#[path = "../properties.rs"]
#[expect(dead_code, reason = "each target tries one property")]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::proof(data));
