#![no_main]

#[path = "../src/dockerfile.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
