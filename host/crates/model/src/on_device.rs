//! A decoder (Llama and its relatives) in a GPU's memory, by tensors of candle: the same passes over the
//! same rows and blocks as [`crate::decoder`] on the CPU.
//!
//! All tokens, whoever's they are, are the rows of one matrix for everything but attention. The residual
//! stream, norms, rotary positions and the softmax are f32; products are in the type that the weights are
//! stored in. Which products are computed how depends on how many rows there are, so what comes out for a
//! row is the same as alone only up to rounding: bit for bit is a promise of the CPU's kernels.

mod attention;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod matrix;
mod memory;
mod outcome;
mod plan;
mod source;
mod write;

use std::fmt;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops::rms_norm;
use candle_nn::rotary_emb::rope_thd;

pub(crate) use self::matrix::Matrix;
use self::matrix::Side;
pub(crate) use self::memory::KvTensors;
use self::plan::Plan;
use crate::ModelError;
use crate::config::LlamaConfig;
use crate::decoder::Row;
use crate::files::WeightFile;
use crate::kv::{KvShape, KvStore};
use crate::layers::Weights;
use crate::rope::Rope;

/// A decoder whose weights are on a device.
pub(crate) struct DeviceDecoder {
    config: LlamaConfig,
    device: Device,
    /// The device's name.
    name: String,
    embeddings: Matrix,
    layers: Vec<Layer>,
    norm: Tensor,
    /// The embeddings if it is missing.
    head: Option<Matrix>,
    rope: Rope,
    /// Of keys and values.
    kv_dtype: DType,
}

struct Layer {
    attention_norm: Tensor,
    query_key_value: Side,
    head_norms: Option<(Tensor, Tensor)>,
    output: Matrix,
    feed_forward_norm: Tensor,
    gate_up: Side,
    down: Matrix,
}

/// A decoder and what its files said of the weights.
pub(crate) struct Loaded {
    pub(crate) decoder: DeviceDecoder,
    pub(crate) parameters: u64,
    pub(crate) stored_dtype: String,
}

impl DeviceDecoder {
    pub(crate) fn load(
        config: LlamaConfig,
        files: &[WeightFile],
        device: Device,
        name: &str,
    ) -> std::result::Result<Loaded, ModelError> {
        let (weights, parameters, stored_dtype) =
            source::read(config, files, &device).map_err(|error| at(name, error))?;
        let decoder = Self::new(weights, device, name).map_err(|error| at(name, error.into()))?;
        Ok(Loaded { decoder, parameters, stored_dtype })
    }

    fn new(weights: Weights<Matrix, Tensor>, device: Device, name: &str) -> Result<Self> {
        let Weights { config, embeddings, layers, norm, head, rope } = weights;
        let kv_dtype = layers.first().map_or(DType::F32, |layer| layer.key.attention_dtype());
        let layers = layers.into_iter().map(|layer| {
            Ok(Layer {
                attention_norm: layer.attention_norm,
                query_key_value: Side::new(vec![layer.query, layer.key, layer.value])?,
                head_norms: layer.head_norms,
                output: layer.output,
                feed_forward_norm: layer.feed_forward_norm,
                gate_up: Side::new(vec![layer.gate, layer.up])?,
                down: layer.down,
            })
        });
        let layers = layers.collect::<Result<_>>()?;
        let name = name.to_owned();
        Ok(Self { config, device, name, embeddings, layers, norm, head, rope, kv_dtype })
    }

    pub(crate) fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The device's name.
    pub(crate) fn device(&self) -> &str {
        &self.name
    }

    /// Bytes of all matrices.
    pub(crate) fn bytes(&self) -> usize {
        let of = |layer: &Layer| {
            let sides = layer.query_key_value.bytes() + layer.gate_up.bytes();
            sides + layer.output.bytes() + layer.down.bytes()
        };
        let ends = self.embeddings.bytes() + self.head.as_ref().map_or(0, Matrix::bytes);
        ends + self.layers.iter().map(of).sum::<usize>()
    }

