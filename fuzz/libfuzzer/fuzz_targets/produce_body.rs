//! See `alluvium_fuzz::targets::produce_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::produce_body::run(data));
