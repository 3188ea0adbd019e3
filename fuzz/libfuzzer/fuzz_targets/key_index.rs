//! See `alluvium_fuzz::targets::key_index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::key_index::run(data));
