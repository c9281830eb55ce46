//! How long a plugin takes, how many instructions it runs, and what crosses.
//!
//! Times are of the whole path: lowering, the call, lifting, and the checks of the answer. Instructions are wasmtime's fuel,
//! counted by a second engine, and the same on every machine. Bytes in are what the contract's types take in the guest's
//! memory; bytes out are the least budget under which the host takes the answer.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tollgate_domain::{Span, Usage};
use wasmtime::component::ComponentType;

use super::{Case, Workshop, configure, open, set_of};
use crate::bindings::{cost_model, types};
use crate::calls::BatchContext;
use crate::engine::Runtime;
use crate::error::{CallFault, PluginHostError};
use crate::limits::{Limits, PluginHostSettings};
use crate::lower::LoweredSpans;
use crate::role::Role;
use crate::set::PluginSet;

/// Items in one call.
const BATCHES: [usize; 3] = [1, 8, 64];
const LEAST_CALLS: usize = 50;
const MOST_CALLS: usize = 20_000;
const LONGEST: Duration = Duration::from_millis(500);
const STARTS: usize = 20;

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Measures {
    /// One for each role and size of batch. A cost model is asked for one request at a time, so it has one.
    pub calls: Vec<Measured>,
    /// The median start of an instance, configured.
    pub start: Duration,
}

/// One role at one size of batch, for each item of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What the plugin was asked as.
    pub role: Role,
    /// Items in one call.
    pub batch: usize,
    /// Nanoseconds an item, the median.
    pub p50_ns: u64,
    /// Nanoseconds an item, in the slowest call of a hundred.
    pub p99_ns: u64,
    /// Instructions an item.
    pub fuel: u64,
    /// Bytes into the plugin an item.
    pub bytes_in: u64,
    /// Bytes out of the plugin an item.
    pub bytes_out: u64,
}

/// What is asked in one call.
enum Work<'a> {
    Price(&'a Usage),
    Enrich(Vec<Span>),
    Filter(Vec<Span>),
}

pub(super) fn run(
    workshop: &Workshop,
    config: &str,
    case: Option<&Case>,
) -> Result<Measures, PluginHostError> {
    let made_up = Case::made_up();
    let case = case.unwrap_or(&made_up);
    let limits = workshop.limits();
    let mut starts = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let began = Instant::now();
        configure(&workshop.opened, limits.clone(), config)?;
        starts.push(began.elapsed());
    }
    starts.sort();
    let bench = Bench::new(workshop, config, case)?;
    let mut calls = Vec::new();
    for role in &workshop.about.roles {
        for batch in BATCHES {
            let Some(work) = work(*role, case, batch) else { continue };
            calls.push(bench.measure(*role, batch, &work)?);
        }
    }
    Ok(Measures { calls, start: starts.get(STARTS / 2).copied().unwrap_or_default() })
}

/// As many items as a batch has, taken from the case in turn; none if it has none.
fn work(role: Role, case: &Case, batch: usize) -> Option<Work<'_>> {
    let spans = || -> Option<Vec<Span>> {
        let spans: Vec<Span> = case.spans.iter().cycle().take(batch).cloned().collect();
        (!spans.is_empty()).then_some(spans)
    };
    match role {
        Role::CostModel if batch > 1 => None,
        Role::CostModel => case.usages.first().map(Work::Price),
        Role::AttributeEnricher => spans().map(Work::Enrich),
        Role::ExportFilter => spans().map(Work::Filter),
    }
}

struct Bench<'a> {
    workshop: &'a Workshop,
    config: &'a str,
    case: &'a Case,
    timed: PluginSet,
    counted: PluginSet,
    counting: Runtime,
}

impl<'a> Bench<'a> {
    fn new(
        workshop: &'a Workshop,
        config: &'a str,
        case: &'a Case,
    ) -> Result<Self, PluginHostError> {
        // Counting slows a guest down, and must not push it past its deadline.
        let patient =
            Limits { deadline_call: Duration::from_secs(10), ..workshop.limits().clone() };
        let settings =
            PluginHostSettings { limits: patient.clone(), ..PluginHostSettings::new("") };
        let counting = Runtime::start_counting(&settings)?;
        let opened = open(&counting, &workshop.about.plugin.name, &workshop.content)?;
        Ok(Self {
            workshop,
            config,
            case,
            timed: set_of(&workshop.opened, workshop.limits().clone(), config)?,
            counted: set_of(&opened, patient, config)?,
            counting,
        })
    }

