//! The loop, step by step, with passes that go wrong.

use futures::FutureExt;
use tollgate_model::ModelSource;
use tollgate_model::fixture::{self, Shape};

use super::*;
use crate::choices::Choices;
use crate::{EngineOptions, Event, GenerateRequest, SamplingOptions};

#[test]
fn a_panic_becomes_an_error_with_its_message() {
    let panics: [(fn(), &str); 3] = [
        (|| panic!("plain"), "plain"),
        (|| panic!("with {}", 1), "with 1"),
        (|| std::panic::panic_any(5), "no message"),
    ];
    for (step, expected) in panics {
        let error = caught(step).unwrap_err();
        assert_eq!(error.to_string(), format!("the model panicked: {expected}"));
    }
    assert_eq!(caught(|| 3).unwrap(), 3);
}

fn worker(max_running: usize) -> Worker {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &Shape::default()).unwrap();
    let model = fixture::device::load(&ModelSource::Folder(folder.path().into())).unwrap();
    let store = model.kv_store(64 * model.kv_block_bytes()).unwrap();
    let options = EngineOptions { max_running, ..EngineOptions::default() };
    let scheduler = Scheduler::new(options.limits(store.blocks())).unwrap();
    Worker::new(model, store, scheduler, Arc::default())
}

fn submit(worker: &mut Worker, prompt: &[u32]) -> Choices {
    let (choices, mut outlets) = Choices::new(1, 100);
    worker.shared.queued.fetch_add(1, Ordering::AcqRel);
    let sampling = SamplingOptions { temperature: 0.0, ..SamplingOptions::default() };
    let request = GenerateRequest {
        prompt_tokens: prompt.to_vec(),
        max_tokens: 5,
        sampling,
        ..GenerateRequest::default()
    };
    worker.take(Job::write(request, outlets.next().unwrap()));
    choices
}

/// How it ended, and its tokens; none if it has not.
fn ended(choices: &mut Choices) -> Option<(End, u32)> {
    while let Some(Some((_, Some(event)))) = choices.next().now_or_never() {
        if let Event::Ended { end, output_tokens, .. } = event {
            return Some((end, output_tokens));
        }
    }
    None
}

#[test]
fn whoever_was_in_a_pass_that_failed_ends_and_nobody_else() {
    type Pass = fn() -> Passed;
    let passes: [(Pass, &str); 2] = [
        (|| panic!("in the kernel"), "the model panicked: in the kernel"),
        (|| Err(ModelError::NoNumbers), "the forward pass failed: the model's output"),
    ];
    for (pass, expected) in passes {
        let mut worker = worker(2);
        let mut inside = [submit(&mut worker, &[1, 2]), submit(&mut worker, &[3])];
        let mut waits = submit(&mut worker, &[1, 2]);
        worker.step(|model, store, rows| model.forward_batch(store, rows));
        assert_eq!(worker.shared.queued.load(Ordering::Acquire), 1);
        worker.step(|_, _, rows| {
            assert_eq!(rows.len(), 2);
            pass()
        });
        for receiver in &mut inside {
            let (end, tokens) = ended(receiver).unwrap();
            assert!(
                matches!(&end, End::Failed(e) if e.to_string().starts_with(expected)),
                "{end:?}"
            );
            assert_eq!(tokens, 1);
        }
        let usage = worker.scheduler.block_use();
        assert_eq!((worker.active.len(), usage.held), (1, 0));
        while !worker.active.is_empty() {
            worker.step(|model, store, rows| model.forward_batch(store, rows));
        }
        assert!(matches!(ended(&mut waits), Some((End::Finished(_), 5))));
        assert_eq!(worker.shared.running.load(Ordering::Acquire), 0);
    }
}

#[test]
fn logits_that_are_no_numbers_end_their_sequence_alone() {
    let mut worker = worker(2);
    let mut bad = submit(&mut worker, &[1, 2]);
    let mut good = submit(&mut worker, &[3]);
    worker.step(|model, store, rows| {
        let mut logits = model.forward_batch(store, rows)?;
        logits[0].logits.iter_mut().flatten().for_each(|logit| *logit = f32::NAN);
        Ok(logits)
    });
    assert!(matches!(ended(&mut bad), Some((End::Failed(EngineError::Model(_)), 0))));
    while !worker.active.is_empty() {
        worker.step(|model, store, rows| model.forward_batch(store, rows));
    }
    assert!(matches!(ended(&mut good), Some((End::Finished(_), 5))));
}
