//! See `alluvium_fuzz::targets::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::manifest::run(data));
