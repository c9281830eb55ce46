//! The families of the semantic conventions for generative AI: duration, time to first token, time
//! per output token and token usage, with the conventions' attributes.
//!
//! The two times are of requests answered whole, as the conventions say. Tokens that are an
//! estimate are not reported, which the conventions forbid.

use std::sync::Arc;

use tollgate_domain::usage::UsageSource;
use tollgate_domain::{Outcome, Record};
use tollgate_telemetry::error_type;
use tollgate_telemetry::metrics::names::gen_ai::{
    REQUEST_DURATION, TIME_PER_OUTPUT_TOKEN, TIME_TO_FIRST_TOKEN, TOKEN_TYPE, TOKEN_USAGE,
};
use tollgate_telemetry::metrics::{Distribution, Family, Snapshot};
use tollgate_telemetry::names::{gen_ai, http};

use super::bounded::Bounded;
use super::requests::Ended;
use super::{OTHER, double};
use crate::request::IN_PROCESS;

/// Most series of durations, each with an `error.type` or without.
pub(super) const DURATIONS: usize = 500;
/// Most series of everything else.
pub(super) const ANSWERS: usize = 300;

#[derive(Debug)]
pub(super) struct Conventions {
    durations: Bounded<(Attributes, &'static str), Distribution>,
    answers: Bounded<Attributes, Answers>,
}

/// What all families have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attributes {
    operation: &'static str,
    provider: Arc<str>,
    request_model: Arc<str>,
    /// Empty if none answered.
    response_model: Arc<str>,
}

#[derive(Debug)]
struct Answers {
    first_token: Distribution,
    output_token: Distribution,
    input: Distribution,
    output: Distribution,
}

impl Default for Conventions {
    fn default() -> Self {
        Self { durations: Bounded::new(DURATIONS), answers: Bounded::new(ANSWERS) }
    }
}

impl Conventions {
    pub(super) fn count(&self, ended: &Ended<'_>) {
        let record = ended.record;
        let attributes = Attributes::of(ended);
        let failed = error_type(&record.outcome).unwrap_or_default();
        let key = (attributes.clone(), failed);
        let new = || Distribution::new(REQUEST_DURATION.bounds);
        self.durations.update(
            key,
            |(key, error)| (key.others(), error),
            new,
            |seen| {
                let length = record.phases.request.length().as_secs_f64();
                seen.observe_in(length, &record.trace, record.phases.request.end);
            },
        );
        if ended.served.is_some() {
            let seen = |seen: &mut Answers| seen.count(record);
            self.answers.update(attributes, Attributes::others, Answers::new, seen);
        }
    }

    pub(super) fn families(&self, to: &mut Snapshot) {
        let mut durations = Family::of(&REQUEST_DURATION);
        self.durations.each(|(attributes, error), seen| {
            let [operation, provider, asked, answered] = attributes.labels();
            let error = (http::ERROR_TYPE, *error);
            durations.add([operation, provider, asked, answered, error], seen.histogram());
        });
        let mut first = Family::of(&TIME_TO_FIRST_TOKEN);
        let mut each = Family::of(&TIME_PER_OUTPUT_TOKEN);
        let mut usage = Family::of(&TOKEN_USAGE);
        self.answers.each(|attributes, seen| {
            let labels = attributes.labels();
            let [operation, provider, asked, answered] = labels;
            add_if_any(&mut first, labels, &seen.first_token);
            add_if_any(&mut each, labels, &seen.output_token);
            for (kind, seen) in [("input", &seen.input), ("output", &seen.output)] {
                let labels = [operation, provider, asked, answered, (TOKEN_TYPE, kind)];
                add_if_any(&mut usage, labels, seen);
            }
        });
        to.histograms.extend([durations, first, each, usage]);
    }
}

impl Attributes {
    fn of(ended: &Ended<'_>) -> Self {
        let served = ended.served.as_ref();
        Self {
            operation: ended.record.operation.name(),
            // Whoever turned a request away is the gateway itself.
            provider: served.map_or_else(|| IN_PROCESS.into(), |by| Arc::clone(&by.provider)),
            request_model: Arc::clone(&ended.asked),
            response_model: served.map_or_else(Arc::default, |by| Arc::clone(&by.model)),
        }
    }

    fn others(self) -> Self {
        let other: Arc<str> = OTHER.into();
        let (provider, request_model) = (Arc::clone(&other), Arc::clone(&other));
        Self { provider, request_model, response_model: other, ..self }
    }

    fn labels(&self) -> [(&'static str, &str); 4] {
        [
            (gen_ai::OPERATION_NAME, self.operation),
            (gen_ai::PROVIDER_NAME, &self.provider),
            (gen_ai::REQUEST_MODEL, &self.request_model),
            (gen_ai::RESPONSE_MODEL, &self.response_model),
        ]
    }
}

impl Answers {
    fn new() -> Self {
        Self {
            first_token: Distribution::new(TIME_TO_FIRST_TOKEN.bounds),
            output_token: Distribution::new(TIME_PER_OUTPUT_TOKEN.bounds),
            input: Distribution::new(TOKEN_USAGE.bounds),
            output: Distribution::new(TOKEN_USAGE.bounds),
        }
    }

    fn count(&mut self, record: &Record) {
        let (phases, place, at) = (&record.phases, &record.trace, record.phases.request.end);
        let Some(usage) = &record.usage else { return };
        if usage.source != UsageSource::Estimated {
            self.input.observe_in(double(usage.tokens.input), place, at);
            self.output.observe_in(double(usage.tokens.output), place, at);
        }
        let Outcome::Completed { .. } = record.outcome else { return };
        let Some(first) = phases.first_token else { return };
        let waited = first.since(phases.request.start).as_secs_f64();
        self.first_token.observe_in(waited, place, at);
        let last = phases.decode.map(|decode| decode.end);
        if let (Some(last), 2..) = (last, usage.tokens.output) {
            let each = last.since(first).as_secs_f64() / double(usage.tokens.output - 1);
            self.output_token.observe_in(each, place, at);
        }
    }
}

/// A series that nothing was seen of is not there yet.
fn add_if_any<const N: usize>(
    family: &mut Family<tollgate_telemetry::metrics::Histogram>,
    labels: [(&'static str, &str); N],
    seen: &Distribution,
) {
    let histogram = seen.histogram();
    if histogram.count() > 0 {
        family.add(labels, histogram);
    }
}
