//! Usage, what a cost model prices.

use crate::{
    TokenUsage,
    bindings::{
        cost_model::exports::tollgate::plugin::cost_model as raw,
        lifecycle::tollgate::plugin::types::TextRef,
    },
};

/// Provider of models that run in the gateway's own process.
const IN_PROCESS: &str = "tollgate";

/// What one request used, read where it lies: nothing is copied.
#[derive(Debug, Clone, Copy)]
pub struct Usage<'a> {
    /// `gen_ai.provider.name`.
    pub provider: &'a str,
    /// `gen_ai.request.model`.
    pub request_model: &'a str,
    /// `gen_ai.response.model`; the request's where the response names none.
    pub response_model: &'a str,
    /// `gen_ai.operation.name`.
    pub operation: &'a str,
    /// `standard`, `batch`, `flex`, `priority` or the provider's own word.
    pub service_tier: Option<&'a str>,
    /// Whether the request ended, and how.
    pub phase: raw::Phase,
    /// Where the counts come from.
    pub source: raw::UsageSource,
    /// When the request began, in nanoseconds since the Unix epoch: which price list applies.
    pub start: u64,
    /// Tokens.
    pub tokens: &'a TokenUsage,
    /// Time on own hardware.
    pub compute: Option<ComputeUsage<'a>>,
    units: &'a [raw::UnitUsage],
    texts: Texts<'a>,
}

/// Own hardware, for models served by the gateway or by a local engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputeUsage<'a> {
    /// Operator's label: `h200-sxm`, `cpu`.
    pub device: &'a str,
    /// Device time given to this request, in nanoseconds, summed over devices.
    pub device_time: u64,
    /// That share, in parts per million of the device time of the batches the request rode in.
    pub share_ppm: u32,
    /// Measured, where the host can.
    pub energy_millijoules: Option<u64>,
}

/// Usage that is not tokens: images made, searches, tool calls, seconds of audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitUsage<'a> {
    /// Of what.
    pub unit: &'a str,
    /// How many millionths of one.
    pub quantity_micros: u64,
}

impl<'a> Usage<'a> {
    /// `None` if a text lies outside the arena: the host's fault, and nothing may be billed by a name that cannot be read.
    pub(crate) fn read(raw: &'a raw::Usage, texts: Texts<'a>) -> Option<Self> {
        let units = raw.units.as_deref().unwrap_or_default();
        if units.iter().any(|unit| texts.at(unit.unit).is_none()) {
            return None;
        }
        Some(Self {
            provider: texts.at(raw.provider)?,
            request_model: texts.at(raw.request_model)?,
            response_model: texts.at(raw.response_model)?,
            operation: texts.at(raw.operation)?,
            service_tier: match raw.service_tier {
                Some(tier) => Some(texts.at(tier)?),
                None => None,
            },
            phase: raw.phase,
            source: raw.source,
            start: raw.start,
            tokens: &raw.tokens,
            compute: match raw.compute {
                Some(compute) => Some(ComputeUsage {
                    device: texts.at(compute.device)?,
                    device_time: compute.device_time,
                    share_ppm: compute.share_ppm,
                    energy_millijoules: compute.energy_millijoules,
                }),
                None => None,
            },
            units,
            texts,
        })
    }

    /// The model to look up in a price list. Of another server it is the one that was asked there: what clients call it
    /// is an alias, whose price would be another model's. A model in the gateway's own process has no price but that of
    /// the name it was asked for by.
    pub fn model(&self) -> &'a str {
        if self.provider == IN_PROCESS { self.request_model } else { self.response_model }
    }

    /// What it used beside tokens and devices.
    pub fn units(&self) -> impl Iterator<Item = UnitUsage<'a>> + use<'a> {
        let texts = self.texts;
        self.units.iter().filter_map(move |raw| {
            Some(UnitUsage { unit: texts.at(raw.unit)?, quantity_micros: raw.quantity_micros })
        })
    }
}

/// All text of a call. It is looked at once, since that takes longer than to find the names in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texts<'a>(&'a str);

impl<'a> Texts<'a> {
    /// `None` if it is no UTF-8.
    pub(crate) fn of(arena: &'a [u8]) -> Option<Self> {
        std::str::from_utf8(arena).ok().map(Self)
    }

    #[inline]
    pub(crate) fn at(self, at: TextRef) -> Option<&'a str> {
        let start = usize::try_from(at.offset).ok()?;
        self.0.get(start..start.checked_add(usize::try_from(at.length).ok()?)?)
    }
}

impl TokenUsage {
    /// Input tokens that neither came from a cache nor were written to one. The counts of a cache are parts of
    /// `input`, so charging both `input` and a part would charge the part twice. `None` if the parts exceed the total.
    pub fn uncached_input(&self) -> Option<u64> {
        self.input.checked_sub(self.input_cache_read)?.checked_sub(self.input_cache_write)
    }

    /// Output tokens beyond those spent on reasoning. `None` if the part exceeds the total.
    pub fn visible_output(&self) -> Option<u64> {
        self.output.checked_sub(self.output_reasoning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_references_read_as_nothing() {
        let at = |offset, length| TextRef { offset, length };
        let texts = Texts::of("gpt-é".as_bytes()).unwrap();
        assert_eq!(texts.at(at(0, 3)), Some("gpt"));
        assert_eq!(texts.at(at(4, 2)), Some("é"));
        assert_eq!(texts.at(at(6, 0)), Some(""));
        for broken in [at(4, 1), at(5, 1), at(7, 0), at(0, 7), at(u32::MAX, u32::MAX)] {
            assert_eq!(texts.at(broken), None, "{broken:?}");
        }
        assert!(Texts::of(b"gpt-\xff").is_none());
    }
}
