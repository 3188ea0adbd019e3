//! See `alluvium_fuzz::targets::shares`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::shares::run(data));
