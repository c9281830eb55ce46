//! DeepSeek-V2 and what is built like it: keys and values unfolded from a few numbers, and experts that
//! share some of their number with every token.

use candle_transformers::models::deepseek2::{DeepSeekV2, DeepSeekV2Config};
use serde_json::{Map, Value};

use super::experts::experts;
use super::{MOST_POSITIONS, Parts, Positions, remade};
use crate::ModelError;
use crate::config::FILE;
use crate::sequential::Written;

pub(super) fn deepseek_2(mut written: Written) -> Result<Parts, ModelError> {
    // The code picks groups of experts by the scores of single ones.
    written.usually("topk_method", "greedy");
    written.only("topk_method", "greedy")?;
    written.only("scoring_func", "softmax")?;
    written.only("norm_topk_prob", false)?;
    // Some norms have this whatever the file says; here all have what it says.
    written.usually("rms_norm_eps", 1e-6);
    written.only("rms_norm_eps", 1e-6)?;
    for (name, usual) in [
        ("attention_bias", Value::from(false)),
        ("n_group", 1.into()),
        ("topk_group", 1.into()),
        ("norm_topk_prob", false.into()),
        ("routed_scaling_factor", 1.0.into()),
        ("moe_layer_freq", 1.into()),
        ("first_k_dense_replace", 0.into()),
        ("tie_word_embeddings", false.into()),
    ] {
        written.usually(name, usual);
    }
    if written.get("n_routed_experts").is_some() {
        experts(&mut written, "n_routed_experts", 2)?;
        written.parts("moe_layer_freq")?;
        written.size("moe_intermediate_size")?;
    } else {
        written.usually("moe_intermediate_size", 1);
    }
    for name in ["n_shared_experts", "q_lora_rank"] {
        written.size_if_any(name)?;
    }
    written.size("kv_lora_rank")?;
    let turned = written.parts("qk_rope_head_dim")?;
    if !turned.is_multiple_of(2) {
        return Err(ModelError::malformed(FILE, format!("qk_rope_head_dim is {turned}, and odd")));
    }
    let key = written.parts("qk_nope_head_dim")? + turned;
    // Keys and values are kept unfolded. They are of different widths; what is counted is their mean.
    let mean = (key + written.parts("v_head_dim")?).div_ceil(2);
    written.set("head_dim", mean.next_multiple_of(2));
    let heads = written.size("num_attention_heads")?;
    written.only("num_key_value_heads", heads)?;
    let kv = written.kv()?;
    rotary(&mut written)?;
    let positions = Positions::read(&mut written, 2048, MOST_POSITIONS)?;
    let config: DeepSeekV2Config = written.into()?;
    let build = remade(config, |_| Ok(()), DeepSeekV2::new, DeepSeekV2::forward);
    Ok(Parts::new(kv, positions, build))
}

/// Positions as they are, or stretched by YaRN.
fn rotary(written: &mut Written) -> Result<(), ModelError> {
    let stretched = |rope: &Value| {
        let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
        kind == Some("yarn")
    };
    let mut places = ["rope_scaling", "rope_parameters"].into_iter();
    let Some(rope) = places.find_map(|place| written.get(place).filter(|rope| stretched(rope)))
    else {
        return written.plain_rotary(10_000.0);
    };
    let mut said = Map::from_iter([("type".to_owned(), Value::from("yarn"))]);
    for (name, usual) in [
        ("factor", None),
        ("original_max_position_embeddings", None),
        ("beta_fast", Some(32.0)),
        ("beta_slow", Some(1.0)),
        ("mscale", Some(1.0)),
        ("mscale_all_dim", Some(0.0)),
    ] {
        let number = rope.get(name).and_then(Value::as_f64).or(usual);
        let Some(number) = number.filter(|number| number.is_finite() && *number >= 0.0) else {
            return Err(ModelError::malformed(FILE, format!("YaRN positions lack `{name}`")));
        };
        let number = match name {
            "original_max_position_embeddings" => Value::from(number.max(1.0) as u32),
            _ => number.into(),
        };
        said.insert(name.to_owned(), number);
    }
    written.rotary_base(10_000.0)?;
    written.set("rope_scaling", said);
    Ok(())
}
