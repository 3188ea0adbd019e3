//! See `alluvium_fuzz::targets::messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::messages::run(data));
