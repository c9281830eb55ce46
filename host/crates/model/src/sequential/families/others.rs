//! Families of which there is little to say: GLM-4, OLMo 2 and StarCoder2.

use candle_transformers::models::{glm4_new, olmo2, starcoder2};
use serde_json::Value;

use super::{MOST_POSITIONS, Parts, Positions, plain};
use crate::ModelError;
use crate::config::FILE;
use crate::sequential::Written;

pub(super) fn glm_4(mut written: Written) -> Result<Parts, ModelError> {
    written.usually("partial_rotary_factor", 0.5);
    if let Some(rope) = written.get("rope_parameters").cloned()
        && let Some(factor) = rope.get("partial_rotary_factor")
    {
        written.set("partial_rotary_factor", factor.clone());
    }
    written.usually("tie_word_embeddings", false);
    written.usually("hidden_act", "silu");
    written.set("eos_token_id", Value::Null);
    let kv = written.kv()?;
    let turned = written.number("partial_rotary_factor")? * kv.head_dim as f64;
    if turned < 2.0 || turned.fract() != 0.0 || turned % 2.0 != 0.0 || turned >= kv.head_dim as f64
    {
        let reason = format!("partial_rotary_factor turns {turned} numbers of {}", kv.head_dim);
        return Err(ModelError::malformed(FILE, reason));
    }
    written.plain_rotary(10_000.0)?;
    let positions = Positions::read(&mut written, 131_072, MOST_POSITIONS)?;
    let positions = positions.within_window(&mut written)?;
    let config: glm4_new::Config = written.into()?;
    let build = plain(config, glm4_new::ModelForCausalLM::new, glm4_new::ModelForCausalLM::forward);
    Ok(Parts::new(kv, positions, build))
}

pub(super) fn olmo_2(mut written: Written) -> Result<Parts, ModelError> {
    written.only("clip_qkv", Value::Null)?;
    written.usually("attention_bias", false);
    written.usually("tie_word_embeddings", false);
    written.usually("hidden_act", "silu");
    let kv = written.kv_of_width()?;
    written.plain_rotary(10_000.0)?;
    let positions = Positions::read(&mut written, 2048, MOST_POSITIONS)?;
    let config: olmo2::Config = written.into()?;
    Ok(Parts::new(kv, positions, plain(config, olmo2::Model::new, olmo2::Model::forward)))
}

pub(super) fn starcoder_2(mut written: Written) -> Result<Parts, ModelError> {
    written.only("tie_word_embeddings", true)?;
    written.usually("norm_epsilon", 1e-5);
    written.usually("use_bias", true);
    written.usually("hidden_act", "gelu_pytorch_tanh");
    let kv = written.kv_of_width()?;
    written.plain_rotary(10_000.0)?;
    let positions = Positions::read(&mut written, 4096, MOST_POSITIONS)?;
    let positions = positions.within_window(&mut written)?;
    written.set("sliding_window", Value::Null);
    let config: starcoder2::Config = written.into()?;
    Ok(Parts::new(kv, positions, plain(config, starcoder2::Model::new, starcoder2::Model::forward)))
}
