//! A field of a form (`multipart/form-data`, RFC 7578), found where it lies: a form may be long, and all but the name of its
//! model is the business of whoever it is for.

use std::ops::Range;

/// Most bytes that the head of a part may have.
const HEAD: usize = 4096;

/// Where the value of the field `name` lies in a form, by the form's content type. A file is no field. None if there is no
/// such field, or this is no form.
#[must_use]
pub fn field(content_type: &str, body: &[u8], name: &str) -> Option<Range<usize>> {
    let delimiter = format!("--{}", boundary(content_type)?);
    let delimiter = delimiter.as_bytes();
    let mut at =
        if body.starts_with(delimiter) { delimiter.len() } else { next(body, 0, delimiter)?.end };
    loop {
        // `--` after it ends the form.
        let head = body.get(at..)?.strip_prefix(b"\r\n").map(|_| at)?;
        let blank = body.get(head..)?.get(..HEAD.min(body.len() - head))?;
        let blank = blank.windows(4).position(|window| window == b"\r\n\r\n")?;
        let value = head + blank + 4;
        // An empty value begins with what ends it.
        let end = next(body, value.checked_sub(2)?, delimiter)?;
        let said = String::from_utf8_lossy(body.get(head..head + blank)?);
        if is_field(&said, name) {
            return Some(value..end.start.max(value));
        }
        at = end.end;
    }
}

/// Where the next delimiter lies, with the line break before it, which belongs to it.
fn next(body: &[u8], from: usize, delimiter: &[u8]) -> Option<Range<usize>> {
    let mut at = from;
    loop {
        let found = at + body.get(at..)?.windows(2).position(|window| window == b"\r\n")?;
        if body.get(found + 2..)?.starts_with(delimiter) {
            return Some(found..found + 2 + delimiter.len());
        }
        at = found + 1;
    }
}

fn boundary(content_type: &str) -> Option<&str> {
    let (essence, parameters) = content_type.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

/// Whether the head of a part names that field.
fn is_field(head: &str, name: &str) -> bool {
    head.split("\r\n").any(|line| {
        let Some((header, value)) = line.split_once(':') else { return false };
        let Some((kind, parameters)) = value.split_once(';') else { return false };
        header.trim().eq_ignore_ascii_case("content-disposition")
            && kind.trim().eq_ignore_ascii_case("form-data")
            && parameter(parameters, "name") == Some(name)
            && parameter(parameters, "filename").is_none()
    })
}

/// A parameter's value, without its quotes. One that has `;` within them is not what is looked for here.
fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"x y\"";

    fn found<'a>(body: &'a str, name: &str) -> Option<&'a str> {
        field(TYPE, body.as_bytes(), name).and_then(|place| body.get(place))
    }

    #[test]
    fn a_field_is_found_among_others() {
        let file = "--x y\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: a/b\r\n\r\n\
                    name=\"model\"\r\n\r\nno\r\n--x \r\n";
        let model = "--x y\r\ncontent-disposition: Form-Data; name=model\r\n\r\nwhisper-1\r\n";
        let empty = "--x y\r\nContent-Disposition: form-data; name=\"none\"\r\n\r\n\r\n";
        let body = format!("preamble\r\n{file}{empty}{model}--x y--\r\n");
        assert_eq!(found(&body, "model"), Some("whisper-1"));
        assert_eq!(found(&body, "none"), Some(""));
        assert_eq!(found(&body, "file"), None, "it is a file");
        assert_eq!(found(&body, "other"), None);
        assert_eq!(found(&format!("{model}--x y--"), "model"), Some("whisper-1"));
        assert_eq!(
            found("--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nno end", "model"),
            None
        );
        for other in ["application/json", "multipart/form-data", "multipart/mixed; boundary=x"] {
            assert_eq!(field(other, body.as_bytes(), "model"), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_searched(body in "(--x y|\r\n|--|name=\"model\"|Content-Disposition: form-data; |a){0,40}") {
            if let Some(place) = field(TYPE, body.as_bytes(), "model") {
                prop_assert!(place.start <= place.end && place.end <= body.len());
            }
        }
    }
}
