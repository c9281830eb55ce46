//! Small readers of the text that OpenTelemetry's environment variables hold.

/// `key=value` pairs separated by commas; keys and values percent-decoded and trimmed.
///
/// `Err` names the first pair that cannot be read.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| pair.to_owned())?;
            let key = percent_decode(key.trim()).filter(|key| !key.is_empty());
            let value = percent_decode(value.trim());
            key.zip(value).ok_or_else(|| pair.to_owned())
        })
        .collect()
}

/// `None` if an escape is cut short, not hexadecimal, or the bytes are not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit =
            || char::from(bytes.next()?).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (high, low) = (digit()?, digit()?);
        decoded.push(high << 4 | low);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    #[test]
    fn pairs_are_decoded() {
        let cases: [(&str, Option<Pairs>); 7] = [
            ("", Some(&[])),
            ("a=1, b = 2 ,", Some(&[("a", "1"), ("b", "2")])),
            ("a=x%2Cy%3D%C3%A9", Some(&[("a", "x,y=é")])),
            ("a=b=c", Some(&[("a", "b=c")])),
            ("a=%4", None),
            ("a=%zz", None),
            ("novalue", None),
        ];
        for (text, wanted) in cases {
            let read = pairs(text).ok();
            let read: Option<Vec<(&str, &str)>> = read
                .as_ref()
                .map(|pairs| pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect());
            assert_eq!(read.as_deref(), wanted, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[%=,0-9a-f\\PC]{0,40}") {
            let _ = pairs(&text);
        }
    }
}