    fn measure(
        &self,
        role: Role,
        batch: usize,
        work: &Work<'_>,
    ) -> Result<Measured, PluginHostError> {
        let failed = |source| PluginHostError::Trial { role: role.name(), source };
        let (p50, p99) = self.time(work).map_err(failed)?;
        // The first call may set something up.
        for _ in 0..2 {
            self.ask(&self.counted, work).map_err(failed)?;
        }
        let fuel = self.counting.fuel.as_ref().map_or(0, |fuel| fuel.load(Ordering::Relaxed));
        let items = u64::try_from(batch).unwrap_or(1).max(1);
        Ok(Measured {
            role,
            batch,
            p50_ns: p50 / items,
            p99_ns: p99 / items,
            fuel: fuel / items,
            bytes_in: self.bytes_in(work) / items,
            bytes_out: self.bytes_out(work) / items,
        })
    }

    /// Nanoseconds of the median call and of the slowest in a hundred.
    fn time(&self, work: &Work<'_>) -> Result<(u64, u64), CallFault> {
        let mut samples = Vec::new();
        let began = Instant::now();
        while samples.len() < LEAST_CALLS
            || (samples.len() < MOST_CALLS && began.elapsed() < LONGEST)
        {
            samples.push(self.ask(&self.timed, work)?);
        }
        samples.sort();
        let at = |percent: usize| {
            let sample = samples.get(samples.len() * percent / 100).copied().unwrap_or_default();
            u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX)
        };
        Ok((at(50), at(99)))
    }

    /// One call, and how long it took; what is copied for it is not counted.
    fn ask(&self, set: &PluginSet, work: &Work<'_>) -> Result<Duration, CallFault> {
        let (tenant, resource) = (self.case.tenant.as_deref(), &self.case.resource);
        let (faults, took) = match work {
            Work::Price(usage) => {
                let began = Instant::now();
                let outcome = set.price(tenant, usage);
                let took = began.elapsed();
                match outcome {
                    tollgate_domain::CostOutcome::PluginFailed(fault) => (vec![fault], took),
                    _ => (Vec::new(), took),
                }
            }
            Work::Enrich(spans) => {
                let mut spans = spans.clone();
                let began = Instant::now();
                (set.enrich(tenant, resource, &mut spans), began.elapsed())
            }
            Work::Filter(spans) => {
                let spans = spans.clone();
                let began = Instant::now();
                (set.filter(&self.case.exporter, tenant, resource, spans).faults, began.elapsed())
            }
        };
        match faults.into_iter().next() {
            Some(fault) => Err(CallFault::new(fault.kind, fault.message)),
            None => Ok(took),
        }
    }

    fn bytes_in(&self, work: &Work<'_>) -> u64 {
        let limits = self.workshop.limits();
        let tenant = self.case.tenant.as_ref().map_or(0, String::len);
        let bytes = match work {
            Work::Price(usage) => cost_model::PriceContext::SIZE32 + tenant + usage_bytes(usage),
            Work::Enrich(spans) | Work::Filter(spans) => {
                let reads = &self.workshop.opened.described.reads;
                let mut lowered =
                    LoweredSpans::new(&self.case.resource, reads, limits, spans.len());
                spans.iter().for_each(|span| lowered.push(span, reads, limits));
                let exporter =
                    if matches!(work, Work::Filter(_)) { self.case.exporter.len() } else { 0 };
                BatchContext::SIZE32 + tenant + exporter + lowered_bytes(&lowered)
            }
        };
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The least budget that lets the answer through.
    fn bytes_out(&self, work: &Work<'_>) -> u64 {
        let passes = |result_bytes: usize| {
            let limits = Limits { result_bytes, ..self.workshop.limits().clone() };
            let set = set_of(&self.workshop.opened, limits, self.config);
            set.is_ok_and(|set| self.ask(&set, work).is_ok())
        };
        if passes(0) {
            return 0;
        }
        let (mut refused, mut passed) = (0, self.workshop.limits().result_bytes);
        while passed - refused > 1 {
            let middle = refused + (passed - refused) / 2;
            if passes(middle) { passed = middle } else { refused = middle }
        }
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

fn usage_bytes(usage: &Usage) -> usize {
    let texts = [&usage.provider, &usage.request_model, &usage.response_model, &usage.operation];
    let units = usage.units.iter().map(|u| cost_model::UnitUsage::SIZE32 + u.unit.len());
    cost_model::Usage::SIZE32
        + texts.into_iter().map(String::len).sum::<usize>()
        + usage.service_tier.as_ref().map_or(0, String::len)
        + usage.compute.as_ref().map_or(0, |compute| compute.device.len())
        + units.sum::<usize>()
}

fn lowered_bytes(lowered: &LoweredSpans) -> usize {
    let (batch, context) = (lowered.batch(), lowered.context(None, None, 0));
    batch.spans.0.len() * types::Span::SIZE32
        + (batch.slots.0.len() + context.resource_attributes.0.len()) * types::Slot::SIZE32
        + context.keys.0.len() * types::TextRef::SIZE32
        + batch.arena.len()
        + context.arena.len()
}
