//! The handle on a loaded model: what it is, its tokenizer, and the forward pass over sequences.

use crate::architecture::{Architecture, Passes};
use crate::decoder::Row;
use crate::files::ModelFiles;
use crate::kv::{BLOCK_TOKENS, KvStore};
use crate::runner::{Loaded, Runner};
use crate::{ComputeDevice, Embedding, ModelError, ModelSource, TokenLogprobs, Tokenizer};

/// A loaded model. One thread owns it: a forward pass uses the whole machine.
#[derive(Debug)]
pub struct Model {
    runner: Runner,
    tokenizer: Tokenizer,
    info: ModelInfo,
}

/// What a model is, for start-up messages, `/v1/models` and spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// `demo`, the folder's name, or the Hugging Face id.
    pub name: String,
    /// As its configuration says, such as `LlamaForCausalLM`.
    pub architecture: String,
    /// How its sequences are computed.
    pub passes: Passes,
    /// Positions: prompt and answer together.
    pub context_length: usize,
    /// Tokens it can tell apart.
    pub vocabulary: usize,
    /// Weights, a shared embedding table counted once.
    pub parameters: u64,
    /// The type the weights are stored in, such as `f16`; on the CPU the arithmetic is in f32.
    pub dtype: String,
    /// Where it is computed: `cpu`, `cuda:0`.
    pub device: String,
    /// Whether it writes text; a model without an output head only embeds.
    pub generates: bool,
    /// The vectors it makes of texts, if it does.
    pub embedding: Option<Embedding>,
}

/// What came of a row: as much as was wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Computed {
    /// One for each token of the vocabulary.
    pub logits: Option<Vec<f32>>,
    /// `[tokens, width]`, one after another.
    pub states: Vec<f32>,
    /// How likely each of the tokens was that follow, up to the first of which no number tells.
    pub following: Vec<TokenLogprobs>,
}

/// What a model's files say before its weights are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelLook {
    /// Its name.
    pub name: String,
    /// Its architecture, one that can be run.
    pub architecture: String,
    /// How its sequences would be computed.
    pub passes: Passes,
    /// Most tokens of prompt and answer together.
    pub context_length: usize,
    /// Bytes that its weights take in memory: as many as they are stored in, but four for each where
    /// sequences do not share passes.
    pub memory_bytes: u64,
}

/// Looks at a model's files without reading the weights, and without the network: none where it is
/// on the hub and not yet in the cache.
///
/// # Errors
/// [`ModelError`], as [`Model::load`] would: a file is missing, or what it says cannot be run.
pub fn look(source: &ModelSource) -> Result<Option<ModelLook>, ModelError> {
    let Some(files) = ModelFiles::here(source)? else { return Ok(None) };
    let found = Architecture::from_json(&files.config)?;
    Tokenizer::from_files(&files)?;
    let stored = files.weight_bytes()?;
    let memory_bytes = match found.passes() {
        Passes::Shared => stored,
        Passes::Alone | Passes::Whole => files.unpacked_bytes()?,
    };
    Ok(Some(ModelLook {
        name: files.name,
        architecture: found.name().to_owned(),
        passes: found.passes(),
        context_length: found.context_length(),
        memory_bytes,
    }))
}

impl Model {
    /// Finds, reads and checks a model that is computed on the CPU: [`Model::load_on`].
    ///
    /// # Errors
    /// [`ModelError`], saying which file and what is wrong with it.
    pub fn load(source: &ModelSource) -> Result<Self, ModelError> {
        Self::load_on(source, ComputeDevice::Cpu)
    }

    /// Finds, reads and checks a model. One whose sequences do not share passes is computed on the CPU,
    /// wherever others are ([`ModelInfo::device`]). Takes from milliseconds (the demo) to minutes (a download);
    /// progress of downloads goes to standard error.
    ///
    /// # Errors
    /// [`ModelError`], saying which file and what is wrong with it, or that the device cannot be used.
    pub fn load_on(source: &ModelSource, device: ComputeDevice) -> Result<Self, ModelError> {
        let files = ModelFiles::find(source)?;
        let architecture = Architecture::from_json(&files.config)?;
        let name = architecture.name().to_owned();
        let tokenizer = Tokenizer::from_files(&files)?;
        let Loaded { runner, parameters, stored_dtype, generates, states } =
            Runner::load(architecture, &files.weights, device)?;
        let vocabulary = runner.vocabulary();
        if tokenizer.vocabulary() > vocabulary {
            // Seen in models with a padding token of their own: harmless until a prompt uses such a
            // token, which is refused.
            tracing::warn!(
                tokens = tokenizer.vocabulary(),
                embeddings = vocabulary,
                "the tokenizer knows tokens that the model has no embedding for"
            );
        }
        let embedding = states.and_then(|(width, usual)| {
            Embedding::of(&files.embedding, &files.config, width, usual)
        });
        let info = ModelInfo {
            generates,
            embedding,
            name: files.name,
            architecture: name,
            passes: runner.passes(),
            context_length: runner.context_length(),
            vocabulary,
            parameters,
            dtype: stored_dtype,
            device: runner.device().to_owned(),
        };
        Ok(Self { runner, tokenizer, info })
    }

