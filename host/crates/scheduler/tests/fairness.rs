//! Who is served when there is more to do than can be done: simulations from fixed seeds. The checks of each call are in `common`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{STEP, World};
use tollgate_scheduler::{Job, JobId, Prefixes, SchedulerOptions, Step, SubmitError, Tenant};

const OPTIONS: SchedulerOptions = SchedulerOptions {
    block_tokens: 4,
    blocks: 256,
    max_step_tokens: 32,
    max_running: 6,
    max_queued: 64,
    aging: 50 * STEP,
};

/// The longest prompt and answer of the simulations.
const PROMPT: u64 = 60;
const ANSWER: u64 = 24;

/// Numbers from a seed (xorshift64*).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn job(&mut self, tenant: &str, prompt: u64, answer: u64) -> Job {
        let length = 1 + self.below(prompt);
        let prompt = (0..length).map(|_| self.below(1000) as u32).collect();
        job(tenant, prompt, 1 + self.below(answer) as usize)
    }
}

fn job(tenant: &str, prompt: Arc<[u32]>, max_tokens: usize) -> Job {
    let (id, tenant) = (JobId(0), Some(Arc::from(tenant)));
    Job { id, prompt, max_tokens, tenant, priority: 0, arrived: 0, prefixes: Prefixes::Unused }
}

/// Tokens that were computed for each tenant, a sampled one counted twice.
#[derive(Default)]
struct Served(BTreeMap<Tenant, u64>);

impl Served {
    fn add(&mut self, world: &World, step: &Step) {
        let decodes = step.decodes.iter().map(|decode| (decode.id, 2));
        let read = |samples: bool, tokens: usize| tokens as u64 + 2 * u64::from(samples);
        let prefills = step.prefills.iter().map(|p| (p.id, read(p.samples, p.tokens.len())));
        for (id, tokens) in decodes.chain(prefills) {
            *self.0.entry(world.jobs[&id].job.tenant.clone()).or_default() += tokens;
        }
    }

    fn of(&self, tenant: &str) -> i64 {
        self.0.get(&Some(Arc::from(tenant))).copied().unwrap_or_default() as i64
    }
}

fn step(world: &mut World, served: &mut Served) {
    let step = world.plan();
    served.add(world, &step);
    world.run(&step);
}

/// Submits until `waiting` jobs of the tenant wait or run.
fn keep(world: &mut World, waiting: usize, tenant: &str, mut next: impl FnMut() -> Job) {
    let its = |world: &World| {
        let jobs = world.jobs.values();
        jobs.filter(|known| known.job.tenant.as_deref() == Some(tenant)).count()
    };
    while its(world) < waiting {
        world.submit(next()).unwrap();
    }
}

/// One tenant floods with long jobs, one always has a few short ones, and many others come, cancel and go. At every moment the
/// two have had the same but for what the jobs that one of them has running can add.
#[test]
fn two_that_always_wait_are_served_alike() {
    for seed in 1..4 {
        let mut random = Seeded(seed);
        let mut world = World::new(OPTIONS);
        let mut served = Served::default();
        let running = OPTIONS.max_running as u64;
        let bound = (running + 1) * PROMPT + 2 * running * ANSWER;
        for _ in 0..1500 {
            keep(&mut world, 20, "flood", || random.job("flood", PROMPT, ANSWER));
            keep(&mut world, 8, "few", || random.job("few", 6, 4));
            if random.below(4) == 0 && world.scheduler.waiting() < OPTIONS.max_queued {
                let tenant = format!("other {}", random.below(30));
                world.submit(random.job(&tenant, PROMPT, ANSWER)).unwrap();
            }
            if random.below(20) == 0 {
                let others = world.jobs.values().position(|k| k.job.tenant.as_deref() > Some("g"));
                others.into_iter().for_each(|nth| world.cancel(nth));
            }
            step(&mut world, &mut served);
            let difference = served.of("flood").abs_diff(served.of("few"));
            assert!(difference <= bound, "{difference} is more than {bound}");
        }
        assert!(served.of("few") > 10 * bound as i64, "the bound says something");
    }
}

