//! What vLLM tells of its engine, told of ours under vLLM's names where it means the same, by the
//! model that served. What vLLM counts otherwise, or we do not know, is not here.

use std::sync::Arc;

use tollgate_domain::record::{FinishReason, Phases};
use tollgate_domain::{Outcome, Record, TokenUsage, UnixNanos};
use tollgate_telemetry::metrics::names::{Name, vllm};
use tollgate_telemetry::metrics::{Distribution, Family, Snapshot};

use super::bounded::Bounded;
use super::requests::{Ended, MODELS};
use super::{OTHER, double};

/// How much an engine has to do at the moment.
pub(crate) struct EngineLoad<'a> {
    /// The model that it runs.
    pub(crate) model: &'a str,
    pub(crate) running: usize,
    pub(crate) waiting: usize,
}

impl<'a> EngineLoad<'a> {
    pub(crate) fn of(engine: &'a tollgate_engine::Engine) -> Self {
        let (running, waiting) = (engine.running(), engine.queued());
        Self { model: &engine.info().name, running, waiting }
    }
}

pub(super) fn of_load(engines: &[EngineLoad<'_>], to: &mut Snapshot) {
    let mut running = Family::of(&vllm::REQUESTS_RUNNING);
    let mut waiting = Family::of(&vllm::REQUESTS_WAITING);
    for engine in engines {
        let model = [(vllm::MODEL_NAME, engine.model)];
        running.add(model, double(engine.running as u64));
        waiting.add(model, double(engine.waiting as u64));
    }
    to.gauges.extend([running, waiting]);
}

/// By the model that served.
#[derive(Debug)]
pub(super) struct Engines(Bounded<Arc<str>, Engine>);

#[derive(Debug)]
struct Engine {
    prompt_tokens: u64,
    cached_tokens: u64,
    generation_tokens: u64,
    /// By `finished_reason`.
    ended: [(&'static str, u64); 4],
    seen: [Distribution; HISTOGRAMS.len()],
}

/// In the order in which [`values`] gives them.
const HISTOGRAMS: [&Name; 9] = [
    &vllm::REQUEST_PROMPT_TOKENS,
    &vllm::REQUEST_GENERATION_TOKENS,
    &vllm::TIME_TO_FIRST_TOKEN,
    &vllm::TIME_PER_OUTPUT_TOKEN,
    &vllm::E2E_LATENCY,
    &vllm::QUEUE_TIME,
    &vllm::INFERENCE_TIME,
    &vllm::PREFILL_TIME,
    &vllm::DECODE_TIME,
];

impl Default for Engines {
    fn default() -> Self {
        Self(Bounded::new(MODELS))
    }
}

impl Engines {
    pub(super) fn count(&self, ended: &Ended<'_>) {
        let record = ended.record;
        let (Some(served), Some(usage)) = (&ended.served, &record.usage) else { return };
        let Some(reason) = finished_reason(&record.outcome) else { return };
        let tokens = &usage.tokens;
        self.0.update(
            Arc::clone(&served.model),
            |_| OTHER.into(),
            Engine::new,
            |engine| {
                engine.count(record, tokens, reason);
            },
        );
    }

    pub(super) fn families(&self, to: &mut Snapshot) {
        let mut prompt = Family::of(&vllm::PROMPT_TOKENS);
        let mut cached = Family::of(&vllm::PROMPT_TOKENS_CACHED);
        let mut generation = Family::of(&vllm::GENERATION_TOKENS);
        let mut success = Family::of(&vllm::REQUEST_SUCCESS);
        let mut histograms = HISTOGRAMS.map(Family::of);
        self.0.each(|model, engine| {
            let model = (vllm::MODEL_NAME, &**model);
            prompt.add([model], engine.prompt_tokens);
            cached.add([model], engine.cached_tokens);
            generation.add([model], engine.generation_tokens);
            for (reason, count) in engine.ended {
                success.add([model, (vllm::FINISHED_REASON, reason)], count);
            }
            for (family, seen) in histograms.iter_mut().zip(&engine.seen) {
                family.add([model], seen.histogram());
            }
        });
        to.counters.extend([prompt, cached, generation, success]);
        to.histograms.extend(histograms);
    }
}

impl Engine {
    fn new() -> Self {
        Self {
            prompt_tokens: 0,
            cached_tokens: 0,
            generation_tokens: 0,
            ended: ["stop", "length", "abort", "error"].map(|reason| (reason, 0)),
            seen: HISTOGRAMS.map(|name| Distribution::new(name.bounds)),
        }
    }

    fn count(&mut self, record: &Record, tokens: &TokenUsage, reason: &'static str) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(tokens.input);
        self.cached_tokens = self.cached_tokens.saturating_add(tokens.input_cache_read);
        self.generation_tokens = self.generation_tokens.saturating_add(tokens.output);
        if let Some((_, count)) = self.ended.iter_mut().find(|(known, _)| *known == reason) {
            *count += 1;
        }
        let values = values(&record.phases, tokens);
        for (seen, value) in self.seen.iter_mut().zip(values) {
            if let Some(value) = value {
                seen.observe_in(value, &record.trace, record.phases.request.end);
            }
        }
    }
}

/// What each histogram sees of a request; nothing of a phase that was not reached.
fn values(phases: &Phases, tokens: &TokenUsage) -> [Option<f64>; HISTOGRAMS.len()] {
    let arrived = phases.request.start;
    let since = |start: UnixNanos, end: UnixNanos| end.since(start).as_secs_f64();
    let decode = phases.decode.map(|decode| decode.length().as_secs_f64());
    let later = tokens.output.checked_sub(1).filter(|later| *later > 0);
    let last_token = phases.decode.or(phases.prefill).or(phases.queue).map(|phase| phase.end);
    [
        Some(double(tokens.input)),
        Some(double(tokens.output)),
        phases.first_token.map(|first| since(arrived, first)),
        decode.zip(later).map(|(decode, later)| decode / double(later)),
        last_token.map(|last| since(arrived, last)),
        phases.queue.map(|queue| queue.length().as_secs_f64()),
        phases.prefill.zip(last_token).map(|(prefill, last)| since(prefill.start, last)),
        phases.prefill.map(|prefill| prefill.length().as_secs_f64()),
        decode,
    ]
}

/// vLLM's word for how a request ended that its engine had.
fn finished_reason(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Completed { reason: Some(FinishReason::Length) } => Some("length"),
        Outcome::Completed { .. } => Some("stop"),
        Outcome::ClientGone => Some("abort"),
        Outcome::Failed { .. } => Some("error"),
        // vLLM's own counts end with its process.
        Outcome::Aborted | Outcome::Refused { .. } => None,
    }
}
