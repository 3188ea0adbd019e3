//! See `alluvium_fuzz::targets::thin_tiers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::thin_tiers::run(data));
