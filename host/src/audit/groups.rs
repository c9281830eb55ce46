//! What figures are collected under: bounded, since tenants and models have the names that clients give them.

use std::collections::BTreeMap;

use super::error::AuditError;

/// Most groups of one answer.
const MOST: usize = 1_000_000;

/// The group of this key, or a new one.
pub(super) fn group<K: Ord, V: Default>(
    groups: &mut BTreeMap<K, V>,
    key: K,
) -> Result<&mut V, AuditError> {
    if groups.len() >= MOST && !groups.contains_key(&key) {
        return Err(AuditError::Groups(MOST));
    }
    Ok(groups.entry(key).or_default())
}

/// One more.
pub(super) fn count(number: &mut u64) {
    *number = number.saturating_add(1);
}
