//! Taps the choices that the model in this process makes of one prompt.

use std::time::{Duration, Instant};

use tollgate_domain::record::{EngineFacts, FinishReason};
use tollgate_domain::time::nanos;
use tollgate_domain::usage::{ComputeUsage, UsageSource};
use tollgate_domain::{ErrorKind, TokenUsage};
use tollgate_engine::{End, EngineError, Event, Facts, ModelError, TokenLogprobs};

use crate::call::{AnswerEvent, Refusal};
use crate::local::Working;
use crate::piece::{Piece, TokenTold};
use crate::tap::{Response, Tap, Tapped, Times};

/// Passes the choices on until all have ended or the client is gone. Then they are cancelled, and
/// what they used so far is asked for. What a piece took is noted before the piece goes out, so that a
/// killed process has billed what its clients have.
pub(crate) async fn run(working: Working, tap: Tap<'_>) -> Tapped {
    let choices = working.reads.iter().map(|reads| Choice { reads: *reads, ..Choice::default() });
    let choices = choices.collect();
    let mut tapping = Tapping {
        working,
        tap,
        choices,
        times: Times::default(),
        prompt: Vec::new(),
        failure: None,
        client_is_here: true,
    };
    loop {
        let told = tokio::select! {
            told = tapping.working.choices.next() => told,
            () = tapping.tap.pieces.closed(), if tapping.client_is_here => {
                tapping.give_up();
                continue;
            }
        };
        match told {
            None => break,
            Some((choice, Some(event))) => tapping.take(choice, event).await,
            Some((_, None)) => {
                tapping.fail(Refusal::new(ErrorKind::Internal, "The engine stopped."));
            }
        }
    }
    tapping.tapped()
}

/// What is known of the choices so far.
struct Tapping<'a> {
    working: Working,
    tap: Tap<'a>,
    choices: Vec<Choice>,
    times: Times,
    /// The tokens of the prompt, if it is asked how likely they were.
    prompt: Vec<TokenTold>,
    /// The first failure of any.
    failure: Option<Refusal>,
    client_is_here: bool,
}

#[derive(Clone, Copy, Default)]
struct Choice {
    /// Tokens that it reads.
    reads: u64,
    /// Whether it has read them.
    has_read: bool,
    /// Whether it is whole.
    whole: bool,
    output_tokens: u64,
    device_time: Duration,
    facts: Facts,
    reason: Option<FinishReason>,
}

