//! What a sender sends by OTLP in protobuf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tollgate_telemetry::receive::fuzz::protobuf(data));
