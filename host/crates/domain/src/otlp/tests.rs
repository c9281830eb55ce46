//! Attributes that came behave as those that were set here.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::received::{Group, Origin, Received};
use crate::span::{Attributes, Span, SpanKind, Value};
use crate::time::Interval;
use crate::value::ValueRef;
use crate::value::tests::values;
use crate::{SpanContext, SpanId, TraceId, UnixNanos};

fn span(attributes: Attributes) -> Span {
    let context =
        SpanContext { trace_id: TraceId(1), span_id: SpanId(1), sampled: false, trace_state: None };
    let interval = Interval::new(UnixNanos(0), UnixNanos(0));
    let received = Some(Box::new(Received::default()));
    Span { attributes, received, ..Span::new(context, "", SpanKind::Unspecified, interval) }
}

/// As they are when they have been sent and received.
fn received(attributes: &Attributes) -> Attributes {
    let group =
        Group { origin: Arc::new(Origin::default()), spans: vec![span(attributes.clone())] };
    let mut read = read(&write_groups(&[group]), &Most::ANY).unwrap();
    read.groups.remove(0).spans.remove(0).attributes
}

/// Something that is done to attributes. Keys are few, so that some are there.
#[derive(Clone, Debug)]
enum Act {
    Set(String, Value),
    Remove(String),
    Retain(String),
    Get(String),
    Look,
    Copy,
}

/// What one look at each of them shows.
fn seen(attributes: &Attributes) -> Vec<(&str, ValueRef<'_>)> {
    attributes.entries().map(|entry| (entry.key, entry.value())).collect()
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        ("[a-f]", values()).prop_map(|(key, value)| Act::Set(key, value)),
        "[a-f]".prop_map(Act::Remove),
        "[a-f]".prop_map(Act::Retain),
        "[a-f]".prop_map(Act::Get),
        Just(Act::Look),
        Just(Act::Copy),
    ];
    prop::collection::vec(act, 0..8)
}

proptest! {
    #[test]
    fn attributes_that_came_are_as_those_that_were_set(
        given in prop::collection::vec(("[a-f]", values()), 0..6),
        acts in acts(),
    ) {
        let mut set: Attributes = given.into_iter().collect();
        let mut came = received(&set);
        let (before, mut copies) = (set.clone(), Vec::new());
        let untouched = came.clone();
        for act in acts {
            match act {
                Act::Set(key, value) => {
                    // By either way of setting one.
                    set.set_named(&key, value.clone());
                    came.set(key, value);
                }
                Act::Remove(key) => prop_assert_eq!(set.remove(&key), came.remove(&key)),
                Act::Retain(key) => {
                    set.retain(|named| named < key.as_str());
                    came.retain(|named| named < key.as_str());
                }
                Act::Get(key) => {
                    prop_assert_eq!(set.get(&key), came.get(&key));
                    let wanted = |named: &[u8]| named == key.as_bytes();
                    prop_assert_eq!(set.has(wanted), came.has(wanted));
                }
                Act::Look => prop_assert_eq!(seen(&set), seen(&came)),
                Act::Copy => copies.push((set.clone(), came.clone())),
            }
            // In the same order, and so they leave.
            prop_assert_eq!(&received(&came), &set);
        }
        copies.push((before, untouched));
        for (set, came) in copies {
            prop_assert_eq!((set.len(), set.is_empty()), (came.len(), came.is_empty()));
            prop_assert_eq!(set, came);
        }
    }
}
