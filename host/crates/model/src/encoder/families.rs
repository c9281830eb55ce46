//! The encoders whose code is that of candle-transformers, by the names that `config.json` gives them.

use std::collections::HashMap;

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{bert, modernbert, nomic_bert, xlm_roberta};
use serde_json::Value;

use super::{Build, EncoderRecipe, States};
use crate::ModelError;
use crate::config::FILE;
use crate::sequential::{Families, Found, Written, find};

/// Tokens of a text, at most: all pairs of them, for each head, are in memory a few times.
const MOST_TOKENS: usize = 2048;
const PAIRS: &str = "a longer text would take too much memory, as all pairs of its tokens are kept";

/// What is run, by its architecture's name.
pub(crate) const FAMILIES: &Families<Parts> = &[
    ("BertModel", bert_),
    ("BertForMaskedLM", bert_),
    ("CamembertModel", roberta),
    ("ModernBertModel", modern_bert),
    ("ModernBertForMaskedLM", modern_bert),
    ("NomicBertModel", nomic_bert_),
    ("RobertaModel", roberta),
    ("XLMRobertaModel", roberta),
    ("XLMRobertaForMaskedLM", roberta),
];

/// What a family's reader finds out.
pub(crate) struct Parts {
    width: usize,
    positions: usize,
    shortened: Option<&'static str>,
    build: Build,
}

/// The recipe for an architecture, if it is one of these.
pub(crate) fn recipe(architecture: &str, json: &[u8]) -> Option<Result<EncoderRecipe, ModelError>> {
    let found = find(FAMILIES, architecture, json)?;
    Some(found.map(|Found { architecture, vocabulary, parts }| {
        let Parts { width, positions, shortened, build } = parts;
        let context_length = positions;
        EncoderRecipe { architecture, vocabulary, width, context_length, shortened, build }
    }))
}

type Tensors = HashMap<String, Tensor>;

impl Parts {
    fn new(width: usize, positions: usize, build: Build) -> Self {
        let shortened = (positions > MOST_TOKENS).then_some(PAIRS);
        Self { width, positions: positions.min(MOST_TOKENS), shortened, build }
    }
}

