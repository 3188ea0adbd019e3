//! See `alluvium_fuzz::targets::time_spec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::time_spec::run(data));
