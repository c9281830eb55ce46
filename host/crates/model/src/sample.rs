//! From logits to the next token: greedy, or drawn after penalties, temperature, min-p, top-k and top-p.
//!
//! The same seed and the same logits give the same tokens. Logits that are no numbers are never
//! drawn. The order is vLLM's: bias, penalties, temperature, min-p, top-k, top-p; log probabilities
//! are the model's own, from before all of these.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{Mask, ModelError};

/// Candidates that are put in order first where only the likeliest are kept.
const FIRST_SORTED: usize = 64;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// 0 always takes the likeliest token; 1 draws as the model was trained.
    pub temperature: f32,
    /// Draws from the likeliest tokens that together have this probability; 1 from all.
    pub top_p: f32,
    /// Draws from this many of the likeliest tokens; none from all.
    pub top_k: Option<usize>,
    /// Draws from tokens that are at least this likely, compared with the likeliest; 0 from all.
    pub min_p: f32,
    /// The logits of tokens that the prompt or the answer has are divided by it, negative ones
    /// multiplied; 1 for nothing.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time that the answer has it.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of each token that the answer has.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens; those outside the vocabulary are passed over.
    pub logit_bias: Vec<(u32, f32)>,
    /// Whether to tell log probabilities: of the chosen token, and of as many of the likeliest.
    pub logprobs: Option<usize>,
    /// What all draws follow from.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            logprobs: None,
            seed: 0,
        }
    }
}

/// A token and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token that was chosen.
    pub token: u32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// Its place among all tokens by how likely they are: 1 for the likeliest.
    pub rank: u32,
    /// The likeliest tokens and theirs, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// Chooses the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    options: SamplingOptions,
    rng: StdRng,
    /// Tokens that some penalty is for, and how often the answer has each.
    seen: HashMap<u32, u32>,
}

impl Sampler {
    /// A sampler at the start of its seed's draws, after a prompt that no penalty is for.
    #[must_use]
    pub fn new(options: SamplingOptions) -> Self {
        Self::after(options, &[])
    }

    /// A sampler at the start of its seed's draws, after a prompt.
    #[must_use]
    pub fn after(options: SamplingOptions, prompt: &[u32]) -> Self {
        let rng = StdRng::seed_from_u64(options.seed);
        let repeats = options.repetition_penalty != 1.0;
        let prompt = if repeats { prompt } else { &[] };
        Self { options, rng, seen: prompt.iter().map(|token| (*token, 0)).collect() }
    }

