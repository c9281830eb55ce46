//! Where in a text something stands, for messages about files that people write.

use crate::text::one_line;

/// One line that names the key, as far as the parser got, says where it stands, and what is wrong with it.
#[must_use]
pub fn fault(text: &str, key: &str, offset: Option<usize>, problem: &str) -> String {
    format!("{}: {}", place(text, &one_line(key, 256), offset), one_line(problem, 512))
}

/// `key at line 2, column 5`: what the parser calls the place (`.` or nothing if it is the whole),
/// and where the byte at `offset` stands, as far as either is known.
#[must_use]
pub fn place(text: &str, key: &str, offset: Option<usize>) -> String {
    let Some(before) = offset.and_then(|offset| text.get(..offset)) else {
        return key.to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let named = if key.is_empty() || key == "." { String::new() } else { format!("{key} at ") };
    format!("{named}line {line}, column {column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_as_far_as_it_is_known() {
        let text = "a = 1\ngrün = x";
        for (key, offset, expected) in [
            ("b.c", Some(0), "b.c at line 1, column 1"),
            ("", Some(6), "line 2, column 1"),
            (".", Some(14), "line 2, column 8"),
            ("b", None, "b"),
            // Within a character, and behind the end.
            ("b", Some(9), "b"),
            ("b", Some(99), "b"),
        ] {
            assert_eq!(place(text, key, offset), expected, "{key} {offset:?}");
        }
    }

    #[test]
    fn a_fault_is_one_line() {
        let told = fault("a = 1\nb = x", "b\u{1b}", Some(10), "no value\nhere\n");
        assert_eq!(told, "b\\u{1b} at line 2, column 5: no value\\u{a}here");
    }
}
