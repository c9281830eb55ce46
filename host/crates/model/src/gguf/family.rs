//! Which kinds of models GGUF files are read of, and what a folder calls their tensors.

/// What kind of model a file holds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Gemma,
    Gemma2,
    Gemma3,
    Phi3,
}

/// By their names in a file, with those that a folder has.
const FAMILIES: [(&str, Family, &str); 7] = [
    ("llama", Family::Llama, "LlamaForCausalLM"),
    ("qwen2", Family::Qwen2, "Qwen2ForCausalLM"),
    ("qwen3", Family::Qwen3, "Qwen3ForCausalLM"),
    ("gemma", Family::Gemma, "GemmaForCausalLM"),
    ("gemma2", Family::Gemma2, "Gemma2ForCausalLM"),
    ("gemma3", Family::Gemma3, "Gemma3ForCausalLM"),
    ("phi3", Family::Phi3, "Phi3ForCausalLM"),
];

impl Family {
    /// As `general.architecture` names it.
    pub(super) fn named(name: &str) -> Option<Self> {
        FAMILIES.iter().find(|(known, _, _)| *known == name).map(|(_, family, _)| *family)
    }

    /// All names, for whoever has another.
    pub(super) fn names() -> String {
        FAMILIES.map(|(name, _, _)| format!("{name:?}")).join(", ")
    }

    /// As a folder names it.
    pub(super) fn architecture(self) -> &'static str {
        let found = FAMILIES.iter().find(|(_, family, _)| *family == self);
        found.map_or("", |(_, _, architecture)| architecture)
    }

    /// Whether its norms are stored as one more than in folders.
    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma | Self::Gemma2 | Self::Gemma3)
    }

    /// What a folder calls a tensor.
    pub(super) fn folder_name(self, name: &str) -> Option<String> {
        match name {
            "token_embd.weight" => return Some("model.embed_tokens.weight".to_owned()),
            "output_norm.weight" => return Some("model.norm.weight".to_owned()),
            "output.weight" => return Some("lm_head.weight".to_owned()),
            _ => {}
        }
        let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = part.rsplit_once('.')?;
        let sandwiched = matches!(self, Self::Gemma2 | Self::Gemma3);
        let part = match part {
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_qkv" => "self_attn.qkv_proj",
            "attn_output" => "self_attn.o_proj",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" if self == Self::Phi3 => "mlp.gate_up_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            "attn_q_norm" => "self_attn.q_norm",
            "attn_k_norm" => "self_attn.k_norm",
            "attn_norm" => "input_layernorm",
            "ffn_norm" if sandwiched => "pre_feedforward_layernorm",
            "ffn_norm" => "post_attention_layernorm",
            "post_attention_norm" if sandwiched => "post_attention_layernorm",
            "post_ffw_norm" if sandwiched => "post_feedforward_layernorm",
            _ => return None,
        };
        Some(format!("model.layers.{layer}.{part}.{kind}"))
    }
}
