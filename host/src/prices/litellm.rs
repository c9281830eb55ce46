//! LiteLLM's file of model prices, read into entries of the price table.
//!
//! A model is an entry, and one more for each service tier that has prices of its own, before it. What cannot be said in the
//! table is left out and reported: nothing becomes free because nobody understood it. A price of zero may mean free or
//! unknown, and is left out as well unless it was asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::value::RawValue;

use super::decimal::{NoPrice, Price};
use super::ranges;

/// Fields of the file, and what the table calls them.
const PARTS: [(&str, &str); 9] = [
    ("input_cost_per_token", "input"),
    ("output_cost_per_token", "output"),
    ("cache_read_input_token_cost", "cache_read"),
    ("cache_creation_input_token_cost", "cache_write"),
    ("output_cost_per_reasoning_token", "reasoning"),
    ("input_cost_per_audio_token", "input_audio"),
    ("input_cost_per_image_token", "input_image"),
    ("output_cost_per_audio_token", "output_audio"),
    ("output_cost_per_image_token", "output_image"),
];
/// Of those, what may differ for long contexts.
pub(super) const TIERED: [&str; 5] = ["input", "output", "cache_read", "cache_write", "reasoning"];
/// Ends of a field's name, and the service tier that they mean.
const SERVICE_TIERS: [(&str, &str); 3] =
    [("_priority", "priority"), ("_flex", "flex"), ("_batches", "batch")];

/// What is read, and how.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Values of `litellm_provider`; empty: all.
    pub(super) providers: Vec<String>,
    /// Take what stands before the first `/` off the names.
    pub(super) strip_prefix: bool,
    /// Prices of zero are meant.
    pub(super) keep_free: bool,
}

/// A row of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    #[serde(rename = "match")]
    pub(super) model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_tier: Option<&'static str>,
    #[serde(flatten)]
    pub(super) prices: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) context_over: Vec<LongContext>,
}

/// Prices for contexts that are longer than so many tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct LongContext {
    pub(super) tokens: u64,
    #[serde(flatten)]
    pub(super) prices: BTreeMap<&'static str, String>,
}

/// Something that is not in the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct LeftOut {
    /// The model, as the file calls it.
    pub(super) model: String,
    /// The field, or `*` for the whole model.
    pub(super) field: String,
    /// Why.
    pub(super) reason: &'static str,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    /// Models that have entries.
    pub(super) models: usize,
    pub(super) left_out: Vec<LeftOut>,
}

/// Reads a whole file.
///
/// # Errors
/// It is no JSON object.
pub(super) fn read(text: &str, wanted: &Wanted) -> Result<Read, serde_json::Error> {
    let file: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
    let mut read = Read::default();
    let mut names = BTreeSet::new();
    for (model, fields) in file {
        // An example, and rules for names; neither is a model.
        if matches!(model.as_str(), "sample_spec" | "fallback_generalizations") {
            continue;
        }
        let mut one = Model { name: &model, wanted, left_out: Vec::new() };
        if let Some(entries) = one.entries(fields) {
            let name = entries.first().map(|entry| entry.model.clone()).unwrap_or_default();
            if names.insert(name) {
                read.models = read.models.saturating_add(1);
                read.entries.extend(entries);
            } else {
                one.left_out.clear();
                one.leave("*", "another model has the same name without its prefix");
            }
        }
        read.left_out.append(&mut one.left_out);
    }
    Ok(read)
}

/// The prices of one service tier: of any context, and of long ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Prices {
    pub(super) base: BTreeMap<&'static str, Price>,
    pub(super) over: BTreeMap<u64, BTreeMap<&'static str, Price>>,
}

struct Model<'a> {
    name: &'a str,
    wanted: &'a Wanted,
    left_out: Vec<LeftOut>,
}

