//! Mixtures of experts: Mixtral and Qwen's.

use candle_transformers::models::{mixtral, qwen2_moe, qwen3_moe};
use serde_json::json;

use super::{MOST_POSITIONS, Parts, Positions, plain};
use crate::ModelError;
use crate::config::FILE;
use crate::sequential::Written;

/// What models with experts have in common.
pub(super) fn experts(written: &mut Written, all: &str, usual: usize) -> Result<(), ModelError> {
    written.usually("hidden_act", "silu");
    written.usually("num_experts_per_tok", usual);
    let (some, all) = (written.parts("num_experts_per_tok")?, written.parts(all)?);
    match some <= all {
        true => Ok(()),
        false => {
            Err(ModelError::malformed(FILE, format!("{some} experts for each token, of {all}")))
        }
    }
}

pub(super) fn mixtral_moe(mut written: Written) -> Result<Parts, ModelError> {
    written.only("tie_word_embeddings", false)?;
    experts(&mut written, "num_local_experts", 2)?;
    let kv = written.kv_of_width()?;
    written.plain_rotary(1_000_000.0)?;
    let positions = Positions::read(&mut written, 32_768, MOST_POSITIONS)?;
    let positions = positions.within_window(&mut written)?;
    written.set("sliding_window", positions.run);
    written.set("use_flash_attn", false);
    let config: mixtral::Config = written.into()?;
    Ok(Parts::new(kv, positions, plain(config, mixtral::Model::new, mixtral::Model::forward)))
}

/// What both of Qwen's have in common; the positions.
fn qwen_moe(written: &mut Written) -> Result<Positions, ModelError> {
    written.only("use_sliding_window", false)?;
    written.only("mlp_only_layers", json!([]))?;
    written.usually("decoder_sparse_step", 1);
    written.parts("decoder_sparse_step")?;
    written.usually("norm_topk_prob", false);
    written.usually("tie_word_embeddings", false);
    written.set("use_sliding_window", false);
    written.usually("max_window_layers", 1);
    experts(written, "num_experts", 8)?;
    written.plain_rotary(10_000.0)?;
    let positions = Positions::read(written, 32_768, MOST_POSITIONS)?;
    written.set("sliding_window", positions.run);
    Ok(positions)
}

pub(super) fn qwen_2_moe(mut written: Written) -> Result<Parts, ModelError> {
    written.only("qkv_bias", true)?;
    written.only("tie_word_embeddings", false)?;
    let kv = written.kv_of_width()?;
    let positions = qwen_moe(&mut written)?;
    let config: qwen2_moe::Config = written.into()?;
    Ok(Parts::new(kv, positions, plain(config, qwen2_moe::Model::new, qwen2_moe::Model::forward)))
}

pub(super) fn qwen_3_moe(mut written: Written) -> Result<Parts, ModelError> {
    let kv = written.kv()?;
    written.set("head_dim", kv.head_dim);
    written.usually("attention_bias", false);
    let positions = qwen_moe(&mut written)?;
    let config: qwen3_moe::Config = written.into()?;
    let new = qwen3_moe::ModelForCausalLM::new;
    Ok(Parts::new(kv, positions, plain(config, new, qwen3_moe::ModelForCausalLM::forward)))
}
