//! Text to tokens and back, for clients that count before they ask. The model does nothing for it, so
//! it is not on record and costs nothing.

use tollgate_domain::ErrorKind;

use crate::call::{Caller, Prompt, Refusal};
use crate::local::Local;
use crate::{Gateway, ModelCard};

/// What is to be made into tokens.
#[derive(Clone, Debug)]
pub struct ToTokens {
    /// The model; without a name the only one there is.
    pub model: String,
    /// The text, or the conversation.
    pub prompt: Prompt,
    /// Whether the tokens that the model expects around a plain prompt are added; if it is not said,
    /// to a text and not to a conversation, whose template has them.
    pub add_special: Option<bool>,
}

/// The tokens of a prompt.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// They.
    pub ids: Vec<u32>,
    /// Each as its vocabulary writes it.
    pub names: Vec<String>,
    /// Most tokens that prompt and answer have together.
    pub context_length: u32,
}

impl Gateway {
    /// The tokens of a prompt, as the model would read it.
    ///
    /// # Errors
    /// `model_not_found` where no model in this process goes by that name, or the key may not use it;
    /// `invalid_request` if it cannot be made into tokens.
    pub fn tokenize(&self, caller: &Caller, asked: &ToTokens) -> Result<Tokens, Refusal> {
        let (local, _) = self.local(caller, &asked.model)?;
        let ids = tokio::task::block_in_place(|| local.tokenize(&asked.prompt, asked.add_special))?;
        let tokenizer = local.engine.tokenizer();
        let names = ids.iter().map(|token| tokenizer.name(*token).unwrap_or_default()).collect();
        Ok(Tokens { ids, names, context_length: local.models.context_length() })
    }

    /// The text of tokens, special ones included.
    ///
    /// # Errors
    /// As [`Gateway::tokenize`].
    pub fn detokenize(&self, caller: &Caller, model: &str, ids: &[u32]) -> Result<String, Refusal> {
        let (local, _) = self.local(caller, model)?;
        local.check(ids).map_err(|refusal| refusal.param("tokens"))?;
        let text = tokio::task::block_in_place(|| local.engine.tokenizer().decode_all(ids));
        text.map_err(|error| {
            Refusal::new(ErrorKind::InvalidRequest, error.to_string()).param("tokens")
        })
    }

    fn local(&self, caller: &Caller, model: &str) -> Result<(&Local, &ModelCard), Refusal> {
        let name = if model.is_empty() { self.0.locals.default_name() } else { model };
        let found = self.0.locals.find(name).filter(|_| caller.0.allows(name));
        found.ok_or_else(|| {
            let message = "No model of that name runs in this process, and others keep their tokens to \
                           themselves. `GET /v1/models` lists all that there are.";
            Refusal::new(ErrorKind::ModelNotFound, message).param("model")
        })
    }
}
