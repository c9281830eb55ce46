//! Texts that the model in this process is to embed: from what is asked to what the engine reads.

use tollgate_domain::ErrorKind;
use tollgate_engine::{EmbedRequest, Embedding};

use crate::call::{Call, Input, Refusal};
use crate::local::Local;
use crate::request::Request;

impl Local {
    /// Makes tokens of the texts and checks that the model can embed each.
    pub(crate) fn embeddings(
        &self,
        call: &Call,
        request: &Request,
        inputs: &[Input],
    ) -> Result<EmbedRequest, Refusal> {
        let info = self.engine.info();
        let Some(embedding) = &info.embedding else {
            let message = format!(
                "The model `{}` makes no embeddings. `GET /v1/models` lists the others.",
                request.asked.model
            );
            return Err(Refusal::new(ErrorKind::InvalidRequest, message).param("model"));
        };
        let dimensions = dimensions(embedding, call.tuning.dimensions)?;
        let read = || -> Result<Vec<Vec<u32>>, Refusal> {
            inputs.iter().enumerate().map(|(at, input)| self.input(at, input)).collect()
        };
        let inputs = tokio::task::block_in_place(read)?;
        let tenant = request.tenant().map(Into::into);
        Ok(EmbedRequest { inputs, dimensions, tenant, priority: request.caller.0.priority() })
    }

    /// The tokens of one text, with those that the model expects around it.
    fn input(&self, at: usize, input: &Input) -> Result<Vec<u32>, Refusal> {
        let param = format!("input[{at}]");
        let refused = |kind, message| Refusal::new(kind, message).param(param.as_str());
        let tokens = match input {
            Input::Tokens(tokens) => tokens.clone(),
            Input::Text(text) => self
                .engine
                .tokenizer()
                .encode(text, true)
                .map_err(|error| refused(ErrorKind::InvalidRequest, error.to_string()))?,
        };
        self.check(&tokens).map_err(|refusal| refusal.param(param.as_str()))?;
        let (count, context) = (tokens.len(), self.models.context_length());
        if tokens.is_empty() {
            let message = format!("`{param}` is empty: it must have at least one token.");
            return Err(refused(ErrorKind::InvalidRequest, message));
        }
        if count > context as usize {
            let message = format!(
                "`{param}` has {count} tokens; this model reads at most {context}. Cut it in parts."
            );
            return Err(refused(ErrorKind::ContextLengthExceeded, message));
        }
        Ok(tokens)
    }
}

/// A shorter vector is the beginning of the whole one, which means something only in models that
/// were trained so.
fn dimensions(embedding: &Embedding, wanted: Option<u32>) -> Result<Option<usize>, Refusal> {
    let Some(wanted) = wanted.map(|wanted| wanted as usize) else { return Ok(None) };
    let width = embedding.width;
    let message = match wanted {
        _ if wanted == width => return Ok(None),
        _ if wanted > width => format!("`dimensions` is at most {width} for this model."),
        _ if embedding.shortens => return Ok(Some(wanted)),
        _ => format!(
            "`dimensions` must be {width}, or left out: this model was not trained for shorter vectors."
        ),
    };
    Err(Refusal::new(ErrorKind::InvalidRequest, message).param("dimensions"))
}

#[cfg(test)]
mod tests {
    use tollgate_model::Pooling;

    use super::*;

    #[test]
    fn vectors_are_cut_only_where_the_model_was_trained_for_it() {
        let of = |shortens| Embedding { pooling: Pooling::Mean, width: 8, shortens };
        for (shortens, wanted, expected) in [
            (false, None, Some(None)),
            (false, Some(8), Some(None)),
            (false, Some(4), None),
            (true, Some(4), Some(Some(4))),
            (true, Some(9), None),
        ] {
            let told = dimensions(&of(shortens), wanted);
            assert_eq!(told.as_ref().ok().copied(), expected, "{shortens} {wanted:?}");
        }
    }
}
