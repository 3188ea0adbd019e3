//! See `alluvium_fuzz::targets::selector`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::selector::run(data));
