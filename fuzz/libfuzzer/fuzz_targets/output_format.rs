//! See `alluvium_fuzz::targets::output_format`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::output_format::run(data));
