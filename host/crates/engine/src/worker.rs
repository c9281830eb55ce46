//! The thread's loop: take requests in, let the scheduler plan a pass, compute it, hand out what came
//! of it.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tollgate_model::{BLOCK_TOKENS, Computed, Constraint, KvStore, Model, ModelError, Passes, Row};
use tollgate_scheduler::{self as scheduler, JobId, Next, Outcome, Prefixes, Scheduler, Step};

use crate::active::{Active, Did, refuse};
use crate::job::Job;
use crate::{End, EngineError, Shared};

/// How often an idle thread looks whether it should stop.
const IDLE_LOOK: Duration = Duration::from_millis(50);

/// What the thread owns.
pub(crate) struct Worker {
    model: Model,
    store: KvStore,
    scheduler: Scheduler,
    /// Everybody who waits or runs.
    active: BTreeMap<JobId, Active>,
    next_id: u64,
    /// What the scheduler's time counts from.
    origin: Instant,
    /// Positions that a sequence can have.
    context_length: usize,
    shared: Arc<Shared>,
}

/// What each row wants, in their order.
type Passed = Result<Vec<Computed>, ModelError>;

/// One sequence's part of a pass.
struct Part {
    id: JobId,
    start: usize,
    tokens: Vec<u32>,
    blocks: Vec<u32>,
    /// Whether it has the last token of what is read.
    samples: bool,
    /// What follows its tokens in the prompt, if it is to be told how likely that was, and how much.
    following: Option<(Vec<u32>, usize)>,
}

impl Worker {
    pub(crate) fn new(
        model: Model,
        store: KvStore,
        scheduler: Scheduler,
        shared: Arc<Shared>,
    ) -> Self {
        let room = store.blocks().saturating_mul(BLOCK_TOKENS);
        let context_length = model.info().context_length.min(room);
        let worker = Self {
            model,
            store,
            scheduler,
            active: BTreeMap::new(),
            next_id: 0,
            origin: Instant::now(),
            context_length,
            shared,
        };
        worker.report();
        worker
    }

    /// Positions that a sequence can have.
    pub(crate) fn context_length(&self) -> usize {
        self.context_length
    }

    /// Runs until every handle is dropped or the engine is to stop, and all requests have ended.
    pub(crate) fn run(mut self, queue: &Receiver<Job>) {
        loop {
            let stop = self.shared.stopping.load(Ordering::Acquire);
            let more_may_come = self.take_in(queue, self.active.is_empty() && !stop);
            if stop {
                self.active.values().for_each(Active::cancel);
            }
            self.let_go();
            if !self.active.is_empty() {
                self.step(|model, store, rows| model.forward_batch(store, rows));
            } else if stop || !more_may_come {
                return;
            }
        }
    }

