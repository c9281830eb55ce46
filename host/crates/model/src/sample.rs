//! From logits to the next token: greedy, or drawn after temperature, top-k and top-p.
//!
//! The same seed and the same logits give the same tokens. Logits that are no numbers are never
//! drawn.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::ModelError;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// 0 always takes the likeliest token; 1 draws as the model was trained.
    pub temperature: f32,
    /// Draws from the likeliest tokens that together have this probability; 1 from all.
    pub top_p: f32,
    /// Draws from this many of the likeliest tokens; none from all.
    pub top_k: Option<usize>,
    /// What all draws follow from.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: None, seed: 0 }
    }
}

/// Chooses the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    options: SamplingOptions,
    rng: StdRng,
}

impl Sampler {
    /// A sampler at the start of its seed's draws.
    #[must_use]
    pub fn new(options: SamplingOptions) -> Self {
        Self { options, rng: StdRng::seed_from_u64(options.seed) }
    }

    /// The next token. Changes `logits`: after a draw they hold what was drawn from.
    ///
    /// # Errors
    /// [`ModelError::NoNumbers`] where no logit is a number.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32, ModelError> {
        for logit in logits.iter_mut().filter(|logit| !logit.is_finite()) {
            // An overflow upwards is still the largest; everything else that is no number is out.
            *logit = if *logit == f32::INFINITY { f32::MAX } else { f32::NEG_INFINITY };
        }
        let likeliest = greedy(logits).ok_or(ModelError::NoNumbers)?;
        let temperature = self.options.temperature;
        if temperature.is_nan() || temperature <= 0.0 || self.options.top_k == Some(1) {
            return Ok(likeliest);
        }
        let highest = logits.get(likeliest as usize).copied().unwrap_or(0.0);
        let mut candidates: Vec<(u32, f32)> = (0u32..)
            .zip(logits.iter_mut())
            .map(|(token, logit)| {
                *logit = ((*logit - highest) / temperature).exp();
                (token, *logit)
            })
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        self.keep_likeliest(&mut candidates);
        Ok(draw(&candidates, self.rng.random()).unwrap_or(likeliest))
    }

    fn keep_likeliest(&self, candidates: &mut Vec<(u32, f32)>) {
        let top_p = self.options.top_p;
        let limits_p = top_p < 1.0;
        if self.options.top_k.is_none() && !limits_p {
            return;
        }
        candidates.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        if let Some(top_k) = self.options.top_k {
            candidates.truncate(top_k.max(1));
        }
        if limits_p {
            let enough = f64::from(top_p.max(0.0)) * sum(candidates);
            let mut reached = 0.0;
            let below = candidates.iter().take_while(|(_, weight)| {
                let before = reached;
                reached += f64::from(*weight);
                before < enough
            });
            let kept = below.count().max(1);
            candidates.truncate(kept);
        }
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

/// `position`, from 0 to 1, along the weights laid end to end.
fn draw(candidates: &[(u32, f32)], position: f64) -> Option<u32> {
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
    fn histogram(options: SamplingOptions, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(options);
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.sample(&mut logits.to_vec()).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.5f32.ln(), 0.25f32.ln(), 0.25f32.ln()];
        let counts = histogram(SamplingOptions::default(), &logits, 8000);
        assert!(
            (3800..4200).contains(&counts[0]) && (1850..2150).contains(&counts[1]),
            "{counts:?}"
        );
    }

    #[test]
    fn options_limit_what_can_be_drawn() {
        let logits = [1.0, 3.0, 2.0, 0.0];
        let all = SamplingOptions { seed: 3, ..Default::default() };
        let table = [
            (SamplingOptions { temperature: 0.0, ..all }, vec![1]),
            (SamplingOptions { temperature: f32::NAN, ..all }, vec![1]),
            (SamplingOptions { top_k: Some(1), ..all }, vec![1]),
            (SamplingOptions { top_k: Some(2), ..all }, vec![1, 2]),
            (SamplingOptions { top_k: Some(0), ..all }, vec![1]),
            (SamplingOptions { top_p: 0.0, ..all }, vec![1]),
            (SamplingOptions { top_p: 0.7, ..all }, vec![1, 2]),
            (SamplingOptions { top_p: 1.0, ..all }, vec![0, 1, 2, 3]),
            (SamplingOptions { temperature: 0.01, ..all }, vec![1]),
        ];
        for (options, possible) in table {
            let counts = histogram(options, &logits, 2000);
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

    proptest! {
        #[test]
        fn a_draw_is_in_range_and_repeats_with_its_seed(
            logits in prop::collection::vec(prop::num::f32::ANY, 1..50),
            temperature in 0.0f32..3.0, top_p in 0.0f32..1.2, top_k in prop::option::of(0usize..60), seed: u64,
        ) {
            let options = SamplingOptions { temperature, top_p, top_k, seed };
            let draw = || Sampler::new(options).sample(&mut logits.clone()).ok();
            let possible = logits.iter().any(|logit| *logit > f32::NEG_INFINITY);
            prop_assert_eq!(draw().is_some(), possible);
            prop_assert!(draw().is_none_or(|token| (token as usize) < logits.len()));
            prop_assert_eq!(draw(), draw());
        }
    }
}
