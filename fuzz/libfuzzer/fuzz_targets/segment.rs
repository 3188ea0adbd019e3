//! See `alluvium_fuzz::targets::segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::segment::run(data));
