//! `keys.toml` as it is written, and the checks that turn it into [`crate::rules`].

use std::ops::RangeInclusive;

use serde::Deserialize;
use tollgate_domain::money::PICO_PER_UNIT;
use tollgate_domain::place;
use tollgate_domain::{Currency, Money, UnixNanos};
use wildmatch::WildMatch;

use crate::limits::{Budget, LARGEST_LIMIT, Limits, Per, identity, share};
use crate::rules::{Allotment, Key};
use crate::secret::Digest;

/// Most bytes of a name, patterns of a key, and budgets of one scope.
const NAME_BYTES: usize = 256;
const PATTERNS: usize = 256;
const BUDGETS: usize = 16;
/// The order in which requests may be asked to wait.
const PRIORITIES: RangeInclusive<i32> = -100..=100;
/// What is told before a budget is spent, in parts per million of it.
const SOFT: i128 = 800_000;
/// 10^15 of a currency: exact in two doubles, and beyond what anybody has.
const LARGEST_AMOUNT: i128 = 1_000_000_000_000_000 * PICO_PER_UNIT;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenFile {
    #[serde(default)]
    pub key: Vec<WrittenKey>,
    #[serde(default)]
    pub tenant: Vec<WrittenTenant>,
    #[serde(default)]
    pub model: Vec<WrittenModel>,
    #[serde(default)]
    pub defaults: WrittenDefaults,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenKey {
    pub id: String,
    sha256: String,
    tenant: String,
    #[serde(default)]
    models: Vec<String>,
    expires: Option<toml::Value>,
    #[serde(default)]
    revoked: bool,
    created: Option<toml::Value>,
    note: Option<String>,
    priority: Option<i32>,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(default)]
    budget: Vec<WrittenBudget>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenTenant {
    pub name: String,
    pub priority: Option<i32>,
    #[serde(default)]
    pub limits: WrittenLimits,
    #[serde(default)]
    pub budget: Vec<WrittenBudget>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenModel {
    pub name: String,
    pub limits: WrittenLimits,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenDefaults {
    #[serde(default)]
    pub limits: WrittenLimits,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct WrittenLimits {
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    concurrent: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenBudget {
    amount: String,
    currency: String,
    per: WrittenPer,
    soft: Option<f64>,
    #[serde(default = "yes")]
    hard: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenPer {
    Day,
    Month,
    Total,
}

fn yes() -> bool {
    true
}

impl WrittenKey {
    pub fn check(self) -> Result<Key, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if self.id.is_empty() || self.id.len() > 64 || !self.id.bytes().all(plain) {
            return Err("id: it must be 1 to 64 letters, digits, `-`, `_` and `.`".to_owned());
        }
        let Some(digest) = Digest::parse(&self.sha256) else {
            return Err(
                "sha256: it must have 64 hex digits, as `printf %s SECRET | sha256sum` prints them"
                    .to_owned(),
            );
        };
        check_name("tenant", &self.tenant)?;
        if self.models.len() > PATTERNS {
            return Err(format!("models: more than {PATTERNS} patterns"));
        }
        for (place, pattern) in self.models.iter().enumerate() {
            check_name(&format!("models[{place}]"), pattern)?;
        }
        Ok(Key {
            models: self.models.iter().map(|pattern| WildMatch::new(pattern)).collect(),
            created: self.created.map(|time| moment("created", &time)).transpose()?,
            expires: self.expires.map(|time| moment("expires", &time)).transpose()?,
            revoked: self.revoked,
            note: self.note,
            allotment: allotment(self.limits, self.budget, self.priority)?,
            id: self.id,
            digest,
            tenant: self.tenant,
        })
    }
}

impl WrittenLimits {
    pub fn check(self) -> Result<Limits, String> {
        let all = [
            ("requests-per-minute", self.requests_per_minute),
            ("tokens-per-minute", self.tokens_per_minute),
            ("concurrent", self.concurrent),
        ];
        match all.iter().find(|(_, limit)| limit.is_some_and(|limit| limit > LARGEST_LIMIT)) {
            Some((key, _)) => Err(format!("limits.{key}: it must be at most {LARGEST_LIMIT}")),
            None => Ok(Limits {
                requests_per_minute: self.requests_per_minute,
                tokens_per_minute: self.tokens_per_minute,
                concurrent: self.concurrent,
            }),
        }
    }
}

impl WrittenBudget {
    fn check(&self) -> Result<Budget, String> {
        let currency = Currency::parse(&self.currency)
            .ok_or("currency: it is not an ISO 4217 code such as \"USD\"")?;
        let amount = Money::parse_decimal(&self.amount, currency)
            .filter(|amount| (0..=LARGEST_AMOUNT).contains(&amount.pico))
            .ok_or("amount: it is not a decimal amount such as \"12.50\", at most 10^15")?;
        // A share is no money: it becomes whole millionths before it meets an amount.
        let millionths = match self.soft {
            None => SOFT,
            #[expect(clippy::cast_possible_truncation, reason = "checked to lie within 0 and 1")]
            Some(soft) if soft > 0.0 && soft <= 1.0 => (soft * 1e6).round() as i128,
            Some(_) => return Err("soft: it must be above 0 and at most 1".to_owned()),
        };
        let per = match self.per {
            WrittenPer::Day => Per::Day,
            WrittenPer::Month => Per::Month,
            WrittenPer::Total => Per::Total,
        };
        Ok(Budget { amount, per, soft: share(amount, millionths), hard: self.hard })
    }
}

pub(crate) fn allotment(
    limits: WrittenLimits,
    written: Vec<WrittenBudget>,
    priority: Option<i32>,
) -> Result<Allotment, String> {
    if priority.is_some_and(|priority| !PRIORITIES.contains(&priority)) {
        let (least, most) = (PRIORITIES.start(), PRIORITIES.end());
        return Err(format!("priority: it must be {least} to {most}"));
    }
    if written.len() > BUDGETS {
        return Err(format!("budget: more than {BUDGETS}"));
    }
    let mut budgets: Vec<Budget> = Vec::with_capacity(written.len());
    for (place, budget) in written.into_iter().enumerate() {
        let budget = budget.check().map_err(|why| format!("budget[{place}].{why}"))?;
        if budgets.iter().any(|other| identity(other) == identity(&budget)) {
            return Err(format!("budget[{place}]: another has the same currency and `per`"));
        }
        budgets.push(budget);
    }
    Ok(Allotment { limits: limits.check()?, budgets, priority })
}

pub(crate) fn check_name(key: &str, name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
        return Err(format!("{key}: it must be 1 to {NAME_BYTES} bytes on one line"));
    }
    Ok(())
}

/// A date and time of TOML or the same as text; both are RFC 3339.
fn moment(key: &str, value: &toml::Value) -> Result<UnixNanos, String> {
    let text = match value {
        toml::Value::Datetime(time) => time.to_string(),
        toml::Value::String(text) => text.clone(),
        _ => String::new(),
    };
    parse_moment(&text).ok_or_else(|| {
        format!("{key}: it is not a date and time with an offset, such as 2027-01-01T00:00:00Z")
    })
}

/// A moment since 1970, as RFC 3339 writes it.
pub(crate) fn parse_moment(text: &str) -> Option<UnixNanos> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok().map(UnixNanos)
}

/// One line that names the key, as far as the parser got, and where it stands.
pub(crate) fn at_place(text: &str, path: &str, error: &toml::de::Error) -> String {
    place::fault(text, path, error.span().map(|span| span.start), error.message())
}
