//! See `alluvium_fuzz::targets::quotas`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::quotas::run(data));
