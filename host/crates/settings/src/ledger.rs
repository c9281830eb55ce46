//! How the ledger is kept, from what was given.

use std::time::Duration;

use crate::given::{Durability, Given};

/// How the ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerKeeping {
    /// What a recorded request survives.
    pub durability: Durability,
    /// After how long records are deleted that every exporter has passed.
    pub retain_for: Option<Duration>,
    /// Beyond how many bytes the oldest records are deleted that every exporter has passed.
    pub retain_bytes: Option<u64>,
    /// Beyond how many bytes requests are refused.
    pub budget_bytes: Option<u64>,
    /// Bytes that must be free on the disk.
    pub min_free_bytes: u64,
    /// Size after which a new file is begun.
    pub partition_bytes: u64,
}

const DAY: u64 = 24 * 60 * 60;
const MIB: u64 = 1 << 20;

/// What was given, and the defaults.
pub(crate) fn keeping(given: &Given) -> LedgerKeeping {
    LedgerKeeping {
        durability: given.ledger_durability.unwrap_or_default(),
        retain_for: given
            .ledger_retain_days
            .map(|days| Duration::from_secs(days.saturating_mul(DAY))),
        retain_bytes: given.ledger_retain_mib.map(bytes),
        budget_bytes: given.ledger_budget_mib.map(bytes),
        min_free_bytes: bytes(given.ledger_min_free_mib.unwrap_or(64)),
        partition_bytes: bytes(given.ledger_partition_mib.unwrap_or(256)),
    }
}

/// What of it makes no sense, a line each.
pub(crate) fn faults(keeping: &LedgerKeeping) -> Vec<String> {
    let mut faults = Vec::new();
    // Files are deleted whole, and the one that is written never.
    for (name, limit) in
        [("ledger-retain-mib", keeping.retain_bytes), ("ledger-budget-mib", keeping.budget_bytes)]
    {
        if let Some(limit) = limit
            && limit > 0
            && limit < keeping.partition_bytes
        {
            faults.push(format!(
                "{name} is {} and less than one file of the ledger, {}; raise it or lower \
                 ledger-partition-mib",
                limit / MIB,
                keeping.partition_bytes / MIB
            ));
        }
    }
    if let (Some(retain), Some(budget)) = (keeping.retain_bytes, keeping.budget_bytes)
        && budget < retain
    {
        faults.push(format!(
            "ledger-budget-mib is {} and less than ledger-retain-mib, {}: requests would be \
             refused before old records are deleted; raise the budget",
            budget / MIB,
            retain / MIB
        ));
    }
    faults
}

/// MiB as bytes.
pub(crate) fn bytes(mib: u64) -> u64 {
    mib.saturating_mul(MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(retain: Option<u64>, budget: Option<u64>, partition: Option<u64>) -> Given {
        Given {
            ledger_retain_mib: retain,
            ledger_budget_mib: budget,
            ledger_partition_mib: partition,
            ..Given::default()
        }
    }

    #[test]
    fn limits_must_leave_room() {
        let cases = [
            (given(None, None, None), vec![]),
            (given(Some(1024), Some(2048), None), vec![]),
            (given(Some(1), Some(1), Some(1)), vec![]),
            (given(Some(100), None, None), vec!["ledger-retain-mib is 100 and less"]),
            (given(None, Some(100), None), vec!["ledger-budget-mib is 100 and less than one"]),
            (given(Some(600), Some(500), None), vec!["less than ledger-retain-mib, 600"]),
            (given(None, None, Some(u64::MAX)), vec![]),
        ];
        for (given, wanted) in cases {
            let faults = faults(&keeping(&given));
            assert_eq!(faults.len(), wanted.len(), "{faults:?}");
            for (fault, words) in faults.iter().zip(wanted) {
                assert!(fault.contains(words), "{fault}");
            }
        }
    }

    #[test]
    fn the_defaults_survive_a_power_cut_and_delete_nothing() {
        let keeping = keeping(&Given::default());
        assert_eq!(keeping.durability, Durability::Power);
        assert_eq!(
            (keeping.retain_for, keeping.retain_bytes, keeping.budget_bytes),
            (None, None, None)
        );
        assert_eq!((keeping.min_free_bytes, keeping.partition_bytes), (64 << 20, 256 << 20));
    }
}