    /// The next token. Changes `logits`: after a draw they hold what was drawn from.
    ///
    /// # Errors
    /// [`ModelError::NoNumbers`] where no logit is a number.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32, ModelError> {
        Ok(self.choose(logits, &[])?.0)
    }

    /// Like [`Sampler::sample`], but none of the `barred` tokens, unless there is no other; and how
    /// likely it was, if the options ask.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn choose(
        &mut self,
        logits: &mut [f32],
        barred: &[u32],
    ) -> Result<(u32, Option<TokenLogprobs>), ModelError> {
        self.choose_from(logits, barred, None)
    }

    /// Like [`Sampler::choose`], but of the tokens that a mask allows, if there is one: whatever else
    /// is asked for, no other is ever chosen.
    ///
    /// # Errors
    /// As [`Sampler::sample`], and [`ModelError::Schema`] if it allows none.
    pub fn choose_from(
        &mut self,
        logits: &mut [f32],
        barred: &[u32],
        mask: Option<&Mask>,
    ) -> Result<(u32, Option<TokenLogprobs>), ModelError> {
        bound(logits);
        let mut likeliest = greedy(logits).ok_or(ModelError::NoNumbers)?;
        let told = self.options.logprobs.map(|top| Likely::of(logits, likeliest, top));
        if let Some(mask) = mask {
            mask.apply(logits);
            let none = || ModelError::Schema("no token of the model goes on with it".to_owned());
            likeliest = greedy(logits).ok_or_else(none)?;
        }
        self.adjust(logits, barred);
        // What bars or outweighs everything bars nothing.
        let likeliest = greedy(logits).unwrap_or(likeliest);
        let token = self.draw(logits, likeliest);
        if self.has_penalties() {
            *self.seen.entry(token).or_default() += 1;
        }
        Ok((token, told.map(|likely| likely.tell(token))))
    }

    fn has_penalties(&self) -> bool {
        let SamplingOptions { repetition_penalty, frequency_penalty, presence_penalty, .. } =
            self.options;
        repetition_penalty != 1.0 || frequency_penalty != 0.0 || presence_penalty != 0.0
    }

    /// Bias, bars and penalties.
    fn adjust(&self, logits: &mut [f32], barred: &[u32]) {
        let options = &self.options;
        let mut change = |token: u32, with: &dyn Fn(f32) -> f32| {
            if let Some(logit) = logits.get_mut(token as usize) {
                let changed = with(*logit);
                *logit = if changed.is_nan() { f32::NEG_INFINITY } else { changed.min(f32::MAX) };
            }
        };
        for (token, bias) in &options.logit_bias {
            change(*token, &|logit| logit + bias);
        }
        for token in barred {
            change(*token, &|_| f32::NEG_INFINITY);
        }
        for (token, times) in &self.seen {
            let repetition = options.repetition_penalty;
            let often = options.frequency_penalty * *times as f32;
            let present = if *times > 0 { options.presence_penalty } else { 0.0 };
            change(*token, &|logit| {
                let logit = if logit > 0.0 { logit / repetition } else { logit * repetition };
                logit - often - present
            });
        }
    }

    fn draw(&mut self, logits: &mut [f32], likeliest: u32) -> u32 {
        let temperature = self.options.temperature;
        if temperature.is_nan() || temperature <= 0.0 || self.options.top_k == Some(1) {
            return likeliest;
        }
        let highest = logits.get(likeliest as usize).copied().unwrap_or(0.0);
        let least = self.options.min_p.clamp(0.0, 1.0);
        let mut candidates: Vec<(u32, f32)> = (0u32..)
            .zip(logits.iter_mut())
            .map(|(token, logit)| {
                *logit = ((*logit - highest) / temperature).exp();
                (token, *logit)
            })
            .filter(|(_, weight)| *weight > 0.0 && *weight >= least)
            .collect();
        self.keep_likeliest(&mut candidates);
        position(&candidates, self.rng.random()).unwrap_or(likeliest)
    }

    fn keep_likeliest(&self, candidates: &mut Vec<(u32, f32)>) {
        if let Some(top_k) = self.options.top_k {
            likeliest_first(candidates, top_k.max(1));
            candidates.truncate(top_k.max(1));
        }
        if self.options.top_p >= 1.0 {
            return;
        }
        let enough = f64::from(self.options.top_p.max(0.0)) * sum(candidates);
        let mut sorted = FIRST_SORTED;
        loop {
            likeliest_first(candidates, sorted);
            let mut reached = 0.0;
            let below = candidates.iter().take(sorted).take_while(|(_, weight)| {
                let before = reached;
                reached += f64::from(*weight);
                before < enough
            });
            let kept = below.count().max(1);
            if kept < sorted || sorted >= candidates.len() {
                candidates.truncate(kept);
                return;
            }
            sorted = sorted.saturating_mul(8);
        }
    }
}

/// How likely a token is, and as many of the likeliest. Changes `logits` that are no numbers.
pub(crate) fn told(
    logits: &mut [f32],
    token: u32,
    top: usize,
) -> Result<TokenLogprobs, ModelError> {
    bound(logits);
    let likeliest = greedy(logits).ok_or(ModelError::NoNumbers)?;
    Ok(Likely::of(logits, likeliest, top).tell(token))
}

/// An overflow upwards is still the largest; everything else that is no number is out.
fn bound(logits: &mut [f32]) {
    for logit in logits.iter_mut().filter(|logit| !logit.is_finite()) {
        *logit = if *logit == f32::INFINITY { f32::MAX } else { f32::NEG_INFINITY };
    }
}

/// How likely tokens were, from before anything was changed.
struct Likely {
    /// Logarithm of the sum of all weights.
    total: f32,
    logits: Vec<f32>,
    top: Vec<(u32, f32)>,
}

impl Likely {
    fn of(logits: &[f32], likeliest: u32, top: usize) -> Self {
        let highest = logits.get(likeliest as usize).copied().unwrap_or(0.0);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
        let total = (f64::from(highest) + sum.ln()) as f32;
        let mut all: Vec<(u32, f32)> = match top {
            0 => Vec::new(),
            _ => (0u32..).zip(logits.iter().map(|logit| logit - total)).collect(),
        };
        likeliest_first(&mut all, top);
        all.truncate(top);
        all.retain(|(_, logprob)| logprob.is_finite());
        Self { total, logits: logits.to_vec(), top: all }
    }

