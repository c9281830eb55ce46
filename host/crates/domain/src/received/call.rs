//! A call of a model that another program told us of, and its form on record.

use std::sync::Arc;

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};

use super::{Origin, of};
use crate::otlp::{self, NotPacked};
use crate::span::{Span, is_zero};

/// How a received GenAI span came to be a record. On record the span and who recorded it are packed
/// ([`otlp::pack`]): that is most of what there is to say, and stays as it was sent.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Found")]
pub struct ReceivedCall {
    /// In whose words it tells of the call: `gen_ai`, `vllm`, `openinference`, `openllmetry`,
    /// `tutorial`.
    pub dialect: String,
    /// Id of the answer, as the span tells it.
    pub response_id: Option<String>,
    /// Id that the server gave the request, as the span tells it. Clients may choose it.
    pub request_id: Option<String>,
    /// Whether its prompt is billed with another choice of the same call, and not with this one.
    pub prompt_elsewhere: bool,
    /// Who recorded it.
    pub origin: Arc<Origin>,
    /// The span as it was sent.
    pub span: Span,
}

impl ReceivedCall {
    /// How many bytes its span and who recorded it have about, not packed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.origin.bytes() + self.span.bytes()
    }

    /// The span with its origin.
    #[must_use]
    pub fn span(&self) -> Span {
        of(&self.span, &self.origin)
    }
}

/// A [`ReceivedCall`] as it is put on record.
#[derive(Serialize)]
struct Stored<'a> {
    dialect: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_elsewhere: bool,
    otlp_zstd: String,
}

impl Serialize for ReceivedCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = Stored {
            dialect: &self.dialect,
            response_id: self.response_id.as_deref(),
            request_id: self.request_id.as_deref(),
            prompt_elsewhere: self.prompt_elsewhere,
            otlp_zstd: otlp::pack_one(&self.origin, &self.span).map_err(S::Error::custom)?,
        };
        stored.serialize(serializer)
    }
}

/// A [`ReceivedCall`] as it is found on record.
#[derive(Deserialize)]
struct Found {
    dialect: String,
    #[serde(default)]
    response_id: Option<String>,
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default)]
    prompt_elsewhere: bool,
    #[serde(default)]
    otlp_zstd: Option<String>,
    /// As these were stored before.
    #[serde(default)]
    origin: Option<Origin>,
    #[serde(default)]
    span: Option<Span>,
}

impl TryFrom<Found> for ReceivedCall {
    type Error = NotPacked;

    fn try_from(found: Found) -> Result<Self, NotPacked> {
        let Found { dialect, response_id, request_id, prompt_elsewhere, .. } = found;
        let (origin, span) = match (found.otlp_zstd, found.origin, found.span) {
            (Some(packed), ..) => otlp::unpack_one(&packed)?,
            (None, Some(origin), Some(span)) => (Arc::new(origin), span),
            _ => return Err(NotPacked("it has no span".into())),
        };
        Ok(Self { dialect, response_id, request_id, prompt_elsewhere, origin, span })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::received::{Received, Scope};
    use crate::span::{Attributes, SpanKind};
    use crate::time::Interval;
    use crate::value::tests::values;
    use crate::{SpanContext, SpanId, TraceId, UnixNanos};

    fn call(attributes: Attributes) -> ReceivedCall {
        let scope = Scope { name: "lib".to_owned(), ..Scope::default() };
        let origin = Arc::new(Origin { scope, ..Origin::default() });
        let (trace_id, span_id) = (TraceId(5), SpanId(6));
        let context = SpanContext { trace_id, span_id, sampled: true, trace_state: None };
        let received = Received { flags: 1, origin: Arc::clone(&origin), ..Received::default() };
        let interval = Interval::new(UnixNanos(1), UnixNanos(2));
        let span = Span::new(context, "chat", SpanKind::Client, interval);
        ReceivedCall {
            dialect: "gen_ai".to_owned(),
            response_id: Some("r".to_owned()),
            request_id: None,
            prompt_elsewhere: true,
            origin,
            span: Span { attributes, received: Some(Box::new(received)), ..span },
        }
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(given in prop::collection::vec(("[a-f]", values()), 0..6)) {
            let call = call(given.into_iter().collect());
            let stored = serde_json::to_string(&call).unwrap();
            let found: ReceivedCall = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(found.span(), call.span());
            prop_assert_eq!(found, call, "{}", stored);
        }
    }

    /// As calls were stored before their spans were packed.
    #[test]
    fn a_span_that_was_stored_as_json_is_read() {
        let stored = r#"{"dialect":"gen_ai","response_id":"r","prompt_elsewhere":true,
            "origin":{"resource":{"attributes":[]},"scope":{"name":"lib","version":"","attributes":[]}},
            "span":{"context":{"trace_id":"00000000000000000000000000000005",
                "span_id":"0000000000000006","sampled":true,"trace_state":null},
                "parent":null,"parent_is_remote":false,"name":"chat","kind":"CLIENT",
                "interval":{"start":1,"end":2},"status":"Unset","attributes":[["a",1]],"events":[],
                "received":{"flags":1}}}"#;
        let found: ReceivedCall = serde_json::from_str(stored).unwrap();
        let call = call([("a", 1_i64.into())].into_iter().collect());
        assert_eq!(found.span(), call.span());
        assert_eq!(found.origin, call.origin);
        let stored = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<ReceivedCall>(&stored).unwrap().span(), call.span());
    }

    #[test]
    fn a_call_without_its_span_is_none() {
        for (stored, problem) in [
            (r#"{"dialect":"gen_ai"}"#, "it has no span"),
            (r#"{"dialect":"gen_ai","otlp_zstd":"?"}"#, "it is not base64"),
        ] {
            let error = serde_json::from_str::<ReceivedCall>(stored).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }

    #[test]
    fn a_packed_span_counts_as_what_it_is() {
        let text = "x".repeat(100_000);
        let call = call([("a", text.as_str().into())].into_iter().collect());
        let stored = serde_json::to_string(&call).unwrap();
        assert!(stored.len() < 1_000 && call.bytes() > 100_000, "{}", stored.len());
    }
}
