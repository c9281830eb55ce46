//! GGUF files of decoders (Llama, Qwen2, Qwen3), read as what a Hugging Face folder would hold: a
//! configuration, a tokenizer and weights under their usual names.
//!
//! Weights stay packed as the file has them ([`crate::kernels::quantised`]); types that have no
//! kernel here are unpacked to f32, and a warning says so. A file whose tokenizer cannot be
//! reproduced exactly is refused: wrong text is worse than no text.

mod tokenizer;

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use serde_json::json;

use crate::ModelError;
use crate::embedding::Said;
use crate::files::{ModelFiles, WeightFile};
use crate::kernels::block::Packing;
use crate::kernels::linear::Weights;
use crate::kernels::pack;
use crate::kernels::quantised::Quantised;
use crate::rope::yarn_attention;

/// Divisors of rotary frequencies that Llama 3.1 and later have in place of a formula.
pub(crate) const FREQUENCIES: &str = "rope_freqs.weight";

/// The files that a folder of this model would hold.
pub(crate) fn files(path: &Path) -> Result<ModelFiles, ModelError> {
    let (mut content, _) = open(path)?;
    Metadata { content: &content, path }.check()?;
    let tokenizer = tokenizer::json(&mut content, &file_name(path))?;
    let metadata = Metadata { content: &content, path };
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(ModelFiles {
        name,
        config: metadata.config()?.to_string().into_bytes().into(),
        tokenizer: tokenizer.into(),
        tokenizer_config: Some(metadata.tokenizer_config().to_string().into_bytes().into()),
        generation_config: None,
        chat_template: None,
        embedding: metadata.pooling(),
        weights: vec![WeightFile::Gguf(path.to_owned())],
    })
}

/// A tensor of a file.
pub(crate) struct Packed {
    tensor: QTensor,
    /// Heads whose rotary pairs lie side by side, and half a head apart in folders.
    turned: Option<usize>,
}

/// Every tensor of the file under the name it has in a folder; and how most are packed.
pub(crate) fn tensors(path: &Path) -> Result<(HashMap<String, Packed>, String), ModelError> {
    let (content, mut reader) = open(path)?;
    let metadata = Metadata { content: &content, path };
    let heads = metadata.count("attention.head_count")?;
    let kv_heads = metadata.count("attention.head_count_kv").unwrap_or(heads);
    let pairs_side_by_side = metadata.family() == Some(Family::Llama);
    let mut tensors = HashMap::new();
    let mut packings: HashMap<String, usize> = HashMap::new();
    for name in content.tensor_infos.keys() {
        let tensor = content.tensor(&mut reader, name, &Device::Cpu)?;
        *packings.entry(format!("{:?}", tensor.dtype())).or_default() +=
            tensor.shape().elem_count();
        let turned = match name.rsplit('.').nth(1) {
            Some("attn_q") if pairs_side_by_side => Some(heads),
            Some("attn_k") if pairs_side_by_side => Some(kv_heads),
            _ => None,
        };
        let name = folder_name(name).unwrap_or_else(|| name.clone());
        tensors.insert(name, Packed { tensor, turned });
    }
    let packing = packings.into_iter().max_by_key(|(_, elements)| *elements);
    Ok((tensors, packing.map_or_else(String::new, |(name, _)| name.to_lowercase())))
}

impl Packed {
    pub(crate) fn dims(&self) -> &[usize] {
        self.tensor.shape().dims()
    }

    pub(crate) fn vector(&self) -> Result<Vec<f32>, ModelError> {
        Ok(self.tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()?)
    }

    /// The matrix for the kernels; none if its scales are no numbers.
    pub(crate) fn matrix(
        &self,
        outputs: usize,
        inputs: usize,
    ) -> Result<Option<Weights>, ModelError> {
        let packing = match self.tensor.dtype() {
            GgmlDType::Q4_0 => Packing::Q4_0,
            GgmlDType::Q8_0 => Packing::Q8_0,
            GgmlDType::Q4K => Packing::Q4K,
            GgmlDType::Q5K => Packing::Q5K,
            GgmlDType::Q6K => Packing::Q6K,
            other => return self.unpacked(other, outputs, inputs).map(Some),
        };
        let data = self.tensor.data()?;
        let each = inputs / packing.block() * packing.bytes();
        let row = |row: usize| {
            let row = self.place(row, outputs);
            data.get(row * each..(row + 1) * each)
        };
        Ok(Quantised::pack(packing, inputs, outputs, row).map(Weights::Quantised))
    }

