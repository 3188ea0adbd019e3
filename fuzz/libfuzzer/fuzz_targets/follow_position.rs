//! See `alluvium_fuzz::targets::follow_position`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::follow_position::run(data));
