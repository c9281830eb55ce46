//! OTLP/JSON and protobuf, each made of the other without messages between.
//!
//! One table says what OTLP's messages hold (`json/schema.rs`), and both ways go by it. The form is OTLP's: ids in
//! hexadecimal, other bytes in base64, enums as numbers, 64-bit numbers as text, keys in lowerCamelCase; a
//! double that JSON lacks is its name. Reading is strict: keys that are not known are ignored, as OTLP
//! asks, `null` is what a missing key is, and anything else that cannot be read is an error that says where it
//! stands. Nothing is left out silently.

mod read;
mod schema;
mod write;

pub(crate) use self::read::read;
pub(crate) use self::schema::{LOGS, METRICS, Message, SPAN, TRACES};
pub(crate) use self::write::write;

#[cfg(test)]
mod tests;