    fn unpacked(
        &self,
        kind: GgmlDType,
        outputs: usize,
        inputs: usize,
    ) -> Result<Weights, ModelError> {
        if matches!(kind, GgmlDType::F16 | GgmlDType::BF16) {
            let data = self.tensor.data()?;
            let halves = data.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
            let halves = self.in_order(&halves.collect::<Vec<_>>(), outputs, inputs);
            let finite = |half: &u16| half & 0x7c00 != 0x7c00;
            match kind {
                GgmlDType::BF16 => return Ok(Weights::Bf16(pack::halves(&halves, inputs))),
                _ if halves.iter().all(finite) => {
                    return Ok(Weights::F16(pack::halves(&halves, inputs)));
                }
                _ => {}
            }
        } else if kind != GgmlDType::F32 {
            tracing::warn!(packing = ?kind, "weights of this packing are unpacked to f32");
        }
        let floats = self.in_order(&self.vector()?, outputs, inputs);
        Ok(Weights::F32(pack::floats(&floats, inputs)))
    }

    /// Rows as folders have them.
    fn in_order<T: Copy>(&self, matrix: &[T], outputs: usize, inputs: usize) -> Vec<T> {
        let rows = (0..outputs).map(|row| self.place(row, outputs) * inputs);
        let rows = rows.filter_map(|at| matrix.get(at..at + inputs));
        rows.flatten().copied().collect()
    }

    /// Where a folder's row is in the file.
    fn place(&self, row: usize, rows: usize) -> usize {
        let Some(heads) = self.turned else { return row };
        let head = rows / heads.max(1);
        let half = head / 2;
        if half == 0 {
            return row;
        }
        let (start, row) = (row / head * head, row % head);
        start + row % half * 2 + row / half
    }
}

fn open(path: &Path) -> Result<(Content, BufReader<File>), ModelError> {
    let file =
        File::open(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    let mut reader = BufReader::new(file);
    let content = Content::read(&mut reader)
        .map_err(|error| ModelError::malformed(file_name(path), error.to_string()))?;
    Ok((content, reader))
}

/// What kind of model a file holds.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    Llama,
    Qwen2,
    Qwen3,
}

