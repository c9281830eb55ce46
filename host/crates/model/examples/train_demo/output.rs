//! Writes the model as a folder in the Hugging Face layout, weights in f16.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Var};
use serde_json::json;
use tokenizers::Tokenizer;
use tollgate_model::config::LlamaConfig;

use crate::vocabulary::{BEGIN, CHAT_TEMPLATE, END, SPECIALS};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub fn write(
    folder: &Path,
    tokenizer: &Tokenizer,
    config: &LlamaConfig,
    vars: &BTreeMap<String, Var>,
) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut tensors = HashMap::new();
    for (name, var) in vars {
        tensors.insert(name.clone(), var.as_tensor().to_dtype(DType::F16)?);
    }
    let partial = folder.join("model.safetensors.partial");
    candle_core::safetensors::save(&tensors, &partial)?;
    std::fs::rename(partial, folder.join("model.safetensors"))?;
    tokenizer.save(folder.join("tokenizer.json"), true)?;
    let id = |token: &str| tokenizer.token_to_id(token);
    let json_file = |name: &str, value: serde_json::Value| -> Result<()> {
        Ok(std::fs::write(folder.join(name), serde_json::to_string_pretty(&value)? + "\n")?)
    };
    json_file(
        "config.json",
        json!({
            "architectures": [config.architecture], "model_type": "llama", "torch_dtype": "float16",
            "vocab_size": config.vocabulary, "hidden_size": config.hidden, "intermediate_size": config.feed_forward,
            "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads, "head_dim": config.head_dim,
            "max_position_embeddings": config.context_length, "rms_norm_eps": config.norm_eps,
            "rope_theta": config.rope_theta, "tie_word_embeddings": config.tied_embeddings, "hidden_act": "silu",
            "attention_bias": false, "mlp_bias": false, "bos_token_id": id(BEGIN), "eos_token_id": id(END),
        }),
    )?;
    json_file(
        "generation_config.json",
        json!({ "bos_token_id": id(BEGIN), "eos_token_id": id(END) }),
    )?;
    let special = |text: &&str| {
        (
            id(text).unwrap_or(0).to_string(),
            json!({ "content": text, "special": true, "normalized": false,
            "lstrip": false, "rstrip": false, "single_word": false }),
        )
    };
    json_file(
        "tokenizer_config.json",
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": END, "add_bos_token": true,
            "clean_up_tokenization_spaces": false, "model_max_length": config.context_length,
            "added_tokens_decoder": SPECIALS.iter().map(special).collect::<serde_json::Map<_, _>>(),
            "chat_template": CHAT_TEMPLATE,
        }),
    )
}