impl Tapping<'_> {
    async fn take(&mut self, number: usize, event: Event) {
        match event {
            Event::Started { at } => earliest(&mut self.times.started, at),
            Event::Prefilled { at, prompt } => {
                if let Some(choice) = self.choices.get_mut(number) {
                    choice.has_read = true;
                }
                if self.working.writes {
                    earliest(&mut self.times.prefilled, at);
                }
                self.progress();
                if !prompt.is_empty() {
                    let first = self.working.first;
                    let first = first.map(|id| TokenTold::first(id, &self.working.tokenizer));
                    self.prompt = first.into_iter().chain(self.told(&prompt)).collect();
                }
                let (echo, prompt) = (self.working.echo.clone(), self.prompt.clone());
                if echo.is_some() || !prompt.is_empty() {
                    let text = echo.unwrap_or_default();
                    self.pass(Piece { choice: number, text, prompt, ..Piece::default() }).await;
                }
            }
            Event::Text { text, output_tokens, logprobs, at } => {
                earliest(&mut self.times.first_text, at);
                self.wrote(number, output_tokens);
                self.progress();
                if let Some(content) = self.tap.content {
                    content.answered(number, &text);
                }
                let tokens = self.told(&logprobs);
                self.pass(Piece { choice: number, text, tokens, ..Piece::default() }).await;
            }
            Event::Ended { end, output_tokens, logprobs, device_time, facts, at } => {
                self.times.ended = self.times.ended.max(Some(at));
                self.wrote(number, output_tokens);
                if let Some(choice) = self.choices.get_mut(number) {
                    (choice.device_time, choice.facts) = (device_time, facts);
                }
                self.ended(number, end, &logprobs).await;
            }
        }
    }

    async fn ended(&mut self, number: usize, end: End, logprobs: &[TokenLogprobs]) {
        match end {
            End::Finished(reason) => {
                if let Some(choice) = self.choices.get_mut(number) {
                    (choice.reason, choice.whole) = (Some(reason), true);
                }
                let (tokens, finish_reason) = (self.told(logprobs), Some(reason));
                self.pass(Piece { choice: number, tokens, finish_reason, ..Piece::default() })
                    .await;
            }
            End::Embedded(vector) => {
                if let Some(choice) = self.choices.get_mut(number) {
                    choice.whole = true;
                }
                let embedding = Some(vector);
                self.pass(Piece { choice: number, embedding, ..Piece::default() }).await;
            }
            End::Failed(EngineError::Model(ModelError::Schema(problem))) => {
                let message = format!(
                    "The answer cannot be held to its schema any further: {problem}. Ask with a simpler one."
                );
                let refusal = Refusal::new(ErrorKind::InvalidRequest, message);
                self.fail(refusal.param("response_format"));
            }
            End::Failed(error) => {
                tracing::error!(%error, "generation failed");
                let message = "The model failed while answering.";
                self.fail(Refusal::new(ErrorKind::Internal, message));
            }
            // We cancelled because the client left or another choice failed; else the engine did, to
            // shut down.
            End::Cancelled if self.client_is_here && self.failure.is_none() => {
                let message = "The gateway shut down while answering.";
                self.fail(Refusal::new(ErrorKind::ShuttingDown, message));
            }
            End::Cancelled => {}
        }
    }

    /// Hands a piece to the client, if it is still here.
    async fn pass(&mut self, piece: Piece) {
        let wanted = self.client_is_here && self.failure.is_none();
        if wanted && !self.tap.pass(AnswerEvent::Piece(piece)).await {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.client_is_here = false;
        self.working.choices.cancel();
    }

    /// One choice that fails ends them all: the answer cannot become whole.
    fn fail(&mut self, refusal: Refusal) {
        self.failure.get_or_insert(refusal);
        self.working.choices.cancel();
    }

    fn wrote(&mut self, number: usize, output_tokens: u32) {
        if let Some(choice) = self.choices.get_mut(number) {
            choice.output_tokens = output_tokens.into();
        }
    }

    /// The prompt was read, and so much written.
    fn progress(&self) {
        self.tap.ticket.progress(self.input_tokens(), self.output_tokens());
    }

    /// Tokens of what was read: a prompt that the model never got to read used nothing.
    fn input_tokens(&self) -> u64 {
        let read = self.choices.iter().filter(|choice| choice.has_read);
        read.map(|choice| choice.reads).sum()
    }

    fn output_tokens(&self) -> u64 {
        self.choices.iter().map(|choice| choice.output_tokens).sum()
    }

    fn told(&self, logprobs: &[TokenLogprobs]) -> Vec<TokenTold> {
        logprobs.iter().map(|told| TokenTold::new(told, &self.working.tokenizer)).collect()
    }

    fn tapped(self) -> Tapped {
        let met = met(&self.choices);
        let tokens = TokenUsage {
            input: self.input_tokens(),
            output: self.output_tokens(),
            input_cache_read: u64::from(met.cached_tokens).min(self.input_tokens()),
            ..TokenUsage::default()
        };
        let reasons: Vec<FinishReason> =
            self.choices.iter().filter_map(|choice| choice.reason).collect();
        let all = self.choices.iter().all(|choice| choice.whole);
        Tapped {
            // A client that left, if only in the last moment, has not seen the end.
            whole: self.client_is_here && self.failure.is_none() && all,
            served: true,
            reasons,
            failure: self.failure,
            tokens,
            source: UsageSource::Reported,
            compute: Some(computed(&self.choices, &self.working.device)),
            engine: Some(met),
            times: self.times,
            response: Response::default(),
            rest: Default::default(),
        }
    }
}

