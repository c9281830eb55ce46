//! OTLP/JSON as the specification has it: ids in hexadecimal, 64-bit numbers as text or numbers,
//! enums as numbers, keys in lowerCamelCase, bytes in base64; unknown keys are ignored and `null`
//! is what a missing key is. A key whose value is of another form is an error.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::resource::v1 as resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Reads a request.
pub(super) fn request(bytes: &[u8]) -> Result<ExportTraceServiceRequest, serde_json::Error> {
    let Request { resource_spans } = serde_json::from_slice(bytes)?;
    Ok(ExportTraceServiceRequest { resource_spans: all(resource_spans) })
}

fn all<T: Into<U>, U>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(Into::into).collect()
}

/// `null` is as good as nothing.
fn some<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A message whose fields may all be missing, and what it becomes. Only an object is one: what
/// serde derives would take a list of its fields, too.
macro_rules! message {
    ($name:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Default, Deserialize)]
        #[serde(default, remote = "Self", rename_all = "camelCase")]
        struct $name { $(#[serde(deserialize_with = "some")] $field: $kind),* }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Object;
                impl<'de> Visitor<'de> for Object {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        $name::deserialize(MapAccessDeserializer::new(map))
                    }
                }
                deserializer.deserialize_map(Object)
            }
        }
    };
    ($name:ident { $($field:ident: $kind:ty),* $(,)? } as $target:ty) => {
        message!($name { $($field: $kind),* });
        impl From<$name> for $target {
            fn from(message: $name) -> Self {
                let mut target = Self::default();
                $(assign(message.$field, &mut target.$field);)*
                target
            }
        }
    };
}

fn assign<T: Assign<U>, U>(value: T, to: &mut U) {
    value.assign(to);
}

/// How the value of a field becomes that of OTLP's message.
trait Assign<U> {
    fn assign(self, to: &mut U);
}

impl<T: Into<U>, U> Assign<Vec<U>> for Vec<T> {
    fn assign(self, to: &mut Vec<U>) {
        *to = all(self);
    }
}

impl<T: Into<U>, U> Assign<Option<U>> for Option<T> {
    fn assign(self, to: &mut Option<U>) {
        *to = self.map(Into::into);
    }
}

impl Assign<String> for String {
    fn assign(self, to: &mut String) {
        *to = self;
    }
}

impl<T> Assign<T> for Number<T> {
    fn assign(self, to: &mut T) {
        *to = self.0;
    }
}

impl Assign<Vec<u8>> for Hex {
    fn assign(self, to: &mut Vec<u8>) {
        *to = self.0;
    }
}

message!(Request { resource_spans: Vec<ResourceSpans> });
message!(ResourceSpans {
    resource: Option<Resource>,
    scope_spans: Vec<ScopeSpans>,
    schema_url: String,
} as trace::ResourceSpans);
message!(Resource {
    attributes: Vec<KeyValue>,
    dropped_attributes_count: Number<u32>,
} as resource::Resource);
message!(ScopeSpans {
    scope: Option<Scope>,
    spans: Vec<Span>,
    schema_url: String,
} as trace::ScopeSpans);
message!(Scope {
    name: String,
    version: String,
    attributes: Vec<KeyValue>,
    dropped_attributes_count: Number<u32>,
} as common::InstrumentationScope);
message!(Span {
    trace_id: Hex,
    span_id: Hex,
    trace_state: String,
    parent_span_id: Hex,
    flags: Number<u32>,
    name: String,
    kind: Enum,
    start_time_unix_nano: Number<u64>,
    end_time_unix_nano: Number<u64>,
    attributes: Vec<KeyValue>,
    dropped_attributes_count: Number<u32>,
    events: Vec<Event>,
    dropped_events_count: Number<u32>,
    links: Vec<Link>,
    dropped_links_count: Number<u32>,
    status: Option<Status>,
} as trace::Span);
message!(Event {
    time_unix_nano: Number<u64>,
    name: String,
    attributes: Vec<KeyValue>,
    dropped_attributes_count: Number<u32>,
} as trace::span::Event);
message!(Link {
    trace_id: Hex,
    span_id: Hex,
    trace_state: String,
    attributes: Vec<KeyValue>,
    dropped_attributes_count: Number<u32>,
    flags: Number<u32>,
} as trace::span::Link);
message!(Status { message: String, code: Enum } as trace::Status);
message!(KeyValue { key: String, value: Option<AnyValue> } as common::KeyValue);
message!(AnyValue {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Number<i64>>,
    double_value: Option<Double>,
    array_value: Option<ArrayValue>,
    kvlist_value: Option<KeyValueList>,
    bytes_value: Option<Base64>,
});
message!(ArrayValue { values: Vec<AnyValue> } as common::ArrayValue);
message!(KeyValueList { values: Vec<KeyValue> } as common::KeyValueList);

impl From<AnyValue> for common::AnyValue {
    fn from(value: AnyValue) -> Self {
        use common::any_value::Value;
        let text = value.string_value.map(Value::StringValue);
        let value = text
            .or_else(|| value.bool_value.map(Value::BoolValue))
            .or_else(|| value.int_value.map(|number| Value::IntValue(number.0)))
            .or_else(|| value.double_value.map(|number| Value::DoubleValue(number.0)))
            .or_else(|| value.array_value.map(|array| Value::ArrayValue(array.into())))
            .or_else(|| value.kvlist_value.map(|list| Value::KvlistValue(list.into())))
            .or_else(|| value.bytes_value.map(|bytes| Value::BytesValue(bytes.0)));
        Self { value }
    }
}

/// A number that may be written as text.
#[derive(Default)]
struct Number<T>(T);

impl<'de, T: FromStr + TryFrom<u64> + TryFrom<i64>> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T>(PhantomData<T>);
        impl<T: FromStr + TryFrom<u64> + TryFrom<i64>> Visitor<'_> for Read<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number in its range, or one as text")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
                T::try_from(value).map_err(|_| E::custom("the number is out of range"))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
                T::try_from(value).map_err(|_| E::custom("the number is out of range"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
                text.parse().map_err(|_| E::custom("the text is no whole number in its range"))
            }
        }
        deserializer.deserialize_any(Read(PhantomData)).map(Self)
    }
}

/// An enum, as a number only.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Enum(i32);

impl Assign<i32> for Enum {
    fn assign(self, to: &mut i32) {
        *to = self.0;
    }
}

/// A double; those that JSON lacks are named.
struct Double(f64);

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = f64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or one as text")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
                Ok(value)
            }

            #[expect(clippy::cast_precision_loss, reason = "as JSON's numbers are read")]
            fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
                Ok(value as f64)
            }

            #[expect(clippy::cast_precision_loss, reason = "as JSON's numbers are read")]
            fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
                Ok(value as f64)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
                text.parse().map_err(|_| E::custom("the text is no number"))
            }
        }
        deserializer.deserialize_any(Read).map(Self)
    }
}

/// Bytes in hexadecimal.
#[derive(Default)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || D::Error::custom("an id is hexadecimal digits, two for each byte");
        if text.len() > 32 {
            return Err(wrong());
        }
        tollgate_domain::value::from_hex(&text).map(Self).ok_or_else(wrong)
    }
}

/// Bytes in base64, of either alphabet, with its padding or without.
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = tollgate_domain::value::from_base64(&text);
        bytes.map(Self).ok_or_else(|| D::Error::custom("bytesValue is not base64"))
    }
}
