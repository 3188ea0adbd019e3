//! See `alluvium_fuzz::targets::summary`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::summary::run(data));
