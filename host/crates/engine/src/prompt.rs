//! How likely the tokens of a prompt were, gathered while it is read.

use tollgate_model::TokenLogprobs;

/// What is told of one prompt. Pieces of it may come twice, after a preemption.
pub(crate) struct PromptTold {
    tokens: Vec<u32>,
    /// As many of the likeliest are told.
    top: usize,
    /// Of each token but the first.
    told: Vec<Option<TokenLogprobs>>,
}

impl PromptTold {
    pub(crate) fn new(tokens: Vec<u32>, top: usize) -> Self {
        let told = vec![None; tokens.len().saturating_sub(1)];
        Self { tokens, top, told }
    }

    /// What follows each of `count` tokens from `start` on, as far as it is the prompt.
    pub(crate) fn following(&self, start: usize, count: usize) -> (Vec<u32>, usize) {
        let following = self.tokens.iter().skip(start + 1).take(count);
        (following.copied().collect(), self.top)
    }

    /// How likely those were.
    pub(crate) fn take_in(&mut self, start: usize, told: Vec<TokenLogprobs>) {
        for (place, told) in self.told.iter_mut().skip(start).zip(told) {
            *place = Some(told);
        }
    }

    /// All of them, once the prompt is read; nothing if the model computed no number for one.
    pub(crate) fn finish(self) -> Option<Vec<TokenLogprobs>> {
        self.told.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_prompt_without_its_first_token() {
        let mut told = PromptTold::new(vec![5, 6, 7, 8], 2);
        let mut read = |start: usize, count: usize| {
            let (following, top) = told.following(start, count);
            assert_eq!(top, 2);
            let one = |token: &u32| TokenLogprobs {
                token: *token,
                logprob: -1.0,
                rank: 1,
                top: Vec::new(),
            };
            told.take_in(start, following.iter().map(one).collect());
            following
        };
        assert_eq!(read(0, 2), [6, 7]);
        assert_eq!(read(0, 1), [6], "it was preempted, and begins again");
        assert_eq!(read(1, 2), [7, 8]);
        assert_eq!(read(3, 1), [0u32; 0], "the last one is followed by what is sampled");
        let tokens: Vec<u32> = told.finish().unwrap().iter().map(|told| told.token).collect();
        assert_eq!(tokens, [6, 7, 8]);
        assert!(PromptTold::new(vec![1, 2], 0).finish().is_none(), "no number for the second");
    }
}
