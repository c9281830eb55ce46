//! What a request for another server may use, to reserve by: cheap, and too much rather than too little.
//!
//! Another server is the judge of what its requests mean, and reads numbers that others would refuse. So what stands for a
//! number is read as one here, and what cannot be read at all is taken for what is usual.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use tollgate_domain::record::Operation;

/// Bytes of JSON that are a token.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens of an answer whose client names no limit.
const USUAL_ANSWER: u64 = 256;
/// Tokens of an image or a sound, about what models take for a square of 1,024 pixels or half a minute: the size of a file says
/// little of that.
const PER_MEDIUM: u64 = 1024;

/// What a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Tokens of its prompt, those of `media` among them.
    pub(crate) input: u64,
    /// Most tokens of all its answers.
    pub(crate) output: u64,
    /// Tokens of its images and sounds.
    pub(crate) media: u64,
}

/// Most tokens that prompt and answers may have, as far as the body of the request tells: of each prompt as many answers as are
/// asked for, each as long as it may be. What the gateway has read itself (`max_tokens`, `choices`) counts if it is more.
pub(crate) fn of(
    operation: Operation,
    body: &[u8],
    max_tokens: Option<u32>,
    choices: Option<u32>,
) -> Needs {
    let known = max_tokens.map(u64::from);
    let answers = match operation {
        Operation::Chat | Operation::TextCompletion | Operation::Responses => {
            serde_json::from_slice::<Said>(body).unwrap_or_default()
        }
        Operation::Embeddings | Operation::Other => {
            let input = body.len() as u64 / BYTES_PER_TOKEN;
            return Needs { input, output: known.unwrap_or_default(), media: 0 };
        }
    };
    let written = (body.len() as u64).saturating_sub(answers.media.bytes) / BYTES_PER_TOKEN;
    let media = answers.media.many.saturating_mul(PER_MEDIUM);
    let longest = answers.longest.max(known).unwrap_or(USUAL_ANSWER);
    let many = match operation {
        Operation::Chat | Operation::TextCompletion => {
            let choices = answers.choices.max(choices.map(u64::from)).unwrap_or(1).max(1);
            choices.saturating_mul(answers.prompts.max(1))
        }
        _ => 1,
    };
    let output = longest.saturating_mul(many);
    Needs { input: written.saturating_add(media), output, media }
}

/// What a body says of its answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Most tokens of one.
    longest: Option<u64>,
    /// Answers to one prompt: those that come, or those of which the best come.
    choices: Option<u64>,
    /// Prompts of their own, where there is a list of them.
    prompts: u64,
    /// Images and sounds of the prompt.
    media: Media,
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Said;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a request")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Said, A::Error> {
                let mut said = Said::default();
                // Of a name that stands there twice the larger holds: servers differ in which they take.
                while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
                    match name.as_ref() {
                        "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                            said.longest = said.longest.max(count(fields.next_value()?));
                        }
                        "n" | "best_of" => {
                            said.choices = said.choices.max(count(fields.next_value()?));
                        }
                        "prompt" => {
                            said.prompts = said.prompts.max(fields.next_value::<Prompts>()?.0);
                        }
                        "messages" | "input" => {
                            fields.next_value_seed(Within::Anything(&mut said.media))?;
                        }
                        _ => {
                            fields.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(said)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A number, as text too, and however it is written.
fn count(said: &RawValue) -> Option<u64> {
    let text = said.get().trim_matches('"').trim();
    if let Ok(count) = text.parse() {
        return Some(count);
    }
    let number = text.parse::<f64>().ok().filter(|number| *number >= 1.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is at least 1, and what is too large becomes the largest"
    )]
    let count = number as u64;
    Some(count)
}

/// Images and sounds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Media {
    many: u64,
    /// Of those that are in the request itself.
    bytes: u64,
}

