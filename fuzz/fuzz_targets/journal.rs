#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| processgit_updater_fuzz::journal::fuzz(bytes));
