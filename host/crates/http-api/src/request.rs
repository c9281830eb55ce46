//! Reading requests: from bytes to what the gateway serves, or to a refusal that names the
//! offending parameter.
//!
//! Bodies are read field by field and never into a tree: what nobody asks for is skipped, so a
//! body costs memory in proportion to its size, whatever is in it. Unknown fields are ignored, as
//! vLLM does; known ones that are not served yet are refused unless they change nothing
//! ([`unserved`]), because an answer that silently disregards them would be a wrong answer.

mod chat;
mod completion;
mod embedding;
mod fields;
mod format;
mod parameters;
pub(crate) mod tokens;
mod tuning;
mod unserved;

use tollgate_domain::ErrorKind;
use tollgate_domain::record::{Asked, Operation};
use tollgate_gateway::{Arrival, Call, Forward, Places, Prompt, Refusal, Tuning, form_field};

use crate::wire::Wire;

use fields::{Fields, Invalid};
use parameters::Parameters;

/// A well-formed request.
#[derive(Debug)]
pub(crate) struct Request {
    parameters: Parameters,
    /// Set if the model in this process can answer it.
    prompt: Option<Prompt>,
    /// How that model is to.
    tuning: Tuning,
    /// How its answer is told.
    wire: Wire,
    /// Whether another server can answer it.
    forward: bool,
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

/// Reads the body of a request, which is JSON, or what `content_type` says if the operation is not known here. `places` says where the model that it names is served.
///
/// What another server is to answer is only glanced at: that server knows best what it takes.
///
/// # Errors
/// [`Malformed`] with the first parameter that is wrong, in the order in which they are read.
pub(crate) fn parse(
    operation: Operation,
    content_type: Option<&str>,
    body: &[u8],
    places: impl FnOnce(&str, Option<&str>) -> Places,
) -> Result<Request, Box<Malformed>> {
    let fields = match Fields::parse(body) {
        Ok(fields) => fields,
        // It need not be JSON.
        Err(_) if operation == Operation::Other => Fields::none(),
        Err(invalid) => return Err(Box::new(Malformed::from(Refusal::from(invalid)))),
    };
    let model = match form(operation, content_type, body) {
        Some(model) => Some(model),
        None => parameters::model(&fields).ok().flatten(),
    };
    let model = model.unwrap_or_default();
    let user = parameters::user(&fields).ok().flatten();
    let places = places(&model, user.as_deref());
    // What the model in this process never answers is read no further, wherever its model may be.
    let never = matches!(operation, Operation::Responses | Operation::Other);
    let reads = places.here || !(places.elsewhere || never);
    let here = reads.then(|| read(operation, &fields));
    let malformed = |invalid: Invalid| {
        let Parameters { asked, user, .. } = Parameters::glance(operation, &fields);
        Err(Box::new(Malformed { refusal: invalid.into(), asked, user }))
    };
    match here {
        Some(Ok(Here { parameters, prompt, tuning, wire })) => {
            let prompt = Some(prompt);
            Ok(Request { parameters, prompt, tuning, wire, forward: places.elsewhere })
        }
        Some(Err(invalid)) if !places.elsewhere => malformed(invalid),
        _ => {
            if let Err(invalid) = parameters::certain(operation, &fields) {
                return malformed(invalid);
            }
            let mut parameters = Parameters::glance(operation, &fields);
            parameters.asked.model = model;
            let (tuning, wire) = (Tuning::default(), Wire::default());
            Ok(Request { parameters, prompt: None, tuning, wire, forward: true })
        }
    }
}

/// The model that a form names, as questions about sound have it.
fn form(operation: Operation, content_type: Option<&str>, body: &[u8]) -> Option<String> {
    if operation != Operation::Other {
        return None;
    }
    let model = form_field(content_type?, body, "model")?;
    let model = str::from_utf8(body.get(model)?).ok()?;
    parameters::is_name(model).then(|| model.to_owned())
}

/// What the model in this process needs of a request.
struct Here {
    parameters: Parameters,
    prompt: Prompt,
    tuning: Tuning,
    wire: Wire,
}

/// Reads all of it, as the model in this process needs it.
fn read(operation: Operation, fields: &Fields<'_>) -> Result<Here, Invalid> {
    let prompt = match operation {
        Operation::Chat => Prompt::Chat(chat::messages(fields)?),
        Operation::TextCompletion => completion::prompt(fields)?,
        Operation::Embeddings => {
            let (parameters, prompt, tuning) = embedding::read(fields)?;
            let wire = Wire { base64: embedding::base64(fields)?, ..Wire::default() };
            return Ok(Here { parameters, prompt, tuning, wire });
        }
        Operation::Responses | Operation::Other => {
            let message = "No backend serves this for this model; the model in this process answers \
                           chats, completions and embeddings only.";
            return Err(Invalid { message: message.to_owned(), param: None });
        }
    };
    let mut parameters = Parameters::read(operation, fields)?;
    let tuning = tuning::read(operation, fields, &parameters.asked)?;
    unserved::check(fields)?;
    parameters.asked.prompt_characters = prompt.characters();
    let wire = Wire::new(parameters.include_usage, &tuning);
    Ok(Here { parameters, prompt, tuning, wire })
}

impl Request {
    /// How the answer of the model in this process is told.
    pub(crate) fn wire(&self) -> Wire {
        self.wire
    }

