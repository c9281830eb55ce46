//! Models of which some layers or all keep a state instead of keys and values: Mamba, RecurrentGemma and
//! LFM2.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{lfm2, mamba, mamba2, recurrent_gemma};
use serde_json::{Value, json};

use super::{
    MOST_POSITIONS, Parts, Positions, Tensors, WINDOW, plain, prepared, remade, together_at_first,
};
use crate::ModelError;
use crate::config::FILE;
use crate::kv::KvShape;
use crate::sequential::Written;

/// What a token takes where nothing grows with it: the least that can be counted.
const NEXT_TO_NOTHING: KvShape = KvShape { layers: 1, heads: 1, head_dim: 1 };

pub(super) fn mamba_1(mut written: Written) -> Result<Parts, ModelError> {
    let (width, layers) = (written.size("hidden_size")?, written.parts("num_hidden_layers")?);
    for (name, run) in [
        ("state_size", Value::from(16)),
        ("conv_kernel", 4.into()),
        ("expand", 2.into()),
        ("intermediate_size", (2 * width).into()),
        ("use_bias", false.into()),
        ("use_conv_bias", true.into()),
        ("hidden_act", "silu".into()),
        ("layer_norm_epsilon", 1e-5.into()),
        ("tie_word_embeddings", true.into()),
    ] {
        written.only(name, run)?;
    }
    if written.get("time_step_rank").is_some_and(|rank| *rank != "auto") {
        written.only("time_step_rank", width.div_ceil(16))?;
    }
    let positions = Positions::read(&mut written, MOST_POSITIONS, MOST_POSITIONS)?;
    for (name, value) in [("d_model", width), ("n_layer", layers), ("pad_vocab_size_multiple", 1)] {
        written.set(name, value);
    }
    let config: mamba::Config = written.into()?;
    // An older name of it is what the code asks for.
    let prepare = |tensors: &mut Tensors| {
        if let Some(embeddings) = tensors.remove("backbone.embeddings.weight") {
            tensors.insert("backbone.embedding.weight".to_owned(), embeddings);
        }
        Ok(())
    };
    let new = |config: &mamba::Config, weights: VarBuilder<'static>| {
        let state = mamba::State::new(1, config, DType::F32, &Device::Cpu)?;
        Ok((mamba::Model::new(config, weights.pp("backbone"))?, state))
    };
    let forward = |(model, state): &mut (mamba::Model, mamba::State), token: &Tensor, _| {
        model.forward(&token.squeeze(0)?, state)
    };
    let build = remade(config, prepare, new, forward);
    Ok(Parts { together: 1, ..Parts::new(NEXT_TO_NOTHING, positions, build) })
}

pub(super) fn mamba_2(mut written: Written) -> Result<Parts, ModelError> {
    for (name, usual) in [
        ("state_size", 128),
        ("expand", 2),
        ("head_dim", 64),
        ("n_groups", 8),
        ("pad_vocab_size_multiple", 1),
    ] {
        written.usually(name, usual);
        written.parts(name)?;
    }
    written.parts("num_hidden_layers")?;
    let inner = written.size("hidden_size")? * written.size("expand")?;
    let (head, groups) = (written.size("head_dim")?, written.size("n_groups")?);
    let heads = inner / head;
    if heads * head != inner || !heads.is_multiple_of(groups) {
        let reason = format!("heads of {head} in {groups} groups do not divide {inner}");
        return Err(ModelError::malformed(FILE, reason));
    }
    // A file that says nothing of it means a head of its own.
    written.usually("tie_word_embeddings", false);
    for (name, run) in [
        ("num_heads", Value::from(heads)),
        ("conv_kernel", 4.into()),
        ("use_bias", false.into()),
        ("use_conv_bias", true.into()),
        ("rms_norm", true.into()),
        ("hidden_act", "silu".into()),
        ("layer_norm_epsilon", 1e-5.into()),
        ("pad_vocab_size_multiple", 1.into()),
        ("tie_word_embeddings", true.into()),
    ] {
        written.only(name, run)?;
    }
    if let Some(limits) = written.get("time_step_limit") {
        // Infinity, in an older and a newer spelling.
        let none = [json!([0.0, null]), json!([0.0, {"__float__": "Infinity"}])];
        if !none.contains(limits) {
            return Err(ModelError::Unsupported {
                what: format!("a model with `time_step_limit` of {limits}"),
                instead: "one without such a limit is".to_owned(),
            });
        }
    }
    let positions = Positions::read(&mut written, MOST_POSITIONS, MOST_POSITIONS)?;
    let config: mamba2::Config = written.into()?;
    let new = |config: &mamba2::Config, weights: VarBuilder<'static>| {
        let state = mamba2::State::new(1, config, DType::F32, &Device::Cpu)?;
        Ok((mamba2::Model::new(config, weights.pp("backbone"))?, state))
    };
    let forward = |(model, state): &mut (mamba2::Model, mamba2::State), token: &Tensor, _| {
        model.forward(&token.squeeze(0)?, state)
    };
    let build = remade(config, |_| Ok(()), new, forward);
    Ok(Parts { together: 1, ..Parts::new(NEXT_TO_NOTHING, positions, build) })
}

