//! Attention over keys and values that are in blocks.
//!
//! Tokens of a prompt have those that they look at put side by side, by places, and then it is two
//! products with a softmax between them: products in the type of the keys, the softmax in f32.
//! Sequences of one token each have a kernel on a GPU that reads them where they are.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::memory::KvTensors;
use super::plan::{Looks, Part, Plan};
use crate::config::LlamaConfig;

/// Whether single tokens attend by a kernel of their own.
pub(super) fn has_kernel(config: &LlamaConfig, device: &candle_core::Device) -> bool {
    #[cfg(feature = "cuda")]
    let widest = super::cuda::WIDEST_HEAD;
    #[cfg(not(feature = "cuda"))]
    let widest = 0;
    device.is_cuda() && config.head_dim <= widest
}

/// What all tokens of a pass take of the values, `[tokens, heads * head_dim]` in f32, by queries
/// (`[tokens, heads * head_dim]`) that are scaled.
pub(super) fn attend(
    config: &LlamaConfig,
    memory: &KvTensors,
    layer: usize,
    plan: &Plan,
    queries: &Tensor,
) -> Result<Tensor> {
    let mut start = 0;
    let parts = plan.parts.iter().map(|part| {
        let tokens = part.sequences * part.tokens;
        start += tokens;
        let queries = queries.narrow(0, start - tokens, tokens)?;
        match &part.looks {
            Looks::SideBySide { heads, unseen } => {
                side_by_side(config, memory, layer, part, (heads, unseen.as_ref()), &queries)
            }
            Looks::InPlace { places, lengths } => {
                let (keys, values) = memory.layer(layer)?;
                let heads = (config.kv_heads, config.head_dim);
                queries.apply_op1_no_bwd(&Single { keys, values, places, lengths, heads })
            }
        }
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    match parts.as_slice() {
        [part] => Ok(part.clone()),
        parts => Tensor::cat(parts, 0),
    }
}

fn side_by_side(
    config: &LlamaConfig,
    memory: &KvTensors,
    layer: usize,
    part: &Part,
    (at, unseen): (&Tensor, Option<&Tensor>),
    queries: &Tensor,
) -> Result<Tensor> {
    let LlamaConfig { heads, kv_heads, head_dim, .. } = *config;
    let Part { sequences, tokens, looked_at, .. } = *part;
    let group = heads / kv_heads;
    let (keys, values) = memory.read(layer, at)?;
    let shape = (sequences * kv_heads, looked_at, head_dim);
    let (keys, values) = (keys.reshape(shape)?, values.reshape(shape)?);
    // Query heads that share a key head are stacked along the tokens, so keys are never copied for them.
    let queries = queries.to_dtype(keys.dtype())?;
    let queries = queries.reshape((sequences, tokens, kv_heads, group, head_dim))?;
    let queries = queries.permute((0, 2, 3, 1, 4))?.contiguous()?;
    let queries = queries.reshape((sequences * kv_heads, group * tokens, head_dim))?;
    let scores = queries.matmul(&keys.t()?)?.to_dtype(DType::F32)?;
    let scores = scores.reshape((sequences, heads, tokens, looked_at))?;
    let scores = match unseen {
        Some(unseen) => scores.broadcast_add(unseen)?,
        None => scores,
    };
    let weights = softmax_last_dim(&scores)?.to_dtype(values.dtype())?;
    let weights = weights.reshape((sequences * kv_heads, group * tokens, looked_at))?;
    let taken = weights.matmul(&values)?;
    let taken = taken.reshape((sequences, kv_heads, group, tokens, head_dim))?;
    let taken = taken.permute((0, 3, 1, 2, 4))?.contiguous()?;
    taken.reshape((sequences * tokens, heads * head_dim))?.to_dtype(DType::F32)
}

/// The kernel for sequences of one token each.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "read by the kernel"))]
struct Single<'a> {
    keys: &'a Tensor,
    values: &'a Tensor,
    places: &'a Tensor,
    lengths: &'a Tensor,
    /// Key heads, and how wide a head is.
    heads: (usize, usize),
}

impl CustomOp1 for Single<'_> {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn cpu_fwd(&self, _queries: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("attend: the kernel is one of GPUs")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        queries: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let Self { keys, values, places, lengths, heads: (kv_heads, head_dim) } = *self;
        let attend = super::cuda::Attend { keys, values, places, lengths, kv_heads, head_dim };
        attend.forward(queries, layout)
    }
}
