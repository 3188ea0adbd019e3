//! See `alluvium_fuzz::targets::sasl`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::sasl::run(data));
