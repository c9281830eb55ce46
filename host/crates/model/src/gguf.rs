//! GGUF files of the Llama family, read as what a Hugging Face folder would hold: a configuration,
//! a tokenizer and weights under their usual names.
//!
//! Weights are unpacked to f32 when they are read, whatever the file packs them in, so a model
//! takes the memory of its f32 weights. A file whose tokenizer or rotary scaling cannot be
//! reproduced exactly is refused: wrong text is worse than no text.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::tokenizer::TokenizerFromGguf;
use candle_core::{Device, Tensor};
use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use crate::ModelError;
use crate::files::{ModelFiles, WeightFile};

/// Frequencies that Llama 3.1 and later have in place of a formula.
const FREQUENCIES: &str = "rope_freqs.weight";

/// The files that a folder of this model would hold.
pub(crate) fn files(path: &Path) -> Result<ModelFiles, ModelError> {
    let (mut content, _) = open(path)?;
    let split = Metadata { content: &content, path }.check()?;
    let tokenizer = tokenizer(&mut content, split)
        .map_err(|error| ModelError::malformed(file_name(path), format!("tokenizer: {error}")))?;
    let tokenizer = tokenizer.to_string(false).map_err(|e| ModelError::Tokenizer(e.to_string()))?;
    let metadata = Metadata { content: &content, path };
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(ModelFiles {
        name,
        config: metadata.config()?.to_string().into_bytes().into(),
        tokenizer: tokenizer.into_bytes().into(),
        tokenizer_config: Some(metadata.tokenizer_config().to_string().into_bytes().into()),
        generation_config: None,
        chat_template: None,
        weights: vec![WeightFile::Gguf(path.to_owned())],
    })
}

/// Every tensor of the file, unpacked, under the name it has in a folder; and how most are packed.
pub(crate) fn tensors(path: &Path) -> Result<(HashMap<String, Tensor>, String), ModelError> {
    let (content, mut reader) = open(path)?;
    let metadata = Metadata { content: &content, path };
    let heads = metadata.count("attention.head_count")?;
    let kv_heads = metadata.count("attention.head_count_kv").unwrap_or(heads);
    let mut tensors = HashMap::new();
    let mut packings: HashMap<String, usize> = HashMap::new();
    for name in content.tensor_infos.keys() {
        let tensor = content.tensor(&mut reader, name, &Device::Cpu)?;
        *packings.entry(format!("{:?}", tensor.dtype())).or_default() +=
            tensor.shape().elem_count();
        let tensor = tensor.dequantize(&Device::Cpu)?;
        let tensor = match name.rsplit('.').nth(1) {
            Some("attn_q") => halves(&tensor, heads)?,
            Some("attn_k") => halves(&tensor, kv_heads)?,
            _ => tensor,
        };
        tensors.insert(folder_name(name).unwrap_or_else(|| name.clone()), tensor);
    }
    let packing = packings.into_iter().max_by_key(|(_, elements)| *elements);
    Ok((tensors, packing.map_or_else(String::new, |(name, _)| name.to_lowercase())))
}

fn open(path: &Path) -> Result<(Content, BufReader<File>), ModelError> {
    let file =
        File::open(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    let mut reader = BufReader::new(file);
    let content = Content::read(&mut reader)
        .map_err(|error| ModelError::malformed(file_name(path), error.to_string()))?;
    Ok((content, reader))
}

/// How text is cut before its pieces become tokens; GGUF gives it a name, not a rule.
#[derive(Clone, Copy)]
enum Split {
    Gpt2,
    Llama3,
    SmolLm,
}

impl Split {
    fn named(name: &str) -> Option<Self> {
        match name {
            "gpt-2" => Some(Self::Gpt2),
            "llama-bpe" | "llama-v3" | "llama3" => Some(Self::Llama3),
            "smollm" => Some(Self::SmolLm),
            _ => None,
        }
    }
}

/// candle builds the tokenizer; it knows Llama 3's rule, by another name, and takes every rule it
/// does not know for one that puts a space before the text.
fn tokenizer(
    content: &mut Content,
    split: Split,
) -> Result<tokenizers::Tokenizer, candle_core::Error> {
    let mut set =
        |key: &str, value| content.metadata.insert(format!("tokenizer.ggml.{key}"), value);
    if matches!(split, Split::Llama3) {
        set("pre", Value::String("llama3".to_owned()));
        set("ignore_merges", Value::Bool(true));
    }
    let mut tokenizer = tokenizers::Tokenizer::from_gguf(content)?;
    let bytes = ByteLevel::new(false, true, true);
    match split {
        Split::Llama3 => {}
        Split::Gpt2 => {
            tokenizer.with_pre_tokenizer(Some(bytes));
        }
        Split::SmolLm => {
            let digits = Digits::new(true);
            tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![digits.into(), bytes.into()])));
        }
    }
    Ok(tokenizer)
}

