//! W3C Trace Context, level 2: reading `traceparent` and `tracestate`, writing `traceparent`.
//!
//! A `traceparent` that breaks the rules counts as none. A `tracestate` that breaks them is
//! dropped and its `traceparent` kept. Of the flags only `sampled` is read and passed on.

use tollgate_domain::{SpanContext, SpanId, TraceId};

/// Length of a version 00 `traceparent`; later versions may go on after another dash.
const LENGTH: usize = 55;

/// Most list members of a `tracestate`.
const MAX_MEMBERS: usize = 32;

/// Most characters of a `tracestate` that we pass on.
const MAX_STATE: usize = 512;

/// Members longer than this are the first to go from a `tracestate` that is too long.
const LONG_MEMBER: usize = 128;

/// What the client says of its span. Several `tracestate` headers are one, joined by commas.
#[must_use]
pub fn parse(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<SpanContext> {
    let (trace_id, span_id, sampled) = parse_parent(traceparent?.trim_matches([' ', '\t']))?;
    Some(SpanContext { trace_id, span_id, sampled, trace_state: tracestate.and_then(parse_state) })
}

/// The `traceparent` that tells another server of `context`.
#[must_use]
pub fn traceparent(context: &SpanContext) -> String {
    let flags = u8::from(context.sampled);
    format!("00-{}-{}-{flags:02x}", context.trace_id, context.span_id)
}

fn parse_parent(text: &str) -> Option<(TraceId, SpanId, bool)> {
    let bytes = text.as_bytes();
    let version = hex(bytes.get(0..2)?)?;
    let goes_on = match bytes.get(LENGTH) {
        None => false,
        Some(b'-') => true,
        Some(_) => return None,
    };
    if version == 0xff || (version == 0 && goes_on) {
        return None;
    }
    if [2, 35, 52].iter().any(|&dash| bytes.get(dash) != Some(&b'-')) {
        return None;
    }
    let trace_id = hex(bytes.get(3..35)?)?;
    let span_id = u64::try_from(hex(bytes.get(36..52)?)?).ok()?;
    let flags = hex(bytes.get(53..LENGTH)?)?;
    (trace_id != 0 && span_id != 0).then_some((TraceId(trace_id), SpanId(span_id), flags & 1 == 1))
}

/// At most 32 lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

fn parse_state(text: &str) -> Option<String> {
    let mut members: Vec<&str> = text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
        .collect();
    if members.len() > MAX_MEMBERS || !members.iter().all(|member| is_member(member)) {
        return None;
    }
    let length = |members: &[&str]| {
        members.iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1)
    };
    while length(&members) > MAX_STATE {
        let long = members.iter().rposition(|member| member.len() > LONG_MEMBER);
        members.remove(long.unwrap_or(members.len() - 1));
    }
    (!members.is_empty()).then(|| members.join(","))
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let key_starts = key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let key_goes_on = key
        .bytes()
        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'));
    let in_value = |byte: u8| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=';
    key_starts
        && key_goes_on
        && key.len() <= 256
        && (1..=256).contains(&value.len())
        && value.bytes().all(in_value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn traceparents() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let cases: [(String, Option<bool>); 15] = [
            (format!("00-{ids}-01"), Some(true)),
            (format!(" 00-{ids}-01\t"), Some(true)),
            (format!("00-{ids}-00"), Some(false)),
            (format!("00-{ids}-03"), Some(true)),
            (format!("cc-{ids}-01"), Some(true)),
            (format!("cc-{ids}-01-what-the-future-is-like"), Some(true)),
            (format!("cc-{ids}-01.what"), None),
            (format!("00-{ids}-01-what"), None),
            (format!("ff-{ids}-01"), None),
            (format!("00-{}-01", ids.to_uppercase()), None),
            (format!("00-{ids}"), None),
            (format!("00_{ids}-01"), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16)), None),
            (String::new(), None),
        ];
        for (text, sampled) in cases {
            assert_eq!(parse(Some(&text), None).map(|c| c.sampled), sampled, "{text:?}");
        }
        assert_eq!(parse(None, Some("a=b")), None);
    }

    #[test]
    fn tracestates() {
        let long = |length: usize| format!("long={}", "x".repeat(length - 5));
        let cases: [(String, Option<String>); 10] = [
            (
                "rojo=00f067aa0ba902b7,congo=t61".into(),
                Some("rojo=00f067aa0ba902b7,congo=t61".into()),
            ),
            (" a=1 ,,\tt@v=2".into(), Some("a=1,t@v=2".into())),
            ("0a_-*/=~!".into(), Some("0a_-*/=~!".into())),
            ("A=1".into(), None),
            ("a=1,b".into(), None),
            ("a=b=c".into(), None),
            ("a=é".into(), None),
            (String::new(), None),
            (vec!["a=1"; 33].join(","), None),
            // Long members go first, then the last ones.
            (
                format!("a=1,{},{},b=2", long(200), long(250))
                    .replace("b=2", &vec!["b=2"; 29].join(",")),
                Some(format!("a=1,{},{}", long(200), vec!["b=2"; 29].join(","))),
            ),
        ];
        for (text, state) in cases {
            let parsed = parse(Some(GOOD), Some(&text)).map(|context| context.trace_state);
            assert_eq!(parsed, Some(state), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_we_write_we_read(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let context = SpanContext {
                trace_id: TraceId(trace), span_id: SpanId(span), sampled, trace_state: None,
            };
            prop_assert_eq!(parse(Some(&traceparent(&context)), None), Some(context));
        }

        #[test]
        fn no_header_panics(parent in "\\PC{0,80}", state in "\\PC{0,80}") {
            let _ = parse(Some(&parent), Some(&state));
        }

        #[test]
        fn near_misses_do_not_panic(at in 0_usize..55, byte: char, state in "([a-z@]{0,3}=[!-~]{0,200},?){0,40}") {
            let mut text: Vec<char> = GOOD.chars().collect();
            text.splice(at..=at, [byte]);
            let text: String = text.into_iter().collect();
            if let Some(context) = parse(Some(&text), Some(&state)) {
                prop_assert!(context.trace_state.is_none_or(|state| state.len() <= MAX_STATE));
            }
        }
    }
}
