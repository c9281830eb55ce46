//! The weights of a decoder (Llama and its relatives) by their places in it, whatever computes with
//! them: packed for the CPU's kernels, or as tensors in a GPU's memory.
//!
//! One list of names and shapes, so that nothing a file must hold is known in two places.

use crate::config::LlamaConfig;
use crate::rope::Rope;

/// All of a decoder but its computing.
#[derive(Debug)]
pub(crate) struct Weights<M, V> {
    pub(crate) config: LlamaConfig,
    pub(crate) embeddings: M,
    pub(crate) layers: Vec<Layer<M, V>>,
    pub(crate) norm: V,
    /// The embeddings if it is missing.
    pub(crate) head: Option<M>,
    pub(crate) rope: Rope,
}

#[derive(Debug)]
pub(crate) struct Layer<M, V> {
    pub(crate) attention_norm: V,
    pub(crate) query: M,
    pub(crate) key: M,
    pub(crate) value: M,
    /// Of every query head and of every key head.
    pub(crate) head_norms: Option<(V, V)>,
    pub(crate) output: M,
    pub(crate) feed_forward_norm: V,
    pub(crate) gate: M,
    pub(crate) up: M,
    pub(crate) down: M,
}

/// Where weights come from, by the names that Hugging Face gives them.
pub(crate) trait Source {
    /// Why a tensor is not there.
    type Error;
    /// A matrix, with what is added to its products.
    type Matrix;
    /// Numbers of a norm.
    type Vector;

    /// A matrix.
    fn matrix(
        &mut self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Self::Matrix, Self::Error>;

    /// A vector.
    fn vector(&mut self, name: &str, length: usize) -> Result<Self::Vector, Self::Error>;

    /// A matrix to whose products this vector is added.
    fn biased(&mut self, matrix: Self::Matrix, bias: Self::Vector) -> Self::Matrix;

    /// What each rotary frequency is divided by, where a file has that.
    fn rope_factors(&mut self, _count: usize) -> Result<Option<Vec<f32>>, Self::Error> {
        Ok(None)
    }
}

impl<M, V> Weights<M, V> {
    pub(crate) fn assemble<S>(config: LlamaConfig, from: &mut S) -> Result<Self, S::Error>
    where
        S: Source<Matrix = M, Vector = V>,
    {
        let c = &config;
        let embeddings = from.matrix("model.embed_tokens.weight", c.vocabulary, c.hidden)?;
        let layers = (0..c.layers).map(|layer| Layer::assemble(c, layer, from));
        let layers = layers.collect::<Result<_, _>>()?;
        let norm = from.vector("model.norm.weight", c.hidden)?;
        let head = match c.tied_embeddings {
            true => None,
            false => Some(from.matrix("lm_head.weight", c.vocabulary, c.hidden)?),
        };
        let rope = Rope::new(c).divided_by(from.rope_factors(c.head_dim / 2)?);
        Ok(Self { embeddings, layers, norm, head, rope, config })
    }
}

impl<M, V> Layer<M, V> {
    fn assemble<S>(c: &LlamaConfig, layer: usize, from: &mut S) -> Result<Self, S::Error>
    where
        S: Source<Matrix = M, Vector = V>,
    {
        let (queries, keys) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let mut projection = |part: &str, outputs: usize| {
            let matrix = from.matrix(&name(&format!("{part}.weight")), outputs, c.hidden)?;
            if !c.qkv_bias {
                return Ok(matrix);
            }
            let bias = from.vector(&name(&format!("{part}.bias")), outputs)?;
            Ok(from.biased(matrix, bias))
        };
        let query = projection("self_attn.q_proj", queries)?;
        let key = projection("self_attn.k_proj", keys)?;
        let value = projection("self_attn.v_proj", keys)?;
        let mut head_norm =
            |which: &str| from.vector(&name(&format!("self_attn.{which}_norm.weight")), c.head_dim);
        let head_norms = match c.head_norms {
            true => Some((head_norm("q")?, head_norm("k")?)),
            false => None,
        };
        Ok(Self {
            attention_norm: from.vector(&name("input_layernorm.weight"), c.hidden)?,
            query,
            key,
            value,
            head_norms,
            output: from.matrix(&name("self_attn.o_proj.weight"), c.hidden, queries)?,
            feed_forward_norm: from.vector(&name("post_attention_layernorm.weight"), c.hidden)?,
            gate: from.matrix(&name("mlp.gate_proj.weight"), c.feed_forward, c.hidden)?,
            up: from.matrix(&name("mlp.up_proj.weight"), c.feed_forward, c.hidden)?,
            down: from.matrix(&name("mlp.down_proj.weight"), c.hidden, c.feed_forward)?,
        })
    }
}
