//! See `alluvium_fuzz::targets::rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::rows::run(data));
