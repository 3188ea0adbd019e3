//! See `alluvium_fuzz::targets::recovery`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::recovery::run(data));
