//! The keys and values of one sequence, kept between forward passes.
//!
//! Each layer has one buffer per kind that doubles when it is full, so a short answer holds little
//! memory and a token costs a copy of itself only.

use candle_core::{DType, Device, Result, Tensor};

use crate::config::LlamaConfig;

/// Positions a new buffer holds; it doubles from there up to the context.
const FIRST_CAPACITY: usize = 64;

/// The keys and values of one sequence.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<Layer>>,
    length: usize,
    context_length: usize,
}

/// `[1, kv_heads, capacity, head_dim]` each, of which the first `length` positions are filled.
#[derive(Debug)]
struct Layer {
    keys: Tensor,
    values: Tensor,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for a model of this shape.
    #[must_use]
    pub fn new(config: &LlamaConfig) -> Self {
        let layers = (0..config.layers).map(|_| None).collect();
        Self { layers, length: 0, context_length: config.context_length }
    }

    /// Positions filled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no position is filled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes held, filled or not.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        self.layers.iter().flatten().map(|layer| of(&layer.keys) + of(&layer.values)).sum()
    }

    /// Adds one layer's keys and values (`[1, kv_heads, tokens, head_dim]`) and returns all of them
    /// so far. The length moves with [`KvCache::advance`], once for all layers: a pass that fails
    /// half-way leaves the cache as it was.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let length = self.length;
        let needed = length + keys.dim(2)?;
        let context_length = self.context_length;
        let Some(slot) = self.layers.get_mut(layer) else {
            candle_core::bail!("the cache has no layer {layer}");
        };
        let layer = match slot {
            Some(layer) if layer.capacity >= needed => layer,
            old => {
                let capacity =
                    needed.max(FIRST_CAPACITY).next_power_of_two().min(context_length).max(needed);
                let grown = Layer::grown(old.as_ref(), length, capacity, keys)?;
                old.insert(grown)
            }
        };
        layer.keys.slice_set(keys, 2, length)?;
        layer.values.slice_set(values, 2, length)?;
        Ok((layer.keys.narrow(2, 0, needed)?, layer.values.narrow(2, 0, needed)?))
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }
}

impl Layer {
    fn grown(old: Option<&Self>, length: usize, capacity: usize, like: &Tensor) -> Result<Self> {
        let (batch, heads, _, width) = like.dims4()?;
        let empty = |device: &Device, dtype: DType| {
            Tensor::zeros((batch, heads, capacity, width), dtype, device)
        };
        let grown = Self {
            keys: empty(like.device(), like.dtype())?,
            values: empty(like.device(), like.dtype())?,
            capacity,
        };
        if let (Some(old), true) = (old, length > 0) {
            grown.keys.slice_set(&old.keys.narrow(2, 0, length)?.contiguous()?, 2, 0)?;
            grown.values.slice_set(&old.values.narrow(2, 0, length)?.contiguous()?, 2, 0)?;
        }
        Ok(grown)
    }
}
