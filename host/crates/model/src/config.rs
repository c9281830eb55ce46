//! `config.json` of a decoder of the Llama kind (Llama, Mistral, Qwen2, Qwen3): read, checked, and
//! nothing assumed that the file does not say.
//!
//! A model whose configuration asks for something the forward pass does not do (biases, another
//! activation, another way to scale rotary positions) is refused here with a reason: wrong text is
//! worse than no text.

use serde::Deserialize;

use crate::ModelError;
use crate::kv::KvShape;
use crate::rope::yarn_attention;

/// The shape of a Llama-family model.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// The architecture's name as the file gives it, such as `LlamaForCausalLM`.
    pub architecture: String,
    /// Entries of the embedding table.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward blocks.
    pub feed_forward: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Positions the model was made for.
    pub context_length: usize,
    /// Positions a token can look back, when fewer than all (Mistral).
    pub sliding_window: Option<usize>,
    /// Epsilon of the RMS norms.
    pub norm_eps: f64,
    /// Base of the rotary positions.
    pub rope_theta: f64,
    /// How rotary frequencies are stretched, if they are.
    pub rope_scaling: RopeScaling,
    /// Whether the output head is the embedding table.
    pub tied_embeddings: bool,
    /// Whether queries, keys and values have a bias (Qwen2).
    pub qkv_bias: bool,
    /// Whether each head's queries and keys are normed before they are turned (Qwen3).
    pub head_norms: bool,
    /// Whether there is an output head: a model of embeddings may have none.
    pub generates: bool,
}

/// How rotary frequencies are stretched beyond the context a model was first trained with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// The divisor for low frequencies.
        factor: f64,
        /// Wavelengths longer than `original_context / low` count as low frequencies.
        low: f64,
        /// Wavelengths shorter than `original_context / high` count as high frequencies.
        high: f64,
        /// The context before stretching.
        original_context: f64,
    },
    /// YaRN: frequencies that turn `slow` times within the original context or less divided by
    /// `factor`, those that turn `fast` times or more kept, a ramp between.
    Yarn {
        /// The divisor for low frequencies.
        factor: f64,
        /// Turns from which on a frequency is kept.
        fast: f64,
        /// Turns up to which it is divided.
        slow: f64,
        /// The context before stretching.
        original_context: f64,
        /// What queries and keys are multiplied with.
        attention: f64,
        /// Whether the ramp begins and ends at whole pairs.
        whole_pairs: bool,
    },
}

pub(crate) const FILE: &str = "config.json";
/// Width of Qwen3's heads where its configuration does not say.
const QWEN3_HEAD: usize = 128;

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    sliding_window: Option<usize>,
    /// Qwen's: whether there is a window at all, and the first layer that has it.
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    /// Newer files keep base and scaling together here.
    rope_parameters: Option<RawRope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
    /// False in models of embeddings whose tokens look ahead too.
    is_causal: Option<bool>,
    use_bidirectional_attention: Option<bool>,
}

#[derive(Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    /// What `rope_type` was called before; many files hold both.
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
}

