//! See `alluvium_fuzz::targets::erasures`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::erasures::run(data));