    fn tell(self, token: u32) -> TokenLogprobs {
        let logit = self.logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let before = self.logits.iter().filter(|other| **other > logit).count();
        let rank = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
        TokenLogprobs { token, logprob: logit - self.total, rank, top: self.top }
    }
}

/// The likeliest token; of several, the first.
fn greedy(logits: &[f32]) -> Option<u32> {
    let (mut best, mut highest) = (None, f32::NEG_INFINITY);
    for (token, logit) in (0u32..).zip(logits) {
        if *logit > highest {
            (best, highest) = (Some(token), *logit);
        }
    }
    best
}

/// Puts the `count` likeliest first and in order; of equals, the lower token.
fn likeliest_first(candidates: &mut [(u32, f32)], count: usize) {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count > 0 && count < candidates.len() {
        candidates.select_nth_unstable_by(count - 1, order);
    }
    let sorted = count.min(candidates.len());
    if let Some(first) = candidates.get_mut(..sorted) {
        first.sort_unstable_by(order);
    }
}

/// The token at `position`, from 0 to 1, along the weights laid end to end.
fn position(candidates: &[(u32, f32)], position: f64) -> Option<u32> {
    let mut left = position * sum(candidates);
    for (token, weight) in candidates {
        left -= f64::from(*weight);
        if left < 0.0 {
            return Some(*token);
        }
    }
    candidates.last().map(|(token, _)| *token)
}

