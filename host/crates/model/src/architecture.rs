//! What kind of model a configuration describes, and so how it is run.
//!
//! The first of `architectures` decides, before anything else is looked at: a file of another family
//! lacks other fields too, and naming those would mislead.

use crate::ModelError;
use crate::config::{FILE, LlamaConfig};
use crate::encoder::{self, EncoderRecipe};
use crate::sequential::{Recipe, families};

/// How the sequences of a model are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    /// Many in one pass, in continuous batches, over blocks that prompts which begin alike share.
    Shared,
    /// One sequence at a time from its beginning to its end; the others wait.
    Alone,
    /// One text at a time and all of it in one pass, since its tokens look ahead.
    Whole,
}

/// A configuration, by how it is run.
pub(crate) enum Architecture {
    Shared(Box<LlamaConfig>),
    Alone(Recipe),
    Whole(EncoderRecipe),
}

impl Passes {
    /// As start-up messages say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "continuous batches",
            Self::Alone => "one sequence at a time",
            Self::Whole => "one text at a time",
        }
    }
}

impl Architecture {
    /// Reads `config.json`.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, ModelError> {
        let value: serde_json::Value = serde_json::from_slice(json)
            .map_err(|error| ModelError::malformed(FILE, format!("not JSON: {error}")))?;
        let Some(name) = value.pointer("/architectures/0").and_then(serde_json::Value::as_str)
        else {
            let reason = "no `architectures` entry says what kind of model this is";
            return Err(ModelError::malformed(FILE, reason));
        };
        if let Some(recipe) = families::recipe(name, json) {
            return recipe.map(Self::Alone);
        }
        if let Some(recipe) = encoder::recipe(name, json) {
            return recipe.map(Self::Whole);
        }
        if LlamaConfig::runs(name) {
            return LlamaConfig::from_json(json).map(|config| Self::Shared(Box::new(config)));
        }
        let kind = value.get("model_type").and_then(serde_json::Value::as_str);
        let kind = kind.map_or_else(String::new, |kind| format!(" (`model_type` {kind})"));
        Err(ModelError::Unsupported {
            what: format!("architecture `{name}`{kind}"),
            instead: supported(),
        })
    }

    /// As the file names it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Shared(config) => &config.architecture,
            Self::Alone(recipe) => &recipe.architecture,
            Self::Whole(recipe) => &recipe.architecture,
        }
    }

    pub(crate) fn context_length(&self) -> usize {
        match self {
            Self::Shared(config) => config.context_length,
            Self::Alone(recipe) => recipe.context_length,
            Self::Whole(recipe) => recipe.context_length,
        }
    }

    pub(crate) fn passes(&self) -> Passes {
        match self {
            Self::Shared(_) => Passes::Shared,
            Self::Alone(_) => Passes::Alone,
            Self::Whole(_) => Passes::Whole,
        }
    }
}

