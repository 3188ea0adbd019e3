//! See `alluvium_fuzz::targets::retained`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::retained::run(data));