/// What several choices took of the device. They mostly ride in the same passes, which are counted as
/// those of the choice that was in most of them.
fn computed(choices: &[Choice], device: &str) -> ComputeUsage {
    let device_time: Duration = choices.iter().map(|choice| choice.device_time).sum();
    let passes = choices.iter().map(|choice| choice.facts.pass_time).max().unwrap_or_default();
    let share = device_time.as_nanos().saturating_mul(1_000_000).checked_div(passes.as_nanos());
    let share = share.map_or(0, |share| u32::try_from(share).unwrap_or(u32::MAX));
    ComputeUsage {
        device: device.to_owned(),
        device_time_nanos: nanos(device_time),
        share_ppm: share.min(1_000_000),
        energy_millijoules: None,
    }
}

/// The engine's facts of all choices, as they go on record.
fn met(choices: &[Choice]) -> EngineFacts {
    let mut met = EngineFacts::default();
    let mut batches = 0;
    for Choice { facts, reads, .. } in choices {
        if *reads > 0 {
            // The others find what the first one has read, which was not there before the request.
            met.cached_tokens = met.cached_tokens.saturating_add(facts.cached_tokens);
        }
        met.prefill_chunks = met.prefill_chunks.saturating_add(facts.chunks);
        met.passes = met.passes.saturating_add(facts.passes);
        batches += facts.batch_sum;
        met.batch_max = met.batch_max.max(facts.batch_max);
        met.kv_blocks_peak = met.kv_blocks_peak.max(facts.kv_blocks_peak);
        met.preemptions = met.preemptions.saturating_add(facts.preemptions);
        met.recomputed_tokens = met.recomputed_tokens.saturating_add(facts.recomputed_tokens);
        met.requeued_nanos = met.requeued_nanos.saturating_add(nanos(facts.requeued));
    }
    met.batch_mean =
        Facts { batch_sum: batches, passes: met.passes, ..Facts::default() }.batch_mean();
    met
}

fn earliest(known: &mut Option<Instant>, at: Instant) {
    *known = Some(known.map_or(at, |known| known.min(at)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_choices_are_added_up_and_the_prompt_counts_once() {
        let choice = |reads, cached_tokens, passes, batch_sum, millis| Choice {
            reads,
            has_read: true,
            whole: true,
            output_tokens: 5,
            device_time: Duration::from_millis(millis),
            facts: Facts {
                cached_tokens,
                chunks: 1,
                passes,
                batch_sum,
                batch_max: 3,
                kv_blocks_peak: 4,
                pass_time: Duration::from_millis(100),
                ..Facts::default()
            },
            reason: Some(FinishReason::Stop),
        };
        let choices = [choice(100, 16, 6, 12, 30), choice(0, 96, 4, 12, 40)];
        let met = met(&choices);
        assert_eq!((met.cached_tokens, met.prefill_chunks, met.passes), (16, 2, 10));
        assert_eq!((met.batch_max, met.kv_blocks_peak), (3, 4));
        assert!((met.batch_mean - 2.4).abs() < 1e-9);
        let computed = computed(&choices, "cpu");
        assert_eq!((computed.device_time_nanos, computed.share_ppm), (70_000_000, 700_000));
        let alone = super::computed(&[Choice::default()], "cpu");
        assert_eq!((alone.device_time_nanos, alone.share_ppm), (0, 0), "it never ran");
        let after = [choice(9, 0, 6, 12, 100), choice(9, 0, 6, 12, 100)];
        assert_eq!(super::computed(&after, "cpu").share_ppm, 1_000_000, "one after another");
    }
}
