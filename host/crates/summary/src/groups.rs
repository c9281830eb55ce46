//! What figures are collected under: bounded, since tenants and models have the names that clients give them.

use std::collections::BTreeMap;

use crate::error::SummaryError;

/// Most groups of one answer that a command gives.
pub const MOST_GROUPS: usize = 1_000_000;

/// The group of this key, or a new one.
///
/// # Errors
/// [`SummaryError::Groups`]: there are as many as one answer may have.
pub fn group<K: Ord, V: Default>(
    groups: &mut BTreeMap<K, V>,
    key: K,
    most: usize,
) -> Result<&mut V, SummaryError> {
    if groups.len() >= most && !groups.contains_key(&key) {
        return Err(SummaryError::Groups(most));
    }
    Ok(groups.entry(key).or_default())
}

/// One more.
pub fn count(number: &mut u64) {
    *number = number.saturating_add(1);
}
