//! How likely tokens were, in OpenAI's two shapes: of chats a list of objects, of completions lists
//! side by side.
//!
//! An answer that begins with its prompt tells of that too; vLLM's `prompt_logprobs` is a list of its
//! own, of objects by the tokens' ids. Nothing is told of the first token of a prompt, which nothing
//! comes before.
//!
//! Every token that was sampled is told of, as vLLM does, also the one that ended the text and those
//! of a stop string. A token that is part of a character is written by its bytes.

use std::fmt::Write as _;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tollgate_domain::record::Operation;
use tollgate_gateway::{TokenLikely, TokenTold};

/// What JSON, which has no infinity, says of a token that the model would never choose; OpenAI too.
const NEVER: f32 = -9999.0;

/// `logprobs` of a choice, or of a part of it.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Logprobs {
    Chat { content: Vec<Told>, refusal: Option<()> },
    Completion(Lists),
}

#[derive(Serialize)]
pub(crate) struct Told {
    #[serde(flatten)]
    token: Token,
    top_logprobs: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    token: String,
    logprob: f32,
    bytes: Box<[u8]>,
}

#[derive(Serialize)]
pub(crate) struct Lists {
    text_offset: Vec<u64>,
    token_logprobs: Vec<Option<f32>>,
    tokens: Vec<String>,
    top_logprobs: Vec<Option<Top>>,
}

/// `prompt_logprobs`: one for each token of the prompt.
#[derive(Serialize)]
pub(crate) struct Prompt(Vec<Option<Place>>);

/// What might stand in one place of a prompt, by id: first what does, then the likeliest.
struct Place(Vec<(u32, Likely)>);

#[derive(Serialize)]
struct Likely {
    logprob: f32,
    rank: u32,
    decoded_token: String,
}

/// Tokens and how likely they are, each once, the likeliest first.
struct Top(Vec<(String, f32)>);

/// Writes what is told of the tokens of one choice, piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writer {
    /// Characters that have begun in the text so far.
    characters: u64,
}

impl Writer {
    /// What comes next; `None` if nothing is told.
    pub(crate) fn write(
        &mut self,
        operation: Operation,
        tokens: Vec<TokenTold>,
    ) -> Option<Logprobs> {
        if tokens.is_empty() {
            return None;
        }
        Some(match operation {
            Operation::Chat => {
                let content = tokens.into_iter().map(told).collect();
                Logprobs::Chat { content, refusal: None }
            }
            _ => Logprobs::Completion(self.lists(tokens)),
        })
    }

    /// Writes `prompt_logprobs`.
    pub(crate) fn prompt(tokens: &[TokenTold]) -> Prompt {
        Prompt(tokens.iter().map(place).collect())
    }

    fn lists(&mut self, tokens: Vec<TokenTold>) -> Lists {
        let mut lists = Lists {
            text_offset: Vec::with_capacity(tokens.len()),
            token_logprobs: Vec::with_capacity(tokens.len()),
            tokens: Vec::with_capacity(tokens.len()),
            top_logprobs: Vec::with_capacity(tokens.len()),
        };
        for told in tokens {
            lists.text_offset.push(self.offset(&told));
            let logprob = told.logprob.map(finite);
            let name = name("bytes:", &told.bytes);
            lists.top_logprobs.push(logprob.map(|logprob| top(&told.top, (&name, logprob))));
            lists.token_logprobs.push(logprob);
            lists.tokens.push(name);
        }
        lists
    }

    /// Where in the text a token begins, in characters: in the middle of one, where that begins.
    fn offset(&mut self, told: &TokenTold) -> u64 {
        let continues = |byte: &u8| (0x80..0xc0).contains(byte);
        let within = told.bytes.first().is_some_and(continues) && !told.special;
        let offset = self.characters.saturating_sub(u64::from(within));
        if !told.special {
            self.characters += told.bytes.iter().filter(|byte| !continues(byte)).count() as u64;
        }
        offset
    }
}

/// Of these the likeliest, and the one that stands there.
fn top(likeliest: &[TokenLikely], (name, logprob): (&str, f32)) -> Top {
    let mut top: Vec<(String, f32)> = Vec::with_capacity(likeliest.len() + 1);
    let likely = likeliest.iter().map(|one| (self::name("bytes:", &one.bytes), one.logprob));
    for (likely, logprob) in likely.chain([(name.to_owned(), logprob)]) {
        if top.iter().all(|(known, _)| *known != likely) {
            top.push((likely, finite(logprob)));
        }
    }
    Top(top)
}

/// What might stand in the place of one token of a prompt.
fn place(told: &TokenTold) -> Option<Place> {
    let likely = |bytes: &[u8], logprob: f32, rank: u32| Likely {
        logprob: finite(logprob),
        rank,
        decoded_token: String::from_utf8_lossy(bytes).into_owned(),
    };
    let here = (told.id, likely(&told.bytes, told.logprob?, told.rank));
    let others = (1u32..).zip(&told.top).filter(|(_, one)| one.id != told.id);
    let others = others.map(|(rank, one)| (one.id, likely(&one.bytes, one.logprob, rank)));
    Some(Place(std::iter::once(here).chain(others).collect()))
}