    /// Bytes of a block of keys and values.
    pub(crate) fn block_bytes(&self) -> usize {
        KvTensors::block_bytes(self.kv(), self.kv_dtype)
    }

    fn kv(&self) -> KvShape {
        self.config.kv()
    }

    /// Memory on the device for as many blocks as fit into `bytes`.
    pub(crate) fn store(&self, bytes: usize) -> std::result::Result<KvStore, ModelError> {
        KvStore::on_device(self.kv(), bytes, self.block_bytes(), |blocks| {
            KvTensors::new(self.kv(), blocks, self.kv_dtype, &self.device)
        })
    }

    /// The hidden states of all tokens (`[tokens, hidden]`), in the order of the plan.
    fn hidden_states(&self, memory: &KvTensors, plan: &Plan) -> Result<Tensor> {
        let mut x = self.embeddings.rows(&plan.tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = self.norm(&x, &layer.attention_norm)?;
            x = (x + self.attention(&normed, layer, index, plan, memory)?)?;
            let normed = self.norm(&x, &layer.feed_forward_norm)?;
            x = (x + feed_forward(&normed, layer)?)?;
        }
        Ok(x)
    }

    fn attention(
        &self,
        x: &Tensor,
        layer: &Layer,
        index: usize,
        plan: &Plan,
        memory: &KvTensors,
    ) -> Result<Tensor> {
        let LlamaConfig { heads, kv_heads, .. } = self.config;
        let projected = layer.query_key_value.forward(x)?;
        let [query, key, value] = projected.as_slice() else {
            candle_core::bail!("{} projections, three are needed", projected.len());
        };
        let norms = layer.head_norms.as_ref();
        let query = self.turned(query, heads, norms.map(|(query, _)| query), &plan.query_angles)?;
        let key = self.turned(key, kv_heads, norms.map(|(_, key)| key), &plan.key_angles)?;
        memory.write(index, &plan.places, (&key, value))?;
        layer.output.forward(&attention::attend(&self.config, memory, index, plan, &query)?)
    }

    /// Heads (`[tokens, heads * head_dim]`), normed where they are, turned by their positions.
    fn turned(
        &self,
        x: &Tensor,
        heads: usize,
        norm: Option<&Tensor>,
        (cos, sin): &(Tensor, Tensor),
    ) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let mut x = x.contiguous()?.reshape((1, tokens, heads, self.config.head_dim))?;
        if let Some(norm) = norm {
            x = self.norm(&x, norm)?;
        }
        rope_thd(&x, cos, sin)?.reshape((tokens, width))
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        rms_norm(x, weight, self.config.norm_eps as f32)
    }

    /// Logits (`[tokens, vocabulary]`) of normed states (`[tokens, hidden]`).
    fn logits(&self, normed: &Tensor) -> Result<Tensor> {
        self.head.as_ref().unwrap_or(&self.embeddings).forward(normed)
    }

    fn plan(&self, memory: &KvTensors, rows: &[Row<'_>]) -> Result<Plan> {
        Plan::new(&self.config, &self.rope, rows, memory.empty_place(), &self.device)
    }
}

fn feed_forward(x: &Tensor, layer: &Layer) -> Result<Tensor> {
    let projected = layer.gate_up.forward(x)?;
    let [gate, up] = projected.as_slice() else {
        candle_core::bail!("{} projections, two are needed", projected.len());
    };
    layer.down.forward(&(gate.silu()? * up)?)
}

/// A failure of the tensor library is one of the device.
fn at(device: &str, error: ModelError) -> ModelError {
    match error {
        ModelError::Tensor(source) => {
            ModelError::OnDevice { device: device.to_owned(), source: Box::new(source) }
        }
        other => other,
    }
}

impl fmt::Debug for DeviceDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceDecoder").field("device", &self.name).finish_non_exhaustive()
    }
}