    /// What the gateway is to serve; `forward` is what this was read from, as another server gets
    /// it.
    pub(crate) fn into_call(self, arrival: Arrival, forward: Forward) -> Call {
        let Parameters { asked, include_usage: _, user } = self.parameters;
        let forward = self.forward.then_some(forward);
        Call { arrival, asked, user, prompt: self.prompt, tuning: self.tuning, forward }
    }
}

impl From<Invalid> for Refusal {
    fn from(Invalid { message, param }: Invalid) -> Self {
        let refusal = Self::new(ErrorKind::InvalidRequest, message);
        match param {
            Some(param) => refusal.param(param),
            None => refusal,
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

    fn here(_: &str, _: Option<&str>) -> Places {
        Places { here: true, elsewhere: false }
    }

    fn elsewhere(_: &str, _: Option<&str>) -> Places {
        Places { here: false, elsewhere: true }
    }

    #[test]
    fn what_could_be_read_of_a_bad_request_goes_on_record() {
        let body = json!({"model": "m", "user": "acme", "stream": true, "prompt": 7});
        let body = body.to_string();
        let malformed = parse(Operation::TextCompletion, None, body.as_bytes(), here).unwrap_err();
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
        for operation in [
            Operation::Chat,
            Operation::TextCompletion,
            Operation::Embeddings,
            Operation::Responses,
        ] {
            for places in [here("", None), elsewhere("", None)] {
                if let Err(malformed) = parse(operation, None, body, |_, _| places) {
                    assert_eq!(malformed.refusal.kind.http_status(), 400);
                    assert!(malformed.refusal.message.len() < 500, "{}", malformed.refusal.message);
                }
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
        assert!(parse(Operation::TextCompletion, None, deep.as_bytes(), here).is_ok());
    }

    #[test]
    fn what_must_be_certain_is_refused_wherever_it_goes() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":"true"}"#;
        for places in [here, elsewhere] {
            let malformed = parse(Operation::Chat, None, body, places).unwrap_err();
            assert_eq!(malformed.refusal.param.as_deref(), Some("stream"));
            assert_eq!(malformed.asked.model, "m");
        }
        let body = br#"{"model":"m","input":"Hi","background":true}"#;
        let malformed = parse(Operation::Responses, None, body, elsewhere).unwrap_err();
        assert_eq!(malformed.refusal.param.as_deref(), Some("background"));
        // Who has no such model says so, as for a chat.
        let nowhere = |_: &str, _: Option<&str>| Places { here: false, elsewhere: false };
        let body = br#"{"model":"m","input":"Hi"}"#;
        assert!(
            parse(Operation::Responses, None, body, nowhere).is_ok_and(|request| request.forward)
        );
        let malformed = parse(Operation::Responses, None, body, here).unwrap_err();
        assert!(malformed.refusal.message.contains("chats, completions and embeddings only"));
    }

    #[test]
    fn what_another_server_answers_is_not_judged_here() {
        let body = br#"{"model":"m","messages":[{"role":"robot","content":[{"type":"text","text":"Hey"}]},
            {"content":"you"}],"tools":[{}],"temperature":"hot","max_completion_tokens":9,"user":"acme"}"#;
        assert!(parse(Operation::Chat, None, body, here).is_err());
        let both = |_: &str, _: Option<&str>| Places { here: true, elsewhere: true };
        for places in [elsewhere, both] {
            let request = parse(Operation::Chat, None, body, places).unwrap();
            assert!(request.forward && request.prompt.is_none());
            let Parameters { asked, user, .. } = request.parameters;
            assert_eq!((asked.model.as_str(), asked.max_tokens), ("m", Some(9)));
            assert_eq!(asked.temperature, None);
            assert_eq!(user.as_deref(), Some("acme"));
        }
        let plain = br#"{"model":"m","prompt":"Hey"}"#;
        let request = parse(Operation::TextCompletion, None, plain, both).unwrap();
        assert!(request.forward && request.prompt.is_some(), "either can answer it");
    }
}
