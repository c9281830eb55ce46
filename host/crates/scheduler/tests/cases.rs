//! Single plans, written out. The checks of each call are in `common`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use common::{STEP, World};
use tollgate_scheduler::{
    Job, JobId, Next, OptionsError, Outcome, Prefixes, RecordError, Scheduler, SchedulerOptions,
    Step, SubmitError,
};

const OPTIONS: SchedulerOptions = SchedulerOptions {
    block_tokens: 4,
    blocks: 16,
    max_step_tokens: 8,
    max_running: 4,
    max_queued: 8,
    aging: 1000 * STEP,
};

fn job(prompt: &[u32], max_tokens: usize) -> Job {
    let (id, arrived, prefixes) = (JobId(0), 0, Prefixes::Shared);
    Job { id, prompt: prompt.into(), max_tokens, tenant: None, priority: 0, arrived, prefixes }
}

/// The tokens of each part of a plan: how many decode, and for each piece of a prompt where it starts and how long it is.
fn shape(step: &Step) -> (usize, Vec<(u64, usize, usize)>) {
    let pieces = step.prefills.iter().map(|p| (p.id.0, p.start, p.tokens.len()));
    (step.decodes.len(), pieces.collect())
}

#[test]
fn a_long_prompt_is_read_beside_those_who_decode() {
    let mut world = World::new(OPTIONS);
    world.submit(job(&[1, 2], 5)).unwrap();
    world.submit(job(&[3; 17], 2)).unwrap();
    let shapes: Vec<_> = (0..6).map(|_| shape(&world.step())).collect();
    let expected = [
        (0, vec![(1, 0, 2), (2, 0, 6)]),
        (1, vec![(2, 6, 7)]),
        (1, vec![(2, 13, 4)]),
        (2, vec![]),
        (1, vec![]),
        (0, vec![]),
    ];
    assert_eq!(shapes, expected);
}

#[test]
fn what_was_read_before_is_not_read_again() {
    let prompt: Vec<u32> = (0..9).collect();
    let within = |name: &str| Prefixes::Within(name.into());
    // The prompt, with whom it is shared, and how many tokens of it are found.
    let rounds = [
        (&prompt[..], Prefixes::Shared, 0),
        (&prompt[..], Prefixes::Shared, 8),
        // Not its last token, whose logits are needed.
        (&prompt[..8], Prefixes::Shared, 4),
        (&[0, 1, 2, 3, 9, 9, 9, 9, 9], Prefixes::Shared, 4),
        // The second block counts only after the first.
        (&[4, 5, 6, 7, 8], Prefixes::Shared, 0),
        (&prompt[..], within("a"), 0),
        (&prompt[..], within("b"), 0),
        (&prompt[..], within("a"), 8),
        (&prompt[..], Prefixes::Unused, 0),
        (&prompt[..], Prefixes::Unused, 0),
    ];
    let mut world = World::new(OPTIONS);
    for (prompt, prefixes, found) in rounds {
        let id = world.submit(Job { prefixes: prefixes.clone(), ..job(prompt, 1) }).unwrap();
        while !world.jobs.is_empty() {
            world.step();
        }
        assert_eq!(world.done[&id].facts.cached_tokens, found, "{prompt:?} {prefixes:?}");
    }
}

#[test]
fn an_answer_is_found_by_the_prompt_that_goes_on_from_it() {
    let mut world = World::new(OPTIONS);
    let first = world.submit(job(&[1, 2, 3], 8)).unwrap();
    while !world.jobs.is_empty() {
        world.step();
    }
    let mut prompt = vec![1, 2, 3];
    prompt.extend(&world.done[&first].answer);
    prompt.extend([5, 5]);
    world.submit(job(&prompt, 1)).unwrap();
    assert_eq!(world.step().admitted[0].cached_tokens, 8);
}

#[test]
fn the_last_to_come_gives_way_and_finds_most_again() {
    let mut world = World::new(SchedulerOptions { blocks: 6, ..OPTIONS });
    let [first, second] = [1, 2].map(|token| world.submit(job(&[token; 8], 12)).unwrap());
    let mut steps = Vec::new();
    while !world.jobs.is_empty() {
        steps.push(world.step());
    }
    let preempted: Vec<_> = steps.iter().flat_map(|step| step.preempted.clone()).collect();
    assert_eq!(preempted, [second]);
    let again: Vec<_> = steps.iter().flat_map(|s| &s.admitted).filter(|a| a.again).collect();
    assert_eq!(again.len(), 1);
    let (first, second) = (world.done[&first].facts, world.done[&second].facts);
    assert_eq!((first.preemptions, second.preemptions), (0, 1));
    assert!(second.requeued > 0);
    // Of three blocks two are taken by the first until it ends; what is left is found.
    assert!(again[0].cached_tokens > 0, "{again:?}");
    assert!(second.recomputed_tokens > 0);
}

