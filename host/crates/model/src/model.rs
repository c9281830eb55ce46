//! The handle on a loaded model: what it is, its tokenizer, and the forward pass over sequences.

use candle_core::{Device, Tensor};

use crate::cache::KvCache;
use crate::config::LlamaConfig;
use crate::files::ModelFiles;
use crate::llama::Llama;
use crate::{ModelError, ModelSource, Tokenizer, load};

/// A loaded model. One thread owns it: a forward pass uses the whole machine.
#[derive(Debug)]
pub struct Model {
    llama: Llama,
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
}

/// One sequence of tokens being read and written: its place in the model and its keys and values.
/// Dropping it frees them.
#[derive(Debug)]
pub struct Sequence {
    cache: KvCache,
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
        let loaded = load::llama(config, &files.weights)?;
        let config = loaded.llama.config();
        if tokenizer.vocabulary() > config.vocabulary {
            // Seen in models with a padding token of their own: harmless until a prompt uses such a
            // token, which is refused.
            tracing::warn!(
                tokens = tokenizer.vocabulary(),
                embeddings = config.vocabulary,
                "the tokenizer knows tokens that the model has no embedding for"
            );
        }
        let info = ModelInfo {
            name: files.name,
            architecture: config.architecture.clone(),
            context_length: config.context_length,
            vocabulary: config.vocabulary,
            parameters: loaded.parameters,
            dtype: loaded.stored_dtype,
            device: "cpu",
        };
        Ok(Self { llama: loaded.llama, tokenizer, info })
    }

    /// What this model is.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Its tokenizer; a clone is a pointer and may go to any thread.
    #[must_use]
    pub fn tokenizer(&self) -> Tokenizer {
        self.tokenizer.clone()
    }

    /// A new, empty sequence.
    #[must_use]
    pub fn start_sequence(&self) -> Sequence {
        Sequence { cache: KvCache::new(self.llama.config()) }
    }

    /// Reads `tokens` after what the sequence already holds and returns the logits (one per token
    /// of the vocabulary) for what comes next. A whole prompt, a part of one, or the token just
    /// sampled: it is the same call.
    ///
    /// # Errors
    /// [`ModelError::ContextExceeded`] when they do not fit, [`ModelError::Input`] for no token or
    /// one outside the vocabulary; the sequence is then as it was.
    pub fn forward(&self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let hidden = self.hidden_states(sequence, tokens)?;
        let last = hidden.narrow(0, tokens.len() - 1, 1)?;
        Ok(self.llama.logits(&last)?.flatten_all()?.to_vec1()?)
    }

    /// Like [`Model::forward`], but returns the logits at every position: for tests and perplexity.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_all(
        &self,
        sequence: &mut Sequence,
        tokens: &[u32],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let hidden = self.hidden_states(sequence, tokens)?;
        Ok(self.llama.logits(&hidden)?.to_vec2()?)
    }

    /// `[tokens, hidden]`.
    fn hidden_states(&self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Tensor, ModelError> {
        let config = self.llama.config();
        let wanted = sequence.len().saturating_add(tokens.len());
        if wanted > config.context_length {
            return Err(ModelError::ContextExceeded {
                wanted,
                context_length: config.context_length,
            });
        }
        if tokens.is_empty() {
            return Err(ModelError::Input("a forward pass needs at least one token".to_owned()));
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= config.vocabulary) {
            return Err(ModelError::Input(format!(
                "token {token} is outside the vocabulary of {}",
                config.vocabulary
            )));
        }
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        Ok(self.llama.hidden_states(&tokens, Some(&mut sequence.cache))?.squeeze(0)?)
    }
}

impl Sequence {
    /// Tokens read so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether nothing has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Memory held for keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}