    /// What this model is.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Gives it the name that it is asked for by.
    pub fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.info.name);
    }

    /// Its tokenizer; a clone is a pointer and may go to any thread.
    #[must_use]
    pub fn tokenizer(&self) -> Tokenizer {
        self.tokenizer.clone()
    }

    /// Memory for the keys and values of many sequences: as many blocks as fit into `bytes`. A model
    /// that computes one sequence at a time takes it as that grows, and one that keeps nothing has
    /// blocks for its context, whatever `bytes` is.
    ///
    /// # Errors
    /// [`ModelError::KvMemory`] if not even one does, or the system has not as much.
    pub fn kv_store(&self, bytes: usize) -> Result<KvStore, ModelError> {
        self.runner.store(bytes)
    }

    /// Bytes of one block of a [`Model::kv_store`]; 0 for a model that keeps nothing.
    #[must_use]
    pub fn kv_block_bytes(&self) -> usize {
        self.runner.block_bytes()
    }

    /// Bytes that the weights take.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.runner.bytes()
    }

    /// One pass over some tokens of many sequences: their keys and values are written to their
    /// blocks, and what each row wants is returned, in the order of the rows.
    ///
    /// Where passes are shared, what comes out for a row is the same whatever other rows there are and
    /// however its tokens are spread over passes: on the CPU to the last bit, on a GPU up to rounding. Otherwise a row goes on with the
    /// sequence that the store is at, or begins one at position 0. The caller sees to it that no row writes to a
    /// block that another reads or writes in the same pass. Numbers that are none stay in the row,
    /// or rather sequence, that they come from.
    ///
    /// # Errors
    /// Before anything is written: [`ModelError::ContextExceeded`] if a row does not fit into the
    /// context, [`ModelError::Input`] for a row without tokens, a token outside the vocabulary, or
    /// blocks that are missing.
    pub fn forward_batch(
        &self,
        store: &mut KvStore,
        rows: &[Row<'_>],
    ) -> Result<Vec<Computed>, ModelError> {
        self.check(store, rows)?;
        self.runner.forward(store, rows)
    }

    /// The logits at every position of one row.
    pub(crate) fn forward_all_of(
        &self,
        store: &mut KvStore,
        row: Row<'_>,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        self.check(store, &[row])?;
        self.runner.forward_all(store, &row)
    }

    fn check(&self, store: &KvStore, rows: &[Row<'_>]) -> Result<(), ModelError> {
        let (context_length, vocabulary) = (self.info.context_length, self.info.vocabulary);
        let input = |problem: String| Err(ModelError::Input(problem));
        if !self.runner.fits(store) {
            return input("the store was made for another model".to_owned());
        }
        if self.info.passes == Passes::Alone && rows.len() > 1 {
            return input("this model computes one sequence at a time".to_owned());
        }
        for row in rows {
            let wanted = row.start.saturating_add(row.tokens.len());
            if wanted > context_length {
                return Err(ModelError::ContextExceeded { wanted, context_length });
            }
            if row.tokens.is_empty() {
                return input("a forward pass needs at least one token".to_owned());
            }
            if let Some(token) = row.tokens.iter().find(|token| **token as usize >= vocabulary) {
                return input(format!("token {token} is outside the vocabulary of {vocabulary}"));
            }
            let needed = row.blocks.get(..wanted.div_ceil(BLOCK_TOKENS));
            if needed.is_none_or(|all| all.iter().any(|block| *block as usize >= store.blocks())) {
                return input(format!("{wanted} tokens have too few blocks, or ones that are not"));
            }
        }
        Ok(())
    }
}