impl LlamaConfig {
    /// The architectures that this can be.
    pub(crate) const FAMILIES: [&str; 4] =
        ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];

    /// Whether it can be this one, or one without its head.
    pub(crate) fn runs(architecture: &str) -> bool {
        let family = architecture.strip_suffix(GENERATES).or(architecture.strip_suffix(EMBEDS));
        let ours = Self::FAMILIES.iter().filter_map(|name| name.strip_suffix(GENERATES));
        family.is_some_and(|family| ours.into_iter().any(|name| name == family))
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] if a field is missing or its value makes no sense,
    /// [`ModelError::Unsupported`] if it describes a model that is not run here.
    pub fn from_json(json: &[u8]) -> Result<Self, ModelError> {
        let value: serde_json::Value = serde_json::from_slice(json)
            .map_err(|e| ModelError::malformed(FILE, format!("not JSON: {e}")))?;
        let architecture = architecture(&value)?;
        let raw: Raw = serde_json::from_value(value)
            .map_err(|e| ModelError::malformed(FILE, e.to_string()))?;
        raw.refuse_what_is_not_run()?;
        let sliding_window = raw.window(is_qwen(&architecture))?;
        let is_qwen3 = architecture.starts_with(QWEN3);
        let own_head = is_qwen3.then_some(QWEN3_HEAD);
        let generates = architecture.ends_with(GENERATES);
        let config = Self {
            qkv_bias: architecture.starts_with(QWEN2),
            head_norms: is_qwen3,
            generates,
            architecture,
            vocabulary: raw.vocab_size,
            hidden: raw.hidden_size,
            feed_forward: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: raw
                .head_dim
                .or(own_head)
                .unwrap_or(raw.hidden_size / raw.num_attention_heads.max(1)),
            context_length: raw.max_position_embeddings,
            sliding_window,
            norm_eps: raw.rms_norm_eps,
            rope_theta: raw.rope_theta(),
            rope_scaling: raw.rope_scaling()?,
            // Whatever has no head needs none.
            tied_embeddings: raw.tie_word_embeddings || !generates,
        };
        config.check()?;
        Ok(config)
    }

    /// What a token's keys and values are.
    pub(crate) fn kv(&self) -> KvShape {
        KvShape { layers: self.layers, heads: self.kv_heads, head_dim: self.head_dim }
    }

    fn check(&self) -> Result<(), ModelError> {
        let wrong = |reason: String| Err(ModelError::malformed(FILE, reason));
        for (name, value) in [
            ("vocab_size", self.vocabulary),
            ("hidden_size", self.hidden),
            ("intermediate_size", self.feed_forward),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.context_length),
        ] {
            if value == 0 || value > 1 << 24 {
                return wrong(format!("{name} is {value}, which no model has"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return wrong(format!(
                "{} key-value heads do not divide {} attention heads",
                self.kv_heads, self.heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong(format!(
                "head_dim is {}, which rotary positions cannot halve",
                self.head_dim
            ));
        }
        if !(self.norm_eps.is_finite()
            && self.norm_eps >= 0.0
            && self.rope_theta.is_finite()
            && self.rope_theta > 0.0)
        {
            return wrong(format!(
                "rms_norm_eps {} or rope_theta {} is no number",
                self.norm_eps, self.rope_theta
            ));
        }
        Ok(())
    }
}

const QWEN2: &str = "Qwen2";
const QWEN3: &str = "Qwen3";

/// What a family's name ends with where there is an output head, and where there is none.
const GENERATES: &str = "ForCausalLM";
const EMBEDS: &str = "Model";

fn is_qwen(architecture: &str) -> bool {
    architecture.starts_with(QWEN2) || architecture.starts_with(QWEN3)
}

fn architecture(value: &serde_json::Value) -> Result<String, ModelError> {
    let name = value.pointer("/architectures/0").and_then(serde_json::Value::as_str);
    match name {
        Some(name) if LlamaConfig::runs(name) => Ok(name.to_owned()),
        Some(name) => Err(ModelError::Unsupported {
            what: format!("architecture `{name}`"),
            instead: "Llama, Mistral, Qwen2 and Qwen3 are".into(),
        }),
        None => Err(ModelError::malformed(
            FILE,
            "no `architectures` entry says what kind of model this is",
        )),
    }
}

impl Raw {
    fn refuse_what_is_not_run(&self) -> Result<(), ModelError> {
        let refuse = |what: &str, instead: &str| {
            Err(ModelError::Unsupported { what: what.to_owned(), instead: instead.to_owned() })
        };
        debug_assert!(!self.architectures.is_empty(), "checked by `architecture`");
        if self.attention_bias || self.mlp_bias {
            return refuse(
                "a Llama with biases (`attention_bias` or `mlp_bias`)",
                "projections without bias are",
            );
        }
        if self.is_causal == Some(false) || self.use_bidirectional_attention == Some(true) {
            return refuse(
                "a model whose tokens look ahead (`is_causal` or `use_bidirectional_attention`)",
                "one whose tokens look back only is",
            );
        }
        match self.hidden_act.as_deref() {
            None | Some("silu") => Ok(()),
            Some(other) => refuse(&format!("activation `{other}`"), "`silu` is"),
        }
    }

    /// How far a token looks back, if not to the start.
    fn window(&self, is_qwen: bool) -> Result<Option<usize>, ModelError> {
        let window = self.sliding_window.filter(|window| *window < self.max_position_embeddings);
        if !is_qwen || window.is_none() {
            return Ok(window);
        }
        // Qwen's files name a window even where it is not used.
        let first = self.max_window_layers.unwrap_or(0);
        match self.use_sliding_window {
            Some(true) if first == 0 => Ok(window),
            Some(true) if first < self.num_hidden_layers => Err(ModelError::Unsupported {
                what: format!("a sliding window from layer {first} on"),
                instead: "one for all layers or for none is".to_owned(),
            }),
            _ => Ok(None),
        }
    }

    fn rope_theta(&self) -> f64 {
        self.rope_theta
            .or(self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta))
            .unwrap_or(10_000.0)
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        let Some(rope) = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref()) else {
            return Ok(RopeScaling::None);
        };
        let need = |name: &str, value: Option<f64>| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => {
                Err(ModelError::malformed(FILE, format!("rope_scaling.{name} is {value}")))
            }
            None => Err(ModelError::malformed(FILE, format!("rope_scaling lacks `{name}`"))),
        };
        match rope.rope_type.as_deref().or(rope.old_type.as_deref()) {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor: need("factor", rope.factor)? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: need("factor", rope.factor)?,
                low: need("low_freq_factor", rope.low_freq_factor)?,
                high: need("high_freq_factor", rope.high_freq_factor)?,
                original_context: need(
                    "original_max_position_embeddings",
                    rope.original_max_position_embeddings,
                )?,
            }),
            Some("yarn") => {
                let trained = self.max_position_embeddings as f64;
                let original = rope.original_max_position_embeddings.unwrap_or(trained);
                let factor = need("factor", rope.factor.or(Some(trained / original)))?;
                let usual = match (rope.mscale, rope.mscale_all_dim) {
                    (Some(one), Some(all)) if one != 0.0 && all != 0.0 => {
                        yarn_attention(factor, one) / yarn_attention(factor, all)
                    }
                    _ => yarn_attention(factor, 1.0),
                };
                Ok(RopeScaling::Yarn {
                    factor,
                    fast: need("beta_fast", rope.beta_fast.or(Some(32.0)))?,
                    slow: need("beta_slow", rope.beta_slow.or(Some(1.0)))?,
                    original_context: need("original_max_position_embeddings", Some(original))?,
                    attention: need("attention_factor", rope.attention_factor.or(Some(usual)))?,
                    whole_pairs: rope.truncate.unwrap_or(true),
                })
            }
            Some(other) => Err(ModelError::Unsupported {
                what: format!("rope_scaling type `{other}`"),
                instead: "`default`, `linear`, `llama3` and `yarn` are".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> serde_json::Value {
        serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        })
    }

    fn read(change: &serde_json::Value) -> Result<LlamaConfig, ModelError> {
        let mut json = tiny();
        for (key, value) in change.as_object().unwrap() {
            json[key] = value.clone();
        }
        LlamaConfig::from_json(json.to_string().as_bytes())
    }

    #[test]
    fn what_the_file_leaves_out_has_the_familys_defaults() {
        let config = read(&serde_json::json!({})).unwrap();
        assert_eq!((config.head_dim, config.kv_heads, config.rope_theta), (4, 2, 10_000.0));
        assert_eq!((config.rope_scaling, config.sliding_window), (RopeScaling::None, None));
        let config =
            read(&serde_json::json!({"num_key_value_heads": null, "head_dim": 6})).unwrap();
        assert_eq!((config.head_dim, config.kv_heads), (6, 4));
    }

    #[test]
    fn families_differ_in_biases_norms_and_windows() {
        let of = |name: &str, window: serde_json::Value| {
            let mut change = serde_json::json!({"architectures": [name], "sliding_window": 8});
            change.as_object_mut().unwrap().extend(window.as_object().unwrap().clone());
            let config = read(&change).unwrap();
            (config.qkv_bias, config.head_norms, config.head_dim, config.sliding_window)
        };
        let (unsaid, used) =
            (serde_json::json!({}), serde_json::json!({"use_sliding_window": true}));
        let late = serde_json::json!({"use_sliding_window": true, "max_window_layers": 2});
        assert_eq!(of("MistralForCausalLM", unsaid.clone()), (false, false, 4, Some(8)));
        assert_eq!(of("Qwen2ForCausalLM", unsaid.clone()), (true, false, 4, None));
        assert_eq!(of("Qwen2ForCausalLM", used), (true, false, 4, Some(8)));
        assert_eq!(of("Qwen2ForCausalLM", late), (true, false, 4, None));
        assert_eq!(of("Qwen3ForCausalLM", unsaid.clone()), (false, true, 128, None));
        assert_eq!(of("Qwen3Model", unsaid), (false, true, 128, None));
        let headless = read(&serde_json::json!({"architectures": ["MistralModel"]})).unwrap();
        assert!(!headless.generates && headless.tied_embeddings);
    }

    #[test]
    fn both_places_for_rotary_settings_are_read() {
        let old = serde_json::json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}});
        let new = serde_json::json!({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}});
        let both = serde_json::json!({"rope_theta": 5e5,
            "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 4.0}});
        assert_eq!(read(&old).unwrap(), read(&new).unwrap());
        assert_eq!(read(&both).unwrap(), read(&new).unwrap());
        let llama3 = serde_json::json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}});
        let expected =
            RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192.0 };
        assert_eq!(read(&llama3).unwrap().rope_scaling, expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            (serde_json::json!({"architectures": ["BertModel"]}), "BertModel"),
            (serde_json::json!({"architectures": []}), "architectures"),
            (serde_json::json!({"vocab_size": null}), "invalid type"),
            (serde_json::json!({"num_key_value_heads": 3}), "do not divide"),
            (serde_json::json!({"num_attention_heads": 0}), "num_attention_heads"),
            (serde_json::json!({"head_dim": 5}), "head_dim"),
            (serde_json::json!({"attention_bias": true}), "attention_bias"),
            (serde_json::json!({"hidden_act": "gelu"}), "gelu"),
            (serde_json::json!({"is_causal": false}), "look ahead"),
            (
                serde_json::json!({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 8,
                    "use_sliding_window": true, "max_window_layers": 1}),
                "layer 1",
            ),
            (
                serde_json::json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
                "dynamic",
            ),
            (serde_json::json!({"rope_scaling": {"rope_type": "yarn", "factor": 0}}), "factor"),
            (
                serde_json::json!({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}),
                "low_freq_factor",
            ),
        ];
        for (change, mention) in table {
            let message = read(&change).unwrap_err().to_string();
            assert!(message.contains(mention), "{change}: {message}");
        }
    }
}