impl Model<'_> {
    fn leave(&mut self, field: &str, reason: &'static str) {
        let (model, field) = (self.name.to_owned(), field.to_owned());
        self.left_out.push(LeftOut { model, field, reason });
    }

    /// The entries of the model, the general one last; none if there are no prices for its tokens.
    fn entries(&mut self, fields: &RawValue) -> Option<Vec<Entry>> {
        let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(fields.get()) else {
            self.leave("*", "it is no object");
            return None;
        };
        let text = |key: &str| {
            fields.get(key).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
        };
        let provider = text("litellm_provider").unwrap_or_default();
        if !self.wanted.providers.is_empty() && !self.wanted.providers.contains(&provider) {
            return None;
        }
        let name = match self.name.split_once('/') {
            Some((_, name)) if self.wanted.strip_prefix => name,
            _ => self.name,
        };
        if name.contains(['*', '?']) || name.is_empty() {
            self.leave("*", "its name is a pattern");
            return None;
        }
        let mode = text("mode").unwrap_or_default();
        let mut tiers = self.sort(&fields);
        self.ranges(&fields, &mut tiers);
        let standard = tiers.remove("").unwrap_or_default();
        let base = self.complete(&standard, &mode)?;
        let mut entries = Vec::with_capacity(tiers.len().saturating_add(1));
        for (tier, own) in tiers {
            // What a service tier has no price of its own for costs what it costs otherwise.
            let mut prices = base.clone();
            prices.base.extend(own.base);
            for (tokens, own) in own.over {
                prices.over.entry(tokens).or_default().extend(own);
            }
            entries.extend(self.entry(name, Some(tier), &prices));
        }
        entries.push(self.entry(name, None, &base)?);
        Some(entries)
    }

    /// Every field that is a price, by service tier; the rest is reported.
    fn sort(&mut self, fields: &BTreeMap<String, &RawValue>) -> BTreeMap<&'static str, Prices> {
        let mut tiers: BTreeMap<&'static str, Prices> = BTreeMap::new();
        for (field, raw) in fields {
            if !field.contains("cost") || raw.get() == "null" {
                continue;
            }
            let Some((part, tokens, tier)) = meaning(field) else {
                // Of what is not charged anyway nobody needs to hear.
                if Price::read(raw.get()).map_or(true, |price| !price.is_zero()) {
                    self.leave(field, reason(field));
                }
                continue;
            };
            let price = match Price::read(raw.get().trim_matches('"')) {
                Ok(price) => price,
                Err(error) => {
                    self.leave(field, no_price(error));
                    continue;
                }
            };
            let is_total = matches!(part, "input" | "output") && tokens.is_none();
            if price.is_zero() && !is_total && !self.wanted.keep_free {
                self.leave(
                    field,
                    "is 0, which may mean free or unknown; such tokens cost what the total costs",
                );
                continue;
            }
            let prices = tiers.entry(tier).or_default();
            match tokens {
                None => prices.base.insert(part, price),
                Some(tokens) => prices.over.entry(tokens).or_default().insert(part, price),
            };
        }
        tiers
    }

    /// Adds `tiered_pricing`, where it is what the model's prices are.
    fn ranges(
        &mut self,
        fields: &BTreeMap<String, &RawValue>,
        tiers: &mut BTreeMap<&'static str, Prices>,
    ) {
        const FIELD: &str = "tiered_pricing";
        let Some(raw) = fields.get(FIELD).filter(|raw| raw.get() != "null") else { return };
        let standard = tiers.entry("").or_default();
        if standard.base.contains_key("input") || !standard.over.is_empty() {
            self.leave(FIELD, "it stands beside other prices, and nothing says which hold");
            return;
        }
        match ranges::read(raw, self.wanted.keep_free) {
            Ok(read) => {
                standard.base.extend(read.prices.base);
                standard.over = read.prices.over;
                read.left_out.iter().for_each(|(field, reason)| self.leave(field, reason));
            }
            Err(reason) => self.leave(FIELD, reason),
        }
    }

    /// Whether input and output have prices that mean something.
    fn complete(&mut self, prices: &Prices, mode: &str) -> Option<Prices> {
        let mut prices = prices.clone();
        // What has no output cannot cost any; the table wants to hear it nevertheless.
        if matches!(mode, "embedding" | "rerank" | "moderation")
            && let Ok(zero) = Price::read("0")
        {
            prices.base.entry("output").or_insert(zero);
        }
        let is_free = |part: &str| prices.base.get(part).is_some_and(Price::is_zero);
        let reason = match (prices.base.get("input"), prices.base.get("output")) {
            (None, _) => "it has no input_cost_per_token",
            (_, None) => "it has no output_cost_per_token",
            _ if self.wanted.keep_free => return Some(prices),
            _ if is_free("input") => {
                "input_cost_per_token is 0, which may mean free or unknown; --keep-free takes it"
            }
            _ if is_free("output") && !matches!(mode, "embedding" | "rerank" | "moderation") => {
                "output_cost_per_token is 0, which may mean free or unknown; --keep-free takes it"
            }
            _ => return Some(prices),
        };
        self.leave("*", reason);
        None
    }

    fn entry(&mut self, name: &str, tier: Option<&'static str>, prices: &Prices) -> Option<Entry> {
        let mut written = |prices: &BTreeMap<&'static str, Price>| {
            let written: Result<BTreeMap<_, _>, NoPrice> =
                prices.iter().map(|(part, price)| Ok((*part, price.per_million()?))).collect();
            written.map_err(|error| self.leave("*", no_price(error))).ok()
        };
        let base = written(&prices.base)?;
        let mut context_over = Vec::with_capacity(prices.over.len());
        for (&tokens, own) in &prices.over {
            context_over.push(LongContext { tokens, prices: written(own)? });
        }
        Some(Entry { model: name.to_owned(), service_tier: tier, prices: base, context_over })
    }
}

