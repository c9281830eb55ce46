//! Everything that a guest can hand back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_plugin_host::fuzz::answers(data));