/// What a folder calls a tensor.
fn folder_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".to_owned()),
        "output_norm.weight" => return Some("model.norm.weight".to_owned()),
        "output.weight" => return Some("lm_head.weight".to_owned()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    let part = match part {
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

/// The key-value part of a file.
struct Metadata<'a> {
    content: &'a Content,
    path: &'a Path,
}

impl Metadata<'_> {
    /// Refuses what could not be reproduced exactly.
    fn check(&self) -> Result<(), ModelError> {
        let file = file_name(self.path);
        if self.family().is_none() {
            let named = self.text("general.architecture");
            let what = format!("architecture {named:?} ({file})");
            let instead = "GGUF files of \"llama\", \"qwen2\" and \"qwen3\" are".to_owned();
            return Err(ModelError::Unsupported { what, instead });
        }
        Ok(())
    }

    fn family(&self) -> Option<Family> {
        match self.text("general.architecture")? {
            "llama" => Some(Family::Llama),
            "qwen2" => Some(Family::Qwen2),
            "qwen3" => Some(Family::Qwen3),
            _ => None,
        }
    }

    /// The name of a number of this kind of model.
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.text("general.architecture").unwrap_or_default())
    }

    /// `config.json`, as the folder of this model has it.
    fn config(&self) -> Result<serde_json::Value, ModelError> {
        let tied = !self.content.tensor_infos.contains_key("output.weight");
        let vocabulary = self
            .content
            .tensor_infos
            .get("token_embd.weight")
            .and_then(|info| info.shape.dims().first().copied())
            .ok_or_else(|| self.malformed("no tensor `token_embd.weight`"))?;
        let architecture = match self.family() {
            Some(Family::Qwen2) => "Qwen2ForCausalLM",
            Some(Family::Qwen3) => "Qwen3ForCausalLM",
            Some(Family::Llama) | None => "LlamaForCausalLM",
        };
        let scaling = match self.text(&self.key("rope.scaling.type")) {
            None | Some("none") => serde_json::Value::Null,
            Some(kind) => self.scaling(kind)?,
        };
        Ok(json!({
            "architectures": [architecture],
            "vocab_size": vocabulary,
            "hidden_size": self.count("embedding_length")?,
            "intermediate_size": self.count("feed_forward_length")?,
            "num_hidden_layers": self.count("block_count")?,
            "num_attention_heads": self.count("attention.head_count")?,
            "num_key_value_heads": self.count("attention.head_count_kv").ok(),
            "head_dim": self.count("attention.key_length").ok(),
            "max_position_embeddings": self.count("context_length")?,
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon")?,
            "rope_theta": self.number("rope.freq_base").unwrap_or(10_000.0),
            "rope_scaling": scaling,
            "tie_word_embeddings": tied,
            "eos_token_id": self.token_id("eos").map(|id| [Some(id), self.token_id("eot")]
                .into_iter().flatten().collect::<Vec<_>>()),
        }))
    }

    /// `rope_scaling`.
    fn scaling(&self, kind: &str) -> Result<serde_json::Value, ModelError> {
        let factor = self.number("rope.scaling.factor")?;
        // llama.cpp multiplies what a file says here with what follows from the factor.
        let attention = self.number("rope.scaling.attn_factor").ok();
        let attention = attention.map(|attention| attention * yarn_attention(factor, 1.0));
        Ok(json!({
            "rope_type": kind,
            "factor": factor,
            "original_max_position_embeddings": self.count("rope.scaling.original_context_length").ok(),
            "attention_factor": attention,
            "beta_fast": self.number("rope.scaling.yarn_beta_fast").ok(),
            "beta_slow": self.number("rope.scaling.yarn_beta_slow").ok(),
        }))
    }

    /// `tokenizer_config.json`: what the chat template needs.
    fn tokenizer_config(&self) -> serde_json::Value {
        let token = |which| {
            let id = usize::try_from(self.token_id(which)?).ok()?;
            let tokens = self.content.metadata.get("tokenizer.ggml.tokens")?.to_vec().ok()?;
            tokens.get(id)?.to_string().ok().cloned()
        };
        json!({
            "bos_token": token("bos"),
            "eos_token": token("eos"),
            "chat_template": self.text("tokenizer.chat_template"),
        })
    }

    /// How embeddings are pooled.
    fn pooling(&self) -> Said {
        let kind = self.content.metadata.get(&self.key("pooling_type")).and_then(integer);
        Said::numbered(kind.unwrap_or(0))
    }

    fn token_id(&self, which: &str) -> Option<u64> {
        integer(self.content.metadata.get(&format!("tokenizer.ggml.{which}_token_id"))?)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.content.metadata.get(key)?.to_string().ok().map(String::as_str)
    }

    fn count(&self, key: &str) -> Result<usize, ModelError> {
        let value = self.content.metadata.get(&self.key(key));
        value
            .and_then(integer)
            .and_then(|value| usize::try_from(value).ok())
            .ok_or_else(|| self.malformed(&format!("lacks the number `{}`", self.key(key))))
    }

    fn number(&self, key: &str) -> Result<f64, ModelError> {
        let value = match self.content.metadata.get(&self.key(key)) {
            Some(Value::F32(value)) => Some(f64::from(*value)),
            Some(Value::F64(value)) => Some(*value),
            _ => None,
        };
        value.ok_or_else(|| self.malformed(&format!("lacks the number `{}`", self.key(key))))
    }

    fn malformed(&self, reason: &str) -> ModelError {
        ModelError::malformed(file_name(self.path), reason)
    }
}

/// A whole number of whatever width the writer chose.
fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::U8(value) => Some(u64::from(*value)),
        Value::U16(value) => Some(u64::from(*value)),
        Value::U32(value) => Some(u64::from(*value)),
        Value::U64(value) => Some(*value),
        Value::I32(value) => u64::try_from(*value).ok(),
        Value::I64(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
