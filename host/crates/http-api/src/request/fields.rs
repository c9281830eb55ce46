//! JSON objects and their fields, read one at a time, each with its path for messages.
//!
//! A message says what a parameter must be and what it is instead. It repeats numbers and
//! booleans, but no text: that is the client's, and messages go on record.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What is wrong with a request: 400.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    /// In words for the client.
    pub(super) message: String,
    /// The offending parameter, if it is one.
    pub(super) param: Option<String>,
}

/// A JSON object whose fields are not read yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: String,
    fields: BTreeMap<String, &'a RawValue>,
}

/// One value that is not read yet.
#[derive(Debug)]
pub(super) struct Field<'a> {
    /// Of itself, or of the array it is in.
    path: Rc<str>,
    index: Option<usize>,
    json: &'a str,
}

/// What a JSON value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    Text,
    Array,
    Object,
}

impl<'a> Fields<'a> {
    /// A whole body.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Invalid> {
        let bad = |message: String| Invalid { message, param: None };
        let json = std::str::from_utf8(body).map_err(|error| {
            bad(format!("The body is not valid UTF-8 at byte {}.", error.valid_up_to()))
        })?;
        let fields = serde_json::from_str(json).map_err(|error| {
            if error.is_data() {
                bad(format!("The body must be a JSON object, not {}.", Kind::of(json)))
            } else {
                bad(format!("The body is not valid JSON: {error}."))
            }
        })?;
        Ok(Self { path: String::new(), fields })
    }

    /// No fields.
    pub(super) fn none() -> Self {
        Self { path: String::new(), fields: BTreeMap::new() }
    }

    /// A field, unless it is absent or null, which OpenAI's API takes for the same.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        let json = self.fields.get(name)?.get();
        (Kind::of(json) != Kind::Null).then(|| Field::new(&self.path_of(name), json))
    }

    /// A field that must be there.
    pub(super) fn require(&self, name: &str) -> Result<Field<'a>, Invalid> {
        self.get(name).ok_or_else(|| {
            let path = self.path_of(name);
            invalid(&path, format!("`{path}` is missing."))
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

impl<'a> Field<'a> {
    fn new(path: &str, json: &'a str) -> Self {
        Self { path: path.into(), index: None, json }
    }

    /// What it is.
    pub(super) fn kind(&self) -> Kind {
        Kind::of(self.json)
    }

    /// A string.
    pub(super) fn text(&self) -> Result<String, Invalid> {
        if self.kind() != Kind::Text {
            return Err(self.must_be("a string"));
        }
        // A string can still be wrong: half of a surrogate pair, say.
        self.decode()
    }

    pub(super) fn boolean(&self) -> Result<bool, Invalid> {
        match self.json {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.must_be("true or false")),
        }
    }

    /// A finite number.
    pub(super) fn number(&self) -> Option<f64> {
        if self.kind() != Kind::Number {
            return None;
        }
        self.json.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// A whole number, also if it is written `16.0`. What is beyond 128 bits is as good as the
    /// largest.
    pub(super) fn integer(&self) -> Option<i128> {
        if self.kind() != Kind::Number {
            return None;
        }
        // The cast saturates.
        let rounded = |number: f64| (number.fract() == 0.0).then_some(number as i128);
        self.json.parse().ok().or_else(|| rounded(self.number()?))
    }

    /// A whole number in a range; `expected` says which.
    pub(super) fn integer_in(
        &self,
        range: impl std::ops::RangeBounds<i128>,
        expected: &str,
    ) -> Result<i128, Invalid> {
        self.integer()
            .filter(|integer| range.contains(integer))
            .ok_or_else(|| self.must_be(expected))
    }

    /// The elements of an array; `expected` says of what.
    pub(super) fn elements(&self, expected: &str) -> Result<Vec<Field<'a>>, Invalid> {
        if self.kind() != Kind::Array {
            return Err(self.must_be(expected));
        }
        let elements: Vec<&RawValue> = self.decode()?;
        let path: Rc<str> = self.path().into();
        let element = |(index, raw): (usize, &'a RawValue)| Field {
            path: Rc::clone(&path),
            index: Some(index),
            json: raw.get(),
        };
        Ok(elements.into_iter().enumerate().map(element).collect())
    }

    /// The fields of an object.
    pub(super) fn fields(&self) -> Result<Fields<'a>, Invalid> {
        if self.kind() != Kind::Object {
            return Err(self.must_be("an object"));
        }
        Ok(Fields { path: self.path(), fields: self.decode()? })
    }

    /// It as it was written.
    pub(super) fn json(&self) -> &'a str {
        self.json
    }

    /// Whether it is an empty string, array or object.
    pub(super) fn is_empty(&self) -> bool {
        match self.kind() {
            Kind::Text => self.json == "\"\"",
            Kind::Array => self.elements("").is_ok_and(|elements| elements.is_empty()),
            Kind::Object => self.fields().is_ok_and(|object| object.fields.is_empty()),
            Kind::Null | Kind::Boolean | Kind::Number => false,
        }
    }

    /// It, read by serde.
    fn decode<T: Deserialize<'a>>(&self) -> Result<T, Invalid> {
        serde_json::from_str(self.json)
            .map_err(|error| self.refuse(format!("`{}` cannot be read: {error}.", self.path())))
    }

    /// Refuses it for being something else than `expected`.
    pub(super) fn must_be(&self, expected: &str) -> Invalid {
        let found = match self.kind() {
            Kind::Number | Kind::Boolean if self.json.len() <= 32 => self.json.to_owned(),
            kind => kind.to_string(),
        };
        self.refuse(format!("`{}` must be {expected}, not {found}.", self.path()))
    }

    /// Refuses it in words of the caller's.
    pub(super) fn refuse(&self, message: impl Into<String>) -> Invalid {
        invalid(&self.path(), message)
    }

    /// Its name for messages: `messages[0].content`.
    pub(super) fn path(&self) -> String {
        match self.index {
            Some(index) => format!("{}[{index}]", self.path),
            None => self.path.to_string(),
        }
    }
}

