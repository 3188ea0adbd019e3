//! See `alluvium_fuzz::targets::sessions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::sessions::run(data));
