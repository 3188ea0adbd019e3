//! See `alluvium_fuzz::targets::checkpoint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::checkpoint::run(data));
