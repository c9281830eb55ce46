//! What a model server answers, and how the network cuts it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_upstream::fuzz::answer(data));
