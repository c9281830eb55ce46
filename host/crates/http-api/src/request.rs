//! Reading requests: from bytes to what the gateway serves, or to a refusal that names the
//! offending parameter.
//!
//! Bodies are read field by field and never into a tree: what nobody asks for is skipped, so a
//! body costs memory in proportion to its size, whatever is in it. Unknown fields are ignored, as
//! vLLM does; known ones that are not served yet are refused unless they change nothing
//! ([`unserved`]), because an answer that silently disregards them would be a wrong answer.

mod chat;
mod completion;
mod fields;
mod parameters;
mod unserved;

use tollgate_domain::ErrorKind;
use tollgate_domain::record::{Asked, Operation};
use tollgate_gateway::{Arrival, Call, Prompt, Refusal};

use fields::{Fields, Invalid};
use parameters::Parameters;

/// A well-formed request.
#[derive(Debug)]
pub(crate) struct Request {
    prompt: Prompt,
    parameters: Parameters,
}

/// Why a request is not well-formed, and what could be read of it all the same.
#[derive(Debug)]
pub(crate) struct Malformed {
    /// What is wrong.
    pub(crate) refusal: Refusal,
    /// What was asked.
    pub(crate) asked: Asked,
    /// Who asked.
    pub(crate) user: Option<String>,
}

/// Reads the body of a request.
///
/// # Errors
/// [`Malformed`] with the first parameter that is wrong, in the order in which they are read.
pub(crate) fn parse(operation: Operation, body: &[u8]) -> Result<Request, Box<Malformed>> {
    let fields = Fields::parse(body).map_err(|invalid| Malformed::from(Refusal::from(invalid)))?;
    read(operation, &fields).map_err(|invalid| {
        let asked = Asked {
            model: parameters::model(&fields).ok().flatten().unwrap_or_default(),
            stream: parameters::stream(&fields).unwrap_or_default(),
            ..Asked::default()
        };
        let user = parameters::user(&fields).ok().flatten();
        Box::new(Malformed { refusal: invalid.into(), asked, user })
    })
}

fn read(operation: Operation, fields: &Fields<'_>) -> Result<Request, Invalid> {
    let prompt = match operation {
        Operation::Chat => Prompt::Chat(chat::messages(fields)?),
        Operation::TextCompletion => completion::prompt(fields)?,
    };
    let parameters = Parameters::read(operation, fields)?;
    unserved::check(fields)?;
    Ok(Request { prompt, parameters })
}

impl Request {
    /// Whether the answer is streamed.
    pub(crate) fn stream(&self) -> bool {
        self.parameters.stream
    }

    /// Whether a streamed answer ends with a usage chunk.
    pub(crate) fn include_usage(&self) -> bool {
        self.parameters.include_usage
    }

    /// What the gateway is to serve.
    pub(crate) fn into_call(self, arrival: Arrival) -> Call {
        let Parameters {
            model,
            max_tokens,
            temperature,
            top_p,
            top_k,
            seed,
            stop,
            stream,
            include_usage: _,
            user,
        } = self.parameters;
        Call {
            arrival,
            model,
            prompt: self.prompt,
            max_tokens,
            temperature,
            top_p,
            top_k,
            seed,
            stop,
            stream,
            user,
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(Invalid { message, param }: Invalid) -> Self {
        Self {
            param: param.map(String::into_boxed_str),
            ..Self::new(ErrorKind::InvalidRequest, message)
        }
    }
}

impl From<Refusal> for Malformed {
    /// A request of which nothing could be read.
    fn from(refusal: Refusal) -> Self {
        Self { refusal, asked: Asked::default(), user: None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_could_be_read_of_a_bad_request_goes_on_record() {
        let body = json!({"model": "m", "user": "acme", "stream": true, "prompt": 7});
        let malformed = parse(Operation::TextCompletion, body.to_string().as_bytes()).unwrap_err();
        assert_eq!(malformed.refusal.param.as_deref(), Some("prompt"));
        assert_eq!(malformed.asked.model, "m");
        assert!(malformed.asked.stream);
        assert_eq!(malformed.user.as_deref(), Some("acme"));
    }

    /// JSON of any shape, often under names that mean something.
    fn any_json() -> impl Strategy<Value = Value> {
        let names = prop::sample::select(vec![
            "model",
            "prompt",
            "messages",
            "role",
            "content",
            "type",
            "text",
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "seed",
            "stop",
            "stream",
            "stream_options",
            "include_usage",
            "user",
            "n",
            "tools",
            "logprobs",
            "response_format",
            "",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop::sample::select(vec!["user", "text", "assistant", "", "\u{0}", "é"])
                .prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..8).prop_map(|pairs| {
                    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                }),
            ]
        })
    }

    fn never_panics(body: &[u8]) {
        for operation in [Operation::Chat, Operation::TextCompletion] {
            if let Err(malformed) = parse(operation, body) {
                assert_eq!(malformed.refusal.kind.http_status(), 400);
                assert!(malformed.refusal.message.len() < 500, "{}", malformed.refusal.message);
            }
        }
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(body in any_json()) {
            never_panics(body.to_string().as_bytes());
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..64)) {
            never_panics(&body);
        }
    }

    #[test]
    fn deep_nesting_is_read_or_refused() {
        for open in ["[", "{\"prompt\":", "{\"messages\":[{\"content\":["] {
            never_panics(open.repeat(100_000).as_bytes());
        }
        let deep =
            format!("{{\"x\":{}0{},\"prompt\":\"Hi\"}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(Operation::TextCompletion, deep.as_bytes()).is_ok());
    }
}
