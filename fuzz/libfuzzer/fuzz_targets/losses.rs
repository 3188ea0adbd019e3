//! See `alluvium_fuzz::targets::losses`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::losses::run(data));
