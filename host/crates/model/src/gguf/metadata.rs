//! The key-value part of a GGUF file, in the words of a folder's configuration.

use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value as Entry};
use serde_json::{Value, json};

use super::family::Family;
use super::file_name;
use crate::ModelError;
use crate::embedding::Said;
use crate::rope::yarn_attention;

/// The key-value part of a file.
pub(super) struct Metadata<'a> {
    pub(super) content: &'a Content,
    pub(super) path: &'a Path,
}

impl Metadata<'_> {
    /// What kind of model it is; refused where it is none that is run.
    pub(super) fn family(&self) -> Result<Family, ModelError> {
        let named = self.text("general.architecture");
        named.and_then(Family::named).ok_or_else(|| ModelError::Unsupported {
            what: format!("architecture {named:?} ({})", file_name(self.path)),
            instead: format!("GGUF files of {} are", Family::names()),
        })
    }

    /// The name of a number of this kind of model.
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.text("general.architecture").unwrap_or_default())
    }

    /// `config.json`, as the folder of this model has it. `factors` are what rotary frequencies are divided
    /// by, one for each.
    pub(super) fn config(&self, factors: Option<Vec<f32>>) -> Result<Value, ModelError> {
        let tied = !self.content.tensor_infos.contains_key("output.weight");
        let vocabulary = self
            .content
            .tensor_infos
            .get("token_embd.weight")
            .and_then(|info| info.shape.dims().first().copied())
            .ok_or_else(|| self.malformed("no tensor `token_embd.weight`"))?;
        let family = self.family()?;
        let scaling = match (factors, self.text(&self.key("rope.scaling.type"))) {
            (Some(factors), _) => self.long_scaling(&factors),
            (None, None | Some("none")) => Value::Null,
            (None, Some(kind)) => self.scaling(kind)?,
        };
        let mut config = json!({
            "architectures": [family.architecture()],
            "vocab_size": vocabulary,
            "hidden_size": self.count("embedding_length")?,
            "intermediate_size": self.count("feed_forward_length")?,
            "num_hidden_layers": self.count("block_count")?,
            "num_attention_heads": self.count("attention.head_count")?,
            "num_key_value_heads": self.count("attention.head_count_kv").ok(),
            "head_dim": self.count("attention.key_length").ok(),
            "max_position_embeddings": self.count("context_length")?,
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon")?,
            "rope_theta": self.number("rope.freq_base").ok(),
            "rope_scaling": scaling,
            "tie_word_embeddings": tied,
            "eos_token_id": self.token_id("eos").map(|id| [Some(id), self.token_id("eot")]
                .into_iter().flatten().collect::<Vec<_>>()),
        });
        if !matches!(family, Family::Llama | Family::Qwen2 | Family::Qwen3)
            && let (Some(config), Some(more)) =
                (config.as_object_mut(), self.more(family)?.as_object())
        {
            config.extend(more.clone());
        }
        Ok(config)
    }

    /// What the families that run one sequence at a time have besides.
    fn more(&self, family: Family) -> Result<Value, ModelError> {
        let window = self.count("attention.sliding_window").ok();
        let (layers, width) = (self.count("block_count")?, self.count("embedding_length")?);
        let heads = self.count("attention.head_count")?;
        let head = self.count("attention.key_length").ok().or_else(|| width.checked_div(heads));
        // Files do not say what scores are divided by, and the largest of each size has another.
        let scale = match (family, layers) {
            (Family::Gemma2, 46) | (Family::Gemma3, 62) => width.checked_div(heads),
            _ => head,
        };
        let cap = |key: &str, usual: f64| self.number(key).unwrap_or(usual);
        Ok(match family {
            Family::Gemma2 => json!({
                "sliding_window": window,
                "query_pre_attn_scalar": scale,
                "attn_logit_softcapping": cap("attn_logit_softcapping", 50.0),
                "final_logit_softcapping": cap("final_logit_softcapping", 30.0),
            }),
            Family::Gemma3 => json!({
                "sliding_window": window,
                "query_pre_attn_scalar": scale,
                "final_logit_softcapping": self.number("final_logit_softcapping").ok(),
            }),
            Family::Phi3 => {
                let turned = self.count("rope.dimension_count").ok();
                let part = turned.zip(head).map(|(turned, head)| turned as f64 / head as f64);
                json!({"sliding_window": window, "partial_rotary_factor": part})
            }
            _ => json!({}),
        })
    }

    /// `rope_scaling` of Phi-3, as far as its first training went.
    fn long_scaling(&self, factors: &[f32]) -> Value {
        json!({
            "rope_type": "longrope",
            "short_factor": factors,
            "original_max_position_embeddings": self.count("rope.scaling.original_context_length").ok(),
            "attention_factor": self.number("rope.scaling.attn_factor").ok(),
        })
    }

    /// `rope_scaling`.
    fn scaling(&self, kind: &str) -> Result<Value, ModelError> {
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
    pub(super) fn tokenizer_config(&self) -> Value {
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
    pub(super) fn pooling(&self) -> Said {
        let kind = self.content.metadata.get(&self.key("pooling_type")).and_then(integer);
        Said::numbered(kind.unwrap_or(0))
    }

    fn token_id(&self, which: &str) -> Option<u64> {
        integer(self.content.metadata.get(&format!("tokenizer.ggml.{which}_token_id"))?)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.content.metadata.get(key)?.to_string().ok().map(String::as_str)
    }

    pub(super) fn count(&self, key: &str) -> Result<usize, ModelError> {
        let value = self.content.metadata.get(&self.key(key));
        value
            .and_then(integer)
            .and_then(|value| usize::try_from(value).ok())
            .ok_or_else(|| self.malformed(&format!("lacks the number `{}`", self.key(key))))
    }

    fn number(&self, key: &str) -> Result<f64, ModelError> {
        let value = match self.content.metadata.get(&self.key(key)) {
            Some(Entry::F32(value)) => Some(f64::from(*value)),
            Some(Entry::F64(value)) => Some(*value),
            _ => None,
        };
        value.ok_or_else(|| self.malformed(&format!("lacks the number `{}`", self.key(key))))
    }

    fn malformed(&self, reason: &str) -> ModelError {
        ModelError::malformed(file_name(self.path), reason)
    }
}

/// A whole number of whatever width the writer chose.
pub(super) fn integer(value: &Entry) -> Option<u64> {
    match value {
        Entry::U8(value) => Some(u64::from(*value)),
        Entry::U16(value) => Some(u64::from(*value)),
        Entry::U32(value) => Some(u64::from(*value)),
        Entry::U64(value) => Some(*value),
        Entry::I32(value) => u64::try_from(*value).ok(),
        Entry::I64(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}