/// What is run, for whoever has something else.
fn supported() -> String {
    let list = |names: &mut dyn Iterator<Item = &str>| {
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    format!(
        "{} are, one sequence at a time {}, and for embeddings {}",
        list(&mut LlamaConfig::FAMILIES.into_iter()),
        list(&mut families::FAMILIES.iter().map(|(name, _)| *name)),
        list(&mut encoder::FAMILIES.iter().map(|(name, _)| *name)),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(config: &Value) -> Result<Architecture, ModelError> {
        Architecture::from_json(config.to_string().as_bytes())
    }

    #[test]
    fn what_is_not_run_is_told_what_is() {
        let falcon = json!({"architectures": ["FalconForCausalLM"], "model_type": "falcon"});
        let message = read(&falcon).err().unwrap().to_string();
        for mention in [
            "`FalconForCausalLM` (`model_type` falcon)",
            "`LlamaForCausalLM`",
            "one sequence at a time `DeepseekV2ForCausalLM`, `GemmaForCausalLM`",
            "for embeddings `BertModel`",
        ] {
            assert!(message.contains(mention), "{mention}: {message}");
        }
        for none in [json!({"model_type": "gemma2"}), json!({"architectures": []}), json!(3)] {
            assert!(read(&none).err().unwrap().to_string().contains("architectures"));
        }
    }

    const NO_HEADS: &[&str] =
        &["head_dim", "num_attention_heads", "num_key_value_heads", "rope_theta", "rope_scaling"];

    /// What a family's file says that others' do not, and what it does not look at.
    fn besides(name: &str) -> (Value, &'static [&'static str]) {
        match name {
            "DeepseekV2ForCausalLM" => {
                let widths = json!({
                    "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
                    "qk_nope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 4,
                });
                (widths, &["head_dim"])
            }
            "GPTBigCodeForCausalLM" => {
                (json!({}), &["num_key_value_heads", "rope_theta", "rope_scaling"])
            }
            "GraniteForCausalLM" => (json!({"tie_word_embeddings": true}), &[]),
            "GraniteMoeHybridForCausalLM" => {
                let dense = json!({
                    "tie_word_embeddings": true, "layer_types": ["attention", "attention"],
                    "num_local_experts": 0, "position_embedding_type": "rope",
                });
                (dense, &[])
            }
            "MambaForCausalLM" => (json!({"intermediate_size": 128}), NO_HEADS),
            "Mamba2ForCausalLM" => {
                (json!({"n_groups": 2, "tie_word_embeddings": true}), &NO_HEADS[1..])
            }
            _ => (json!({}), &[]),
        }
    }

    /// A file may say what it likes: it is refused, and neither panics nor takes memory.
    #[test]
    fn sizes_that_no_model_has_are_refused() {
        let names = families::FAMILIES.iter().map(|(name, _)| *name);
        for name in names {
            let (more, unread) = besides(name);
            let mut sound = json!({
                "architectures": [name], "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "rms_norm_eps": 1e-6, "max_position_embeddings": 128, "head_dim": 16,
                "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
                "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
            });
            sound.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let found = read(&sound).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((found.name(), found.passes()), (name, Passes::Alone));
            assert_eq!(found.context_length(), 128);
            for (key, bad) in [
                ("vocab_size", json!(0)),
                ("hidden_size", json!(-1)),
                ("num_hidden_layers", json!(1 << 20)),
                ("num_attention_heads", json!(0)),
                ("num_key_value_heads", json!(3)),
                ("head_dim", json!(7)),
                ("max_position_embeddings", json!(0)),
                ("rope_theta", json!(-1.0)),
                ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
            ] {
                if unread.contains(&key) {
                    continue;
                }
                let mut changed = sound.clone();
                changed[key] = bad;
                assert!(read(&changed).is_err(), "{name} with {key} of {}", changed[key]);
            }
        }
    }

    /// What would be computed otherwise than the file says is not computed.
    #[test]
    fn what_the_code_leaves_out_is_refused() {
        for (name, more) in [
            ("DeepseekV2ForCausalLM", json!({"topk_method": "group_limited_greedy"})),
            ("DeepseekV2ForCausalLM", json!({"norm_topk_prob": true})),
            ("DeepseekV2ForCausalLM", json!({"rms_norm_eps": 1e-5})),
            ("DeepseekV2ForCausalLM", json!({"num_experts_per_tok": 5})),
            ("GPTBigCodeForCausalLM", json!({"activation_function": "gelu"})),
            ("GPTBigCodeForCausalLM", json!({"multi_query": false})),
            ("GraniteForCausalLM", json!({"tie_word_embeddings": false})),
            ("GraniteForCausalLM", json!({"logits_scaling": 0.0})),
            ("GraniteMoeHybridForCausalLM", json!({"layer_types": ["attention", "mamba"]})),
            ("GraniteMoeHybridForCausalLM", json!({"layer_types": ["attention"]})),
            ("GraniteMoeHybridForCausalLM", json!({"num_local_experts": null})),
            ("GraniteMoeHybridForCausalLM", json!({"position_embedding_type": "nope"})),
            ("HeliumForCausalLM", json!({"attention_bias": true})),
            ("Lfm2ForCausalLM", json!({"layer_types": ["conv"]})),
            ("Lfm2ForCausalLM", json!({"conv_bias": true})),
            ("MambaForCausalLM", json!({"state_size": 32})),
            ("MambaForCausalLM", json!({"time_step_rank": 5})),
            ("Mamba2ForCausalLM", json!({"num_heads": 4})),
            ("Mamba2ForCausalLM", json!({"time_step_limit": [0.0, 100.0]})),
            ("Mamba2ForCausalLM", json!({"tie_word_embeddings": null})),
            ("PhiForCausalLM", json!({"qk_layernorm": true})),
            ("RecurrentGemmaForCausalLM", json!({"partial_rotary_factor": 0.25})),
            ("SmolLM3ForCausalLM", json!({"use_sliding_window": true})),
            ("StableLmForCausalLM", json!({"use_parallel_residual": true})),
            ("StableLmForCausalLM", json!({"partial_rotary_factor": 1.0})),
        ] {
            let mut config = json!({
                "architectures": [name], "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "rms_norm_eps": 1e-6, "max_position_embeddings": 128, "num_experts_per_tok": 2,
                "moe_intermediate_size": 32,
            });
            config.as_object_mut().unwrap().extend(besides(name).0.as_object().unwrap().clone());
            assert!(read(&config).is_ok(), "{name}: {}", read(&config).err().unwrap());
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert!(read(&config).is_err(), "{name} with {more}");
        }
    }

    #[test]
    fn positions_end_where_a_window_that_is_not_computed_begins() {
        for (name, window, expected) in [
            ("Gemma2ForCausalLM", 96, 96),
            ("Phi3ForCausalLM", 100, 100),
            ("MixtralForCausalLM", 500, 128),
            ("Starcoder2ForCausalLM", 64, 64),
            ("RecurrentGemmaForCausalLM", 64, 64),
            // Here it is computed.
            ("Gemma3ForCausalLM", 16, 128),
        ] {
            let config = json!({
                "architectures": [name], "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "rms_norm_eps": 1e-6, "max_position_embeddings": 128, "head_dim": 16,
                "num_local_experts": 4, "sliding_window": window,
                "attention_window_size": window,
            });
            let found = read(&config).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.context_length(), expected, "{name}");
        }
    }
}
