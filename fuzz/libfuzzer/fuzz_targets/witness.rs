//! See `alluvium_fuzz::targets::witness`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::witness::run(data));
