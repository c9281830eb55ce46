//! How an [`Allowance`] and a [`Limited`] look as headers of an answer: OpenAI's, which its
//! clients read, and the IETF's (draft-ietf-httpapi-ratelimit-headers-10).
//!
//! Pure: names and values; whoever owns the answer puts them in.

use std::fmt::Write as _;
use std::time::Duration;

use crate::allowance::{Allowance, Limited, Window, whole_seconds};

/// A header's name, in lower case, and its value.
pub type Header = (&'static str, String);

/// Headers of an answer to a request that was admitted.
///
/// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, `ratelimit-policy`, `ratelimit`, and
/// `x-tollgate-budget-warning` for each budget whose soft threshold is reached.
#[must_use]
pub fn allowance_headers(allowance: &Allowance) -> Vec<Header> {
    let mut headers = Vec::new();
    let (mut policies, mut states) = (String::new(), String::new());
    let known = [
        (
            &allowance.requests,
            "requests",
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ),
        (
            &allowance.tokens,
            "tokens",
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
        ),
    ];
    for (window, unit, limit, remaining, reset) in known {
        let Some(window) = window else { continue };
        headers.push((limit, window.limit.to_string()));
        headers.push((remaining, window.remaining.to_string()));
        headers.push((reset, openai_duration(window.reset_after)));
        for list in [&mut policies, &mut states] {
            if !list.is_empty() {
                list.push_str(", ");
            }
        }
        policy(&mut policies, window, unit);
        state(&mut states, window, unit);
    }
    if !policies.is_empty() {
        headers.push(("ratelimit-policy", policies));
        headers.push(("ratelimit", states));
    }
    for budget in allowance.soft() {
        let (scope, per) = (budget.scope.name(), budget.per.name());
        let left = budget.remaining();
        let told =
            format!("{scope};per={per};amount={};left={}", budget.amount.decimal(), left.decimal());
        headers.push(("x-tollgate-budget-warning", format!("{told};currency={}", left.currency)));
    }
    headers
}

/// Headers of a refusal: those of [`allowance_headers`], and `retry-after` where it is worth
/// trying again, else `x-should-retry: false`, which OpenAI's clients heed.
#[must_use]
pub fn limited_headers(limited: &Limited) -> Vec<Header> {
    let mut headers = allowance_headers(&limited.allowance);
    if let Some(retry) = limited.retry_after {
        headers.push(("retry-after", whole_seconds(retry).max(1).to_string()));
        if limited.worth_retrying() {
            let milliseconds = retry.as_millis().max(1);
            headers.push(("retry-after-ms", milliseconds.to_string()));
        }
    }
    if !limited.worth_retrying() {
        headers.push(("x-should-retry", "false".to_owned()));
    }
    headers
}

/// `"requests";q=60;w=60`: a quota of so many in so many seconds. Its unit is requests unless
/// `qu` says otherwise.
fn policy(list: &mut String, window: &Window, unit: &str) {
    let _ = write!(list, "\"{unit}\";q={};w=60", window.limit);
    if unit != "requests" {
        let _ = write!(list, ";qu=\"{unit}\"");
    }
}

/// `"requests";r=59;t=1`: what remains, and seconds until it is whole again.
fn state(list: &mut String, window: &Window, unit: &str) {
    let _ =
        write!(list, "\"{unit}\";r={};t={}", window.remaining, whole_seconds(window.reset_after));
}

/// As OpenAI writes them: `0s`, `12ms`, `1.5s`, `6m0s`, `1h0m3s`.
fn openai_duration(time: Duration) -> String {
    let milliseconds = time.as_nanos().div_ceil(1_000_000);
    let (seconds, part) = (milliseconds / 1000, milliseconds % 1000);
    if seconds == 0 {
        return if part == 0 { "0s".to_owned() } else { format!("{part}ms") };
    }
    let mut text = String::new();
    if seconds >= 3600 {
        let _ = write!(text, "{}h", seconds / 3600);
    }
    if seconds >= 60 {
        let _ = write!(text, "{}m", seconds / 60 % 60);
    }
    let _ = write!(text, "{}", seconds % 60);
    if part > 0 {
        let digits = format!("{part:03}");
        let _ = write!(text, ".{}", digits.trim_end_matches('0'));
    }
    text.push('s');
    text
}

#[cfg(test)]
mod tests {
    use tollgate_domain::{Currency, Money};

    use super::*;
    use crate::allowance::{BudgetStanding, What};
    use crate::limits::{Per, Scope};

    fn allowance() -> Allowance {
        let reset_after = Duration::from_millis(1_001);
        let window = Window { scope: Scope::Key, limit: 60, remaining: 59, reset_after };
        let dollars = |pico| Money::new(pico, Currency::USD);
        Allowance {
            requests: Some(window),
            tokens: Some(Window { limit: 1000, remaining: 0, ..window }),
            budgets: vec![BudgetStanding {
                scope: Scope::Tenant,
                per: Per::Month,
                amount: dollars(12_500_000_000_000),
                spent: dollars(11_000_000_000_001),
                soft_reached: true,
                reset_after: None,
            }],
        }
    }

    #[test]
    fn an_allowance_is_told_in_both_dialects() {
        let expected = [
            "x-ratelimit-limit-requests: 60",
            "x-ratelimit-remaining-requests: 59",
            "x-ratelimit-reset-requests: 1.001s",
            "x-ratelimit-limit-tokens: 1000",
            "x-ratelimit-remaining-tokens: 0",
            "x-ratelimit-reset-tokens: 1.001s",
            "ratelimit-policy: \"requests\";q=60;w=60, \"tokens\";q=1000;w=60;qu=\"tokens\"",
            "ratelimit: \"requests\";r=59;t=2, \"tokens\";r=0;t=2",
            "x-tollgate-budget-warning: tenant;per=month;amount=12.5;left=1.499999999999;currency=USD",
        ];
        let told: Vec<String> =
            allowance_headers(&allowance()).iter().map(|(n, v)| format!("{n}: {v}")).collect();
        assert_eq!(told, expected);
        assert_eq!(allowance_headers(&Allowance::default()), []);
    }

    #[test]
    fn a_refusal_says_whether_to_come_again() {
        let limited = |what, retry: Option<u64>| Limited {
            scope: Scope::Key,
            what,
            limit: 1000,
            remaining: 10,
            needed: 20,
            reset_after: Duration::ZERO,
            retry_after: retry.map(Duration::from_millis),
            budget: None,
            allowance: Allowance::default(),
        };
        let cases = [
            (
                limited(What::Tokens, Some(1_200)),
                vec![("retry-after", "2"), ("retry-after-ms", "1200")],
            ),
            (limited(What::Requests, Some(0)), vec![("retry-after", "1"), ("retry-after-ms", "1")]),
            (limited(What::Tokens, None), vec![("x-should-retry", "false")]),
            (
                limited(What::Budget, Some(5_000)),
                vec![("retry-after", "5"), ("x-should-retry", "false")],
            ),
            (limited(What::Budget, None), vec![("x-should-retry", "false")]),
        ];
        for (limited, expected) in cases {
            let headers = limited_headers(&limited);
            let told: Vec<_> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(told, expected, "{limited}");
        }
        let never = limited(What::Tokens, None).to_string();
        assert!(never.contains("can never be admitted"), "{never}");
    }

    #[test]
    fn times_are_written_as_openai_writes_them() {
        let cases = [
            (Duration::ZERO, "0s"),
            (Duration::from_micros(1), "1ms"),
            (Duration::from_millis(12), "12ms"),
            (Duration::from_millis(1_500), "1.5s"),
            (Duration::from_secs(360), "6m0s"),
            (Duration::from_secs(3_603), "1h0m3s"),
        ];
        for (time, text) in cases {
            assert_eq!(openai_duration(time), text);
        }
    }
}
