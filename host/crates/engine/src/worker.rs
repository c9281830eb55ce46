//! The thread's loop: take requests in, give each running sequence one step, let the ended go.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tollgate_model::Model;

use crate::sequence::{Progress, Running};
use crate::{End, EngineError, Event, Job, Shared};

/// How often an idle thread looks whether it should stop.
const IDLE_LOOK: Duration = Duration::from_millis(50);

/// Runs until every handle is dropped or `stopping` is set, and all requests have ended.
pub(crate) fn run(model: &Model, queue: &Receiver<Job>, max_running: usize, shared: &Shared) {
    let mut waiting: VecDeque<Job> = VecDeque::new();
    let mut running: Vec<Running> = Vec::new();
    loop {
        let stop = shared.stopping.load(Ordering::Acquire);
        let idle = running.is_empty() && waiting.is_empty() && !stop;
        let more_may_come = take_in(queue, &mut waiting, idle);
        if stop {
            waiting.iter().for_each(Job::cancel);
            running.iter().for_each(Running::cancel);
        }
        // Whoever gave up while waiting makes room for others at once.
        waiting.retain(|job| still_waits(job, shared));
        while running.len() < max_running
            && let Some(job) = waiting.pop_front()
        {
            // Before the request hears that it started: whoever asks then gets the right numbers.
            shared.queued.fetch_sub(1, Ordering::AcqRel);
            shared.running.store(running.len() + 1, Ordering::Release);
            running.push(Running::start(job, model));
        }
        if running.is_empty() && (stop || !more_may_come) {
            return;
        }
        // Every sequence has one turn; `retain` keeps their order, so turns stay fair.
        running.retain_mut(|sequence| keeps_running(sequence, model));
        shared.running.store(running.len(), Ordering::Release);
    }
}

/// Moves what was submitted into `waiting`, after a short sleep if there is nothing else to do;
/// whether more may come.
fn take_in(queue: &Receiver<Job>, waiting: &mut VecDeque<Job>, idle: bool) -> bool {
    if idle {
        match queue.recv_timeout(IDLE_LOOK) {
            Ok(job) => waiting.push_back(job),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    loop {
        match queue.try_recv() {
            Ok(job) => waiting.push_back(job),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

fn still_waits(job: &Job, shared: &Shared) -> bool {
    if !job.is_cancelled() {
        return true;
    }
    shared.queued.fetch_sub(1, Ordering::AcqRel);
    job.emit(Event::Ended {
        end: End::Cancelled,
        output_tokens: 0,
        device_time: Duration::ZERO,
        at: Instant::now(),
    });
    false
}

/// One step. A panic ends the sequence it happened in and no other.
fn keeps_running(sequence: &mut Running, model: &Model) -> bool {
    match caught(|| sequence.step(model)) {
        Ok(Progress::Goes) => true,
        Ok(Progress::Ended) => false,
        Err(error) => {
            let log = || tracing::error!(%error, "a sequence ended by a panic");
            sequence.log().in_scope(log);
            sequence.end(End::Failed(error));
            false
        }
    }
}

/// What `step` returns, or its panic as an error.
fn caught<T>(step: impl FnOnce() -> T) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|panic| EngineError::Panic(message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
