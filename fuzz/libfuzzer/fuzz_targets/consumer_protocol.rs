//! See `alluvium_fuzz::targets::consumer_protocol`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::consumer_protocol::run(data));
