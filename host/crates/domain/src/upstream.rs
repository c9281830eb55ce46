//! The call to another server: which one, when, and what was tried before it answered.

use serde::{Deserialize, Deserializer, Serialize};

use crate::record::{Record, ServedBy};
use crate::time::{Interval, UnixNanos};
use crate::usage::{TokenUsage, UsageSource};

/// The call that answered, or the last one that did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamCall {
    /// The backend, as the configuration names it.
    pub backend: String,
    /// Its server; unknown in old records of calls that nobody answered.
    #[serde(flatten, deserialize_with = "known_server")]
    pub server: Option<Server>,
    /// From the first attempt to the last byte.
    pub interval: Interval,
    /// Status of its answer, if one came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `id` of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// Attempts that failed before this one, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedAttempt>,
    /// Of a request that has started only: who may be asked, in this order, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub planned: Vec<PlannedCall>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// An attempt that brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// The backend that was asked.
    pub backend: String,
    /// When it had failed.
    pub at: UnixNanos,
    /// How.
    pub error: String,
}

/// A call that may be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedCall {
    /// The backend.
    pub backend: String,
    /// Its server; without a host it is the gateway itself.
    pub server: Server,
    /// Who serves by it, and as which model.
    pub by: ServedBy,
}

impl PlannedCall {
    /// That a model in the gateway's own process steps in, where no backend answers.
    #[must_use]
    pub fn here(by: ServedBy) -> Self {
        let server = Server { host: String::new(), port: 0 };
        Self { backend: String::new(), server, by }
    }

    fn is_here(&self) -> bool {
        self.server.host.is_empty()
    }
}

impl Record {
    /// It is at this place of the plan of its call that the request is now, or was when its process ended: that is who
    /// serves it, and by whose price. A place that is not in the plan changes nothing.
    pub fn asks_planned(&mut self, place: u16) {
        let Some(call) = &mut self.upstream else { return };
        let planned = std::mem::take(&mut call.planned);
        let Some(planned) = planned.into_iter().nth(place.into()) else { return };
        let here = planned.is_here();
        let PlannedCall { backend, server, by } = planned;
        match here {
            false => (call.backend, call.server) = (backend, Some(server)),
            // All who were asked before have failed, and which of them was the last is not known.
            true => self.upstream = None,
        }
        if let Some(usage) = &mut self.usage {
            if here {
                // What was estimated is of another's tokenizer, and is not read here before the engine says so.
                (usage.tokens, usage.source) = (TokenUsage::default(), UsageSource::Reported);
            }
            usage.provider.clone_from(&by.provider);
            usage.response_model.clone_from(&by.model);
        }
        self.served_by = Some(by);
    }
}

/// An empty host was written where none was known.
fn known_server<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Server>, D::Error> {
    let server = Option::<Server>::deserialize(deserializer)?;
    Ok(server.filter(|server| !server.host.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_they_were_ever_written() {
        let old = |host: &str, port: u16| {
            format!(
                r#"{{"backend":"b","host":"{host}","port":{port},"interval":{{"start":1,"end":2}}}}"#
            )
        };
        let here = Server { host: "10.0.0.7".to_owned(), port: 8000 };
        for (text, server) in [(old("10.0.0.7", 8000), Some(here)), (old("", 0), None)] {
            let call: UpstreamCall = serde_json::from_str(&text).unwrap();
            assert_eq!((&call.server, &call.planned), (&server, &Vec::new()), "{text}");
            let again = serde_json::to_string(&call).unwrap();
            assert_eq!(serde_json::from_str::<UpstreamCall>(&again).unwrap(), call);
            assert_eq!(again == text, server.is_some(), "what was known is written as before");
        }
    }
}
