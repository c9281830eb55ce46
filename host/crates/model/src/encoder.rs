//! Encoders (BERT and its relatives), by candle-transformers: models whose tokens look ahead and that
//! write nothing.
//!
//! A text is computed whole, in one pass, and nothing of it is kept. All pairs of its tokens are written
//! down for that, so the length of a text is bounded by more than the model's own positions.

mod families;

use std::collections::HashMap;
use std::fmt;

use candle_core::{Device, Result as TensorResult, Tensor};

pub(crate) use self::families::{FAMILIES, recipe};
use crate::decoder::Row;
use crate::kv::KvStore;
use crate::model::Computed;
use crate::{ModelError, load};

/// What a configuration says of such a model, and how it is built.
pub(crate) struct EncoderRecipe {
    /// As the configuration names it.
    pub(crate) architecture: String,
    pub(crate) vocabulary: usize,
    /// Numbers of a state.
    pub(crate) width: usize,
    pub(crate) context_length: usize,
    /// Why a text may have fewer tokens than the model has positions, if so.
    pub(crate) shortened: Option<&'static str>,
    pub(crate) build: Build,
}

/// Builds the model from its weights, in f32 and by their names in a folder.
pub(crate) type Build = Box<dyn FnOnce(HashMap<String, Tensor>) -> TensorResult<States>>;

/// The states (`[1, count, width]`) of the tokens (`[1, count]`) of one text.
pub(crate) type States = Box<dyn Fn(&Tensor) -> TensorResult<Tensor> + Send + Sync>;

/// A loaded model.
pub(crate) struct Encoder {
    vocabulary: usize,
    width: usize,
    context_length: usize,
    states: States,
    bytes: usize,
}

impl Encoder {
    pub(crate) fn build(
        recipe: EncoderRecipe,
        weights: load::Unpacked,
    ) -> Result<Self, ModelError> {
        let EncoderRecipe { vocabulary, width, context_length, build, .. } = recipe;
        let bytes = weights.bytes();
        let states = build(weights.tensors)
            .map_err(|error| ModelError::malformed("weights", error.to_string()))?;
        Ok(Self { vocabulary, width, context_length, states, bytes })
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    pub(crate) fn context_length(&self) -> usize {
        self.context_length
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A store that holds nothing.
    pub(crate) fn store(&self) -> KvStore {
        KvStore::nothing(self.context_length)
    }

    /// The states of a whole text.
    pub(crate) fn forward(&self, row: &Row<'_>) -> Result<Computed, ModelError> {
        let refused = |problem: &str| Err(ModelError::Input(problem.to_owned()));
        if row.wanted.logits || row.wanted.following.is_some() {
            return refused("the model writes no text");
        }
        if row.start > 0 {
            return refused("the model reads a text at once");
        }
        let tokens = Tensor::from_slice(row.tokens, (1, row.tokens.len()), &Device::Cpu)?;
        let states: Vec<f32> = (self.states)(&tokens)?.flatten_all()?.to_vec1()?;
        if states.len() != row.tokens.len().saturating_mul(self.width) {
            return Err(ModelError::NoNumbers);
        }
        let states = if row.wanted.states { states } else { Vec::new() };
        Ok(Computed { states, ..Computed::default() })
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("width", &self.width).finish_non_exhaustive()
    }
}
