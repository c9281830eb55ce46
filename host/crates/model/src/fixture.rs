//! A tiny model with random weights, written as a Hugging Face folder: for tests, here and in the
//! crates above.
//!
//! Every byte is a token (0 to 255 in the order of the bytes), then come the five special tokens of
//! the demo model. What it says is noise, but the same noise for the same seed.

pub mod device;
pub mod gguf;

use std::collections::HashMap;
use std::path::Path;

pub use candle_core::DType;
use candle_core::{Device, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::LlamaConfig;
use crate::layers::{Source, Weights};

/// What to write.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What the weights follow from.
    pub seed: u64,
    /// Positions.
    pub context_length: usize,
    /// Key and value heads, of 4 query heads.
    pub kv_heads: usize,
    /// Whether the output head is the embedding table.
    pub tied_embeddings: bool,
    /// How weights are stored.
    pub dtype: DType,
    /// Into how many files the weights go; more than one come with an index.
    pub shards: usize,
    /// Merged over config.json.
    pub config: Value,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            seed: 1,
            context_length: 128,
            kv_heads: 2,
            tied_embeddings: true,
            dtype: DType::F32,
            shards: 1,
            config: json!({}),
        }
    }
}

const SPECIALS: [&str; 5] = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"];
const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
    {{ '<|' ~ message.role ~ '|>' ~ message.content ~ '<|end|>' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// Writes the model's files into `folder`.
///
/// # Errors
/// If the folder cannot be written, or `shape.config` describes no model.
pub fn write(folder: &Path, shape: &Shape) -> Result<(), ModelError> {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 256 + SPECIALS.len(),
        "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": shape.kv_heads, "max_position_embeddings": shape.context_length,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": shape.tied_embeddings, "hidden_act": "silu",
        "bos_token_id": 256, "eos_token_id": 257,
    });
    if let (Some(config), Some(changes)) = (config.as_object_mut(), shape.config.as_object()) {
        config.extend(changes.clone());
    }
    let save =
        |name: &str, value: &Value| write_file(&folder.join(name), value.to_string().as_bytes());
    save("config.json", &config)?;
    save("tokenizer.json", &tokenizer())?;
    save("generation_config.json", &json!({ "eos_token_id": [257] }))?;
    save(
        "tokenizer_config.json",
        &json!({ "bos_token": SPECIALS[0], "eos_token": { "content": SPECIALS[1] },
            "chat_template": CHAT_TEMPLATE }),
    )?;
    write_weights(folder, shape, LlamaConfig::from_json(config.to_string().as_bytes())?)
}

fn write_weights(folder: &Path, shape: &Shape, config: LlamaConfig) -> Result<(), ModelError> {
    let rng = StdRng::seed_from_u64(shape.seed);
    let mut random = Random { rng, dtype: shape.dtype, tensors: Vec::new() };
    Weights::assemble(config, &mut random)?;
    let tensors = random.tensors;
    if shape.shards <= 1 {
        let tensors: HashMap<_, _> = tensors.into_iter().collect();
        return Ok(candle_core::safetensors::save(&tensors, folder.join("model.safetensors"))?);
    }
    let mut weight_map = serde_json::Map::new();
    for (index, shard) in tensors.chunks(tensors.len().div_ceil(shape.shards)).enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", index + 1, shape.shards);
        let tensors: HashMap<_, _> = shard.iter().cloned().collect();
        candle_core::safetensors::save(&tensors, folder.join(&file))?;
        weight_map.extend(tensors.into_keys().map(|name| (name, Value::from(file.clone()))));
    }
    let index = json!({ "metadata": {}, "weight_map": weight_map });
    write_file(&folder.join("model.safetensors.index.json"), index.to_string().as_bytes())
}

/// Makes up whatever it is asked for, and keeps it.
struct Random {
    rng: StdRng,
    dtype: DType,
    tensors: Vec<(String, Tensor)>,
}

impl Random {
    fn make(&mut self, name: &str, dims: &[usize]) -> Result<(), ModelError> {
        let spread = if name.contains("norm") { 0.2 } else { 0.5 };
        let middle = if name.contains("norm") { 1.0 } else { 0.0 };
        let mut draw = || middle + spread * (self.rng.random::<f32>() * 2.0 - 1.0);
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| draw()).collect();
        let tensor = Tensor::from_vec(values, dims, &Device::Cpu)?;
        self.tensors.push((name.to_owned(), tensor.to_dtype(self.dtype)?));
        Ok(())
    }
}

impl Source for Random {
    type Error = ModelError;
    type Matrix = ();
    type Vector = ();

    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<(), ModelError> {
        self.make(name, &[outputs, inputs])
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<(), ModelError> {
        self.make(name, &[length])
    }

    fn biased(&mut self, _matrix: (), _bias: ()) {}
}

fn tokenizer() -> Value {
    let mut vocabulary: serde_json::Map<String, Value> =
        (0u8..=255).map(|byte| (byte_character(byte).to_string(), json!(byte))).collect();
    vocabulary.extend(
        SPECIALS.iter().enumerate().map(|(index, text)| ((*text).to_owned(), json!(256 + index))),
    );
    let added: Vec<_> = SPECIALS
        .iter()
        .enumerate()
        .map(|(index, text)| {
            json!({ "id": 256 + index, "content": text,
                "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
        })
        .collect();
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true });
    let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let begin = json!({ "SpecialToken": { "id": SPECIALS[0], "type_id": 0 } });
    let template = json!({ "type": "TemplateProcessing",
        "single": [begin, text("A")], "pair": [begin, text("A"), text("B")],
        "special_tokens":
            { SPECIALS[0]: { "id": SPECIALS[0], "ids": [256], "tokens": [SPECIALS[0]] } } });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": added, "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": template,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "byte_fallback": false,
            "vocab": vocabulary, "merges": [] },
    })
}

/// The character that stands for a byte in byte-level vocabularies: itself if it can be seen, else
/// one from 256 on.
fn byte_character(byte: u8) -> char {
    let is_visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_visible(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|byte| !is_visible(*byte)).count() as u32;
    char::from_u32(256 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    std::fs::write(path, bytes).map_err(|source| ModelError::Read { path: path.to_owned(), source })
}
