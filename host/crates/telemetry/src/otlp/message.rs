//! Who records as OTLP's messages, for what is made of them: metrics. Spans are written without
//! ([`tollgate_domain::otlp`]); what their messages would be is for those who judge that. Spans that others recorded
//! and sent us keep their resource and their scope, ours have ours.

#[cfg(any(test, feature = "fuzzing"))]
mod official;

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use tollgate_domain::received::{Origin, Scope};
use tollgate_domain::span::{Attributes, Resource, Value};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::official::request;
use crate::names;

/// What our own spans are of.
pub(crate) fn own(resource: &Resource) -> Origin {
    Origin {
        resource: resource.clone(),
        resource_schema_url: names::SCHEMA_URL.to_owned(),
        scope: own_scope(),
        schema_url: names::SCHEMA_URL.to_owned(),
        ..Origin::default()
    }
}

/// Who records ours: this program, in this version.
pub(crate) fn own_scope() -> Scope {
    Scope {
        name: names::SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Scope::default()
    }
}

/// Who recorded, within a process.
pub(crate) fn scope(scope: &Scope) -> InstrumentationScope {
    InstrumentationScope {
        name: scope.name.clone(),
        version: scope.version.clone(),
        attributes: key_values(&scope.attributes),
        dropped_attributes_count: scope.dropped_attributes,
    }
}

/// What all spans share.
pub(crate) fn resource(resource: &Resource) -> OtlpResource {
    OtlpResource { attributes: key_values(&resource.attributes), ..OtlpResource::default() }
}

/// Attributes in their order.
pub(crate) fn key_values(attributes: &Attributes) -> Vec<KeyValue> {
    attributes
        .iter()
        .map(|(key, value)| KeyValue {
            key: key.clone().into_owned(),
            value: Some(any_value(value)),
            ..KeyValue::default()
        })
        .collect()
}

fn any_value(value: &Value) -> AnyValue {
    let value = match value {
        Value::Empty => return AnyValue::default(),
        Value::Bool(value) => any_value::Value::BoolValue(*value),
        Value::Int(value) => any_value::Value::IntValue(*value),
        Value::Double(value) => any_value::Value::DoubleValue(*value),
        Value::Text(value) => any_value::Value::StringValue(value.clone()),
        Value::Bytes(value) => any_value::Value::BytesValue(value.clone()),
        Value::List(items) => any_value::Value::ArrayValue(ArrayValue {
            values: items.iter().map(any_value).collect(),
        }),
        Value::Map(entries) => {
            any_value::Value::KvlistValue(KeyValueList { values: key_values(entries) })
        }
    };
    AnyValue { value: Some(value) }
}

#[cfg(test)]
mod tests;
