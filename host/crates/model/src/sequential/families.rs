//! The families whose code is that of candle-transformers, and what of them it computes right.
//!
//! One table, by the name that `config.json` gives an architecture. Where that code leaves something
//! out (a window, a scale, a way to stretch positions), it is either made up for here, in the
//! configuration or the weights, or refused, or the positions end where it would begin to matter.
//! What is computed then is what other implementations compute, and the tests hold it against one.

mod deepseek;
mod experts;
mod gemma;
mod granite;
mod others;
mod phi;
mod states;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Error as TensorError, Result as TensorResult, Tensor};
use candle_nn::VarBuilder;

use super::{Build, Families, Forward, Found, Recipe, Remade, Stepping, Steps, Written, find};
use crate::ModelError;
use crate::kv::KvShape;

/// Positions beyond which attention that writes all its scores down takes more memory than it is
/// worth.
const MOST_POSITIONS: usize = 1 << 15;
/// The same where each layer has tables of its own.
const MOST_POSITIONS_BY_LAYER: usize = 1 << 13;

const WINDOW: &str = "a token that looks back less far than to the start is not computed here";
const TABLES: &str = "more would take too much memory, one sequence at a time";
const LONG: &str = "the factors for long texts are not computed here";

/// What is run, by its architecture's name.
pub(crate) const FAMILIES: &Families<Parts> = &[
    ("DeepseekV2ForCausalLM", deepseek::deepseek_2),
    ("GemmaForCausalLM", gemma::gemma_1),
    ("Gemma2ForCausalLM", gemma::gemma_2),
    ("Gemma3ForCausalLM", gemma::gemma_3),
    ("Glm4ForCausalLM", others::glm_4),
    ("GPTBigCodeForCausalLM", others::big_code),
    ("GraniteForCausalLM", granite::granite_3),
    ("GraniteMoeHybridForCausalLM", granite::granite_4),
    ("HeliumForCausalLM", others::helium_1),
    ("Lfm2ForCausalLM", states::lfm_2),
    ("MambaForCausalLM", states::mamba_1),
    ("Mamba2ForCausalLM", states::mamba_2),
    ("MixtralForCausalLM", experts::mixtral_moe),
    ("OlmoForCausalLM", others::olmo_1),
    ("Olmo2ForCausalLM", others::olmo_2),
    ("PhiForCausalLM", phi::phi_2),
    ("Phi3ForCausalLM", phi::phi_3),
    ("Qwen2MoeForCausalLM", experts::qwen_2_moe),
    ("Qwen3MoeForCausalLM", experts::qwen_3_moe),
    ("RecurrentGemmaForCausalLM", states::recurrent_gemma_1),
    ("SmolLM3ForCausalLM", others::smol_3),
    ("StableLmForCausalLM", others::stable_2),
    ("Starcoder2ForCausalLM", others::starcoder_2),
];

/// What a family's reader finds out.
pub(crate) struct Parts {
    kv: KvShape,
    /// Positions that are run, and how many several tokens of may be computed together.
    positions: usize,
    together: usize,
    shortened: Option<&'static str>,
    build: Build,
}

/// The recipe for an architecture, if it is one of these.
pub(crate) fn recipe(architecture: &str, json: &[u8]) -> Option<Result<Recipe, ModelError>> {
    let found = find(FAMILIES, architecture, json)?;
    Some(found.map(|Found { architecture, vocabulary, parts }| {
        let Parts { kv, positions: context_length, together, shortened, build } = parts;
        Recipe { architecture, vocabulary, context_length, shortened, kv, together, build }
    }))
}

impl Parts {
    fn new(kv: KvShape, positions: Positions, build: Build) -> Self {
        let Positions { run, shortened } = positions;
        Self { kv, positions: run, together: usize::MAX, shortened, build }
    }
}

/// Positions that are run, and why no more.
#[derive(Clone, Copy)]
struct Positions {
    run: usize,
    shortened: Option<&'static str>,
}

impl Positions {
    fn read(written: &mut Written, usual: usize, most: usize) -> Result<Self, ModelError> {
        let run = written.positions(usual, usize::MAX)?;
        Self { run, shortened: None }.at_most(written, most, TABLES)
    }

    fn at_most(
        self,
        written: &mut Written,
        most: usize,
        reason: &'static str,
    ) -> Result<Self, ModelError> {
        if self.run <= most {
            return Ok(self);
        }
        let run = written.positions(most, most)?;
        Ok(Self { run, shortened: Some(reason) })
    }

    /// Not beyond a window that the code does not know.
    fn within_window(self, written: &mut Written) -> Result<Self, ModelError> {
        let window = written.size_if_any("sliding_window")?;
        self.at_most(written, window.unwrap_or(usize::MAX), WINDOW)
    }
}

type Tensors = HashMap<String, Tensor>;

/// Builds a model that is used as it is.
fn plain<C: 'static, M: Clone + Send + Sync + 'static>(
    config: C,
    new: impl FnOnce(&C, VarBuilder<'static>) -> TensorResult<M> + 'static,
    forward: Forward<M>,
) -> Build {
    prepared(config, |_| Ok(()), new, forward)
}

/// Builds a model whose weights are changed before.
fn prepared<C: 'static, M: Clone + Send + Sync + 'static>(
    config: C,
    prepare: impl FnOnce(&mut Tensors) -> TensorResult<()> + 'static,
    new: impl FnOnce(&C, VarBuilder<'static>) -> TensorResult<M> + 'static,
    forward: Forward<M>,
) -> Build {
    Box::new(move |mut tensors| {
        prepare(&mut tensors)?;
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = new(&config, weights)?;
        Ok(Box::new(Stepping { model, forward }) as Box<dyn Steps>)
    })
}

/// Builds a model that every sequence has another of, of the same weights.
fn remade<C: Send + Sync + 'static, M: Send + Sync + 'static>(
    config: C,
    prepare: impl FnOnce(&mut Tensors) -> TensorResult<()> + 'static,
    new: impl Fn(&C, VarBuilder<'static>) -> TensorResult<M> + Send + Sync + 'static,
    forward: Forward<M>,
) -> Build {
    Box::new(move |mut tensors| {
        prepare(&mut tensors)?;
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let new = Arc::new(move || new(&config, weights.clone()));
        Ok(Box::new(Remade { model: new()?, forward, new }) as Box<dyn Steps>)
    })
}

/// Reads tokens together where nothing is before them, and else each for itself: what some code knows of
/// looking back is right for these two alone.
fn together_at_first(
    tokens: &Tensor,
    start: usize,
    mut step: impl FnMut(&Tensor, usize) -> TensorResult<Tensor>,
) -> TensorResult<Tensor> {
    let count = tokens.dim(1)?;
    if start == 0 || count == 1 {
        return step(tokens, start);
    }
    let mut logits = Err(TensorError::Msg("there are no tokens".to_owned()));
    for at in 0..count {
        logits = Ok(step(&tokens.narrow(1, at, 1)?, start + at)?);
    }
    logits
}

/// Replaces every tensor whose name ends like this.
fn change(
    tensors: &mut Tensors,
    ending: &str,
    change: impl Fn(&Tensor) -> TensorResult<Tensor>,
) -> TensorResult<()> {
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name.ends_with(ending)) {
        *tensor = change(tensor)?;
    }
    Ok(())
}
