//! See `alluvium_fuzz::targets::codecs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::codecs::run(data));
