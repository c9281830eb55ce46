//! Phi: the first ones, and Phi-3, whose positions may be stretched by a list of factors.

use candle_core::Tensor;
use candle_transformers::models::{phi, phi3};
use serde_json::{Value, json};

use super::{
    LONG, MOST_POSITIONS, MOST_POSITIONS_BY_LAYER, Parts, Positions, Tensors, change, plain,
    prepared, together_at_first,
};
use crate::ModelError;
use crate::config::FILE;
use crate::sequential::Written;

/// Phi-1, 1.5 and 2.
pub(super) fn phi_2(mut written: Written) -> Result<Parts, ModelError> {
    written.only("qk_layernorm", false)?;
    written.only("tie_word_embeddings", false)?;
    for name in ["qk_layernorm", "tie_word_embeddings"] {
        written.set(name, false);
    }
    written.usually("hidden_act", "gelu_new");
    written.usually("layer_norm_eps", 1e-5);
    let kv = written.kv_of_width()?;
    written.turned(0.5, kv.head_dim)?;
    written.plain_rotary(10_000.0)?;
    let positions = Positions::read(&mut written, 2048, MOST_POSITIONS_BY_LAYER)?;
    let config: phi::Config = written.into()?;
    let forward = |model: &mut phi::Model, tokens: &Tensor, start| {
        together_at_first(tokens, start, |tokens, _| model.forward(tokens))
    };
    Ok(Parts::new(kv, positions, plain(config, phi::Model::new, forward)))
}

pub(super) fn phi_3(mut written: Written) -> Result<Parts, ModelError> {
    written.only("attention_bias", false)?;
    written.usually("hidden_act", "silu");
    written.usually("rope_theta", 10_000.0);
    // Other readers' business, and lists in some files.
    written.set("bos_token_id", Value::Null);
    written.set("eos_token_id", Value::Null);
    let kv = written.kv_of_width()?;
    let heads = written.size("num_attention_heads")?;
    let whole = written.positions(4096, usize::MAX)?;
    let positions = Positions::read(&mut written, whole, MOST_POSITIONS)?;
    let positions = positions.within_window(&mut written)?;
    let turned = match written.get("partial_rotary_factor") {
        None => kv.head_dim,
        Some(_) => (written.number("partial_rotary_factor")? * kv.head_dim as f64) as usize,
    };
    if turned < 2 || turned > kv.head_dim || !turned.is_multiple_of(2) {
        let reason = format!("partial_rotary_factor turns {turned} numbers of {}", kv.head_dim);
        return Err(ModelError::malformed(FILE, reason));
    }
    let Some(rope) = written.get("rope_scaling").cloned() else {
        written.plain_rotary(10_000.0)?;
        let config: phi3::Config = written.into()?;
        return Ok(Parts::new(
            kv,
            positions,
            plain(config, phi3::Model::new, phi3::Model::forward),
        ));
    };
    let first = match rope.get("original_max_position_embeddings").and_then(Value::as_u64) {
        Some(first) => usize::try_from(first).unwrap_or(usize::MAX),
        None => written.size_if_any("original_max_position_embeddings")?.unwrap_or(whole),
    };
    let scale = long_rope(&mut written, &rope, turned, whole as f64 / first as f64, first)?;
    let positions = positions.at_most(&mut written, first, LONG)?;
    let config: phi3::Config = written.into()?;
    let (head_dim, turned_heads) = (kv.head_dim, heads.saturating_add(kv.heads));
    // Queries and keys are stretched, as far as they are turned.
    let prepare = move |tensors: &mut Tensors| {
        change(tensors, ".self_attn.qkv_proj.weight", |all| {
            let (rows, width) = all.dims2()?;
            let stretched = turned_heads * head_dim;
            let (seen, values) =
                (all.narrow(0, 0, stretched)?, all.narrow(0, stretched, rows - stretched)?);
            let seen = seen.reshape((turned_heads, head_dim, width))?;
            let turning = (seen.narrow(1, 0, turned)? * scale)?;
            let rest = seen.narrow(1, turned, head_dim - turned)?;
            let seen = Tensor::cat(&[turning, rest], 1)?.reshape((stretched, width))?;
            Tensor::cat(&[seen, values], 0)
        })
    };
    Ok(Parts::new(kv, positions, prepared(config, prepare, phi3::Model::new, phi3::Model::forward)))
}

/// Puts the short list of factors, which goes as far as the model was first trained, in the words of
/// the code; what queries and keys are multiplied with.
fn long_rope(
    written: &mut Written,
    rope: &Value,
    turned: usize,
    grown: f64,
    first: usize,
) -> Result<f64, ModelError> {
    let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
    if !matches!(kind, Some("longrope" | "su")) {
        return Err(ModelError::Unsupported {
            what: format!("rope_scaling of type `{}`", kind.unwrap_or_default()),
            instead: "`longrope` is, in this family".to_owned(),
        });
    }
    let factors = rope.get("short_factor").and_then(Value::as_array);
    let factors: Option<Vec<f64>> = factors.and_then(|all| all.iter().map(Value::as_f64).collect());
    let factors = factors.filter(|all| all.len() == turned / 2 && all.iter().all(|f| *f > 0.0));
    let Some(factors) = factors.filter(|_| first > 1) else {
        let reason = "rope_scaling has no `short_factor` for each pair, or no length for them";
        return Err(ModelError::malformed(FILE, reason));
    };
    // The code multiplies frequencies with what they are to be divided by.
    let factors: Vec<f64> = factors.into_iter().map(f64::recip).collect();
    let scaling = json!({"type": "longrope", "short_factor": factors, "long_factor": factors});
    written.set("rope_scaling", scaling);
    written.set("original_max_position_embeddings", Value::Null);
    let usual = if grown > 1.0 { (1.0 + grown.ln() / (first as f64).ln()).sqrt() } else { 1.0 };
    Ok(rope.get("attention_factor").and_then(Value::as_f64).unwrap_or(usual))
}
