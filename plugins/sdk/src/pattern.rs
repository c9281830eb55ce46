//! Glob patterns for names of models, tenants and devices.

use serde::{Deserialize, Deserializer};

/// A pattern in which `*` stands for any characters, also none, and `?` for exactly one. Upper and lower case differ.
/// There is no escape: no name of a model or a tenant has those characters in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    kind: Kind,
}

/// What most patterns are takes no walk over the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Literal,
    /// One star, at the end.
    Prefix,
    Glob,
}

impl Pattern {
    /// From its text; every text is a pattern.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let kind = match text.find(['*', '?']) {
            None => Kind::Literal,
            Some(at) if text.get(at..) == Some("*") => Kind::Prefix,
            Some(_) => Kind::Glob,
        };
        Self { text, kind }
    }

    /// Whether the whole of the name matches. Takes time in proportion to pattern times name at worst, whatever they are.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.text.as_bytes(), name.as_bytes());
        // Most names are told apart by their beginning.
        if let ([p, ..], [n, ..]) = (pattern, name)
            && p != n
            && !matches!(p, b'*' | b'?')
        {
            return false;
        }
        match (self.kind, pattern) {
            (Kind::Literal, _) => same(pattern, name),
            (Kind::Prefix, [prefix @ .., _]) => {
                name.get(..prefix.len()).is_some_and(|start| same(prefix, start))
            }
            _ => glob(pattern, name),
        }
    }

    /// The text it was made from.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// By words: the comparison of a component's C library goes byte by byte.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let (a_words, a_rest) = a.as_chunks::<8>();
    let (b_words, b_rest) = b.as_chunks::<8>();
    a.len() == b.len()
        && a_words
            .iter()
            .zip(b_words)
            .all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b))
        && a_rest.iter().zip(b_rest).all(|(a, b)| a == b)
}

/// Goes back to the last star only: an earlier one never has to take more, since the last can take it too.
fn glob(mut pattern: &[u8], mut name: &[u8]) -> bool {
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => return true,
            (Some((b'*', rest)), _) => {
                last_star = Some((rest, name));
                pattern = rest;
                continue;
            }
            (Some((b'?', rest)), Some(_)) => {
                pattern = rest;
                name = skip_character(name);
                continue;
            }
            (Some((expected, rest)), Some((found, others))) if expected == found => {
                pattern = rest;
                name = others;
                continue;
            }
            _ => {}
        }
        match last_star {
            Some((after_star, from)) if !from.is_empty() => {
                let from = skip_character(from);
                last_star = Some((after_star, from));
                pattern = after_star;
                name = from;
            }
            _ => return false,
        }
    }
}

/// Past one UTF-8 character.
fn skip_character(text: &[u8]) -> &[u8] {
    let continuation = |byte: &u8| byte & 0xC0 == 0x80;
    match text.split_first() {
        Some((_, rest)) => {
            rest.get(rest.iter().take_while(|b| continuation(b)).count()..).unwrap_or_default()
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, matches) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("*mini", "gpt-4o-mini", true),
            ("*4o*", "gpt-4o-mini", true),
            ("gpt-?o", "gpt-4o", true),
            ("gpt-?o", "gpt-é\u{6f}", true),
            ("?", "", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("**", "x", true),
            ("GPT*", "gpt", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), matches, "{pattern} on {name}");
        }
    }

    /// The textbook definition.
    fn reference(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, rest) => rest.is_none(),
            (Some(('*', p)), None) => reference(p, name),
            (Some(('*', p)), Some((_, n))) => reference(p, name) || reference(pattern, n),
            (Some((_, _)), None) => false,
            (Some((expected, p)), Some((found, n))) => {
                (*expected == '?' || expected == found) && reference(p, n)
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?é]{0,8}", name in "[abé]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern::new(&*pattern).matches(&name), reference(&chars(&pattern), &chars(&name)));
        }
    }

    #[test]
    fn without_stars_one_name_matches() {
        let name = "mistral-7b-instruct-v0.3";
        for end in 0..=name.len() {
            let pattern = Pattern::new(&name[..end]);
            for other in 0..=name.len() {
                assert_eq!(pattern.matches(&name[..other]), end == other);
            }
            for at in 0..end {
                let mut wrong = name[..end].to_owned();
                wrong.replace_range(at..=at, "X");
                assert!(!pattern.matches(&wrong), "{wrong}");
            }
        }
    }

    #[test]
    fn many_stars_are_no_trap() {
        assert!(!Pattern::new("*a".repeat(200)).matches(&"a".repeat(199)));
        assert!(!Pattern::new(format!("{}b", "*a".repeat(200))).matches(&"a".repeat(5000)));
    }
}
