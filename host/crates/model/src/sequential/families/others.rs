//! Families of which there is little to say: GLM-4, Helium, OLMo, SmolLM3, StableLM and StarCoder.

use candle_core::Tensor;
use candle_transformers::models::smol::smollm3;
use candle_transformers::models::{bigcode, glm4_new, helium, olmo, olmo2, stable_lm, starcoder2};
use serde_json::Value;

use super::{MOST_POSITIONS, Parts, Positions, Tensors, plain, remade};
use crate::ModelError;
use crate::kv::KvShape;
use crate::sequential::Written;

/// A table of all pairs of positions is made for each sequence.
const MOST_PAIRED_POSITIONS: usize = 1 << 12;

pub(super) fn glm_4(mut written: Written) -> Result<Parts, ModelError> {
    written.usually("tie_word_embeddings", false);
    written.usually("hidden_act", "silu");
    written.set("eos_token_id", Value::Null);
    let kv = written.kv()?;
    written.turned(0.5, kv.head_dim)?;
    written.plain_rotary(10_000.0)?;
    let positions = Positions::read(&mut written, 131_072, MOST_POSITIONS)?;
    let positions = positions.within_window(&mut written)?;
    let config: glm4_new::Config = written.into()?;
    let build = plain(config, glm4_new::ModelForCausalLM::new, glm4_new::ModelForCausalLM::forward);
    Ok(Parts::new(kv, positions, build))
}

pub(super) fn helium_1(mut written: Written) -> Result<Parts, ModelError> {
    for name in ["attention_bias", "mlp_bias"] {
        written.only(name, false)?;
        written.set(name, false);
    }
    written.usually("tie_word_embeddings", false);
    written.usually("hidden_act", "silu");
    written.set("use_flash_attn", false);
    // Other readers' business, and lists in some files.
    written.set("bos_token_id", 0);
    written.set("eos_token_id", 0);
    let kv = written.kv_of_width()?;
    written.set("head_dim", kv.head_dim);
    written.plain_rotary(100_000.0)?;
    let positions = Positions::read(&mut written, 4096, MOST_POSITIONS)?;
    let config: helium::Config = written.into()?;
    Ok(Parts::new(kv, positions, plain(config, helium::Model::new, helium::Model::forward)))
}

/// What both of OLMo's generations say alike.
fn any_olmo(written: &mut Written) -> Result<(KvShape, Positions), ModelError> {
    written.usually("attention_bias", false);
    written.usually("tie_word_embeddings", false);
    written.usually("hidden_act", "silu");
    let kv = written.kv_of_width()?;
    written.plain_rotary(10_000.0)?;
    Ok((kv, Positions::read(written, 2048, MOST_POSITIONS)?))
}

/// OLMo's first, whose norms have no weights.
pub(super) fn olmo_1(mut written: Written) -> Result<Parts, ModelError> {
    if written.get("clip_qkv").is_some() {
        written.number("clip_qkv")?;
    }
    let (kv, positions) = any_olmo(&mut written)?;
    let config: olmo::Config = written.into()?;
    Ok(Parts::new(kv, positions, plain(config, olmo::Model::new, olmo::Model::forward)))
}

pub(super) fn olmo_2(mut written: Written) -> Result<Parts, ModelError> {
    written.only("clip_qkv", Value::Null)?;
    let (kv, positions) = any_olmo(&mut written)?;
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

pub(super) fn smol_3(mut written: Written) -> Result<Parts, ModelError> {
    written.only("use_sliding_window", false)?;
    written.set("use_sliding_window", false);
    written.usually("tie_word_embeddings", true);
    written.usually("hidden_act", "silu");
    written.usually("no_rope_layer_interval", 4);
    written.parts("no_rope_layer_interval")?;
    for name in ["bos_token_id", "eos_token_id", "pad_token_id", "sliding_window"] {
        written.set(name, Value::Null);
    }
    let kv = written.kv_of_width()?;
    written.plain_rotary(2_000_000.0)?;
    let positions = Positions::read(&mut written, 32_768, MOST_POSITIONS)?;
    let config: smollm3::Config = written.into()?;
    let build = plain(config, smollm3::ModelForCausalLM::new, smollm3::ModelForCausalLM::forward);
    Ok(Parts::new(kv, positions, build))
}

pub(super) fn stable_2(mut written: Written) -> Result<Parts, ModelError> {
    for name in ["use_parallel_residual", "qk_layernorm", "tie_word_embeddings"] {
        written.only(name, false)?;
    }
    written.usually("use_qkv_bias", false);
    written.usually("hidden_act", "silu");
    written.usually("layer_norm_eps", 1e-5);
    written.set("use_cache", true);
    written.set("use_flash_attn", false);
    let kv = written.kv_of_width()?;
    written.turned(0.25, kv.head_dim)?;
    written.plain_rotary(10_000.0)?;
    let positions = Positions::read(&mut written, 4096, MOST_POSITIONS)?;
    let config: stable_lm::Config = written.into()?;
    let build = remade(config, |_| Ok(()), stable_lm::Model::new, stable_lm::Model::forward);
    Ok(Parts::new(kv, positions, build))
}

/// StarCoder's first, whose heads share one head of keys.
pub(super) fn big_code(mut written: Written) -> Result<Parts, ModelError> {
    for (ours, others) in [
        ("n_embd", "hidden_size"),
        ("n_head", "num_attention_heads"),
        ("n_layer", "num_hidden_layers"),
        ("n_positions", "max_position_embeddings"),
    ] {
        written.rename(ours, others);
    }
    written.only("multi_query", true)?;
    written.only("scale_attn_weights", true)?;
    written.only("tie_word_embeddings", true)?;
    written.usually("activation_function", "gelu_pytorch_tanh");
    written.only("activation_function", "gelu_pytorch_tanh")?;
    written.usually("layer_norm_epsilon", 1e-5);
    written.set("num_key_value_heads", 1);
    let kv = written.kv_of_width()?;
    let positions = Positions::read(&mut written, 1024, MOST_PAIRED_POSITIONS)?;
    let run = positions.run;
    let config = (
        written.size("vocab_size")?,
        written.size("hidden_size")?,
        written.size("num_attention_heads")?,
        written.number("layer_norm_epsilon")?,
        written.size_if_any("n_inner")?,
    );
    // Positions have weights of their own, of which those are kept that are run.
    let prepare = move |tensors: &mut Tensors| {
        let positions = tensors.get_mut("transformer.wpe.weight");
        if let Some(positions) = positions.filter(|all| all.dim(0).is_ok_and(|all| all > run)) {
            *positions = positions.narrow(0, 0, run)?.contiguous()?;
        }
        Ok(())
    };
    let new = move |&(vocab_size, hidden_size, heads, layer_norm_epsilon, n_inner): &_, weights| {
        let config = bigcode::Config {
            vocab_size,
            max_position_embeddings: run,
            num_hidden_layers: kv.layers,
            hidden_size,
            layer_norm_epsilon,
            n_inner,
            num_attention_heads: heads,
            multi_query: true,
            use_cache: true,
        };
        bigcode::GPTBigCode::load(weights, config)
    };
    let forward =
        |model: &mut bigcode::GPTBigCode, tokens: &Tensor, start| model.forward(tokens, start);
    Ok(Parts::new(kv, positions, remade(config, prepare, new, forward)))
}
