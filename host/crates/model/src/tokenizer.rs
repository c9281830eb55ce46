//! Text to tokens and back, with what the model's files say of special tokens and of the end of an
//! answer.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;
use serde_json::Value;

use crate::ModelError;
use crate::chat::{ChatMessage, ChatTemplate};
use crate::constraint::{self, Grammars};
use crate::files::ModelFiles;
use crate::schema_cache::SchemaCache;
use crate::text_stream::TextStream;
use crate::vocabulary::{self, TokenBytes};

/// A model's tokenizer. A clone is a pointer.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    stop_tokens: Vec<u32>,
    chat_template: Option<ChatTemplate>,
    /// Made when it is first asked for: most requests do not.
    tokens: OnceLock<Vec<TokenBytes>>,
    grammars: OnceLock<Grammars>,
    schemas: SchemaCache,
}

/// Tokens that end an answer in the models of the family, beside what their files name.
const KNOWN_ENDS: [&str; 3] = ["<|eot_id|>", "<|im_end|>", "<|end_of_text|>"];

impl Tokenizer {
    pub(crate) fn from_files(files: &ModelFiles) -> Result<Self, ModelError> {
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(&files.tokenizer)
            .map_err(|error| ModelError::malformed("tokenizer.json", error.to_string()))?;
        // A prompt that is too long is refused by the caller, not shortened here; nothing is ever
        // padded.
        tokenizer
            .with_truncation(None)
            .map_err(|error| ModelError::Tokenizer(error.to_string()))?;
        tokenizer.with_padding(None);
        let json = |name: &str, bytes: &Option<std::borrow::Cow<'static, [u8]>>| match bytes {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|e| ModelError::malformed(name, e.to_string())),
            None => Ok(Value::Null),
        };
        let config = json("tokenizer_config.json", &files.tokenizer_config)?;
        let generation = json("generation_config.json", &files.generation_config)?;
        let model = json("config.json", &Some(files.config.clone()))?;
        let stop_tokens = stop_tokens(&tokenizer, &config, &[&generation, &model]);
        let chat_template = ChatTemplate::find(files.chat_template.as_deref(), &config)?;
        let (tokens, grammars) = (OnceLock::new(), OnceLock::new());
        let schemas = SchemaCache::default();
        let inner = Inner { tokenizer, stop_tokens, chat_template, tokens, grammars, schemas };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The tokens of `text`. With `add_special`, those that the model expects around a plain prompt
    /// (its begin token) are added; a rendered conversation already has them.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.tokenizer.encode_fast(text, add_special);
        Ok(encoding.map_err(|error| ModelError::Tokenizer(error.to_string()))?.get_ids().to_vec())
    }

    /// How many tokens `text` has by itself.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn count(&self, text: &str) -> Result<usize, ModelError> {
        Ok(self.encode(text, false)?.len())
    }

    /// The text of `tokens`, special tokens left out.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, ModelError> {
        self.inner
            .tokenizer
            .decode(tokens, true)
            .map_err(|error| ModelError::Tokenizer(error.to_string()))
    }

    /// The same with special tokens as they are named.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn decode_all(&self, tokens: &[u32]) -> Result<String, ModelError> {
        let text = self.inner.tokenizer.decode(tokens, false);
        text.map_err(|error| ModelError::Tokenizer(error.to_string()))
    }

    /// A token as its vocabulary writes it.
    #[must_use]
    pub fn name(&self, token: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(token)
    }

    /// What a token stands for by itself; nothing for a number that no token has.
    #[must_use]
    pub fn token(&self, token: u32) -> TokenBytes {
        self.tokens().get(token as usize).cloned().unwrap_or_default()
    }

    /// What all tokens stand for, by their numbers.
    pub(crate) fn tokens(&self) -> &[TokenBytes] {
        self.inner.tokens.get_or_init(|| vocabulary::of(&self.inner.tokenizer))
    }

    /// What grammars need, also made when it is first asked for; the reason if there can be none.
    pub(crate) fn grammars(&self) -> Result<&ParserFactory, &str> {
        let made = || constraint::grammars(self.tokens(), self.stop_tokens());
        match self.inner.grammars.get_or_init(made) {
            Ok(factory) => Ok(factory),
            Err(reason) => Err(reason),
        }
    }

    /// Schemas that were compiled lately.
    pub(crate) fn schemas(&self) -> &SchemaCache {
        &self.inner.schemas
    }

    /// Tokens that end an answer, in ascending order; empty if the model's files name none.
    #[must_use]
    pub fn stop_tokens(&self) -> &[u32] {
        &self.inner.stop_tokens
    }

    /// Entries of the vocabulary, special ones included: no token is this large.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        let highest = self.inner.tokenizer.get_vocab(true).into_values().max();
        highest.map_or(0, |token| token as usize + 1)
    }

    /// Whether [`Tokenizer::render_chat`] can work.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        self.inner.chat_template.is_some()
    }

    /// The prompt for a conversation, up to where the model's answer begins. Encode it without
    /// special tokens.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] if the model has no template or the template refuses the
    /// messages.
    pub fn render_chat(&self, messages: &[ChatMessage]) -> Result<String, ModelError> {
        match &self.inner.chat_template {
            Some(template) => template.render(messages),
            None => Err(ModelError::ChatTemplate(
                "this model has none, neither in tokenizer_config.json nor in \
                 chat_template.jinja; use /v1/completions"
                    .to_owned(),
            )),
        }
    }

    /// Turns tokens into text one by one.
    #[must_use]
    pub fn text_stream(&self) -> TextStream {
        TextStream::new(self.clone())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stop_tokens = &self.inner.stop_tokens;
        f.debug_struct("Tokenizer").field("stop_tokens", stop_tokens).finish_non_exhaustive()
    }
}

/// Every token that some file of the model calls the end. Files disagree (Llama 3 names two in one
/// and one in another), so all of them count.
fn stop_tokens(tokenizer: &tokenizers::Tokenizer, config: &Value, with_ids: &[&Value]) -> Vec<u32> {
    let mut ends = BTreeSet::new();
    for file in with_ids {
        match file.get("eos_token_id") {
            Some(Value::Array(ids)) => ends.extend(ids.iter().filter_map(Value::as_u64)),
            Some(id) => ends.extend(id.as_u64()),
            None => {}
        }
    }
    let named = special_text(config, "eos_token");
    let names = named.as_deref().into_iter().chain(KNOWN_ENDS);
    ends.extend(names.filter_map(|name| tokenizer.token_to_id(name)).map(u64::from));
    ends.into_iter().filter_map(|id| u32::try_from(id).ok()).collect()
}

/// `bos_token` or `eos_token` of tokenizer_config.json: a string, or an object with `content`.
pub(crate) fn special_text(config: &Value, key: &str) -> Option<String> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}
