//! Sums of requests on record.
//!
//! `GET /admin/totals`. Parameters: `by` (`tenant`, `model`, `plugin`, `day`, `time`, with commas
//! between; default all in one), `bucket` (length of a stretch of `time`: `1m`, `1h`, `1d`; default
//! `1h`), `since` and `until` (when it began; default the last day), `tenant`, `model`.
//!
//! The answer is that of `tollgate report --format json`, and beside it `bucket_seconds`, `records`
//! (how many are in it) and `cut_off`: null, or, where there were more records than one answer adds
//! up, the moment since when all that ended are in it. Amounts are exact decimal strings, one sum
//! for each currency.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tollgate_domain::UnixNanos;
use tollgate_domain::time::nanos;
use tollgate_gateway::{Dimension, Period, Refusal, Totals, TotalsAsk, ago};

use super::parameters::{Parameters, refused};
use super::requests::time;

/// What is added up if nothing else is said.
const PERIOD: Duration = Duration::from_secs(86_400);

/// The bucket if nothing else is said, and the shortest.
const BUCKET: Duration = Duration::from_secs(3_600);
const SHORTEST: Duration = Duration::from_secs(1);

/// What is to be added up.
pub(super) struct Ask {
    pub(super) totals: TotalsAsk,
    bucket: Duration,
}

/// Reads the parameters.
pub(super) fn read(query: Option<&str>) -> Result<Ask, Refusal> {
    let known = ["by", "bucket", "since", "until", "tenant", "model"];
    let given = Parameters::read(query, &known)?;
    let bucket = match given.text("bucket") {
        None => BUCKET,
        Some(text) => ago(text).filter(|bucket| *bucket >= SHORTEST).ok_or_else(|| {
            let message = format!("`bucket` is {text:?}; write a length such as 1m, 1h or 1d.");
            refused(message, "bucket")
        })?,
    };
    let by = given.text("by").unwrap_or_default();
    let by = by.split(',').filter(|name| !name.is_empty()).map(|name| dimension(name, bucket));
    let mut period = given.period()?;
    if period == Period::default() {
        let now: UnixNanos = SystemTime::now().into();
        period.since = Some(UnixNanos(now.0.saturating_sub(nanos(PERIOD))));
    }
    let text = |name| given.text(name).map(str::to_owned);
    let totals = TotalsAsk {
        by: by.collect::<Result<_, _>>()?,
        period,
        tenant: text("tenant"),
        model: text("model"),
    };
    Ok(Ask { totals, bucket })
}

/// The answer.
pub(super) fn view(totals: &Totals, period: Period, ask_bucket: Duration) -> Value {
    let mut value = totals.summary.json(period);
    if let Value::Object(fields) = &mut value {
        fields.insert("bucket_seconds".to_owned(), json!(ask_bucket.as_secs()));
        fields.insert("records".to_owned(), json!(totals.records));
        fields.insert("cut_off".to_owned(), json!(totals.cut_off.map(time)));
    }
    value
}

impl Ask {
    /// Length of a stretch of time.
    pub(super) fn bucket(&self) -> Duration {
        self.bucket
    }
}

fn dimension(name: &str, bucket: Duration) -> Result<Dimension, Refusal> {
    Ok(match name {
        "tenant" => Dimension::Tenant,
        "model" => Dimension::Model,
        "plugin" => Dimension::Plugin,
        "day" => Dimension::Day,
        "time" => Dimension::Time(nanos(bucket)),
        other => {
            let message = format!(
                "`by` has {other:?}; write some of tenant, model, plugin, day, time, with commas between."
            );
            return Err(refused(message, "by"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_added_up_is_read() {
        let ask = read(Some("by=time,tenant&bucket=5m&tenant=a&since=1h")).unwrap();
        assert_eq!(ask.totals.by, [Dimension::Time(300_000_000_000), Dimension::Tenant]);
        assert_eq!(
            (ask.totals.tenant.as_deref(), ask.bucket()),
            (Some("a"), Duration::from_secs(300))
        );
        assert!(read(None).unwrap().totals.period.since.is_some());
        for (wrong, parameter) in [
            ("by=user", "by"),
            ("bucket=0s", "bucket"),
            ("bucket=x", "bucket"),
            ("since=x", "since"),
        ] {
            let refusal = read(Some(wrong)).map(drop).unwrap_err();
            assert_eq!(refusal.param.as_deref(), Some(parameter), "{wrong}");
        }
    }
}
