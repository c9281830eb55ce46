//! Models of candle-transformers, which compute one sequence at a time.
//!
//! Such a model keeps keys and values itself and knows only how to go on with the sequence it is at.
//! The weights are shared: what is loaded is never run, and each [`Running`] is another model of the same
//! weights with keys and values of its own. A sequence begins with a new one, so nothing of the one
//! before it is left, whatever became of it.

pub(crate) mod families;
mod written;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor};

pub(crate) use self::written::{Families, Found, Written, find};
use crate::decoder::Row;
use crate::kv::{KvShape, KvStore};
use crate::model::Computed;
use crate::sample::told;
use crate::{ModelError, load};

/// What a configuration says of such a model, and how it is built.
pub(crate) struct Recipe {
    /// As the configuration names it.
    pub(crate) architecture: String,
    pub(crate) vocabulary: usize,
    /// Positions, as many of the model's own as are computed right here.
    pub(crate) context_length: usize,
    /// Why these are fewer than the model's own, if they are.
    pub(crate) shortened: Option<&'static str>,
    pub(crate) kv: KvShape,
    /// Positions up to which several tokens are computed in one pass; after them each for itself.
    pub(crate) together: usize,
    pub(crate) build: Build,
}

/// Builds the model from its weights, in f32 and by their names in a folder.
pub(crate) type Build = Box<dyn FnOnce(HashMap<String, Tensor>) -> TensorResult<Box<dyn Steps>>>;

/// A model that goes on with one sequence.
pub(crate) trait Steps: Send + Sync {
    /// Reads tokens (`[1, count]`) from position `start` on; the logits of what comes after the last.
    fn step(&mut self, tokens: &Tensor, start: usize) -> TensorResult<Tensor>;

    /// Another that shares the weights and has read nothing, of one that has read nothing.
    fn another(&self) -> TensorResult<Box<dyn Steps>>;
}

/// How a model of candle-transformers goes on with a sequence.
type Forward<M> = fn(&mut M, &Tensor, usize) -> TensorResult<Tensor>;

/// A model that can be copied.
struct Stepping<M> {
    model: M,
    forward: Forward<M>,
}

/// A model that cannot, and is made anew of the same weights.
struct Remade<M> {
    model: M,
    forward: Forward<M>,
    new: Arc<dyn Fn() -> TensorResult<M> + Send + Sync>,
}

/// A loaded model.
pub(crate) struct Sequential {
    vocabulary: usize,
    context_length: usize,
    kv: KvShape,
    together: usize,
    pristine: Box<dyn Steps>,
    bytes: usize,
}

/// The sequence that is being read or written.
pub(crate) struct Running {
    steps: Box<dyn Steps>,
    /// Tokens it holds; nothing after a pass that failed in the middle.
    held: Option<usize>,
}

impl<M: Clone + Send + Sync + 'static> Steps for Stepping<M> {
    fn step(&mut self, tokens: &Tensor, start: usize) -> TensorResult<Tensor> {
        (self.forward)(&mut self.model, tokens, start)
    }

    fn another(&self) -> TensorResult<Box<dyn Steps>> {
        Ok(Box::new(Self { model: self.model.clone(), forward: self.forward }))
    }
}

impl<M: Send + Sync + 'static> Steps for Remade<M> {
    fn step(&mut self, tokens: &Tensor, start: usize) -> TensorResult<Tensor> {
        (self.forward)(&mut self.model, tokens, start)
    }

    fn another(&self) -> TensorResult<Box<dyn Steps>> {
        let new = Arc::clone(&self.new);
        Ok(Box::new(Self { model: new()?, forward: self.forward, new }))
    }
}

impl Sequential {
    pub(crate) fn build(recipe: Recipe, weights: load::Unpacked) -> Result<Self, ModelError> {
        let Recipe { vocabulary, context_length, kv, together, build, .. } = recipe;
        let bytes = weights.bytes();
        let pristine = build(weights.tensors)
            .map_err(|error| ModelError::malformed("weights", error.to_string()))?;
        Ok(Self { vocabulary, context_length, kv, together: together.max(1), pristine, bytes })
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    pub(crate) fn context_length(&self) -> usize {
        self.context_length
    }

    pub(crate) fn kv(&self) -> KvShape {
        self.kv
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A store for one sequence.
    pub(crate) fn store(&self, bytes: usize) -> Result<KvStore, ModelError> {
        let running = Running { steps: self.pristine.another()?, held: Some(0) };
        KvStore::counted(self.kv, bytes, running)
    }

    /// Goes on with the sequence, or begins one.
    pub(crate) fn forward(
        &self,
        running: &mut Running,
        row: &Row<'_>,
    ) -> Result<Computed, ModelError> {
        if row.wanted.states {
            return Err(ModelError::Input("the model does not embed".to_owned()));
        }
        let mut computed = Computed::default();
        let following = row.wanted.following;
        let logits = self.read(running, row, following.is_some(), |at, logits| {
            let Some((tokens, top)) = following else { return };
            // Up to the first of which no number tells.
            if let Some(token) = tokens.get(at).filter(|_| computed.following.len() == at)
                && let Ok(told) = told(logits, *token, top)
            {
                computed.following.push(told);
            }
        })?;
        computed.logits = row.wanted.logits.then_some(logits);
        Ok(computed)
    }

    /// The logits at every position of a row.
    pub(crate) fn forward_all(
        &self,
        running: &mut Running,
        row: &Row<'_>,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut all = Vec::with_capacity(row.tokens.len());
        self.read(running, row, true, |_, logits| all.push(logits.to_vec()))?;
        Ok(all)
    }

    /// Reads a row's tokens, each for itself if `each` is to be seen; the logits after the last.
    fn read(
        &self,
        running: &mut Running,
        row: &Row<'_>,
        each: bool,
        mut see: impl FnMut(usize, &mut [f32]),
    ) -> Result<Vec<f32>, ModelError> {
        if row.start == 0 {
            *running = Running { steps: self.pristine.another()?, held: Some(0) };
        }
        if running.held.take() != Some(row.start) {
            let problem = "this model goes on with the sequence it is at, and with no other";
            return Err(ModelError::Input(problem.to_owned()));
        }
        let (mut at, mut logits) = (0, Vec::new());
        while let Some(rest) = row.tokens.get(at..).filter(|rest| !rest.is_empty()) {
            let start = row.start + at;
            let most = if each { 1 } else { self.together.saturating_sub(start).max(1) };
            let piece = rest.get(..most).unwrap_or(rest);
            let tokens = Tensor::from_slice(piece, (1, piece.len()), &Device::Cpu)?;
            logits = running.steps.step(&tokens, start)?.flatten_all()?.to_vec1()?;
            if logits.len() != self.vocabulary {
                return Err(ModelError::NoNumbers);
            }
            see(at, &mut logits);
            at += piece.len();
        }
        running.held = Some(row.start + at);
        Ok(logits)
    }
}

impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequential").field("kv", &self.kv).finish_non_exhaustive()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("held", &self.held).finish_non_exhaustive()
    }
}
