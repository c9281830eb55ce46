//! One spelling for each path below `/v1`.
//!
//! `/v1/chat/complet%69ons`, `/v1//chat/completions` and `/v1/x/../chat/completions` are the same to one server and three
//! different paths to another. What is priced and limited here must be what is answered there, so a path is decoded once
//! and written anew, and what servers take for different things is refused.

use std::fmt::Write as _;

use tollgate_domain::record::Operation;

pub(crate) const COMPLETIONS: &str = "/v1/completions";
pub(crate) const CHAT_COMPLETIONS: &str = "/v1/chat/completions";
pub(crate) const EMBEDDINGS: &str = "/v1/embeddings";
pub(crate) const RESPONSES: &str = "/v1/responses";
pub(crate) const MODELS: &str = "/v1/models";

const OPERATIONS: [(&str, Operation); 4] = [
    (COMPLETIONS, Operation::TextCompletion),
    (CHAT_COMPLETIONS, Operation::Chat),
    (EMBEDDINGS, Operation::Embeddings),
    (RESPONSES, Operation::Responses),
];

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// What is read and priced, and its path.
    Operation(Operation, &'static str),
    /// The list of models.
    Models,
    /// One of them.
    Model(String),
    /// Nothing that is known here.
    Other,
}

/// Why a path is refused, to stand after "The path has".
pub(crate) type Odd = &'static str;

/// The path in its one spelling: `%` only where a character needs it, and at most one slash at its end.
///
/// # Errors
/// What it has that servers disagree about.
pub(crate) fn normal(path: &str) -> Result<String, Odd> {
    let mut normal = String::with_capacity(path.len());
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        normal.push('/');
        let segment = decoded(segment)?;
        match segment.as_str() {
            "" if segments.peek().is_none() => {}
            "" => return Err("an empty segment (`//`)"),
            "." | ".." => return Err("a segment `.` or `..`"),
            segment => push(&mut normal, segment)?,
        }
    }
    Ok(normal)
}

/// What a path in its one spelling names. Some servers tell no case from another, and many no slash at the end from none.
pub(crate) fn named(normal: &str) -> Named {
    let path = normal.strip_suffix('/').unwrap_or(normal);
    let known = OPERATIONS.iter().find(|(known, _)| path.eq_ignore_ascii_case(known));
    if let Some((known, operation)) = known {
        return Named::Operation(*operation, known);
    }
    match path.split_at_checked(MODELS.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(MODELS) => match rest.strip_prefix('/') {
            Some(id) => decoded(id).map_or(Named::Other, Named::Model),
            None if rest.is_empty() => Named::Models,
            None => Named::Other,
        },
        _ => Named::Other,
    }
}

/// The name of a model in the path of a question for it. It may have slashes, encoded ones too: it goes no further.
pub(crate) fn model(path: &str) -> Option<String> {
    let id = path.strip_prefix(MODELS)?.strip_prefix('/')?;
    decoded(id).ok()
}

fn decoded(segment: &str) -> Result<String, Odd> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let Some((&[high, low], after)) = rest.split_first_chunk() else { return Err(HALF) };
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err(HALF) };
        bytes.push(high << 4 | low);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| "bytes that are no UTF-8")
}

const HALF: Odd = "a `%` without two hexadecimal digits";

