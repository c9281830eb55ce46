//! Gemma: norms that stand for one more, queries with a scale of their own, windows in some layers.

use candle_transformers::models::{gemma, gemma2, gemma3};
use serde_json::Value;

use super::{
    MOST_POSITIONS, MOST_POSITIONS_BY_LAYER, Parts, Positions, Tensors, change, plain, prepared,
};
use crate::ModelError;
use crate::kv::KvShape;
use crate::sequential::Written;

/// What queries are multiplied with so that scores are divided by the root of `query_pre_attn_scalar`
/// and not by that of a head's width, which is what the code does.
fn query_scale(written: &mut Written, kv: KvShape) -> Result<f64, ModelError> {
    written.usually("query_pre_attn_scalar", 256);
    let scale = (kv.head_dim as f64 / written.number("query_pre_attn_scalar")?).sqrt();
    // Only the scale depends on it, and the code wants a whole number.
    written.set("query_pre_attn_scalar", kv.head_dim);
    Ok(scale)
}

/// The activation, wherever the file has it.
fn gemma_usual(written: &mut Written) -> Result<(), ModelError> {
    written.usually("head_dim", 256);
    written.usually("attention_bias", false);
    // `hidden_act` is from before it was known that all of them have the approximation.
    written.usually("hidden_activation", "gelu_pytorch_tanh");
    written.set("hidden_act", Value::Null);
    written.only("hidden_activation", "gelu_pytorch_tanh")?;
    written.only("attention_bias", false)?;
    written.only("tie_word_embeddings", true)?;
    written.only("use_bidirectional_attention", false)
}

pub(super) fn gemma_1(mut written: Written) -> Result<Parts, ModelError> {
    gemma_usual(&mut written)?;
    let kv = written.kv()?;
    written.plain_rotary(10_000.0)?;
    let positions = Positions::read(&mut written, 8192, MOST_POSITIONS)?;
    let config: gemma::Config = written.into()?;
    let new = |config: &_, weights| gemma::Model::new(false, config, weights);
    Ok(Parts::new(kv, positions, plain(config, new, gemma::Model::forward)))
}

pub(super) fn gemma_2(mut written: Written) -> Result<Parts, ModelError> {
    gemma_usual(&mut written)?;
    for (name, usual) in [("final_logit_softcapping", 30.0), ("attn_logit_softcapping", 50.0)] {
        if !written.says(name) {
            written.set(name, usual);
        }
    }
    let kv = written.kv()?;
    written.plain_rotary(10_000.0)?;
    let scale = query_scale(&mut written, kv)?;
    written.usually("sliding_window", 4096);
    let positions = Positions::read(&mut written, 8192, MOST_POSITIONS)?;
    let positions = positions.within_window(&mut written)?;
    written.set("sliding_window", Value::Null);
    let config: gemma2::Config = written.into()?;
    let prepare =
        move |tensors: &mut Tensors| change(tensors, ".self_attn.q_proj.weight", |q| q * scale);
    let new = |config: &_, weights| gemma2::Model::new(false, config, weights);
    Ok(Parts::new(kv, positions, prepared(config, prepare, new, gemma2::Model::forward)))
}

pub(super) fn gemma_3(mut written: Written) -> Result<Parts, ModelError> {
    gemma_usual(&mut written)?;
    let kv = written.kv()?;
    let kinds = written.get("rope_parameters").cloned();
    if let Some(kinds) = kinds.filter(|kinds| kinds.get("full_attention").is_some()) {
        // Newer files have the two kinds of layers apart.
        let base = |kind: &str| kinds.get(kind).and_then(|kind| kind.get("rope_theta")).cloned();
        written.usually("rope_local_base_freq", base("sliding_attention").unwrap_or_default());
        let full = kinds.get("full_attention").cloned();
        written.set("rope_parameters", full.unwrap_or_default());
    }
    written.plain_rotary(1_000_000.0)?;
    written.usually("rope_local_base_freq", 10_000.0);
    written.number("rope_local_base_freq")?;
    let pattern = pattern(&mut written, kv.layers)?;
    written.set("sliding_window_pattern", pattern);
    written.usually("sliding_window", 4096);
    let window = written.size("sliding_window")?;
    let scale = query_scale(&mut written, kv)?;
    let positions = Positions::read(&mut written, 32_768, MOST_POSITIONS_BY_LAYER)?;
    let config: gemma3::Config = written.into()?;
    // Queries are normed after they were projected, by weights that stand for one more.
    let prepare = move |tensors: &mut Tensors| {
        change(tensors, ".self_attn.q_norm.weight", |norm| ((norm + 1.0)? * scale)? - 1.0)
    };
    let new = |config: &_, weights| gemma3::Model::new(false, config, weights);
    let build = prepared(config, prepare, new, gemma3::Model::forward);
    // The code looks one position too far where several tokens are computed together; as long as no
    // window is full, that makes no difference, and after it tokens are computed each for itself. With
    // more than one head of keys it cannot keep several tokens at once.
    let together = if kv.heads == 1 { window } else { 1 };
    Ok(Parts { together, ..Parts::new(kv, positions, build) })
}

/// Every how many layers one looks back to the start.
fn pattern(written: &mut Written, layers: usize) -> Result<usize, ModelError> {
    let name = ["sliding_window_pattern", "_sliding_window_pattern"];
    let said = name.into_iter().find(|name| written.get(name).is_some());
    let pattern = said.map_or(Ok(6), |name| written.parts(name))?;
    let kinds = written.get("layer_types").and_then(Value::as_array);
    let fits = |(layer, kind): (usize, &Value)| {
        let slides = !(layer + 1).is_multiple_of(pattern);
        kind == if slides { "sliding_attention" } else { "full_attention" }
    };
    match kinds.is_none_or(|kinds| kinds.len() == layers && kinds.iter().enumerate().all(fits)) {
        true => Ok(pattern),
        false => Err(ModelError::Unsupported {
            what: "a list of `layer_types` that do not repeat".to_owned(),
            instead: format!("one in {pattern} layers that looks back to the start is"),
        }),
    }
}
