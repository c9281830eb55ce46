//! Usage, what a cost model prices.

use crate::bindings::cost_model::exports::tollgate::plugin::cost_model as raw;
use std::ops::Deref;

/// What one request used. Its fields are the contract's: `usage.request_model`, `usage.tokens.input`, `usage.start`.
#[derive(Debug, Clone, Copy)]
pub struct Usage<'a> {
    pub(crate) raw: &'a raw::Usage,
}

impl Deref for Usage<'_> {
    type Target = raw::Usage;

    fn deref(&self) -> &raw::Usage {
        self.raw
    }
}

impl raw::TokenUsage {
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
