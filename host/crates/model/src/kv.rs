//! The keys and values of all sequences, in blocks of [`BLOCK_TOKENS`] positions.
//!
//! Which block holds what is the caller's to know; here is only memory, as much as was asked for when
//! it was made and never more. A block of keys is a matrix of head width by positions, so that the
//! scores of sixteen positions are computed as one; a block of values holds sixteen numbers of each
//! position together, for the same reason.
//!
//! Of a model on a GPU they are in its memory ([`crate::on_device`]), by the same blocks.
//!
//! A model that runs one sequence at a time keeps keys and values itself. Its store only counts what
//! they take, in blocks of the same size, so that the same limit holds for them.

use crate::ModelError;
use crate::kernels::simd::LANES;
use crate::on_device::KvTensors;
use crate::sequential::Running;

/// Positions whose keys and values one block holds.
pub const BLOCK_TOKENS: usize = LANES;

/// Memory for the keys and values of many sequences.
#[derive(Debug)]
pub struct KvStore {
    shape: KvShape,
    blocks: usize,
    block_bytes: usize,
    kept: Kept,
}

/// Where keys and values are.
#[derive(Debug)]
enum Kept {
    Here(Vec<Layer>),
    OnDevice(KvTensors),
    /// With the model, which is at one sequence: they are only counted.
    ByModel(Running),
    Nowhere,
}

/// Whose keys and values a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The kernels of the CPU.
    Kernels,
    Device,
    /// A model that keeps them itself.
    Model,
    Nobody,
}

/// What a token's keys and values are, in numbers; all zero for a model that keeps none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) layers: usize,
    /// Key and value heads.
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
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
    pub(crate) fn new(shape: KvShape, bytes: usize) -> Result<Self, ModelError> {
        let blocks = shape.blocks(bytes)?;
        let layers = (0..shape.layers).map(|_| {
            Some(Layer {
                keys: zeros(blocks * shape.keys())?,
                values: zeros(blocks * shape.values())?,
            })
        });
        let layers = layers.collect::<Option<_>>();
        let block_bytes = shape.block_bytes();
        let refused = ModelError::KvMemory { bytes, needed: blocks * block_bytes };
        Ok(Self { shape, blocks, block_bytes, kept: Kept::Here(layers.ok_or(refused)?) })
    }

    /// As many blocks of `block_bytes` as fit into `bytes`, made on a device.
    pub(crate) fn on_device(
        shape: KvShape,
        bytes: usize,
        block_bytes: usize,
        make: impl FnOnce(usize) -> candle_core::Result<KvTensors>,
    ) -> Result<Self, ModelError> {
        let blocks = blocks_in(bytes, block_bytes)?;
        let refused = |error: candle_core::Error| {
            tracing::warn!(%error, "no memory for keys and values on the device");
            ModelError::KvMemory { bytes, needed: blocks.saturating_mul(block_bytes) }
        };
        let kept = Kept::OnDevice(make(blocks).map_err(refused)?);
        Ok(Self { shape, blocks, block_bytes, kept })
    }

    /// As many blocks as would fit into `bytes`, for a model that keeps keys and values itself.
    pub(crate) fn counted(
        shape: KvShape,
        bytes: usize,
        running: Running,
    ) -> Result<Self, ModelError> {
        let blocks = shape.blocks(bytes)?;
        let block_bytes = shape.block_bytes();
        Ok(Self { shape, blocks, block_bytes, kept: Kept::ByModel(running) })
    }

    /// Blocks for `positions`, for a model that keeps nothing between passes.
    pub(crate) fn nothing(positions: usize) -> Self {
        let blocks = positions.div_ceil(BLOCK_TOKENS);
        Self { shape: KvShape::default(), blocks, block_bytes: 0, kept: Kept::Nowhere }
    }

    /// The one sequence of a model that keeps keys and values itself.
    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.kept {
            Kept::ByModel(running) => Some(running),
            _ => None,
        }
    }

    /// The tensors of a model on a device.
    pub(crate) fn tensors(&self) -> Option<&KvTensors> {
        match &self.kept {
            Kept::OnDevice(tensors) => Some(tensors),
            _ => None,
        }
    }

    /// Blocks there are, numbered from 0.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes of all blocks.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks * self.block_bytes
    }

    /// Whether it was made for models of this shape.
    pub(crate) fn fits(&self, shape: KvShape, block_bytes: usize, keeper: Keeper) -> bool {
        let mine = match &self.kept {
            Kept::Here(_) => Keeper::Kernels,
            Kept::OnDevice(_) => Keeper::Device,
            Kept::ByModel(_) => Keeper::Model,
            Kept::Nowhere => Keeper::Nobody,
        };
        (self.shape, self.block_bytes, mine) == (shape, block_bytes, keeper)
    }

    /// One head's part of a block that exists.
    pub(crate) fn block(&self, layer: usize, block: u32, head: usize) -> Option<Block<'_>> {
        let Kept::Here(layers) = &self.kept else { return None };
        let layer = layers.get(layer)?;
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
        let KvShape { heads, head_dim, .. } = self.shape;
        let (all_keys, all_values) = (self.shape.keys(), self.shape.values());
        let Kept::Here(layers) = &mut self.kept else { return None };
        let layer = layers.get_mut(layer)?;
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

impl KvShape {
    /// Blocks that fit into `bytes`, at least one.
    fn blocks(self, bytes: usize) -> Result<usize, ModelError> {
        blocks_in(bytes, self.block_bytes())
    }

    /// Numbers in the keys of a block.
    fn keys(self) -> usize {
        self.heads * self.head_dim * BLOCK_TOKENS
    }

    /// Numbers in the values of a block.
    fn values(self) -> usize {
        self.heads * self.value_lanes() * LANES
    }

    /// Groups of numbers in the values of one head of a block.
    fn value_lanes(self) -> usize {
        self.head_dim.div_ceil(LANES) * BLOCK_TOKENS
    }

    /// Bytes that a block takes, all layers together.
    pub(crate) fn block_bytes(self) -> usize {
        self.layers * (self.keys() + self.values()) * size_of::<f32>()
    }
}

/// Blocks of which each needs some bytes that fit into `bytes`, at least one.
fn blocks_in(bytes: usize, needed: usize) -> Result<usize, ModelError> {
    let blocks = bytes.checked_div(needed).unwrap_or(0);
    if blocks == 0 || u32::try_from(blocks).is_err() {
        return Err(ModelError::KvMemory { bytes, needed });
    }
    Ok(blocks)
}

/// Memory that the system gives when it is first written to; `None` if it refuses even now.
fn zeros(count: usize) -> Option<Vec<f32>> {
    // `vec!` would end the process.
    Vec::<f32>::new().try_reserve_exact(count).ok()?;
    Some(vec![0.0; count])
}