fn invalid(path: &str, message: impl Into<String>) -> Invalid {
    Invalid { message: message.into(), param: Some(path.to_owned()) }
}

impl Kind {
    /// Of valid JSON, which its first character gives away.
    fn of(json: &str) -> Self {
        match json.trim_ascii_start().bytes().next() {
            Some(b'"') => Self::Text,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_object_is_told_where() {
        let cases: [(&[u8], &str); 7] = [
            (b"", "not valid JSON: EOF while parsing a value at line 1 column 0"),
            (b"{\"prompt\": \"a\", ", "not valid JSON: EOF while parsing"),
            (b"{\"prompt\": \xff}", "not valid UTF-8 at byte 11"),
            (b"{\n'prompt': 1}", "not valid JSON: key must be a string at line 2 column 1"),
            (b"[1]", "must be a JSON object, not an array"),
            (b" \"prompt\"", "must be a JSON object, not a string"),
            (b"prompt=hello", "not valid JSON: expected"),
        ];
        for (body, message) in cases {
            let invalid = Fields::parse(body).unwrap_err();
            assert!(invalid.message.contains(message), "{}", invalid.message);
            assert_eq!(invalid.param, None);
        }
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        let cases = [
            ("16", Some(16)),
            ("16.0", Some(16)),
            ("1e3", Some(1000)),
            ("-5", Some(-5)),
            ("99999999999999999999", Some(99_999_999_999_999_999_999)),
            ("1e300", Some(i128::MAX)),
            ("1e999", None),
            ("16.5", None),
            ("\"16\"", None),
            ("true", None),
        ];
        for (json, integer) in cases {
            let field = Field::new("max_tokens", json);
            assert_eq!(field.integer(), integer, "{json}");
        }
    }

    #[test]
    fn messages_do_not_repeat_text() {
        let told = |json| Field::new("n", json).must_be("1").message;
        assert_eq!(told("2.5"), "`n` must be 1, not 2.5.");
        assert_eq!(told("\"secret\""), "`n` must be 1, not a string.");
        assert_eq!(told(&"9".repeat(1000)), "`n` must be 1, not a number.");
    }
}
