//! The Llama forward pass over candle tensors, for training: composed of operations that have a
//! backward pass, which candle's fused kernels have not. Inference is `decoder`, which the
//! tests compare with this.
//!
//! Shapes are written as `[batch, heads, tokens, head_dim]`; all rows start at position 0.

use candle_core::{D, Result, Tensor};
use candle_nn::{ops, rotary_emb};

use crate::config::LlamaConfig;
use crate::rope::Rope;

/// A Llama-family model: weights and precomputed rotary tables.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
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
        let rope = Rope::new(c);
        Ok(Self { embeddings, blocks, norm, head, rope, config })
    }

    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The normed hidden states `[batch, tokens, hidden]` of `tokens`, `[batch, tokens]` of ids.
    ///
    /// # Errors
    /// If an id is outside the vocabulary, or a shape does not fit.
    pub fn hidden_states(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, count) = tokens.dims2()?;
        let mask = self.mask(count)?;
        let rope = self.rope.tensors(count, self.embeddings.device())?;
        let mut x = self.embeddings.index_select(&tokens.flatten_all()?, 0)?;
        x = x.reshape((batch, count, self.config.hidden))?;
        for block in &self.blocks {
            let normed = norm(&x, &block.attention_norm)?;
            x = (&x + self.attention(&normed, block, &rope, &mask)?)?;
            let normed = norm(&x, &block.feed_forward_norm)?;
            x = (x + feed_forward(&normed, block)?)?;
        }
        norm(&x, &self.norm)
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
        (cos, sin): &(Tensor, Tensor),
        mask: &Tensor,
    ) -> Result<Tensor> {
        let (batch, count, _) = x.dims3()?;
        let LlamaConfig { heads, kv_heads, head_dim, .. } = self.config;
        let split = |x: Tensor, heads: usize| {
            x.reshape((batch, count, heads, head_dim))?.transpose(1, 2)?.contiguous()
        };
        let rotate = |x: Tensor| rotary_emb::rope_slow(&x, cos, sin);
        let query = rotate(split(project(x, &block.query)?, heads)?)?;
        let key = rotate(split(project(x, &block.key)?, kv_heads)?)?;
        let value = split(project(x, &block.value)?, kv_heads)?;
        // Query heads that share a key head are stacked along the token axis, so keys and values
        // are never copied.
        let together = (heads / kv_heads) * count;
        let scale = 1.0 / (head_dim as f64).sqrt();
        let query = (query * scale)?.reshape((batch, kv_heads, together, head_dim))?;
        let scores = query.matmul(&key.transpose(2, 3)?)?;
        let scores = scores.reshape((batch, heads, count, count))?.broadcast_add(mask)?;
        let weights = ops::softmax(&scores, D::Minus1)?;
        let mixed = weights.reshape((batch, kv_heads, together, count))?.matmul(&value)?;
        let mixed = mixed.reshape((batch, heads, count, head_dim))?.transpose(1, 2)?;
        project(&mixed.reshape((batch, count, heads * head_dim))?, &block.output)
    }

    /// `[count, count]`: 0 where a token may look, minus infinity where it may not.
    fn mask(&self, count: usize) -> Result<Tensor> {
        let window = self.config.sliding_window.unwrap_or(usize::MAX);
        let allowed =
            |row: usize, column: usize| column <= row && column.saturating_add(window) > row;
        let mask: Vec<f32> = (0..count)
            .flat_map(|row| {
                (0..count)
                    .map(move |column| if allowed(row, column) { 0.0 } else { f32::NEG_INFINITY })
            })
            .collect();
        Tensor::from_vec(mask, (count, count), self.embeddings.device())
    }
}

fn norm(x: &Tensor, norm: &Norm) -> Result<Tensor> {
    ops::rms_norm_slow(x, &norm.weight, norm.eps)
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
