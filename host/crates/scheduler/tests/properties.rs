//! What holds under random jobs, cancellations and tiny memories. The checks of each call are in `common`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::sync::Arc;

use common::{World, answer};
use proptest::prelude::*;
use tollgate_scheduler::{Job, JobId, Prefixes, SchedulerOptions, Step};

#[derive(Clone, Debug)]
enum Act {
    Submit(Job),
    Cancel(usize),
    Step,
    /// A pass that failed and is planned again.
    Lost,
    /// One is cancelled while the pass runs.
    CancelMeanwhile(usize),
}

fn options() -> impl Strategy<Value = SchedulerOptions> {
    (1..5usize, 1..12usize, 1..5usize, 0..8usize, 1..8usize, 1..20u64).prop_map(
        |(block_tokens, blocks, max_running, more, max_queued, aging)| SchedulerOptions {
            block_tokens,
            blocks,
            max_step_tokens: max_running + more,
            max_running,
            max_queued,
            aging: aging * common::STEP,
        },
    )
}

fn job() -> impl Strategy<Value = Job> {
    let prefixes = prop_oneof![
        4 => Just(Prefixes::Shared),
        2 => Just(Prefixes::Within("a".into())),
        1 => Just(Prefixes::Unused),
    ];
    // Two tokens and a few starts: most prompts have a beginning in common with others.
    let prompt = (0..3u32, 0..8usize, prop::collection::vec(0..2u32, 1..6));
    (prompt, 1..12usize, 0..3usize, -1..=1i32, prefixes).prop_map(
        |((start, common, rest), max_tokens, tenant, priority, prefixes)| Job {
            id: JobId(0),
            prompt: std::iter::repeat_n(start, common).chain(rest).collect(),
            max_tokens,
            tenant: [None, Some(Arc::from("a")), Some(Arc::from("b"))][tenant].clone(),
            priority,
            arrived: 0,
            prefixes,
        },
    )
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => job().prop_map(Act::Submit),
        1 => (0..8usize).prop_map(Act::Cancel),
        6 => Just(Act::Step),
        1 => Just(Act::Lost),
        1 => (0..8usize).prop_map(Act::CancelMeanwhile),
    ];
    prop::collection::vec(act, 0..120)
}

/// Does it all, then steps until nothing is left; every plan that was made.
fn play(world: &mut World, acts: &[Act]) -> Vec<Step> {
    let mut plans = Vec::new();
    for act in acts {
        match act {
            Act::Submit(job) => drop(world.submit(job.clone())),
            Act::Cancel(nth) => world.cancel(*nth),
            Act::Step => plans.push(world.step()),
            Act::Lost => plans.push(world.plan()),
            Act::CancelMeanwhile(nth) => {
                let mut step = world.plan();
                plans.push(step.clone());
                world.cancel(*nth);
                step.decodes.retain(|decode| world.jobs.contains_key(&decode.id));
                step.prefills.retain(|piece| world.jobs.contains_key(&piece.id));
                world.run(&step);
            }
        }
    }
    // Each step the one that came first moves on, and each job is the first at some time.
    let tokens = |job: &Job| job.prompt.len() + job.max_tokens;
    let left: usize = world.jobs.values().map(|known| tokens(&known.job)).sum();
    for _ in 0..left * (world.jobs.len() + 1) {
        if world.jobs.is_empty() {
            break;
        }
        plans.push(world.step());
    }
    plans
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// No starvation, no leak, no wrong token: every job ends within a bounded number of steps, has the answer it would have
    /// had alone, and leaves its blocks free or cached.
    #[test]
    fn every_job_gets_its_answer(options in options(), acts in acts()) {
        let mut world = World::new(options);
        play(&mut world, &acts);
        prop_assert!(world.jobs.is_empty(), "{} jobs starve", world.jobs.len());
        for done in world.done.values() {
            let expected = answer(&done.job);
            prop_assert!(expected.starts_with(&done.answer));
            prop_assert!(done.cancelled || expected.len() == done.answer.len());
        }
        prop_assert_eq!(world.scheduler.block_use().held, 0);
        prop_assert_eq!((world.scheduler.waiting(), world.scheduler.running()), (0, 0));
        prop_assert_eq!(world.step(), Step::default());
    }

    /// The same calls give the same plans.
    #[test]
    fn plans_are_reproducible(options in options(), acts in acts()) {
        let [first, second] = [0, 1].map(|_| play(&mut World::new(options), &acts));
        prop_assert_eq!(first, second);
    }

    /// What a job met is what was planned for it.
    #[test]
    fn facts_are_what_happened(options in options(), acts in acts()) {
        let mut world = World::new(options);
        let plans = play(&mut world, &acts.into_iter().filter(|a| matches!(a, Act::Submit(_) | Act::Step)).collect::<Vec<_>>());
        for (id, done) in &world.done {
            let facts = done.facts;
            let mine = plans.iter().filter(|step| {
                step.decodes.iter().any(|d| d.id == *id) || step.prefills.iter().any(|p| p.id == *id)
            });
            let batches: Vec<_> = mine.map(Step::sequences).collect();
            prop_assert_eq!(facts.steps as usize, batches.len());
            prop_assert_eq!(facts.batch_max, batches.iter().copied().max().unwrap());
            prop_assert_eq!(facts.batch_sum, batches.iter().sum::<usize>() as u64);
            let chunks = plans.iter().flat_map(|step| &step.prefills).filter(|p| p.id == *id);
            prop_assert_eq!(facts.chunks as usize, chunks.count());
            let preempted = plans.iter().flat_map(|step| &step.preempted).filter(|p| *p == id);
            prop_assert_eq!(facts.preemptions as usize, preempted.count());
            let first = plans.iter().flat_map(|step| &step.admitted).find(|a| a.id == *id).unwrap();
            prop_assert_eq!(facts.cached_tokens, first.cached_tokens);
            let positions = done.job.prompt.len() + done.job.max_tokens - 1;
            prop_assert_eq!(facts.blocks_peak, positions.div_ceil(options.block_tokens));
            let read: usize = plans.iter().map(|step| {
                step.decodes.iter().filter(|d| d.id == *id).count()
                    + step.prefills.iter().filter(|p| p.id == *id).map(|p| p.tokens.len()).sum::<usize>()
            }).sum();
            prop_assert!(read + facts.cached_tokens <= positions + facts.recomputed_tokens);
            prop_assert!(facts.preemptions > 0 || read + facts.cached_tokens == positions);
        }
    }
}
