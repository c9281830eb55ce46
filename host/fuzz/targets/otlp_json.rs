//! What a sender sends by OTLP in JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_telemetry::receive::fuzz::json(data));
