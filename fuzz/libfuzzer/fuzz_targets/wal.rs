//! See `alluvium_fuzz::targets::wal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::wal::run(data));
