//! How an answer of the model in this process is told, as far as its client chooses.

use tollgate_gateway::{TokenTold, Tuning};

/// What the client has chosen. The default is what OpenAI does when nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wire {
    /// Whether a streamed answer ends with a usage chunk.
    pub(crate) include_usage: bool,
    /// Whether vectors are base64 instead of numbers.
    pub(crate) base64: bool,
    /// Likeliest tokens told in the place of each of the prompt, where the answer begins with it and
    /// tells how likely its tokens were.
    pub(crate) echoed: Option<usize>,
    /// The same for `prompt_logprobs`.
    pub(crate) prompt_logprobs: Option<usize>,
}

impl Wire {
    /// Of an answer that is text.
    pub(crate) fn new(include_usage: bool, tuning: &Tuning) -> Self {
        let most = |top: u32| top as usize;
        Self {
            include_usage,
            base64: false,
            echoed: tuning.logprobs.filter(|_| tuning.echo).map(most),
            prompt_logprobs: tuning.prompt_logprobs.map(most),
        }
    }

    /// The prompt's tokens as the answer's own `logprobs` tell them.
    pub(crate) fn echoed(self, prompt: &[TokenTold]) -> Vec<TokenTold> {
        self.echoed.map(|most| cut(prompt, most)).unwrap_or_default()
    }

    /// And as `prompt_logprobs` does, if there is one.
    pub(crate) fn prompt(self, prompt: &[TokenTold]) -> Option<Vec<TokenTold>> {
        self.prompt_logprobs.map(|most| cut(prompt, most))
    }
}

/// With at most so many of the likeliest tokens in each place.
fn cut(prompt: &[TokenTold], most: usize) -> Vec<TokenTold> {
    let mut prompt = prompt.to_vec();
    prompt.iter_mut().for_each(|told| told.top.truncate(most));
    prompt
}
