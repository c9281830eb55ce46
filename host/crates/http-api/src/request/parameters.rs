//! The parameters that both operations share.

use std::ops::RangeInclusive;

use tollgate_domain::record::{Asked, Operation};

use super::fields::{Field, Fields, Invalid, Kind};

/// Stop strings in one request, as OpenAI has it.
const MOST_STOPS: usize = 4;

/// Answers to one prompt, as OpenAI has it.
const MOST_CHOICES: i128 = 128;

/// Longest stop string, and longest name of a model or a user, in bytes. They are kept in memory
/// or go on record with every request.
const LONGEST_STOP: usize = 1024;
const LONGEST_NAME: usize = 256;

/// What is asked for, and for whom.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parameters {
    /// All but the length of the prompt.
    pub(super) asked: Asked,
    pub(super) include_usage: bool,
    pub(super) user: Option<String>,
}

impl Parameters {
    /// Reads them for the model in this process, which does what they say.
    pub(super) fn read(operation: Operation, fields: &Fields<'_>) -> Result<Self, Invalid> {
        let stream = stream(fields)?;
        let asked = Asked {
            model: model(fields)?.unwrap_or_default(),
            max_tokens: max_tokens(operation, fields)?,
            temperature: temperature(fields)?,
            top_p: top_p(fields)?,
            top_k: top_k(fields)?,
            seed: seed(fields)?,
            stop: stop(fields)?,
            stream,
            prompt_characters: 0,
            choices: choices(fields)?,
        };
        Ok(Self { asked, include_usage: include_usage(fields, stream)?, user: user(fields)? })
    }

    /// Reads what can be read, for another server, which has its own mind about the rest.
    pub(super) fn glance(operation: Operation, fields: &Fields<'_>) -> Self {
        let asked = Asked {
            model: model(fields).ok().flatten().unwrap_or_default(),
            max_tokens: max_tokens(operation, fields).ok().flatten(),
            temperature: temperature(fields).ok().flatten(),
            top_p: top_p(fields).ok().flatten(),
            top_k: top_k(fields).ok().flatten(),
            seed: seed(fields).ok().flatten(),
            stop: stop(fields).unwrap_or_default(),
            stream: stream(fields).unwrap_or_default(),
            prompt_characters: 0,
            choices: choices(fields).ok().flatten(),
        };
        Self { asked, include_usage: false, user: user(fields).ok().flatten() }
    }
}

/// What must be certain of a request for another server: how its answer comes, since usage is asked for and taken out by
/// that, and that it comes. Servers take `1` or `"yes"` for true where others do not, so they are refused.
pub(super) fn certain(operation: Operation, fields: &Fields<'_>) -> Result<(), Invalid> {
    if operation == Operation::Other {
        return Ok(());
    }
    stream(fields)?;
    let options = fields.get("stream_options").filter(|options| options.kind() == Kind::Object);
    if let Some(options) = options
        && let Some(asked) = options.fields()?.get("include_usage")
    {
        asked.boolean()?;
    }
    match fields.get("background") {
        Some(field) if operation == Operation::Responses && field.boolean()? => {
            let message = "`background` must be false or left out: what is fetched later, by other \
                           requests, cannot be priced. Ask for a stream where an answer takes long.";
            Err(field.refuse(message))
        }
        _ => Ok(()),
    }
}

/// The model's name. Whether there is such a model is the gateway's to know.
pub(super) fn model(fields: &Fields<'_>) -> Result<Option<String>, Invalid> {
    let Some(field) = fields.get("model") else { return Ok(None) };
    match name(&field)? {
        name if name.is_empty() => Err(field.refuse("`model` must not be empty.")),
        name => Ok(Some(name)),
    }
}

/// The `user` field. An empty one names nobody.
pub(super) fn user(fields: &Fields<'_>) -> Result<Option<String>, Invalid> {
    let user = fields.get("user").map(|field| name(&field)).transpose()?;
    Ok(user.filter(|user| !user.is_empty()))
}