pub(super) fn recurrent_gemma_1(mut written: Written) -> Result<Parts, ModelError> {
    written.only("attention_bias", false)?;
    written.set("attention_bias", false);
    written.only("tie_word_embeddings", true)?;
    // As the smaller of them calls it.
    written.rename("_block_types", "block_types");
    for (name, usual) in [
        ("hidden_activation", Value::from("gelu_pytorch_tanh")),
        ("rms_norm_eps", 1e-6.into()),
        ("logits_soft_cap", 30.0.into()),
        ("partial_rotary_factor", 0.5.into()),
        ("attention_window_size", 2048.into()),
        ("conv1d_width", 4.into()),
        ("block_types", json!(["recurrent", "recurrent", "attention"])),
    ] {
        written.usually(name, usual);
    }
    written.parts("conv1d_width")?;
    written.number("logits_soft_cap")?;
    let kv = written.kv_of_width()?;
    written.set("head_dim", kv.head_dim);
    let heads = written.size("num_attention_heads")?;
    let width = written.size_if_any("lru_width")?.unwrap_or(written.size("hidden_size")?);
    if !width.is_multiple_of(heads) {
        let reason = format!("{heads} heads do not divide an `lru_width` of {width}");
        return Err(ModelError::malformed(FILE, reason));
    }
    written.turned(0.5, kv.head_dim)?;
    written.only("partial_rotary_factor", 0.5)?;
    written.plain_rotary(10_000.0)?;
    let window = written.size("attention_window_size")?;
    let positions = Positions::read(&mut written, 8192, MOST_POSITIONS)?;
    let positions = positions.at_most(&mut written, window, WINDOW)?;
    written.set("max_seq_len", positions.run);
    let config: recurrent_gemma::Config = written.into()?;
    let new = |config: &_, weights: VarBuilder<'static>| {
        recurrent_gemma::Model::new(config, weights.pp("model"))
    };
    let forward = |model: &mut recurrent_gemma::Model, tokens: &Tensor, start| {
        together_at_first(tokens, start, |tokens, start| model.forward(tokens, start))
    };
    Ok(Parts::new(kv, positions, plain(config, new, forward)))
}

pub(super) fn lfm_2(mut written: Written) -> Result<Parts, ModelError> {
    written.only("conv_bias", false)?;
    let kv = written.kv_of_width()?;
    let layer_types = layer_types(&written, kv.layers)?;
    let looking_back =
        layer_types.iter().filter(|kind| **kind == lfm2::LayerType::FullAttention).count();
    let kv = KvShape { layers: looking_back.max(1), ..kv };
    written.rename("tie_word_embeddings", "tie_embedding");
    written.usually("tie_embedding", true);
    written.usually("norm_eps", 1e-5);
    written.usually("conv_L_cache", 3);
    written.plain_rotary(1_000_000.0)?;
    let positions = Positions::read(&mut written, 128_000, MOST_POSITIONS)?;
    let config = lfm2::Config {
        vocab_size: written.size("vocab_size")?,
        hidden_size: written.size("hidden_size")?,
        // Files say it in ways that differ; weights do not.
        intermediate_size: 0,
        num_hidden_layers: layer_types.len(),
        num_attention_heads: written.size("num_attention_heads")?,
        num_key_value_heads: kv.heads,
        norm_eps: written.number("norm_eps")?,
        rope_theta: written.number("rope_theta")? as f32,
        max_position_embeddings: positions.run,
        conv_l_cache: written.parts("conv_L_cache")?,
        conv_bias: false,
        layer_types,
        tie_embedding: written.get("tie_embedding") == Some(&Value::Bool(true)),
        bos_token_id: None,
        eos_token_id: None,
        use_flash_attn: false,
    };
    let new = |config: &lfm2::Config, weights: VarBuilder<'static>| {
        let inner = weights.get_unchecked("model.layers.0.feed_forward.w1.weight")?.dim(0)?;
        let config = lfm2::Config { intermediate_size: inner, ..config.clone() };
        let cache = lfm2::Cache::new(true, DType::F32, &config, &Device::Cpu)?;
        Ok((lfm2::Model::new(&config, weights)?, cache))
    };
    let forward = |(model, cache): &mut (lfm2::Model, lfm2::Cache), tokens: &Tensor, start| {
        together_at_first(tokens, start, |tokens, start| model.forward(tokens, start, cache))
    };
    Ok(Parts::new(kv, positions, prepared(config, |_| Ok(()), new, forward)))
}

/// Which layers look back and which have a short state, by names or by the numbers of the former.
fn layer_types(written: &Written, layers: usize) -> Result<Vec<lfm2::LayerType>, ModelError> {
    let wrong = |problem: String| ModelError::malformed(FILE, problem);
    let types: Vec<lfm2::LayerType> = match written.get("layer_types") {
        Some(types) => serde_json::from_value(types.clone())
            .map_err(|error| wrong(format!("layer_types: {error}")))?,
        None => {
            let numbers = written.get("full_attn_idxs").cloned().unwrap_or_else(|| json!([]));
            let numbers: Vec<usize> = serde_json::from_value(numbers)
                .map_err(|error| wrong(format!("full_attn_idxs: {error}")))?;
            let kind = |layer| match numbers.contains(&layer) {
                true => lfm2::LayerType::FullAttention,
                false => lfm2::LayerType::Conv,
            };
            (0..layers).map(kind).collect()
        }
    };
    match types.len() == layers {
        true => Ok(types),
        false => Err(wrong(format!("`layer_types` are {}, of {layers} layers", types.len()))),
    }
}