/// Writes a segment that was decoded.
fn push(normal: &mut String, segment: &str) -> Result<(), Odd> {
    for character in segment.chars() {
        match character {
            '/' | '\\' => return Err("a slash that is encoded, or a backslash"),
            // They change what a path is, where it is decoded twice or cut.
            '%' | '?' | '#' | ';' => return Err("one of `%`, `?`, `#` and `;` in a segment"),
            c if c.is_control() => return Err("a control character"),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~' | '!' | '$' | '&' => {
                normal.push(character);
            }
            '\'' | '(' | ')' | '*' | '+' | ',' | '=' | ':' | '@' => normal.push(character),
            _ => {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(normal, "%{byte:02X}");
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        let cases = [
            ("/v1/chat/completions", Ok(CHAT_COMPLETIONS)),
            ("/v1/chat/complet%69ons", Ok(CHAT_COMPLETIONS)),
            ("/%76%31/embeddings/", Ok("/v1/embeddings/")),
            ("/v1/files/a b%20ü%c3%bc", Ok("/v1/files/a%20b%20%C3%BC%C3%BC")),
            ("/v1/models/ft:m:@x~(1)", Ok("/v1/models/ft:m:@x~(1)")),
            ("/v1//chat/completions", Err("`//`")),
            ("/v1/chat/completions//", Err("`//`")),
            ("/v1/x/../chat/completions", Err("`..`")),
            ("/v1/%2e%2E/y", Err("`..`")),
            ("/v1/chat%2Fcompletions", Err("encoded")),
            ("/v1/chat%5ccompletions", Err("backslash")),
            ("/v1/chat/completions%0a", Err("control")),
            ("/v1/chat/completions%c2%85", Err("control")),
            ("/v1/chat/complet%2569ons", Err("`%`")),
            ("/v1/chat/completions;x", Err("`;`")),
            ("/v1/chat/completions%3fx", Err("`?`")),
            ("/v1/chat/%ff", Err("UTF-8")),
            ("/v1/chat/%6", Err("digits")),
            ("/v1/chat/%zz", Err("digits")),
        ];
        for (path, expected) in cases {
            match (normal(path), expected) {
                (Ok(normal), Ok(expected)) => assert_eq!(normal, expected, "{path}"),
                (Err(odd), Err(expected)) => assert!(odd.contains(expected), "{path}: {odd}"),
                other => panic!("{path}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_name_is_known_in_each_spelling() {
        let cases = [
            ("/v1/chat/completions/", Named::Operation(Operation::Chat, CHAT_COMPLETIONS)),
            ("/v1/CHAT/completions", Named::Operation(Operation::Chat, CHAT_COMPLETIONS)),
            ("/v1/responses", Named::Operation(Operation::Responses, RESPONSES)),
            ("/v1/responses/resp_1", Named::Other),
            ("/v1/models/", Named::Models),
            ("/v1/models/a/b%20c", Named::Model("a/b c".to_owned())),
            ("/v1/modelsx", Named::Other),
            ("/v1/mod", Named::Other),
        ];
        for (path, expected) in cases {
            assert_eq!(named(path), expected, "{path}");
        }
        assert_eq!(model("/v1/models/org%2Fname").as_deref(), Some("org/name"));
        assert_eq!(model("/v1/models"), None);
    }

    /// As uvicorn and Starlette have it: the whole path is decoded, a slash at its end leads to the route without it, and
    /// `$` of a pattern lets a line's end pass.
    fn decodes(path: &str) -> String {
        let bytes = path.as_bytes();
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let byte = path.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
            match (bytes[at], byte) {
                (b'%', Some(byte)) => {
                    out.push(byte);
                    at += 3;
                }
                (byte, _) => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        let text = String::from_utf8_lossy(&out).into_owned();
        let text = text.strip_suffix('\n').map(str::to_owned).unwrap_or(text);
        text.strip_suffix('/').map(str::to_owned).unwrap_or(text)
    }

    /// As a proxy in front of it may have it: segments that are empty or `.` go, `..` goes back.
    fn resolves(path: &str) -> String {
        let mut segments = Vec::new();
        for segment in path.split(['/', '\\']) {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                segment => segments.push(segment.split(';').next().unwrap_or_default()),
            }
        }
        format!("/{}", segments.join("/"))
    }

    fn known(path: &str) -> Option<Operation> {
        OPERATIONS.iter().find(|(known, _)| *known == path).map(|(_, operation)| *operation)
    }

    /// A path that some server may take for a known one: letters are encoded, once or twice, and between segments stands
    /// what goes away again.
    fn spelled() -> impl Strategy<Value = String> {
        let paths = prop::sample::select(OPERATIONS.map(|(path, _)| path).to_vec());
        let between = prop::sample::select(vec![
            "",
            "",
            "",
            "",
            "/",
            "/.",
            "/x/..",
            "/%2e",
            "/x/%2E%2e",
            "%2F",
            "%5C",
            ";a=b",
        ]);
        let end = prop::sample::select(vec!["", "", "/", "%0A", "%2f", ";x", "?", "%00", "/."]);
        (paths, prop::collection::vec((0..8_u8, between), 32), end).prop_map(|(path, how, end)| {
            let mut spelled = String::new();
            for (character, (encoded, between)) in path.chars().zip(how) {
                if character == '/' && spelled.len() > 2 {
                    spelled.push_str(between);
                }
                match encoded {
                    0 => spelled.push_str(&format!("%{:02x}", u32::from(character))),
                    1 if character != '/' => {
                        spelled.push_str(&format!("%25{:02X}", u32::from(character)));
                    }
                    _ => spelled.push(character),
                }
            }
            spelled + end
        })
    }

    /// Whatever a server makes of the path that it gets, it is what was made of it here.
    fn holds(path: &str) {
        let Ok(normal) = normal(path) else { return };
        let here = match named(&normal) {
            Named::Operation(operation, path) => Some((operation, path)),
            _ => None,
        };
        let goes_out = here.map_or(normal.as_str(), |(_, path)| path);
        for there in [
            decodes(goes_out),
            decodes(&resolves(goes_out)),
            resolves(&decodes(goes_out)),
            resolves(&decodes(&decodes(goes_out))),
        ] {
            let there = known(&there);
            assert_eq!(
                there,
                here.map(|(operation, _)| operation),
                "{path} goes out as {goes_out}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn no_spelling_is_another_operation_elsewhere(path in spelled()) {
            // The client's own word is taken by the server that it reached, which is the one that counts.
            let path = path.split('?').next().unwrap_or_default();
            holds(path);
            // What a server would take for a known operation is not let through as an unknown one.
            if known(&decodes(path)).is_some() {
                let through = normal(path).map(|normal| named(&normal));
                prop_assert!(!matches!(through, Ok(Named::Other)), "{path}: {through:?}");
            }
        }

        #[test]
        fn any_text_is_read_or_refused(path in "/v1/[ -~ü\u{80}]{0,40}") {
            holds(&path);
        }
    }
}