/// What a field is the price of: the part, for contexts over how many tokens, in which service tier.
pub(super) fn meaning(field: &str) -> Option<(&'static str, Option<u64>, &'static str)> {
    let tier = SERVICE_TIERS.iter().find_map(|(end, tier)| Some((field.strip_suffix(end)?, *tier)));
    let (field, tier) = tier.unwrap_or((field, ""));
    if let Some((_, part)) = PARTS.iter().find(|(name, _)| *name == field) {
        return Some((part, None, tier));
    }
    let (name, over) = field.split_once("_above_")?;
    let thousands: u64 = over.strip_suffix("k_tokens")?.parse().ok()?;
    let (_, part) = PARTS.iter().find(|(of, part)| *of == name && TIERED.contains(part))?;
    Some((part, Some(thousands.checked_mul(1000)?), tier))
}

/// Why a field that is no price of tokens is not in the table.
fn reason(field: &str) -> &'static str {
    const REASONS: [(&str, &str); 12] = [
        ("_above_1hr", "a cache that is kept for longer has no count of its own"),
        ("per_character", "charged by characters, which are not counted"),
        ("per_image", "charged by the image; the table has prices for image tokens"),
        ("per_pixel", "charged by the pixel"),
        ("per_video", "charged by the video"),
        ("per_audio_per", "charged by the length of audio; the table has prices for audio tokens"),
        ("per_second", "charged by time; cost-device-seconds prices time"),
        ("per_query", "charged by the search, which is not counted"),
        ("per_page", "charged by the page"),
        ("per_session", "charged by the session"),
        ("per_gb", "charged by storage"),
        ("per_1k_calls", "charged by the call of a tool"),
    ];
    let found = REASONS.iter().find(|(part, _)| field.contains(part));
    found.map_or("the table has no place for it", |(_, reason)| reason)
}

pub(super) fn no_price(error: NoPrice) -> &'static str {
    match error {
        NoPrice::NoNumber => "it is no number",
        NoPrice::Negative => "it is below zero",
        NoPrice::TooManyDigits => "it has more digits than a price may have",
    }
}

#[cfg(test)]
#[path = "litellm_tests.rs"]
mod tests;
