//! The part of an address after the question mark. What is not known is refused, so that a filter
//! that was misspelt does not look like one that held.

use std::str::FromStr;
use std::time::SystemTime;

use tollgate_domain::ErrorKind;
use tollgate_gateway::{Period, Refusal, TypedTime};

/// Longest name that is searched for, in bytes.
const LONGEST: usize = 512;

/// What was asked for, each once.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads them; `known` are those that the route has. An empty value is as none.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut given: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                let message = match known {
                    [] => format!("This route takes no parameter, and so no {name:?}."),
                    known => format!("{name:?} is no parameter here; use {}.", known.join(", ")),
                };
                return Err(refused(message, &name));
            }
            if given.iter().any(|(other, _)| *other == name) {
                return Err(refused(format!("`{name}` is there twice; give it once."), &name));
            }
            if value.len() > LONGEST {
                let message = format!("`{name}` is longer than {LONGEST} bytes; shorten it.");
                return Err(refused(message, &name));
            }
            given.push((name.into_owned(), value.into_owned()));
        }
        given.retain(|(_, value)| !value.is_empty());
        Ok(Self(given))
    }

    /// The text of one.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// One of these words.
    pub(super) fn word(&self, name: &str, words: &[&str]) -> Result<Option<String>, Refusal> {
        match self.text(name) {
            Some(word) if !words.contains(&word) => {
                let message = format!("`{name}` is {word:?}; write one of {}.", words.join(", "));
                Err(refused(message, name))
            }
            word => Ok(word.map(str::to_owned)),
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => {
                let message =
                    format!("`{name}` is {text:?}; write a whole number from {least} to {most}.");
                Err(refused(message, name))
            }
        }
    }

    /// `since` and `until`.
    pub(super) fn period(&self) -> Result<Period, Refusal> {
        let (since, until) = (self.time("since")?, self.time("until")?);
        Period::between(since, until, SystemTime::now().into())
            .map_err(|why| refused(format!("The period is empty: {why}."), "until"))
    }

    fn time(&self, name: &str) -> Result<Option<TypedTime>, Refusal> {
        let read = self.text(name).map(TypedTime::from_str).transpose();
        read.map_err(|why| refused(format!("`{name}` is no time: {why}."), name))
    }
}

/// What is wrong with one of them.
pub(super) fn refused(message: String, parameter: &str) -> Refusal {
    Refusal::new(ErrorKind::InvalidRequest, message).param(parameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let read =
            |query: &str| Parameters::read(Some(query), &["limit", "outcome", "since", "until"]);
        let message = |done: Result<(), Refusal>| done.unwrap_err().message;
        for (query, word) in [("tenent=a", "tenent"), ("limit=1&limit=2", "twice")] {
            assert!(message(read(query).map(drop)).contains(word), "{query}");
        }
        for (query, word) in [
            ("limit=0", "1 to 5"),
            ("limit=6", "1 to 5"),
            ("limit=-1", "1 to 5"),
            ("limit=x", "1 to 5"),
        ] {
            let number = read(query).unwrap().number("limit", 1, 5);
            assert!(message(number.map(drop)).contains(word), "{query}");
        }
        let good = read("limit=5&outcome=&since=1h").unwrap();
        assert_eq!(good.number("limit", 1, 5).unwrap(), Some(5));
        assert_eq!(good.word("outcome", &["failed"]).unwrap(), None);
        assert!(good.period().unwrap().since.is_some());
        assert!(
            message(read("outcome=bad").unwrap().word("outcome", &["failed"]).map(drop))
                .contains("failed")
        );
        for query in ["since=yesterday", "since=2026-01-02&until=2026-01-01"] {
            read(query).unwrap().period().map(drop).unwrap_err();
        }
    }
}