/// Whether the answer is streamed.
pub(super) fn stream(fields: &Fields<'_>) -> Result<bool, Invalid> {
    fields.get("stream").map_or(Ok(false), |field| field.boolean())
}

/// Whether a text may be the name of a model.
pub(super) fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn name(field: &Field<'_>) -> Result<String, Invalid> {
    let name = field.text()?;
    if name.len() > LONGEST_NAME {
        let message = format!("`{}` must be at most {LONGEST_NAME} bytes long.", field.path());
        return Err(field.refuse(message));
    }
    Ok(name)
}

/// Newer operations have newer names for it, which win.
fn max_tokens(operation: Operation, fields: &Fields<'_>) -> Result<Option<u32>, Invalid> {
    // A completion that begins with its prompt may be nothing else.
    let echo = || fields.get("echo").is_some_and(|echo| echo.boolean() == Ok(true));
    let least = i128::from(operation != Operation::TextCompletion || !echo());
    let limit = |name| {
        let Some(field) = fields.get(name) else { return Ok(None) };
        let limit = field.integer_in(least.., "an integer of at least 1")?;
        // More than any context holds is as good as the most.
        Ok(Some(u32::try_from(limit).unwrap_or(u32::MAX)))
    };
    let older = limit("max_tokens")?;
    let newer = match operation {
        Operation::Chat => limit("max_completion_tokens")?,
        Operation::Responses => limit("max_output_tokens")?,
        Operation::TextCompletion | Operation::Embeddings | Operation::Other => None,
    };
    Ok(newer.or(older))
}

fn temperature(fields: &Fields<'_>) -> Result<Option<f64>, Invalid> {
    number_in(fields, "temperature", 0.0..=2.0, "a number from 0 to 2")
}

fn top_p(fields: &Fields<'_>) -> Result<Option<f64>, Invalid> {
    number_in(fields, "top_p", f64::MIN_POSITIVE..=1.0, "a number above 0 and at most 1")
}

pub(super) fn number_in(
    fields: &Fields<'_>,
    name: &str,
    range: RangeInclusive<f64>,
    expected: &str,
) -> Result<Option<f64>, Invalid> {
    let Some(field) = fields.get(name) else { return Ok(None) };
    let number = field.number().filter(|number| range.contains(number));
    number.map(Some).ok_or_else(|| field.must_be(expected))
}

/// vLLM's: 0 and -1 mean all.
fn top_k(fields: &Fields<'_>) -> Result<Option<u32>, Invalid> {
    let Some(field) = fields.get("top_k") else { return Ok(None) };
    let k = field.integer_in(-1.., "an integer of at least 1, or 0 or -1 for all")?;
    Ok((k > 0).then(|| u32::try_from(k).unwrap_or(u32::MAX)))
}

fn seed(fields: &Fields<'_>) -> Result<Option<u64>, Invalid> {
    let Some(field) = fields.get("seed") else { return Ok(None) };
    let expected = "an integer of 64 bits, sign included";
    let seed = field.integer().and_then(|seed| i64::try_from(seed).ok());
    seed.map(|seed| Some(seed.cast_unsigned())).ok_or_else(|| field.must_be(expected))
}

/// `n`. Of `best_of` only as many are made as are told: whoever wants the best of more asks for all of
/// them and chooses by their `logprobs`, and sees what each cost.
fn choices(fields: &Fields<'_>) -> Result<Option<u32>, Invalid> {
    let Some(field) = fields.get("n") else { return best_of(fields, 1).map(|()| None) };
    let n = field.integer_in(1..=MOST_CHOICES, "an integer from 1 to 128")?;
    best_of(fields, n)?;
    Ok(u32::try_from(n).ok())
}

