//! The Llama forward pass over candle tensors: RMS norm, rotary positions, grouped-query attention,
//! SwiGLU.
//!
//! One function serves inference and training. What differs is in [`Kernels`]: candle's fused
//! kernels have no backward pass, the ones composed of plain operations have. Shapes are written as
//! `[batch, heads, tokens, head_dim]`; a batch larger than one is for training, where all rows
//! start at position 0.

use candle_core::{D, Result, Tensor};
use candle_nn::{ops, rotary_emb};

use crate::cache::KvCache;
use crate::config::LlamaConfig;
use crate::rope::Rope;

/// Which kernels the forward pass uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// Fused: fast, forward only.
    Fused,
    /// Composed of operations that have a backward pass: for training.
    Differentiable,
}

/// A Llama-family model: weights and precomputed rotary tables.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    kernels: Kernels,
    embeddings: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    head: Tensor,
    rope: Rope,
}

#[derive(Debug)]
struct Block {
    attention_norm: Norm,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    feed_forward_norm: Norm,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    eps: f32,
}

impl Llama {
    /// Assembles a model from its tensors. `tensor` is asked for each by its Hugging Face name and
    /// the shape it must have.
    ///
    /// # Errors
    /// Whatever `tensor` returns, or a failure of the tensor library.
    pub fn assemble<E: From<candle_core::Error>>(
        config: LlamaConfig,
        kernels: Kernels,
        mut tensor: impl FnMut(&str, &[usize]) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Self, E> {
        let c = &config;
        let embeddings = tensor("model.embed_tokens.weight", &[c.vocabulary, c.hidden])?;
        let mut blocks = Vec::with_capacity(c.layers);
        for layer in 0..c.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            blocks.push(Block {
                attention_norm: Norm::assemble(c, &mut tensor, &name("input_layernorm"))?,
                query: tensor(&name("self_attn.q_proj"), &[c.heads * c.head_dim, c.hidden])?,
                key: tensor(&name("self_attn.k_proj"), &[c.kv_heads * c.head_dim, c.hidden])?,
                value: tensor(&name("self_attn.v_proj"), &[c.kv_heads * c.head_dim, c.hidden])?,
                output: tensor(&name("self_attn.o_proj"), &[c.hidden, c.heads * c.head_dim])?,
                feed_forward_norm: Norm::assemble(
                    c,
                    &mut tensor,
                    &name("post_attention_layernorm"),
                )?,
                gate: tensor(&name("mlp.gate_proj"), &[c.feed_forward, c.hidden])?,
                up: tensor(&name("mlp.up_proj"), &[c.feed_forward, c.hidden])?,
                down: tensor(&name("mlp.down_proj"), &[c.hidden, c.feed_forward])?,
            });
        }
        let norm = Norm::assemble(c, &mut tensor, "model.norm.weight")?;
        let head = match c.tied_embeddings {
            true => embeddings.clone(),
            false => tensor("lm_head.weight", &[c.vocabulary, c.hidden])?,
        };
        let rope = Rope::new(c, embeddings.device())?;
        Ok(Self { kernels, embeddings, blocks, norm, head, rope, config })
    }

    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Runs `tokens`, `[batch, tokens]` of ids, after the `cache`'s positions (from 0 without one)
    /// and returns the normed hidden states `[batch, tokens, hidden]`.
    ///
    /// # Errors
    /// If an id is outside the vocabulary, the positions exceed the context, or a shape does not
    /// fit.
    pub fn hidden_states(
        &self,
        tokens: &Tensor,
        mut cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let (batch, count) = tokens.dims2()?;
        let start = cache.as_ref().map_or(0, |cache| cache.len());
        let mask = self.mask(start, count)?;
        let rope = self.rope.positions(start, count)?;
        let mut x = self.embeddings.index_select(&tokens.flatten_all()?, 0)?;
        x = x.reshape((batch, count, self.config.hidden))?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = self.norm(&x, &block.attention_norm)?;
            let attended =
                self.attention(&normed, block, layer, &rope, mask.as_ref(), cache.as_deref_mut())?;
            x = (x + attended)?;
            let normed = self.norm(&x, &block.feed_forward_norm)?;
            x = (x + feed_forward(&normed, block)?)?;
        }
        if let Some(cache) = cache {
            cache.advance(count);
        }
        self.norm(&x, &self.norm)
    }

    /// Logits `[.., vocabulary]` of hidden states `[.., hidden]`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        project(hidden, &self.head)
    }

    fn attention(
        &self,
        x: &Tensor,
        block: &Block,
        layer: usize,
        rope: &Rope,
        mask: Option<&Tensor>,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let (batch, count, _) = x.dims3()?;
        let LlamaConfig { heads, kv_heads, head_dim, .. } = self.config;
        let split = |x: Tensor, heads: usize| {
            x.reshape((batch, count, heads, head_dim))?.transpose(1, 2)?.contiguous()
        };
        let query = self.rotate(&split(project(x, &block.query)?, heads)?, rope)?;
        let key = self.rotate(&split(project(x, &block.key)?, kv_heads)?, rope)?;
        let value = split(project(x, &block.value)?, kv_heads)?;
        let (key, value) = match cache {
            Some(cache) => cache.append(layer, &key, &value)?,
            None => (key, value),
        };
        // Query heads that share a key head are stacked along the token axis, so keys and values
        // are never copied.
        let together = (heads / kv_heads) * count;
        let scale = 1.0 / (head_dim as f64).sqrt();
        let query = (query * scale)?.reshape((batch, kv_heads, together, head_dim))?;
        let scores = query.matmul(&key.transpose(2, 3)?)?;
        let total = key.dim(2)?;
        let scores = scores.reshape((batch, heads, count, total))?;
        let scores = match mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        let weights = match self.kernels {
            Kernels::Fused => ops::softmax_last_dim(&scores)?,
            Kernels::Differentiable => ops::softmax(&scores, D::Minus1)?,
        };
        let mixed = weights.reshape((batch, kv_heads, together, total))?.matmul(&value)?;
        let mixed = mixed.reshape((batch, heads, count, head_dim))?.transpose(1, 2)?;
        project(&mixed.reshape((batch, count, heads * head_dim))?, &block.output)
    }

    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        match self.kernels {
            Kernels::Fused => ops::rms_norm(&x.contiguous()?, &norm.weight, norm.eps),
            Kernels::Differentiable => ops::rms_norm_slow(x, &norm.weight, norm.eps),
        }
    }

    fn rotate(&self, x: &Tensor, rope: &Rope) -> Result<Tensor> {
        match self.kernels {
            Kernels::Fused => rotary_emb::rope(x, &rope.cos, &rope.sin),
            Kernels::Differentiable => rotary_emb::rope_slow(x, &rope.cos, &rope.sin),
        }
    }

    /// `[count, start + count]`: 0 where a token may look, minus infinity where it may not; none
    /// when all may be seen.
    fn mask(&self, start: usize, count: usize) -> Result<Option<Tensor>> {
        let total = start + count;
        let window = self.config.sliding_window.unwrap_or(usize::MAX);
        if count == 1 && total <= window {
            return Ok(None);
        }
        let allowed = |row: usize, column: usize| {
            column <= start + row && column.saturating_add(window) > start + row
        };
        let mask: Vec<f32> = (0..count)
            .flat_map(|row| {
                (0..total)
                    .map(move |column| if allowed(row, column) { 0.0 } else { f32::NEG_INFINITY })
            })
            .collect();
        Tensor::from_vec(mask, (count, total), self.embeddings.device()).map(Some)
    }
}

/// `x` times the transpose of `weight` (`[out, in]`) over the last dimension.
fn project(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (out, input) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows = x.elem_count() / input.max(1);
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    x.reshape((rows, input))?.matmul(&weight.t()?)?.reshape(shape)
}

fn feed_forward(x: &Tensor, block: &Block) -> Result<Tensor> {
    let gated = (project(x, &block.gate)?.silu()? * project(x, &block.up)?)?;
    project(&gated, &block.down)
}

impl Norm {
    fn assemble<E>(
        config: &LlamaConfig,
        tensor: &mut impl FnMut(&str, &[usize]) -> std::result::Result<Tensor, E>,
        name: &str,
    ) -> std::result::Result<Self, E> {
        Ok(Self { weight: tensor(name, &[config.hidden])?, eps: config.norm_eps as f32 })
    }
}