/// Builds a model from weights whose names begin with `outer` or without it.
fn built<C: 'static, M: Send + Sync + 'static>(
    config: C,
    outer: &'static str,
    load: impl FnOnce(&C, VarBuilder<'static>) -> TensorResult<M> + 'static,
    states: fn(&M, &Tensor) -> TensorResult<Tensor>,
) -> Build {
    Box::new(move |tensors: Tensors| {
        let named = tensors.into_iter().map(|(name, tensor)| {
            let name = name.strip_prefix(outer).unwrap_or(&name);
            // As TensorFlow called them, which old files still do.
            let name = match name.rsplit_once('.') {
                Some((of, "gamma")) => format!("{of}.weight"),
                Some((of, "beta")) => format!("{of}.bias"),
                _ => name.to_owned(),
            };
            (name, tensor)
        });
        let weights = VarBuilder::from_tensors(named.collect(), DType::F32, &Device::Cpu);
        let model = load(&config, weights)?;
        Ok(Box::new(move |tokens: &Tensor| states(&model, tokens)) as States)
    })
}

/// What BERT's relatives have in common.
fn usual(written: &mut Written) -> Result<(), ModelError> {
    for (name, usual) in [
        ("hidden_act", Value::from("gelu")),
        ("position_embedding_type", "absolute".into()),
        ("hidden_dropout_prob", 0.0.into()),
        ("attention_probs_dropout_prob", 0.0.into()),
        ("initializer_range", 0.02.into()),
        ("layer_norm_eps", 1e-12.into()),
        ("type_vocab_size", 2.into()),
    ] {
        written.usually(name, usual);
    }
    written.only("position_embedding_type", "absolute")?;
    written.only("is_decoder", false)?;
    written.only("add_cross_attention", false)
}

fn bert_(mut written: Written) -> Result<Parts, ModelError> {
    usual(&mut written)?;
    written.usually("pad_token_id", 0);
    written.kv_of_width()?;
    let width = written.size("hidden_size")?;
    let positions = written.positions(512, usize::MAX)?;
    let config: bert::Config = written.into()?;
    let load = |config: &_, weights| bert::BertModel::load(weights, config);
    let states = |model: &bert::BertModel, tokens: &Tensor| {
        model.forward(tokens, &tokens.zeros_like()?, None)
    };
    Ok(Parts::new(width, positions, built(config, "bert.", load, states)))
}

fn roberta(mut written: Written) -> Result<Parts, ModelError> {
    usual(&mut written)?;
    written.usually("pad_token_id", 1);
    written.kv_of_width()?;
    let width = written.size("hidden_size")?;
    // Positions are counted from the one after that of padding.
    let first = written.get("pad_token_id").and_then(Value::as_u64).unwrap_or(1).saturating_add(1);
    let positions = written.positions(514, usize::MAX)?;
    let positions = usize::try_from(first).ok().and_then(|first| positions.checked_sub(first));
    let Some(positions) = positions.filter(|positions| *positions > 0) else {
        return Err(ModelError::malformed(FILE, "`pad_token_id` leaves no position for a token"));
    };
    let config: xlm_roberta::Config = written.into()?;
    let load = |config: &_, weights| xlm_roberta::XLMRobertaModel::new(config, weights);
    let states = |model: &xlm_roberta::XLMRobertaModel, tokens: &Tensor| {
        let (seen, kinds) = (tokens.ones_like()?, tokens.zeros_like()?);
        model.forward(tokens, &seen, &kinds, None, None, None)
    };
    Ok(Parts::new(width, positions, built(config, "roberta.", load, states)))
}

fn modern_bert(mut written: Written) -> Result<Parts, ModelError> {
    for name in ["attention_bias", "mlp_bias", "norm_bias"] {
        written.only(name, false)?;
    }
    written.only("hidden_activation", "gelu")?;
    written.usually("norm_eps", 1e-5);
    let eps = written.number("norm_eps")?;
    written.set("layer_norm_eps", eps);
    written.usually("pad_token_id", 0);
    let rope = written.get("rope_parameters").cloned().unwrap_or_default();
    for (name, kind, usual) in [
        ("global_rope_theta", "full_attention", 160_000.0),
        ("local_rope_theta", "sliding_attention", 10_000.0),
    ] {
        let base = rope.get(kind).and_then(|rope| rope.get("rope_theta"));
        written.usually(name, base.cloned().unwrap_or_else(|| usual.into()));
        written.number(name)?;
    }
    written.usually("global_attn_every_n_layers", 3);
    written.parts("global_attn_every_n_layers")?;
    written.usually("local_attention", 128);
    written.size("local_attention")?;
    let kv = written.kv_of_width()?;
    let width = written.size("hidden_size")?;
    let positions = written.positions(8192, usize::MAX)?;
    // Tables are made for as many as are run.
    written.positions(8192, MOST_TOKENS)?;
    // Heads for other tasks, which may hold anything.
    written.set("id2label", Value::Null);
    let config: modernbert::Config = written.into()?;
    let load = move |config: &_, weights: VarBuilder<'static>| {
        // The code takes a norm that is missing for one that the layer does without.
        for layer in 1..kv.layers {
            weights.get(width, &format!("layers.{layer}.attn_norm.weight"))?;
        }
        // It asks for all of them under a name that was taken off.
        let weights = weights.rename_f(|name| name.trim_start_matches("model.").to_owned());
        modernbert::ModernBert::load(weights, config)
    };
    let states = |model: &modernbert::ModernBert, tokens: &Tensor| {
        model.forward(tokens, &tokens.ones_like()?)
    };
    Ok(Parts::new(width, positions, built(config, "model.", load, states)))
}

fn nomic_bert_(mut written: Written) -> Result<Parts, ModelError> {
    for (name, usual) in [("n_embd", 768), ("n_head", 12), ("n_layer", 12), ("n_positions", 8192)] {
        written.usually(name, usual);
    }
    written.usually("n_inner", 4 * written.size("n_embd")?);
    for (name, run) in [
        ("activation_function", Value::from("swiglu")),
        ("use_rms_norm", false.into()),
        ("parallel_block", false.into()),
        ("causal", false.into()),
        ("rotary_emb_fraction", 1.0.into()),
        ("rotary_emb_scale_base", Value::Null),
        ("num_experts", 0.into()),
    ] {
        written.only(name, run)?;
    }
    // By the names that others have, for what is checked of them.
    for (name, ours) in [
        ("hidden_size", "n_embd"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
        ("max_position_embeddings", "n_positions"),
    ] {
        written.set(name, written.size(ours)?);
    }
    written.kv_of_width()?;
    let (width, positions) = (written.size("n_embd")?, written.size("n_positions")?);
    // Tables are made for as many as are run.
    written.set("n_positions", positions.min(MOST_TOKENS));
    let config: nomic_bert::Config = written.into()?;
    let load = |config: &_, weights| nomic_bert::NomicBertModel::load(weights, config);
    let states =
        |model: &nomic_bert::NomicBertModel, tokens: &Tensor| model.forward(tokens, None, None);
    Ok(Parts::new(width, positions, built(config, "nomic_bert.", load, states)))
}
