//! The handle on a loaded model: what it is, its tokenizer, and the forward pass over sequences.

use crate::config::LlamaConfig;
use crate::decoder::{Decoder, Row};
use crate::files::ModelFiles;
use crate::kv::{BLOCK_TOKENS, KvStore};
use crate::sample::told;
use crate::{Embedding, ModelError, ModelSource, Pooling, TokenLogprobs, Tokenizer, load};

/// A loaded model. One thread owns it: a forward pass uses the whole machine.
#[derive(Debug)]
pub struct Model {
    decoder: Decoder,
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
    /// Positions: prompt and answer together.
    pub context_length: usize,
    /// Tokens it can tell apart.
    pub vocabulary: usize,
    /// Weights, a shared embedding table counted once.
    pub parameters: u64,
    /// The type the weights are stored in, such as `f16`; the arithmetic is in f32.
    pub dtype: String,
    /// Where it runs: `cpu`.
    pub device: &'static str,
    /// Whether it writes text; a model without an output head only embeds.
    pub generates: bool,
    /// The vectors it makes of texts, if it does.
    pub embedding: Option<Embedding>,
}

/// Tokens whose logits are computed at once where they are only looked at: what bounds the memory
/// for those of a long prompt.
const LOOKED_AT: usize = 16;

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
    /// Most tokens of prompt and answer together.
    pub context_length: usize,
    /// Size of its weights in bytes, as they are stored.
    pub weight_bytes: u64,
}

/// Looks at a model's files without reading the weights, and without the network: none where it is
/// on the hub and not yet in the cache.
///
/// # Errors
/// [`ModelError`], as [`Model::load`] would: a file is missing, or what it says cannot be run.
pub fn look(source: &ModelSource) -> Result<Option<ModelLook>, ModelError> {
    let Some(files) = ModelFiles::here(source)? else { return Ok(None) };
    let config = LlamaConfig::from_json(&files.config)?;
    Tokenizer::from_files(&files)?;
    let weight_bytes = files.weight_bytes()?;
    Ok(Some(ModelLook {
        name: files.name,
        architecture: config.architecture,
        context_length: config.context_length,
        weight_bytes,
    }))
}

impl Model {
    /// Finds, reads and checks a model. Takes from milliseconds (the demo) to minutes (a download);
    /// progress of downloads goes to standard error.
    ///
    /// # Errors
    /// [`ModelError`], saying which file and what is wrong with it.
    pub fn load(source: &ModelSource) -> Result<Self, ModelError> {
        let files = ModelFiles::find(source)?;
        let config = LlamaConfig::from_json(&files.config)?;
        let tokenizer = Tokenizer::from_files(&files)?;
        let loaded = load::decoder(config, &files.weights)?;
        let config = loaded.decoder.config();
        if tokenizer.vocabulary() > config.vocabulary {
            // Seen in models with a padding token of their own: harmless until a prompt uses such a
            // token, which is refused.
            tracing::warn!(
                tokens = tokenizer.vocabulary(),
                embeddings = config.vocabulary,
                "the tokenizer knows tokens that the model has no embedding for"
            );
        }
        let (width, usual) = (config.hidden, Pooling::Last);
        let info = ModelInfo {
            generates: config.generates,
            embedding: Embedding::of(&files.embedding, &files.config, width, usual),
            name: files.name,
            architecture: config.architecture.clone(),
            context_length: config.context_length,
            vocabulary: config.vocabulary,
            parameters: loaded.parameters,
            dtype: loaded.stored_dtype,
            device: "cpu",
        };
        Ok(Self { decoder: loaded.decoder, tokenizer, info })
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

    /// Memory for the keys and values of many sequences: as many blocks as fit into `bytes`.
    ///
    /// # Errors
    /// [`ModelError::KvMemory`] if not even one does, or the system has not as much.
    pub fn kv_store(&self, bytes: usize) -> Result<KvStore, ModelError> {
        KvStore::new(self.decoder.config(), bytes)
    }

    /// Bytes of one block of a [`Model::kv_store`].
    #[must_use]
    pub fn kv_block_bytes(&self) -> usize {
        KvStore::block_bytes(self.decoder.config())
    }

    /// Bytes that the weights take.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.decoder.bytes()
    }

    /// One pass over some tokens of many sequences: their keys and values are written to their
    /// blocks, and what each row wants is returned, in the order of the rows.
    ///
    /// What comes out for a row is the same to the last bit whatever other rows there are and
    /// however its tokens are spread over passes. The caller sees to it that no row writes to a
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
        let states = self.decoder.hidden_states(store, rows);
        let hidden = self.decoder.config().hidden;
        let mut rest = states.as_slice();
        let mut last = Vec::new();
        let mut computed = Vec::with_capacity(rows.len());
        for row in rows {
            let (states, others) =
                rest.split_at_checked(row.tokens.len() * hidden).unwrap_or_default();
            rest = others;
            if row.wanted.logits {
                last.extend(states.chunks_exact(hidden).last().into_iter().flatten());
            }
            computed.push(Computed {
                logits: None,
                states: if row.wanted.states { self.decoder.normed(states) } else { Vec::new() },
                following: self.following(states, row.wanted.following),
            });
        }
        let logits = self.decoder.logits(&last);
        let mut logits = logits.chunks_exact(self.decoder.config().vocabulary);
        for (computed, row) in computed.iter_mut().zip(rows) {
            computed.logits =
                if row.wanted.logits { logits.next().map(<[f32]>::to_vec) } else { None };
        }
        Ok(computed)
    }

    /// How likely tokens are after those that have these states, up to the first of which no number
    /// tells.
    fn following(&self, states: &[f32], wanted: Option<(&[u32], usize)>) -> Vec<TokenLogprobs> {
        let Some((tokens, top)) = wanted else { return Vec::new() };
        let hidden = self.decoder.config().hidden;
        let mut all = Vec::with_capacity(tokens.len());
        let pieces = states.chunks(LOOKED_AT * hidden).zip(tokens.chunks(LOOKED_AT));
        for (states, tokens) in pieces {
            let states = states.get(..tokens.len() * hidden).unwrap_or(states);
            let mut logits = self.decoder.logits(states);
            let each = logits.chunks_exact_mut(self.decoder.config().vocabulary);
            for (logits, token) in each.zip(tokens) {
                let Ok(told) = told(logits, *token, top) else { return all };
                all.push(told);
            }
        }
        all
    }

    /// The logits at every position of one row.
    pub(crate) fn forward_all_of(
        &self,
        store: &mut KvStore,
        row: Row<'_>,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        self.check(store, &[row])?;
        let logits = self.decoder.logits(&self.decoder.hidden_states(store, &[row]));
        Ok(logits.chunks_exact(self.decoder.config().vocabulary).map(<[f32]>::to_vec).collect())
    }

    fn check(&self, store: &KvStore, rows: &[Row<'_>]) -> Result<(), ModelError> {
        let LlamaConfig { context_length, vocabulary, .. } = *self.decoder.config();
        let input = |problem: String| Err(ModelError::Input(problem));
        if !store.fits(self.decoder.config()) {
            return input("the store was made for another model".to_owned());
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
