//! Granite: a Llama with four multipliers, and the dense ones of its fourth generation.
//!
//! The code that has the multipliers is the one of the fourth, in which gate and up are one matrix.

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::granitemoehybrid::{
    GraniteMoeHybrid, GraniteMoeHybridCache, GraniteMoeHybridConfig, GraniteMoeHybridInternalConfig,
};
use serde_json::{Value, json};

use super::{MOST_POSITIONS, Parts, Positions, Tensors, prepared};
use crate::ModelError;
use crate::sequential::Written;

type Both = (GraniteMoeHybrid, GraniteMoeHybridCache);

pub(super) fn granite_3(mut written: Written) -> Result<Parts, ModelError> {
    written.only("mlp_bias", false)?;
    let inner = written.size("intermediate_size")?;
    written.set("shared_intermediate_size", inner);
    let layers = written.parts("num_hidden_layers")?;
    written.set("layer_types", vec!["attention"; layers]);
    granite(written, move |tensors| {
        for layer in 0..layers {
            let mut take = |name: &str| {
                let name = format!("model.layers.{layer}.mlp.{name}.weight");
                let missing = candle_core::Error::CannotFindTensor { path: name.clone() };
                tensors.remove(&name).ok_or(missing)
            };
            let (gate, up, down) = (take("gate_proj")?, take("up_proj")?, take("down_proj")?);
            let both = Tensor::cat(&[gate, up], 0)?;
            for (name, tensor) in [("input_linear", both), ("output_linear", down)] {
                tensors.insert(format!("model.layers.{layer}.shared_mlp.{name}.weight"), tensor);
            }
        }
        Ok(())
    })
}

pub(super) fn granite_4(mut written: Written) -> Result<Parts, ModelError> {
    let layers = written.parts("num_hidden_layers")?;
    let kinds = written.get("layer_types").cloned().unwrap_or_default();
    if kinds != json!(vec!["attention"; layers]) {
        return Err(ModelError::Unsupported {
            what: format!("`layer_types` other than `attention`, or fewer than {layers}"),
            instead: "models without layers of Mamba are".to_owned(),
        });
    }
    // What a file that says nothing of these means is not what is computed.
    for (name, meant, run) in [
        ("num_local_experts", json!(8), json!(0)),
        ("position_embedding_type", json!("none"), json!("rope")),
    ] {
        written.usually(name, meant);
        written.only(name, run)?;
    }
    granite(written, |_| Ok(()))
}

fn granite(
    mut written: Written,
    prepare: impl FnOnce(&mut Tensors) -> TensorResult<()> + 'static,
) -> Result<Parts, ModelError> {
    written.usually("tie_word_embeddings", false);
    written.only("tie_word_embeddings", true)?;
    written.only("attention_bias", false)?;
    written.only("hidden_act", "silu")?;
    for name in
        ["attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling"]
    {
        written.usually(name, 1.0);
        written.number(name)?;
    }
    written.set("bos_token_id", Value::Null);
    written.set("eos_token_id", Value::Null);
    let kv = written.kv_of_width()?;
    written.plain_rotary(10_000.0)?;
    let positions = Positions::read(&mut written, 2048, MOST_POSITIONS)?;
    let config: GraniteMoeHybridConfig = written.into()?;
    let new = |config: &GraniteMoeHybridInternalConfig, weights: VarBuilder<'static>| {
        let cache = GraniteMoeHybridCache::new(true, DType::F32, config, &Device::Cpu)?;
        Ok((GraniteMoeHybrid::load(weights, config)?, cache))
    };
    let forward =
        |(model, cache): &mut Both, tokens: &Tensor, start| model.forward(tokens, start, cache);
    Ok(Parts::new(kv, positions, prepared(config.into_config(false), prepare, new, forward)))
}
