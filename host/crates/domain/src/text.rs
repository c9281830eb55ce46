//! Text of others, made fit for one line of a log, a message or a terminal.

/// `text` on one line, without what ends it in white space. What a terminal would act on is written out: control characters,
/// and marks that are invisible or reorder what stands beside them. Cut at about `limit` bytes, with `…` for what is left out.
#[must_use]
pub fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for c in text.trim_end().chars() {
        if line.len() >= limit {
            line.push('…');
            break;
        }
        push_printable(&mut line, c);
    }
    line
}

/// All of `text`, white space at its end included, with what a terminal would act on written out as in [`one_line`].
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|c| push_printable(&mut shown, c));
    shown
}

fn push_printable(shown: &mut String, c: char) {
    let marks = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || marks {
        shown.extend(c.escape_unicode());
    } else {
        shown.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_on_one_line_and_bounded() {
        for (text, limit, expected) in [
            ("a\nb\u{1b}[31m\0", 100, "a\\u{a}b\\u{1b}[31m\\u{0}"),
            ("\u{202e}x", 100, "\\u{202e}x"),
            ("a\n", 100, "a"),
            ("xxxxxxxxxxxxx", 10, "xxxxxxxxxx…"),
        ] {
            assert_eq!(one_line(text, limit), expected, "{text:?}");
        }
        assert_eq!(printable("acme \n"), "acme \\u{a}");
    }
}
