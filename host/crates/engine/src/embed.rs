//! Texts that are to be embedded: each is a sequence that is read and writes nothing.
//!
//! A request may have many more texts than may wait or run. So they stand in lanes, one behind the
//! other, and only the first of each lane is in the queue: a request takes no more of it than the
//! engine could run at a time, and others come to their turn between its texts.

use std::sync::Arc;

use crate::choices::Outlet;
use crate::job::{Job, Task};

/// Texts to embed, for a model that does ([`tollgate_model::ModelInfo::embedding`]).
#[derive(Clone, Debug, Default)]
pub struct EmbedRequest {
    /// The tokens of each text, at least one and at most the context.
    pub inputs: Vec<Vec<u32>>,
    /// Numbers of each vector, if it is to be shorter than the model's.
    pub dimensions: Option<usize>,
    /// Whose turn it uses, and with whose texts it shares what was computed; all without a name are
    /// one.
    pub tenant: Option<Arc<str>>,
    /// The higher, the sooner, from -100 to 100.
    pub priority: i32,
}

impl EmbedRequest {
    /// The first job of each lane, the others behind it.
    pub(crate) fn lanes(self, count: usize, outlets: impl Iterator<Item = Outlet>) -> Vec<Job> {
        let Self { inputs, dimensions, tenant, priority } = self;
        let job = |(input, outlet)| {
            Job::new(input, (tenant.clone(), priority), Task::Embed { dimensions }, outlet)
        };
        let count = count.max(1);
        let mut lanes: Vec<Option<Job>> = std::iter::repeat_with(|| None).take(count).collect();
        let jobs: Vec<Job> = inputs.into_iter().zip(outlets).map(job).collect();
        for (number, mut job) in jobs.into_iter().enumerate().rev() {
            let Some(lane) = lanes.get_mut(number % count) else { continue };
            if let Some(next) = lane.take() {
                job.followers.push(Job { placed: false, ..next });
            }
            *lane = Some(job);
        }
        lanes.into_iter().flatten().collect()
    }
}
