//! See `alluvium_fuzz::targets::acls`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alluvium_fuzz::targets::acls::run(data));