/// The same with so little memory that jobs are preempted: what is computed again is nobody's share, so sampled tokens are
/// compared.
#[test]
fn preemption_changes_no_share() {
    let mut random = Seeded(7);
    let mut world = World::new(SchedulerOptions { blocks: 24, ..OPTIONS });
    let mut sampled = BTreeMap::<Tenant, i64>::new();
    let mut preemptions = 0;
    for _ in 0..2500 {
        for tenant in ["a", "b"] {
            keep(&mut world, 10, tenant, || random.job(tenant, 8, ANSWER));
        }
        let step = world.step();
        preemptions += step.preempted.len();
        for decode in step.decodes {
            let job = world.jobs.get(&decode.id).map(|known| &known.job);
            let tenant = job.or_else(|| Some(&world.done.get(&decode.id)?.job)).unwrap();
            *sampled.entry(tenant.tenant.clone()).or_default() += 1;
        }
    }
    let shares: Vec<_> = sampled.into_values().collect();
    assert!(preemptions > 50, "{preemptions}");
    assert!((shares[0] - shares[1]).abs() * 20 < shares[0], "{shares:?}");
}

/// Somebody who takes a new name for each job, always with some waiting, leaves half of the machine to one who does not.
#[test]
fn new_names_do_not_starve_an_old_one() {
    let mut random = Seeded(3);
    let mut world = World::new(OPTIONS);
    let mut served = Served::default();
    let mut names = 0;
    for _ in 0..2000 {
        keep(&mut world, 8, "old", || random.job("old", PROMPT, ANSWER));
        while world.scheduler.waiting() < 12 {
            names += 1;
            world.submit(random.job(&format!("new {names}"), PROMPT, ANSWER)).unwrap();
        }
        step(&mut world, &mut served);
    }
    let old = served.of("old");
    let new: u64 = served.0.values().sum::<u64>() - old as u64;
    // About six of the new ones wait or run beside it at any time; a seventh is its share.
    assert!(old * 20 > new as i64, "{old} and {new}");
}

/// Jobs of a higher priority never cease, and memory is so short that the lowest is preempted first.
#[test]
fn a_low_priority_comes_to_its_turn() {
    for seed in 1..4 {
        let mut random = Seeded(seed);
        let mut world = World::new(SchedulerOptions { blocks: 20, ..OPTIONS });
        let mut low = Vec::new();
        for round in 0..3000 {
            while world.scheduler.waiting() < 6 {
                let tenant = format!("tenant {}", random.below(5));
                world.submit(Job { priority: 2, ..random.job(&tenant, 8, ANSWER) }).unwrap();
            }
            if round % 200 == 0 && round < 1600 {
                let job = Job { priority: -1, ..random.job("low", 40, ANSWER) };
                low.push((world.submit(job).unwrap(), world.steps));
            }
            world.step();
        }
        for (id, submitted) in low {
            let done = world.done.get(&id).unwrap_or_else(|| panic!("{id:?} starves"));
            // Three priorities lower: three times the aging until it is admitted, and others of its own before it.
            assert!(done.at - submitted < 400, "{} steps", done.at - submitted);
        }
    }
}

/// While memory does, the higher priority goes first however much its tenant has had.
#[test]
fn a_higher_priority_goes_first() {
    let mut world = World::new(SchedulerOptions { max_running: 1, ..OPTIONS });
    let prompt: Arc<[u32]> = Arc::from([1, 2, 3]);
    let mut submit = |priority, tenant| {
        world.submit(Job { priority, ..job(tenant, Arc::clone(&prompt), 2) }).unwrap()
    };
    let [low, high, higher, beyond] =
        [(0, "a"), (1, "b"), (101, "b"), (i32::MAX, "b")].map(|(p, tenant)| submit(p, tenant));
    let mut order = Vec::new();
    while !world.jobs.is_empty() {
        order.extend(world.step().admitted.iter().map(|admission| admission.id));
    }
    // The last two count as alike.
    assert_eq!(order, [higher, beyond, high, low]);
}

#[test]
fn a_full_queue_refuses_and_takes_again() {
    let mut world = World::new(SchedulerOptions { max_queued: 1, max_running: 1, ..OPTIONS });
    let next = || job("a", Arc::from([1, 2, 3]), 2);
    world.submit(next()).unwrap();
    assert_eq!(world.submit(next()), Err(SubmitError::Full));
    world.step();
    world.submit(next()).unwrap();
    assert_eq!(world.submit(next()), Err(SubmitError::Full));
    world.cancel(1);
    world.submit(next()).unwrap();
}
