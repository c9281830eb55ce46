//! Secrets: from a variable or from a file, never from a flag, and never in a log.

use std::fmt;
use std::io::Read;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

/// Variable that holds the token of the admin API itself.
pub const ADMIN_TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";

/// Fewest characters of a token: what cannot be guessed by asking.
const SHORTEST: usize = 16;
/// Most bytes of a secret's file.
const LONGEST: u64 = 4096;

/// Text that shows as `***`.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Text that must not be shown.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The token of the admin API, if one was given: `variable` is the value of [`ADMIN_TOKEN`],
/// `file` a file that holds nothing else. White space around it is no part of it.
///
/// # Errors
/// One line for people: both are given, the file cannot be read, or its text is no good as a
/// token. The text itself is never repeated.
pub fn admin_token(
    variable: Option<String>,
    file: Option<&Path>,
) -> Result<Option<Secret>, String> {
    match (variable, file) {
        (None, None) => Ok(None),
        (Some(_), Some(file)) => Err(format!(
            "the admin token is given twice, by {ADMIN_TOKEN} and by admin-token-file = {}; keep \
             one of them",
            file.display()
        )),
        (Some(token), None) => token_of(&token, ADMIN_TOKEN).map(Some),
        (None, Some(file)) => {
            let place = format!("the file {}", file.display());
            let text = read(file).map_err(|problem| format!("the admin token: {problem}"))?;
            token_of(&text, &place).map(Some)
        }
    }
}

/// The value of a header as it travels: visible ASCII, with white space around it left out.
///
/// # Errors
/// Says what is wrong without the text.
pub(crate) fn header_value(text: &str) -> Result<Secret, String> {
    let value = text.trim();
    let is_fine = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    match value {
        "" => Err("is empty".to_owned()),
        _ if !value.bytes().all(is_fine) => {
            Err("has characters that no header may have".to_owned())
        }
        _ => Ok(Secret(value.to_owned())),
    }
}

/// The text of a file that holds a secret.
///
/// # Errors
/// One line for people.
pub(crate) fn read(file: &Path) -> Result<String, String> {
    let place = file.display();
    let unreadable = |error| format!("cannot read the file {place}: {error}");
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let read = opened.take(LONGEST.saturating_add(1)).read_to_string(&mut text);
    if read.map_err(unreadable)? as u64 > LONGEST {
        return Err(format!("the file {place} is too large for a secret; name the right file"));
    }
    Ok(text)
}

fn token_of(text: &str, place: &str) -> Result<Secret, String> {
    let token = text.trim();
    let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.len() < SHORTEST || !visible {
        return Err(format!(
            "the admin token in {place} must be at least {SHORTEST} visible ASCII characters in \
             one word; `openssl rand -hex 32` makes a good one"
        ));
    }
    Ok(Secret(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0123456789abcdef-xyz";

    #[test]
    fn a_token_comes_from_one_place_and_is_never_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let cases = [
            (format!("{GOOD}\n"), true),
            (format!("  {GOOD}\r\n"), true),
            (String::new(), false),
            ("too-short-xyz".to_owned(), false),
            ("0123456789 abcdef-xyz".to_owned(), false),
            ("0123456789abcdef-xyz\u{e9}".to_owned(), false),
            ("x".repeat(5000), false),
        ];
        for (text, good) in cases {
            std::fs::write(&file, &text).unwrap();
            let read = admin_token(None, Some(&file));
            match &read {
                Ok(token) => assert_eq!(token.as_ref().map(Secret::reveal), Some(GOOD)),
                Err(message) => {
                    assert!(message.contains("token"), "{message}");
                    assert!(!message.contains("xyz"), "{message}");
                }
            }
            assert_eq!(read.is_ok(), good, "{text:?}");
        }
        let twice = admin_token(Some(GOOD.to_owned()), Some(&file)).unwrap_err();
        assert!(twice.contains("twice") && !twice.contains(GOOD), "{twice}");
        let missing = admin_token(None, Some(&folder.path().join("none"))).unwrap_err();
        assert!(missing.contains("none"), "{missing}");
        assert_eq!(admin_token(None, None), Ok(None));
        assert_eq!(format!("{:?}", Secret(GOOD.to_owned())), "***");
    }
}