/// What is looked for images and sounds. Only where a server takes one for an image is it none of the text.
enum Within<'a> {
    Anything(&'a mut Media),
    /// The value of `image_url` or `audio_url`: a URL or an object that has one.
    Place(&'a mut Media),
    /// The value of `input_audio`.
    Sound(&'a mut Media),
    /// The bytes themselves, as a `data:` URL or bare.
    Bytes(&'a mut Media, &'static str),
}

impl<'de> DeserializeSeed<'de> for Within<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        match self {
            Self::Anything(media) => {
                while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
                    fields.next_value_seed(match name.as_ref() {
                        "image_url" | "audio_url" => {
                            media.many += 1;
                            Within::Place(&mut *media)
                        }
                        "input_audio" => {
                            media.many += 1;
                            Within::Sound(&mut *media)
                        }
                        _ => Within::Anything(&mut *media),
                    })?;
                }
            }
            Self::Place(media) | Self::Sound(media) => {
                while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
                    match name.as_ref() {
                        "url" => fields.next_value_seed(Within::Bytes(&mut *media, "data:"))?,
                        "data" => fields.next_value_seed(Within::Bytes(&mut *media, ""))?,
                        _ => {
                            fields.next_value::<IgnoredAny>()?;
                        }
                    }
                }
            }
            Self::Bytes(..) => while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {},
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        match self {
            Self::Anything(media) => {
                while all.next_element_seed(Within::Anything(&mut *media))?.is_some() {}
            }
            _ => while all.next_element::<IgnoredAny>()?.is_some() {},
        }
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let (media, begin) = match self {
            Self::Place(media) => (media, "data:"),
            Self::Bytes(media, begin) => (media, begin),
            Self::Anything(_) | Self::Sound(_) => return Ok(()),
        };
        if text.starts_with(begin) {
            media.bytes = media.bytes.saturating_add(text.len() as u64);
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// How many prompts there are: a list of texts or of lists of tokens has several.
#[derive(Debug)]
struct Prompts(u64);

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all: &RawValue = Deserialize::deserialize(deserializer)?;
        if !all.get().starts_with('[') {
            return Ok(Self(1));
        }
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = u64;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<u64, A::Error> {
                let mut prompts = 0;
                while let Some(one) = all.next_element::<&RawValue>()? {
                    prompts += u64::from(one.get().starts_with(['"', '[']));
                }
                Ok(prompts)
            }
        }
        let mut list = serde_json::Deserializer::from_str(all.get());
        let prompts = list.deserialize_seq(List).map_err(de::Error::custom)?;
        Ok(Self(prompts.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use Operation::{Chat, Embeddings, Other, Responses, TextCompletion};

    use super::*;

    fn output(operation: Operation, body: &str) -> u64 {
        of(operation, body.as_bytes(), None, None).output
    }

    #[test]
    fn each_answer_to_each_prompt_is_counted() {
        let cases = [
            (Chat, r#"{"messages":[]}"#, 256),
            (Chat, r#"{"max_tokens":10,"n":128}"#, 1280),
            (Chat, r#"{"max_completion_tokens":20,"max_tokens":10,"n":2}"#, 40),
            (Chat, r#"{"max_tokens":10,"n":1000}"#, 10_000),
            (Chat, r#"{"max_tokens":"10","n":2.0}"#, 20),
            (Chat, r#"{"max_tokens":1e2,"n":1,"n":3}"#, 300),
            (Chat, r#"{"max_tokens":10,"n":null}"#, 10),
            (Chat, r#"{"max_tokens":10,"n":0}"#, 10),
            (Chat, r#"{"\u006e":7,"max_tokens":10}"#, 70),
            (TextCompletion, r#"{"prompt":"a","max_tokens":10,"best_of":5,"n":2}"#, 50),
            (TextCompletion, r#"{"prompt":["a","b","c"],"max_tokens":10}"#, 30),
            (TextCompletion, r#"{"prompt":[1,2,3],"max_tokens":10}"#, 10),
            (TextCompletion, r#"{"prompt":[[1,2],[3]],"max_tokens":10,"n":4}"#, 80),
            (TextCompletion, r#"{"prompt":[],"max_tokens":10}"#, 10),
            (TextCompletion, r#"{"prompt":["a","b"]}"#, 512),
            (Responses, r#"{"input":"a","max_output_tokens":30,"n":9}"#, 30),
            (Embeddings, r#"{"input":["a","b"]}"#, 0),
            (Chat, "no JSON", 256),
            (Chat, r#"{"max_tokens":18446744073709551615,"n":3}"#, u64::MAX),
        ];
        for (operation, body, expected) in cases {
            assert_eq!(output(operation, body), expected, "{body}");
        }
        // What was read before counts where it is more.
        assert_eq!(of(Chat, b"{}", Some(7), Some(3)).output, 21);
        let other = of(Other, b"12345678", Some(7), None);
        assert_eq!((other.input, other.output, other.media), (2, 7, 0));
    }

    #[test]
    fn images_and_sounds_are_not_text() {
        let data = "A".repeat(900_000);
        let part = |part: &str| {
            let body = format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
            let needs = of(Chat, body.as_bytes(), None, None);
            (needs.media, needs.input - needs.media)
        };
        let image = format!(r#"{{"image_url":{{"url":"data:image/png;base64,{data}"}}}}"#);
        let short = format!(r#"{{"image_url":"data:image/png;base64,{data}"}}"#);
        let sound = format!(r#"{{"input_audio":{{"data":"{data}","format":"wav"}}}}"#);
        let away = r#"{"type":"image_url","image_url":{"url":"https://example.org/a.png"}}"#;
        for (parts, many) in [
            (image.clone(), 1),
            (short.clone(), 1),
            (sound.clone(), 1),
            (away.to_owned(), 1),
            (format!("{image},{sound},{away}"), 3),
        ] {
            let (media, text) = part(&parts);
            assert_eq!(media, many * PER_MEDIUM);
            assert!(text < 80, "{text} tokens of text");
        }
        // What only looks like an image is text, and so is what no server takes for one.
        for text in [
            format!(r#"{{"type":"text","text":"data:image/png;base64,{data}"}}"#),
            format!(r#"{{"input_audio":"{data}"}}"#),
            format!(r#"{{"image_url":{{"url":"{data}"}}}}"#),
            format!(r#"{{"image_url":{{"url":["data:{data}"]}}}}"#),
        ] {
            assert!(part(&text).1 > 225_000, "{}", &text[..60]);
        }
        let answered = of(Responses, format!(r#"{{"input":[{short}]}}"#).as_bytes(), None, None);
        assert_eq!((answered.media, answered.input - PER_MEDIUM < 20), (PER_MEDIUM, true));
        // Deeper than anything is read: by its length, as what cannot be read.
        let deep = format!(r#"{{"messages":{}{image}{}}}"#, "[".repeat(200), "]".repeat(200));
        assert!(of(Chat, deep.as_bytes(), None, None).input > 225_000);
    }
}