    /// Takes what was submitted, after a short sleep if there is nothing else to do; whether more
    /// may come.
    fn take_in(&mut self, queue: &Receiver<Job>, idle: bool) -> bool {
        if idle {
            match queue.recv_timeout(IDLE_LOOK) {
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        loop {
            match queue.try_recv() {
                Ok(job) => self.take(job),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Puts a request before the scheduler, or ends it if it can never run.
    fn take(&mut self, job: Job) {
        self.next_id += 1;
        let id = JobId(self.next_id);
        let embedding = self.model.info().embedding.as_ref();
        let mut active = match Active::new(job, &self.model.tokenizer(), embedding) {
            Ok(active) => active,
            Err(refused) => {
                let (mut job, error) = *refused;
                self.shared.queued.fetch_sub(1, Ordering::AcqRel);
                let followers = std::mem::take(&mut job.followers);
                refuse(&job, error);
                return self.follow(followers);
            }
        };
        let submitted = self.plan(id, &mut active).and_then(|planned| {
            let refused = |error: scheduler::SubmitError| ModelError::Input(error.to_string());
            self.scheduler.submit(planned).map_err(refused)
        });
        if let Err(error) = submitted {
            self.shared.queued.fetch_sub(1, Ordering::AcqRel);
            let followers = active.take_followers();
            active.start();
            active.end(End::Failed(error.into()), &scheduler::Facts::default());
            self.follow(followers);
            return;
        }
        self.active.insert(id, active);
    }

    /// Takes those that waited until another one has read its prompt, or never will.
    fn follow(&mut self, followers: Vec<Job>) {
        for job in followers {
            if !job.placed {
                self.shared.queued.fetch_add(1, Ordering::AcqRel);
            }
            self.take(job);
        }
    }

    /// What the scheduler has to know of a request; why it cannot run, if so.
    fn plan(&self, id: JobId, active: &mut Active) -> Result<scheduler::Job, ModelError> {
        let info = self.model.info();
        let needs_all = active.needs_all() || info.passes != Passes::Shared;
        let job = active.job_mut();
        let (wanted, context_length) = (job.prompt.len(), self.context_length);
        let vocabulary = info.vocabulary;
        if wanted == 0 {
            return Err(ModelError::Input("the prompt has no token".to_owned()));
        }
        if wanted > context_length {
            return Err(ModelError::ContextExceeded { wanted, context_length });
        }
        if let Some(token) = job.prompt.iter().find(|token| **token as usize >= vocabulary) {
            let problem = format!("token {token} is outside the vocabulary of {vocabulary}");
            return Err(ModelError::Input(problem));
        }
        // What is sampled at the last position needs no position of its own.
        let room = context_length - wanted + 1;
        let arrived = job.submitted.saturating_duration_since(self.origin);
        Ok(scheduler::Job {
            id,
            prompt: std::mem::take(&mut job.prompt).into(),
            max_tokens: (job.max_tokens() as usize).clamp(1, room),
            tenant: job.tenant.clone(),
            priority: job.priority,
            arrived: nanos(arrived),
            prefixes: match &job.tenant {
                _ if needs_all => Prefixes::Unused,
                Some(tenant) => Prefixes::Within(Arc::clone(tenant)),
                None => Prefixes::Shared,
            },
        })
    }

    /// Ends those that were given up, wherever they are: their memory is free at once.
    fn let_go(&mut self) {
        loop {
            let given_up = self.active.iter().filter(|(_, active)| active.is_cancelled());
            let given_up: Vec<JobId> = given_up.map(|(id, _)| *id).collect();
            if given_up.is_empty() {
                break;
            }
            // Those that waited for them come next, and are given up too.
            for id in given_up {
                self.end(id, End::Cancelled);
            }
        }
        self.report();
    }

    /// One pass for all that run.
    fn step(&mut self, forward: impl FnOnce(&Model, &mut KvStore, &[Row<'_>]) -> Passed) {
        let step = self.scheduler.plan(self.now());
        self.let_in(&step);
        let mut parts = parts(step);
        for part in &mut parts {
            let active = self.active.get(&part.id);
            let count = part.tokens.len();
            part.following = active.and_then(|active| active.following(part.start, count));
        }
        let rows: Vec<Row<'_>> =
            parts.iter().map(|part| part.row(self.active.get(&part.id))).collect();
        let began = Instant::now();
        let (model, store) = (&self.model, &mut self.store);
        let constraints = constraints(&mut self.active, &parts);
        let passed = meanwhile(constraints, || caught(|| forward(model, store, &rows)));
        let (took, all) = (began.elapsed(), parts.iter().map(|part| part.tokens.len()).sum());
        for part in &parts {
            if let Some(active) = self.active.get_mut(&part.id) {
                active.charge(took, part.tokens.len(), all);
            }
        }
        match passed.and_then(|passed| passed.map_err(|error| EngineError::Pass(error.to_string())))
        {
            Ok(computed) => self.hand_out(&parts, computed),
            Err(error) => self.fail(&parts, &error),
        }
    }

    /// Tells whoever left the queue, once whoever asks gets the right numbers.
    fn let_in(&mut self, step: &Step) {
        self.shared.running.store(self.scheduler.running(), Ordering::Release);
        for admission in &step.admitted {
            if let Some(active) = self.active.get_mut(&admission.id) {
                if active.waits() {
                    self.shared.queued.fetch_sub(1, Ordering::AcqRel);
                }
                active.start();
            }
        }
        self.report();
    }

    /// Hands each what was computed for it; an error, or a panic, ends the one it happens to.
    fn hand_out(&mut self, parts: &[Part], computed: Vec<Computed>) {
        for (part, computed) in parts.iter().zip(computed) {
            let end = match caught(|| self.go_on(part, computed)) {
                Ok(end) => end,
                Err(error) => Some(End::Failed(error)),
            };
            let active = self.active.get_mut(&part.id).filter(|_| part.samples);
            let followers = active.map(Active::take_followers).unwrap_or_default();
            if let Some(end) = end {
                self.end(part.id, end);
            }
            self.follow(followers);
        }
    }

    /// Records what a pass was to a sequence; how it ends, if it does.
    fn go_on(&mut self, part: &Part, computed: Computed) -> Option<End> {
        let active = self.active.get_mut(&part.id)?;
        let did = active.take_in(part.start, part.samples, computed);
        let outcome = match &did {
            Did::Sampled(token) => Outcome::Sampled(*token),
            Did::Read | Did::Ended(_) => Outcome::Read,
        };
        let recorded = self.scheduler.record(part.id, outcome);
        match (did, recorded) {
            (Did::Ended(end @ End::Failed(_)), _) => Some(end),
            (_, Err(error)) => Some(End::Failed(EngineError::Pass(error.to_string()))),
            (Did::Ended(end), Ok(_)) => Some(end),
            (Did::Read, Ok(_)) => None,
            (Did::Sampled(token), Ok(next)) => active.write(token, next == Next::AtLimit),
        }
    }

    /// A pass came to nothing: whoever was in it ends, and nobody else.
    fn fail(&mut self, parts: &[Part], error: &EngineError) {
        for part in parts {
            let error = match error {
                EngineError::Panic(message) => EngineError::Panic(message.clone()),
                EngineError::Pass(message) => EngineError::Pass(message.clone()),
                EngineError::Model(error) => EngineError::Pass(error.to_string()),
            };
            self.end(part.id, End::Failed(error));
        }
    }

    fn end(&mut self, id: JobId, end: End) {
        let met = self.scheduler.remove(id, self.now()).unwrap_or_default();
        let Some(mut active) = self.active.remove(&id) else { return };
        if active.waits() {
            self.shared.queued.fetch_sub(1, Ordering::AcqRel);
        }
        if let End::Failed(error @ EngineError::Panic(_)) = &end {
            active.log().in_scope(|| tracing::error!(%error, "a sequence ended by a panic"));
        }
        self.report();
        let followers = active.take_followers();
        active.end(end, &met);
        self.follow(followers);
    }

    /// Lets the handles know.
    fn report(&self) {
        let blocks = self.scheduler.block_use();
        let shared = &self.shared;
        shared.running.store(self.scheduler.running(), Ordering::Release);
        shared.kv_total.store(blocks.total, Ordering::Release);
        shared.kv_held.store(blocks.held, Ordering::Release);
        shared.kv_cached.store(blocks.cached, Ordering::Release);
    }

    fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }
}

impl Part {
    fn row(&self, active: Option<&Active>) -> Row<'_> {
        let Self { start, tokens, blocks, samples, following, .. } = self;
        let wanted = active.map(|active| active.wanted(*samples, following.as_ref()));
        Row { blocks, start: *start, tokens, wanted: wanted.unwrap_or_default() }
    }
}

/// Everybody's part of a step.
fn parts(step: Step) -> Vec<Part> {
    let numbers = |blocks: Vec<scheduler::BlockId>| blocks.into_iter().map(|id| id.0).collect();
    let decodes = step.decodes.into_iter().map(|decode| Part {
        id: decode.id,
        start: decode.position,
        tokens: vec![decode.token],
        blocks: numbers(decode.blocks),
        samples: true,
        following: None,
    });
    let prefills = step.prefills.into_iter().map(|piece| Part {
        id: piece.id,
        start: piece.start,
        tokens: piece.tokens,
        blocks: numbers(piece.blocks),
        samples: piece.samples,
        following: None,
    });
    decodes.chain(prefills).collect()
}

/// What those are held to who will sample after this pass.
fn constraints<'a>(
    active: &'a mut BTreeMap<JobId, Active>,
    parts: &[Part],
) -> Vec<&'a mut Constraint> {
    let samples = |id: &JobId| parts.iter().any(|part| part.id == *id && part.samples);
    let sampling = active.iter_mut().filter(|(id, _)| samples(id));
    sampling.filter_map(|(_, active)| active.constraint_mut()).collect()
}

/// Computes a pass, and meanwhile, on the threads that compute it too, which tokens may come after it.
/// What goes wrong there is found out again when they are chosen.
fn meanwhile<T>(constraints: Vec<&mut Constraint>, pass: impl FnOnce() -> T) -> T {
    if constraints.is_empty() {
        return pass();
    }
    rayon::in_place_scope(|scope| {
        for constraint in constraints {
            scope.spawn(move |_| {
                if let Err(error) = caught(|| constraint.prepare()) {
                    tracing::debug!(%error, "which tokens may come next is not known yet");
                }
            });
        }
        pass()
    })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What `run` returns, or its panic as an error.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| EngineError::Panic(message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