fn told(told: TokenTold) -> Told {
    let token = |bytes: Box<[u8]>, logprob| Token {
        token: name("", &bytes),
        logprob: finite(logprob),
        bytes,
    };
    Told {
        token: token(told.bytes, told.logprob.unwrap_or(f32::NEG_INFINITY)),
        top_logprobs: told.top.into_iter().map(|one| token(one.bytes, one.logprob)).collect(),
    }
}

/// A token as text. What is none is written as OpenAI does, `\xe2\x80`, after `mark`.
fn name(mark: &str, bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let mut name = mark.to_owned();
            for byte in bytes {
                let _ = write!(name, "\\x{byte:02x}");
            }
            name
        }
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { NEVER }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(id, likely)| (id, likely)))
    }
}

impl Serialize for Top {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(bytes: &[u8], logprob: f32, top: &[(&[u8], f32)]) -> TokenTold {
        let one = |(id, (bytes, logprob)): (u32, &(&[u8], f32))| TokenLikely {
            id,
            bytes: (*bytes).into(),
            logprob: *logprob,
        };
        let top = (0..).zip(top).map(one).collect();
        let (special, logprob) = (bytes.starts_with(b"<"), Some(logprob));
        TokenTold { id: 7, bytes: bytes.into(), special, logprob, rank: 3, top }
    }

    fn tokens() -> Vec<TokenTold> {
        vec![
            token(b"a\xe2", -0.5, &[(b"a\xe2", -0.5), (b"b", -1.5)]),
            token(b"\x82\xac", -1.0, &[(b"x", f32::NEG_INFINITY)]),
            token(b"<end>", f32::NEG_INFINITY, &[]),
        ]
    }

    #[test]
    fn chats_have_objects() {
        let told = Writer::default().write(Operation::Chat, tokens());
        assert_eq!(
            serde_json::to_string(&told).unwrap(),
            concat!(
                r#"{"content":[{"token":"\\x61\\xe2","logprob":-0.5,"bytes":[97,226],"#,
                r#""top_logprobs":[{"token":"\\x61\\xe2","logprob":-0.5,"bytes":[97,226]},"#,
                r#"{"token":"b","logprob":-1.5,"bytes":[98]}]},"#,
                r#"{"token":"\\x82\\xac","logprob":-1.0,"bytes":[130,172],"#,
                r#""top_logprobs":[{"token":"x","logprob":-9999.0,"bytes":[120]}]},"#,
                r#"{"token":"<end>","logprob":-9999.0,"bytes":[60,101,110,100,62],"top_logprobs":[]}],"#,
                r#""refusal":null}"#
            )
        );
        assert!(Writer::default().write(Operation::Chat, Vec::new()).is_none());
    }

    #[test]
    fn prompts_are_told_by_id_and_nothing_of_their_first_token() {
        let first = TokenTold { logprob: None, ..token(b"<begin>", 0.0, &[]) };
        let second = TokenTold { id: 1, ..token(b"b", -1.5, &[(b"a", -0.5), (b"b", -1.5)]) };
        let told = Writer::prompt(&[first.clone(), second.clone()]);
        assert_eq!(
            serde_json::to_string(&told).unwrap(),
            concat!(
                r#"[null,{"1":{"logprob":-1.5,"rank":3,"decoded_token":"b"},"#,
                r#""0":{"logprob":-0.5,"rank":1,"decoded_token":"a"}}]"#
            )
        );
        let echoed = Writer::default().write(Operation::TextCompletion, vec![first, second]);
        assert_eq!(
            serde_json::to_string(&echoed).unwrap(),
            concat!(
                r#"{"text_offset":[0,0],"token_logprobs":[null,-1.5],"tokens":["<begin>","b"],"#,
                r#""top_logprobs":[null,{"a":-0.5,"b":-1.5}]}"#
            )
        );
    }

    #[test]
    fn completions_have_lists_and_offsets_also_in_pieces() {
        let whole = Writer::default().write(Operation::TextCompletion, tokens());
        assert_eq!(
            serde_json::to_string(&whole).unwrap(),
            concat!(
                r#"{"text_offset":[0,1,2],"token_logprobs":[-0.5,-1.0,-9999.0],"#,
                r#""tokens":["bytes:\\x61\\xe2","bytes:\\x82\\xac","<end>"],"#,
                r#""top_logprobs":[{"bytes:\\x61\\xe2":-0.5,"b":-1.5},"#,
                r#"{"x":-9999.0,"bytes:\\x82\\xac":-1.0},{"<end>":-9999.0}]}"#
            )
        );
        let mut writer = Writer::default();
        let offsets: Vec<u64> = tokens()
            .into_iter()
            .flat_map(|token| match writer.write(Operation::TextCompletion, vec![token]) {
                Some(Logprobs::Completion(lists)) => lists.text_offset,
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(offsets, [0, 1, 2]);
    }
}
