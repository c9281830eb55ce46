//! LiteLLM's `tiered_pricing`: a list of ranges of input tokens, each with prices of its own.
//!
//! A request is priced whole by the range that its input falls into; a range begins after its first number and ends with its second, and
//! the last one has no end, whatever it says. That is what `context_over` of the price table says, so no amount differs. What LiteLLM
//! would take as free because a range does not name it is taken for a mistake instead.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::decimal::Price;
use super::litellm::{Prices, TIERED, meaning, no_price};

/// A part that a range may lack, and the total that such tokens cost then.
const FALLBACKS: [(&str, &str); 3] =
    [("cache_read", "input"), ("cache_write", "input"), ("reasoning", "output")];

/// What the ranges say.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// Of any length, and of what is longer than each range before the last.
    pub(super) prices: Prices,
    /// What has no place in the table: field and reason.
    pub(super) left_out: Vec<(String, &'static str)>,
}

/// Reads all ranges.
///
/// # Errors
/// Why none of it can be taken.
pub(super) fn read(raw: &RawValue, keep_free: bool) -> Result<Ranges, &'static str> {
    let ranges: Vec<BTreeMap<String, &RawValue>> =
        serde_json::from_str(raw.get()).map_err(|_| "it is no list of ranges")?;
    let Ranges { mut prices, mut left_out } = Ranges::default();
    let mut end = None;
    for (index, fields) in ranges.iter().enumerate() {
        let (from, to) = bounds(fields).ok_or("a range is no pair of whole numbers")?;
        if from != end.unwrap_or(0) || from >= to {
            return Err("its ranges do not follow each other from 0 on");
        }
        end = Some(to);
        let own = of_range(fields, index, keep_free, &mut left_out)?;
        match from {
            0 => prices.base = own,
            _ => drop(prices.over.insert(from, own)),
        }
    }
    if end.is_none() {
        return Err("it has no range");
    }
    fill(&mut prices);
    Ok(Ranges { prices, left_out })
}

fn bounds(fields: &BTreeMap<String, &RawValue>) -> Option<(u64, u64)> {
    let pair: [&RawValue; 2] = serde_json::from_str(fields.get("range")?.get()).ok()?;
    let [from, to] = pair.map(|raw| {
        // Some are written as `32000.0`.
        let text = raw.get();
        let whole = text.split_once('.').map_or(Some(text), |(whole, fraction)| {
            fraction.bytes().all(|digit| digit == b'0').then_some(whole)
        });
        whole?.parse::<u64>().ok()
    });
    Some((from?, to?))
}

/// The prices of one range.
fn of_range(
    fields: &BTreeMap<String, &RawValue>,
    index: usize,
    keep_free: bool,
    left: &mut Vec<(String, &'static str)>,
) -> Result<BTreeMap<&'static str, Price>, &'static str> {
    let mut own = BTreeMap::new();
    for (field, raw) in fields {
        if !field.contains("cost") || raw.get() == "null" {
            continue;
        }
        let mut leave = |why| left.push((format!("tiered_pricing[{index}].{field}"), why));
        let Some((part, None, "")) = meaning(field) else {
            leave("the table has no place for it");
            continue;
        };
        if index > 0 && !TIERED.contains(&part) {
            leave("the table has one price of this for all lengths");
            continue;
        }
        let price = match Price::read(raw.get().trim_matches('"')) {
            Ok(price) => price,
            Err(error) if matches!(part, "input" | "output") => return Err(no_price(error)),
            Err(error) => {
                leave(no_price(error));
                continue;
            }
        };
        if price.is_zero() && !keep_free {
            match part {
                "input" | "output" => {
                    return Err(
                        "a price of it is 0, which may mean free or unknown; --keep-free takes it",
                    );
                }
                _ => leave(
                    "is 0, which may mean free or unknown; such tokens cost what the total costs",
                ),
            }
            continue;
        }
        own.insert(part, price);
    }
    match own.contains_key("input") && own.contains_key("output") {
        true => Ok(own),
        false => Err("a range has no price for input or output"),
    }
}

/// Says in each range what a part costs that it does not name: the table would take the first range's price of it.
fn fill(prices: &mut Prices) {
    for own in prices.over.values_mut() {
        for (part, total) in FALLBACKS {
            let price = own.get(total).cloned().filter(|_| prices.base.contains_key(part));
            if let Some(price) = price {
                own.entry(part).or_insert(price);
            }
        }
    }
}
