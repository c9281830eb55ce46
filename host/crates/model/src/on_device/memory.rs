//! Keys and values in a GPU's memory, by the same blocks as on the CPU.
//!
//! A place is a position's row of one layer: the numbers of all key heads. Sixteen places make a block,
//! and block `b` has the places from `16 b` on. One block more than there are is always zero: what a
//! shorter sequence is filled up with where several are computed together.

use candle_core::{DType, Device, Result, Tensor};

use super::write::WriteRows;
use crate::kv::{BLOCK_TOKENS, KvShape};

/// The memory of all layers.
#[derive(Debug)]
pub(crate) struct KvTensors {
    /// Keys and values, `[places, heads * head_dim]` each.
    layers: Vec<(Tensor, Tensor)>,
    shape: KvShape,
    blocks: usize,
}

impl KvTensors {
    pub(crate) fn new(
        shape: KvShape,
        blocks: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let rows = (blocks + 1) * BLOCK_TOKENS;
        let zeros = || Tensor::zeros((rows, shape.heads * shape.head_dim), dtype, device);
        let layers = (0..shape.layers).map(|_| Ok((zeros()?, zeros()?)));
        let layers = layers.collect::<Result<_>>()?;
        // What was asked for is there, or is not, before anything is promised.
        device.synchronize()?;
        Ok(Self { layers, shape, blocks })
    }

    /// Bytes of a block, all layers together.
    pub(crate) fn block_bytes(shape: KvShape, dtype: DType) -> usize {
        let row = shape.heads * shape.head_dim * dtype.size_in_bytes();
        shape.layers * 2 * row * BLOCK_TOKENS
    }

    /// A place that is zero.
    pub(crate) fn empty_place(&self) -> usize {
        self.blocks * BLOCK_TOKENS
    }

    /// Writes keys and values (f32, `[tokens, heads * head_dim]`) of a layer to some places.
    pub(crate) fn write(
        &self,
        layer: usize,
        places: &Tensor,
        (keys, values): (&Tensor, &Tensor),
    ) -> Result<()> {
        let (all_keys, all_values) = self.layer(layer)?;
        all_keys.inplace_op3(keys, places, &WriteRows)?;
        all_values.inplace_op3(values, places, &WriteRows)
    }

    /// A layer's keys and values at `heads`, places times heads and a head each: `[heads, head_dim]`.
    pub(crate) fn read(&self, layer: usize, heads: &Tensor) -> Result<(Tensor, Tensor)> {
        let (keys, values) = self.layer(layer)?;
        let read = |all: &Tensor| {
            let rows = all.elem_count() / self.shape.head_dim;
            all.reshape((rows, self.shape.head_dim))?.index_select(heads, 0)
        };
        Ok((read(keys)?, read(values)?))
    }

    /// A layer's keys and values, `[places, heads * head_dim]` each.
    pub(super) fn layer(&self, layer: usize) -> Result<&(Tensor, Tensor)> {
        let missing = || candle_core::Error::Msg(format!("no keys and values of layer {layer}"));
        self.layers.get(layer).ok_or_else(missing)
    }
}
