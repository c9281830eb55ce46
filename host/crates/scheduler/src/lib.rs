//! Continuous batching as a pure state machine: no threads, no tensors, no clock, no IO.
//!
//! [`Scheduler::submit`] puts a job in the queue, [`Scheduler::plan`] says what the next forward pass computes and where its
//! keys and values lie, [`Scheduler::record`] takes what came out, [`Scheduler::remove`] ends a job, finished or not. The
//! same calls give the same plans. Times are nanoseconds since any origin, the same in every call.
//!
//! What holds, whatever is submitted and cancelled (`tests/properties.rs`):
//! - a step has no more tokens than its budget, and every sequence whose prompt is read decodes in it;
//! - a block is free, cached or held, and is written to by the one sequence that holds it;
//! - a block that several hold is full, is never written to again, and has the tokens that each of them would have put there;
//! - every job ends: the sequence that was submitted first is never preempted, and all others come first in their turn.

mod block_pool;
mod facts;
mod options;
mod queue;
mod scheduler;
mod sequence;
mod service;
mod step;

pub use block_pool::{BlockId, BlockUse};
pub use facts::Facts;
pub use options::{OptionsError, SchedulerOptions};
pub use queue::PRIORITIES;
pub use scheduler::{Next, Outcome, RecordError, Scheduler, SubmitError};
pub use sequence::{Job, JobId, Prefixes, Tenant};
pub use step::{Admission, Decode, Prefill, Step};