fn best_of(fields: &Fields<'_>, n: i128) -> Result<(), Invalid> {
    match fields.get("best_of") {
        Some(field) if field.integer() != Some(n) => {
            let message = format!(
                "`best_of` must be {n}, which is `n`, or left out. Ask for more choices with `n`, and \
                 choose among them by their `logprobs`."
            );
            Err(field.refuse(message))
        }
        _ => Ok(()),
    }
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, Invalid> {
    let Some(field) = fields.get("stop") else { return Ok(Vec::new()) };
    if field.kind() == Kind::Text {
        return Ok(vec![stop_text(&field)?]);
    }
    let stops = field.elements("a string or an array of strings")?;
    if stops.len() > MOST_STOPS {
        let message =
            format!("`stop` must have at most {MOST_STOPS} strings, not {}.", stops.len());
        return Err(field.refuse(message));
    }
    stops.iter().map(stop_text).collect()
}

fn stop_text(field: &Field<'_>) -> Result<String, Invalid> {
    let text = field.text()?;
    if text.is_empty() || text.len() > LONGEST_STOP {
        let message = format!("`{}` must be 1 to {LONGEST_STOP} bytes long.", field.path());
        return Err(field.refuse(message));
    }
    Ok(text)
}

fn include_usage(fields: &Fields<'_>, stream: bool) -> Result<bool, Invalid> {
    let Some(field) = fields.get("stream_options") else { return Ok(false) };
    if !stream {
        return Err(field.refuse("`stream_options` is allowed only with `stream`: true."));
    }
    let options = field.fields()?;
    if let Some(option) = options.get("continuous_usage_stats")
        && option.boolean()?
    {
        let message = format!("`{}` is not supported yet, except as false.", option.path());
        return Err(option.refuse(message));
    }
    options.get("include_usage").map_or(Ok(false), |option| option.boolean())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Parameters, Invalid> {
        Parameters::read(Operation::Chat, &Fields::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn parameters_are_read() {
        let none = Parameters::default;
        let asked = |asked: Asked| Parameters { asked, ..none() };
        let nothing = Asked::default;
        let cases = [
            ("{}", none()),
            (r#"{"model":null,"stop":null,"stream":null,"user":"","unknown":[{}]}"#, none()),
            (
                r#"{"model":"m","user":"u"}"#,
                Parameters {
                    user: Some("u".to_owned()),
                    ..asked(Asked { model: "m".to_owned(), ..nothing() })
                },
            ),
            (r#"{"max_tokens":5}"#, asked(Asked { max_tokens: Some(5), ..nothing() })),
            (
                r#"{"max_tokens":5,"max_completion_tokens":7}"#,
                asked(Asked { max_tokens: Some(7), ..nothing() }),
            ),
            (r#"{"max_tokens":1e300}"#, asked(Asked { max_tokens: Some(u32::MAX), ..nothing() })),
            (
                r#"{"temperature":0,"top_p":1}"#,
                asked(Asked { temperature: Some(0.0), top_p: Some(1.0), ..nothing() }),
            ),
            (r#"{"top_k":-1}"#, none()),
            (r#"{"top_k":40}"#, asked(Asked { top_k: Some(40), ..nothing() })),
            (r#"{"seed":-1}"#, asked(Asked { seed: Some(u64::MAX), ..nothing() })),
            (r#"{"stop":"a"}"#, asked(Asked { stop: vec!["a".to_owned()], ..nothing() })),
            (r#"{"stop":[]}"#, none()),
            (
                r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
                Parameters { include_usage: true, ..asked(Asked { stream: true, ..nothing() }) },
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(read(body).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn what_another_server_may_read_otherwise_is_refused() {
        let cases = [
            (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, None),
            (r#"{"stream":null,"stream_options":null,"background":null}"#, None),
            // Not an object: the server will say so.
            (r#"{"stream_options":7,"background":false}"#, None),
            (r#"{"stream":1}"#, Some("stream")),
            (r#"{"stream":1.0}"#, Some("stream")),
            (r#"{"stream":"true"}"#, Some("stream")),
            (r#"{"stream":"Yes"}"#, Some("stream")),
            (r#"{"stream":0}"#, Some("stream")),
            (
                r#"{"stream":true,"stream_options":{"include_usage":"on"}}"#,
                Some("stream_options.include_usage"),
            ),
            (r#"{"background":true}"#, Some("background")),
            (r#"{"background":"t"}"#, Some("background")),
        ];
        for (body, param) in cases {
            let fields = Fields::parse(body.as_bytes()).unwrap();
            let found = certain(Operation::Responses, &fields).err();
            assert_eq!(found.and_then(|invalid| invalid.param).as_deref(), param, "{body}");
            assert_eq!(certain(Operation::Other, &fields), Ok(()));
        }
        let fields = Fields::parse(br#"{"background":true}"#).unwrap();
        assert_eq!(certain(Operation::Chat, &fields), Ok(()), "it means nothing there");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(LONGEST_NAME + 1));
        let cases = [
            (r#"{"model":7}"#, "model", "`model` must be a string, not 7."),
            (r#"{"model":""}"#, "model", "`model` must not be empty."),
            (r#"{"user":["a"]}"#, "user", "`user` must be a string, not an array."),
            (&long, "user", "`user` must be at most 256 bytes long."),
            (r#"{"max_tokens":0}"#, "max_tokens", "an integer of at least 1, not 0."),
            (r#"{"max_tokens":-3}"#, "max_tokens", "at least 1, not -3."),
            (r#"{"max_tokens":"5"}"#, "max_tokens", "at least 1, not a string."),
            (r#"{"max_tokens":1.5}"#, "max_tokens", "at least 1, not 1.5."),
            (r#"{"max_completion_tokens":0}"#, "max_completion_tokens", "not 0."),
            (r#"{"temperature":2.1}"#, "temperature", "a number from 0 to 2, not 2.1."),
            (r#"{"temperature":-0.1}"#, "temperature", "from 0 to 2, not -0.1."),
            (r#"{"temperature":"hot"}"#, "temperature", "from 0 to 2, not a string."),
            (r#"{"temperature":1e999}"#, "temperature", "from 0 to 2, not 1e999."),
            (r#"{"top_p":0}"#, "top_p", "above 0 and at most 1, not 0."),
            (r#"{"top_p":1.01}"#, "top_p", "above 0 and at most 1, not 1.01."),
            (r#"{"top_k":-2}"#, "top_k", "not -2."),
            (r#"{"seed":1.5}"#, "seed", "64 bits, sign included, not 1.5."),
            (r#"{"seed":9223372036854775808}"#, "seed", "not 9223372036854775808."),
            (r#"{"n":0}"#, "n", "`n` must be an integer from 1 to 128, not 0."),
            (r#"{"n":129}"#, "n", "not 129."),
            (r#"{"n":"1"}"#, "n", "not a string."),
            (r#"{"best_of":3}"#, "best_of", "`best_of` must be 1, which is `n`, or left out."),
            (r#"{"n":2,"best_of":3}"#, "best_of", "must be 2, which is `n`"),
            (r#"{"stop":7}"#, "stop", "a string or an array of strings, not 7."),
            (r#"{"stop":""}"#, "stop", "`stop` must be 1 to 1024 bytes long."),
            (r#"{"stop":["a",""]}"#, "stop[1]", "`stop[1]` must be 1 to 1024 bytes long."),
            (r#"{"stop":["a",null]}"#, "stop[1]", "`stop[1]` must be a string, not null."),
            (r#"{"stop":["a","b","c","d","e"]}"#, "stop", "at most 4 strings, not 5."),
            (r#"{"stream":"yes"}"#, "stream", "`stream` must be true or false, not a string."),
            (r#"{"stream_options":{}}"#, "stream_options", "only with `stream`: true."),
            (r#"{"stream":true,"stream_options":7}"#, "stream_options", "an object, not 7."),
            (
                r#"{"stream":true,"stream_options":{"include_usage":1}}"#,
                "stream_options.include_usage",
                "true or false, not 1.",
            ),
            (r#"{"model":"\ud800"}"#, "model", "`model` cannot be read: "),
        ];
        for (body, param, message) in cases {
            let invalid = read(body).unwrap_err();
            assert_eq!(invalid.param.as_deref(), Some(param), "{body}");
            assert!(invalid.message.contains(message), "{body}: {}", invalid.message);
        }
    }
}