/// The lowest priority first, of one priority the last that was admitted, never the first that was submitted.
#[test]
fn who_gives_way() {
    let mut world = World::new(SchedulerOptions { blocks: 8, ..OPTIONS });
    for (token, priority) in [(1, -1), (2, -1), (3, 0), (4, -1)] {
        world.submit(Job { priority, ..job(&[token; 2], 19) }).unwrap();
        assert_eq!(world.step().admitted.len(), 1);
    }
    let mut preempted = Vec::new();
    while world.done.is_empty() {
        preempted.extend(world.step().preempted);
    }
    assert_eq!(preempted, [4, 2, 3].map(JobId));
}

#[test]
fn who_gave_way_is_the_next_of_its_tenant() {
    let mut world = World::new(SchedulerOptions { blocks: 6, max_running: 2, ..OPTIONS });
    for token in 1..=3 {
        world.submit(job(&[token; 8], 12)).unwrap();
    }
    let mut admitted = Vec::new();
    while !world.jobs.is_empty() {
        admitted.extend(world.step().admitted.iter().map(|admission| admission.id.0));
    }
    assert_eq!(admitted[..4], [1, 2, 2, 3]);
}

/// Without a block in reserve the second would come in at once and be the first to give way.
#[test]
fn nobody_comes_in_to_give_way_at_once() {
    let mut world = World::new(SchedulerOptions { blocks: 3, max_step_tokens: 16, ..OPTIONS });
    world.submit(job(&[1; 4], 5)).unwrap();
    let second = world.submit(job(&[2; 8], 1)).unwrap();
    assert_eq!(world.step().admitted.len(), 1);
    while !world.jobs.is_empty() {
        assert_eq!(world.step().preempted, []);
    }
    assert_eq!(world.done[&second].facts.preemptions, 0);
}

#[test]
fn a_large_job_is_not_overtaken() {
    let mut world = World::new(SchedulerOptions { blocks: 6, max_step_tokens: 32, ..OPTIONS });
    world.submit(job(&[1; 16], 4)).unwrap();
    world.step();
    let large = world.submit(job(&[2; 20], 1)).unwrap();
    let small = world.submit(job(&[3; 2], 1)).unwrap();
    let mut order = Vec::new();
    while !world.jobs.is_empty() {
        order.extend(world.step().admitted.iter().map(|admission| admission.id));
    }
    assert_eq!(order, [large, small]);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut scheduler = Scheduler::new(OPTIONS).unwrap();
    let with_id = |id, job: Job| Job { id: JobId(id), ..job };
    let cases = [
        (with_id(1, job(&[1; 60], 5)), Ok(())),
        (with_id(1, job(&[1], 1)), Err(SubmitError::Duplicate)),
        (with_id(2, job(&[], 1)), Err(SubmitError::EmptyPrompt)),
        (with_id(2, job(&[1; 60], 6)), Err(SubmitError::NeverFits { needed: 17, blocks: 16 })),
        (
            with_id(2, job(&[1; 60], usize::MAX)),
            Err(SubmitError::NeverFits { needed: usize::MAX.div_ceil(4), blocks: 16 }),
        ),
    ];
    for (job, expected) in cases {
        assert_eq!(scheduler.submit(job), expected);
    }

    assert_eq!(scheduler.record(JobId(1), Outcome::Read), Err(RecordError::NotRunning));
    scheduler.plan(0);
    assert_eq!(scheduler.submit(with_id(1, job(&[1], 1))), Err(SubmitError::Duplicate));
    assert_eq!(scheduler.record(JobId(1), Outcome::Sampled(1)), Err(RecordError::PromptNotRead));
    assert_eq!(scheduler.record(JobId(1), Outcome::Read), Ok(Next::Goes));
    assert_eq!(scheduler.record(JobId(1), Outcome::Read), Err(RecordError::NotPlanned));
    assert_eq!(scheduler.remove(JobId(3), 0), None);
}

#[test]
fn options_that_cannot_work_are_refused() {
    let cases = [
        (SchedulerOptions { block_tokens: 0, ..OPTIONS }, OptionsError::Zero("block_tokens")),
        (SchedulerOptions { aging: 0, ..OPTIONS }, OptionsError::Zero("aging")),
        (SchedulerOptions { max_step_tokens: 3, ..OPTIONS }, OptionsError::StepTooSmall),
        (SchedulerOptions { blocks: usize::MAX, ..OPTIONS }, OptionsError::TooManyBlocks),
    ];
    for (options, expected) in cases {
        assert_eq!(Scheduler::new(options).err(), Some(expected));
    }
}

/// An embedding or a score: the prompt is read, and nothing is sampled.
#[test]
fn a_job_may_end_without_an_answer() {
    let mut scheduler = Scheduler::new(OPTIONS).unwrap();
    scheduler.submit(job(&[1; 8], 1)).unwrap();
    assert_eq!(scheduler.plan(5).tokens(), 8);
    scheduler.record(JobId(0), Outcome::Read).unwrap();
    assert_eq!(scheduler.plan(6), Step::default());
    let facts = scheduler.remove(JobId(0), 7).unwrap();
    assert_eq!((facts.queued, facts.chunks, facts.blocks_peak), (5, 1, 2));
    assert_eq!(scheduler.block_use().cached, 2);
}
