//! The keys of an `[[exporter]]` table that make it wait for whole traces, and say which leave.

use std::time::Duration;

use tollgate_domain::sampling::{Share, TraceRules};
use tollgate_domain::{Currency, Money};

use super::GivenExporter;
use crate::ledger::bytes;

/// Longest wait in seconds.
const LONGEST_WAIT: u64 = 3600;

/// Memory where nothing is said, in MiB.
const MEMORY_MIB: u64 = 256;

/// The rules, if there are any.
pub(super) fn resolve(table: &mut GivenExporter, faults: &mut Vec<String>) -> Option<TraceRules> {
    let (wait, errors) = (table.trace_wait_seconds.take(), table.keep_errors.take());
    let (slower, cost) = (table.keep_slower_seconds.take(), table.keep_cost.take());
    let (sample, memory) = (table.sample.take(), table.trace_memory_mib.take());
    let Some(wait) = wait else {
        let any = errors.is_some() || slower.is_some() || cost.is_some();
        if any || sample.is_some() || memory.is_some() {
            faults.push(
                "keep-errors, keep-slower-seconds, keep-cost, sample and trace-memory-mib are about \
                 whole traces; set trace-wait-seconds, too"
                    .to_owned(),
            );
        }
        return None;
    };
    if !(1..=LONGEST_WAIT).contains(&wait) {
        faults.push(format!("trace-wait-seconds is {wait}; it must be from 1 to {LONGEST_WAIT}"));
    }
    if memory == Some(0) {
        faults.push("trace-memory-mib is 0; it must be at least 1".to_owned());
    }
    let keep_slower = slower.map(Duration::try_from_secs_f64).transpose().unwrap_or_else(|_| {
        faults.push("keep-slower-seconds must be a number of seconds, 0 or more".to_owned());
        None
    });
    let keep_cost = cost.and_then(|text| {
        let cost = money(&text);
        if cost.is_none() {
            faults.push(format!("keep-cost is {text:?}; write an amount as in \"0.05 USD\""));
        }
        cost
    });
    let share = sample.map_or(Some(Share::ALL), Share::of);
    if share.is_none() {
        faults.push("sample must be a number from 0 to 1".to_owned());
    }
    let memory = bytes(memory.unwrap_or(MEMORY_MIB));
    Some(TraceRules {
        wait: Duration::from_secs(wait),
        keep_errors: errors.unwrap_or(true),
        keep_slower,
        keep_cost,
        share: share.unwrap_or(Share::ALL),
        most_bytes: usize::try_from(memory).unwrap_or(usize::MAX),
    })
}

/// An amount as in `0.05 USD`.
fn money(text: &str) -> Option<Money> {
    let (amount, currency) = text.trim().split_once(' ')?;
    Money::parse_decimal(amount, Currency::parse(currency.trim())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(toml: &str) -> (Option<TraceRules>, Vec<String>) {
        let (mut table, mut faults) = (toml::from_str(toml).unwrap(), Vec::new());
        let rules = resolve(&mut table, &mut faults);
        (rules, faults)
    }

    #[test]
    fn rules_are_read() {
        assert_eq!(resolved(""), (None, Vec::new()));
        let (rules, faults) = resolved("trace-wait-seconds = 10");
        let rules = rules.unwrap();
        assert!(faults.is_empty() && rules.keep_errors && rules.share == Share::ALL);
        let (rules, faults) = resolved(
            "trace-wait-seconds = 1\nkeep-errors = false\nkeep-slower-seconds = 2.5\n\
             keep-cost = \"0.05 USD\"\nsample = 0\ntrace-memory-mib = 2",
        );
        let rules = rules.unwrap();
        assert!(faults.is_empty() && !rules.keep_errors, "{faults:?}");
        assert_eq!(rules.keep_slower, Some(Duration::from_millis(2500)));
        assert_eq!(rules.keep_cost, Money::parse_decimal("0.05", Currency::USD));
        assert_eq!((rules.share, rules.most_bytes), (Share::of(0.0).unwrap(), 2 << 20));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (toml, said) in [
            ("sample = 0.5", "set trace-wait-seconds"),
            ("trace-wait-seconds = 0", "from 1 to"),
            ("trace-wait-seconds = 1\nsample = 1.5", "from 0 to 1"),
            ("trace-wait-seconds = 1\nkeep-cost = \"5\"", "0.05 USD"),
            ("trace-wait-seconds = 1\nkeep-slower-seconds = -1", "0 or more"),
            ("trace-wait-seconds = 1\ntrace-memory-mib = 0", "at least 1"),
        ] {
            let (_, faults) = resolved(toml);
            assert!(faults.iter().any(|fault| fault.contains(said)), "{toml}: {faults:?}");
        }
    }
}
