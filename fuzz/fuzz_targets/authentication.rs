//! The headers that authenticate a delivery.

#![no_main]

#[path = "../properties.rs"]
#[expect(dead_code, reason = "each target tries one property")]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::authentication(data));
