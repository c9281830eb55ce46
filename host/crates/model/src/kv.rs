//! The keys and values of all sequences, in blocks of [`BLOCK_TOKENS`] positions.
//!
//! Which block holds what is the caller's to know; here is only memory, as much as was asked for when
//! it was made and never more. A block of keys is a matrix of head width by positions, so that the
//! scores of sixteen positions are computed as one; a block of values holds sixteen numbers of each
//! position together, for the same reason.

use crate::ModelError;
use crate::config::LlamaConfig;
use crate::kernels::simd::LANES;

/// Positions whose keys and values one block holds.
pub const BLOCK_TOKENS: usize = LANES;

/// Memory for the keys and values of many sequences.
#[derive(Debug)]
pub struct KvStore {
    shape: Shape,
    blocks: usize,
    layers: Vec<Layer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    layers: usize,
    heads: usize,
    head_dim: usize,
}

/// One layer's memory.
#[derive(Debug)]
struct Layer {
    /// `[blocks, heads, head_dim, BLOCK_TOKENS]`.
    keys: Vec<f32>,
    /// `[blocks, heads, head_dim / LANES rounded up, BLOCK_TOKENS, LANES]`.
    values: Vec<f32>,
}

/// One block's keys and values of one head in one layer.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    /// `[head_dim]` of as many positions as a block has.
    pub(crate) keys: &'a [[f32; LANES]],
    /// `[head_dim / LANES rounded up, BLOCK_TOKENS]`.
    pub(crate) values: &'a [[f32; LANES]],
}

impl KvStore {
    /// As many blocks as fit into `bytes`.
    pub(crate) fn new(config: &LlamaConfig, bytes: usize) -> Result<Self, ModelError> {
        let shape = Shape::of(config);
        let blocks = bytes / shape.block_bytes();
        if blocks == 0 || u32::try_from(blocks).is_err() {
            let needed = shape.block_bytes();
            return Err(ModelError::KvMemory { bytes, needed });
        }
        let layers = (0..shape.layers).map(|_| {
            Some(Layer {
                keys: zeros(blocks * shape.keys())?,
                values: zeros(blocks * shape.values())?,
            })
        });
        let layers = layers.collect::<Option<_>>();
        let refused = ModelError::KvMemory { bytes, needed: blocks * shape.block_bytes() };
        Ok(Self { shape, blocks, layers: layers.ok_or(refused)? })
    }

    /// Bytes that a block takes, all layers together.
    pub(crate) fn block_bytes(config: &LlamaConfig) -> usize {
        Shape::of(config).block_bytes()
    }

    /// Blocks there are, numbered from 0.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes of all blocks.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks * self.shape.block_bytes()
    }

    /// Whether it was made for models of this shape.
    pub(crate) fn fits(&self, config: &LlamaConfig) -> bool {
        self.shape == Shape::of(config)
    }

    /// One head's part of a block that exists.
    pub(crate) fn block(&self, layer: usize, block: u32, head: usize) -> Option<Block<'_>> {
        let layer = self.layers.get(layer)?;
        let at = block as usize * self.shape.heads + head;
        let (keys, values) = (self.shape.head_dim, self.shape.value_lanes());
        Some(Block {
            keys: layer.keys.as_chunks().0.get(at * keys..(at + 1) * keys)?,
            values: layer.values.as_chunks().0.get(at * values..(at + 1) * values)?,
        })
    }

    /// Writes one position's keys and values, `[heads, head_dim]` each, to place `slot` of a block.
    pub(crate) fn write(
        &mut self,
        layer: usize,
        (block, slot): (u32, usize),
        keys: &[f32],
        values: &[f32],
    ) -> Option<()> {
        let Shape { heads, head_dim, .. } = self.shape;
        let (all_keys, all_values) = (self.shape.keys(), self.shape.values());
        let layer = self.layers.get_mut(layer)?;
        let block = block as usize;
        let to = layer.keys.get_mut(block * all_keys..(block + 1) * all_keys)?;
        let columns = to.chunks_exact_mut(LANES);
        for (column, key) in columns.zip(keys) {
            *column.get_mut(slot)? = *key;
        }
        let to = layer.values.get_mut(block * all_values..(block + 1) * all_values)?;
        let per_head = all_values / heads;
        for (to, from) in to.chunks_exact_mut(per_head).zip(values.chunks_exact(head_dim)) {
            let lanes = to.chunks_exact_mut(BLOCK_TOKENS * LANES);
            for (to, from) in lanes.zip(from.chunks(LANES)) {
                to.get_mut(slot * LANES..)?.get_mut(..from.len())?.copy_from_slice(from);
            }
        }
        Some(())
    }
}

impl Shape {
    fn of(config: &LlamaConfig) -> Self {
        Self { layers: config.layers, heads: config.kv_heads, head_dim: config.head_dim }
    }

    /// Numbers in the keys of a block.
    fn keys(&self) -> usize {
        self.heads * self.head_dim * BLOCK_TOKENS
    }

    /// Numbers in the values of a block.
    fn values(&self) -> usize {
        self.heads * self.value_lanes() * LANES
    }

    /// Groups of numbers in the values of one head of a block.
    fn value_lanes(&self) -> usize {
        self.head_dim.div_ceil(LANES) * BLOCK_TOKENS
    }

    fn block_bytes(&self) -> usize {
        self.layers * (self.keys() + self.values()) * size_of::<f32>()
    }
}

/// Memory that the system gives when it is first written to; `None` if it refuses even now.
fn zeros(count: usize) -> Option<Vec<f32>> {
    // `vec!` would end the process.
    Vec::<f32>::new().try_reserve_exact(count).ok()?;
    Some(vec![0.0; count])
}