/// Rotary pairs lie side by side in GGUF, and half a head apart in folders.
fn halves(tensor: &Tensor, heads: usize) -> Result<Tensor, ModelError> {
    let (rows, columns) = tensor.dims2()?;
    let half = rows / heads.max(1) / 2;
    let apart = tensor.reshape((heads, half, 2, columns))?.transpose(1, 2)?;
    Ok(apart.contiguous()?.reshape((rows, columns))?)
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
    let part = match part.strip_suffix(".weight")? {
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.weight"))
}

/// The key-value part of a file.
struct Metadata<'a> {
    content: &'a Content,
    path: &'a Path,
}

impl Metadata<'_> {
    /// Refuses what could not be reproduced exactly.
    fn check(&self) -> Result<Split, ModelError> {
        let unsupported = |what: String, instead: &str| {
            Err(ModelError::Unsupported { what, instead: instead.to_owned() })
        };
        let file = file_name(self.path);
        match self.text("general.architecture") {
            Some("llama") => {}
            other => {
                let what = format!("architecture {other:?} ({file})");
                return unsupported(what, "GGUF files of architecture \"llama\" are");
            }
        }
        match self.text("tokenizer.ggml.model") {
            Some("gpt2") => {}
            other => {
                let what = format!("tokenizer {other:?} in a GGUF file ({file})");
                return unsupported(
                    what,
                    "byte-level BPE (\"gpt2\") is, and the same model as a folder with \
                     tokenizer.json",
                );
            }
        }
        if self.content.tensor_infos.contains_key(FREQUENCIES) {
            let what = format!("`{FREQUENCIES}` in a GGUF file ({file})");
            return unsupported(what, "the same model as a folder with safetensors is");
        }
        let pre = self.text("tokenizer.ggml.pre").unwrap_or("none");
        match Split::named(pre) {
            Some(split) => Ok(split),
            None => unsupported(
                format!("pre-tokenizer `{pre}` in a GGUF file ({file})"),
                "`llama-bpe`, `smollm` and `gpt-2` are, and the same model as a folder",
            ),
        }
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
        let scaling = match self.text("llama.rope.scaling.type") {
            None | Some("none") => serde_json::Value::Null,
            Some(kind) => json!({"rope_type": kind, "factor": self.number("rope.scaling.factor")?}),
        };
        Ok(json!({
            "architectures": ["LlamaForCausalLM"],
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

    fn token_id(&self, which: &str) -> Option<u64> {
        integer(self.content.metadata.get(&format!("tokenizer.ggml.{which}_token_id"))?)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.content.metadata.get(key)?.to_string().ok().map(String::as_str)
    }

    fn count(&self, key: &str) -> Result<usize, ModelError> {
        let value = self.content.metadata.get(&format!("llama.{key}"));
        value
            .and_then(integer)
            .and_then(|value| usize::try_from(value).ok())
            .ok_or_else(|| self.malformed(&format!("lacks the number `llama.{key}`")))
    }

    fn number(&self, key: &str) -> Result<f64, ModelError> {
        let value = match self.content.metadata.get(&format!("llama.{key}")) {
            Some(Value::F32(value)) => Some(f64::from(*value)),
            Some(Value::F64(value)) => Some(*value),
            _ => None,
        };
        value.ok_or_else(|| self.malformed(&format!("lacks the number `llama.{key}`")))
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