fn sum(candidates: &[(u32, f32)]) -> f64 {
    candidates.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How often each token was drawn.
    fn histogram(options: &SamplingOptions, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(options.clone());
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.sample(&mut logits.to_vec()).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.5f32.ln(), 0.25f32.ln(), 0.25f32.ln()];
        let counts = histogram(&SamplingOptions::default(), &logits, 8000);
        assert!(
            (3800..4200).contains(&counts[0]) && (1850..2150).contains(&counts[1]),
            "{counts:?}"
        );
    }

    #[test]
    fn options_limit_what_can_be_drawn() {
        let logits = [1.0, 3.0, 2.0, 0.0];
        let all = SamplingOptions { seed: 3, ..Default::default() };
        let all = || all.clone();
        let table = [
            (SamplingOptions { temperature: 0.0, ..all() }, vec![1]),
            (SamplingOptions { temperature: f32::NAN, ..all() }, vec![1]),
            (SamplingOptions { top_k: Some(1), ..all() }, vec![1]),
            (SamplingOptions { top_k: Some(2), ..all() }, vec![1, 2]),
            (SamplingOptions { top_k: Some(0), ..all() }, vec![1]),
            (SamplingOptions { top_p: 0.0, ..all() }, vec![1]),
            (SamplingOptions { top_p: 0.7, ..all() }, vec![1, 2]),
            (SamplingOptions { top_p: 1.0, ..all() }, vec![0, 1, 2, 3]),
            (SamplingOptions { temperature: 0.01, ..all() }, vec![1]),
            (SamplingOptions { min_p: 0.3, ..all() }, vec![1, 2]),
            (SamplingOptions { min_p: 1.0, ..all() }, vec![1]),
            (SamplingOptions { min_p: 0.3, temperature: 3.0, ..all() }, vec![0, 1, 2, 3]),
            (SamplingOptions { logit_bias: vec![(0, 90.0), (9, 5.0)], ..all() }, vec![0]),
            (SamplingOptions { logit_bias: vec![(1, -90.0), (2, -90.0)], ..all() }, vec![0, 3]),
            (SamplingOptions { logit_bias: vec![(3, f32::INFINITY)], ..all() }, vec![3]),
            (SamplingOptions { logit_bias: vec![(1, f32::NAN)], top_k: Some(1), ..all() }, vec![2]),
        ];
        for (options, possible) in table {
            let counts = histogram(&options, &logits, 2000);
            let drawn: Vec<_> = (0..4).filter(|token| counts[*token] > 0).collect();
            assert_eq!(drawn, possible, "{options:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_never_drawn() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let table: [(&[f32], Option<u32>); 6] = [
            (&[nan, 1.0, nan], Some(1)),
            (&[-inf, nan, 0.0], Some(2)),
            (&[0.0, inf, nan], Some(1)),
            (&[nan, nan], None),
            (&[nan, -inf], None),
            (&[], None),
        ];
        for (logits, expected) in table {
            for temperature in [0.0, 1.0] {
                let mut sampler =
                    Sampler::new(SamplingOptions { temperature, ..Default::default() });
                assert_eq!(
                    sampler.sample(&mut logits.to_vec()).ok(),
                    expected,
                    "{logits:?} at {temperature}"
                );
            }
        }
    }

    /// What is chosen greedily, one after another, from the same logits.
    fn greedy_of(options: SamplingOptions, prompt: &[u32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::after(SamplingOptions { temperature: 0.0, ..options }, prompt);
        (0..count).map(|_| sampler.sample(&mut [4.0, 3.0, 2.5, -1.0]).unwrap()).collect()
    }

    #[test]
    fn penalties_count_what_they_say() {
        let none = SamplingOptions::default;
        assert_eq!(greedy_of(none(), &[0], 3), [0, 0, 0]);
        // 4, then 4 - 0.6, then 4 - 1.2, which is less than 3.
        let frequency = SamplingOptions { frequency_penalty: 0.6, ..none() };
        assert_eq!(greedy_of(frequency, &[0, 0, 0], 4), [0, 0, 1, 0]);
        let presence = SamplingOptions { presence_penalty: 1.2, ..none() };
        assert_eq!(greedy_of(presence, &[0], 5), [0, 1, 0, 0, 0]);
        // Of the prompt too, but once only: 4 / 1.5, then 3, then 3 / 1.5.
        let repetition = SamplingOptions { repetition_penalty: 1.5, ..none() };
        assert_eq!(greedy_of(repetition, &[0], 3), [1, 0, 0]);
        // A negative logit becomes smaller.
        let mut sampler = Sampler::after(
            SamplingOptions { repetition_penalty: 2.0, temperature: 0.0, ..none() },
            &[0],
        );
        assert_eq!(sampler.sample(&mut [-1.0, -1.5]).unwrap(), 1);
        let reward = SamplingOptions { presence_penalty: -1.0, ..none() };
        assert_eq!(greedy_of(reward, &[], 2), [0, 0]);
    }

    #[test]
    fn barred_tokens_are_not_chosen_where_there_are_others() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(SamplingOptions { temperature, ..Default::default() });
            let nan = f32::NAN;
            assert_eq!(sampler.choose(&mut [9.0, 1.0, nan], &[0, 7]).unwrap().0, 1);
            assert_eq!(sampler.choose(&mut [9.0, nan], &[0]).unwrap().0, 0);
        }
    }

    #[test]
    fn logprobs_are_the_models_own() {
        let logits = [0.5f32.ln(), 0.25f32.ln(), 0.125f32.ln(), 0.125f32.ln(), f32::NAN];
        let options = SamplingOptions {
            temperature: 0.0,
            logit_bias: vec![(1, 50.0)],
            logprobs: Some(3),
            ..Default::default()
        };
        let (token, told) = Sampler::new(options).choose(&mut logits.clone(), &[]).unwrap();
        let told = told.unwrap();
        assert_eq!((token, told.token, told.rank), (1, 1, 2));
        assert!((told.logprob - 0.25f32.ln()).abs() < 1e-6);
        assert_eq!(told.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1, 2]);
        let probabilities: f32 = told.top.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((probabilities - 0.875).abs() < 1e-5);
        let options = SamplingOptions { logprobs: Some(100), ..Default::default() };
        let (_, told) = Sampler::new(options).choose(&mut logits.clone(), &[]).unwrap();
        assert_eq!(told.unwrap().top.len(), 4);
    }

    #[test]
    fn a_wide_top_p_is_found_beyond_what_is_sorted_first() {
        let options = SamplingOptions { top_p: 0.9, ..Default::default() };
        let counts = histogram(&options, &[0.0; 1000], 20_000);
        let drawn = counts.iter().filter(|count| **count > 0).count();
        assert!((895..=901).contains(&drawn), "{drawn}");
    }

    proptest! {
        #[test]
        fn a_draw_is_in_range_and_repeats_with_its_seed(
            logits in prop::collection::vec(prop::num::f32::ANY, 1..50),
            temperature in 0.0f32..3.0, top_p in 0.0f32..1.2, top_k in prop::option::of(0usize..60), seed: u64,
        ) {
            let options = SamplingOptions { temperature, top_p, top_k, seed, ..Default::default() };
            let draw = || Sampler::new(options.clone()).sample(&mut logits.clone()).ok();
            let possible = logits.iter().any(|logit| *logit > f32::NEG_INFINITY);
            prop_assert_eq!(draw().is_some(), possible);
            prop_assert!(draw().is_none_or(|token| (token as usize) < logits.len()));
            prop_assert_eq!(draw(), draw());
        }
    }
}
