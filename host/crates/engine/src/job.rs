//! A request, or a part of one, on its way to the thread.

use std::sync::Arc;
use std::time::Instant;

use crate::choices::Outlet;
use crate::{Event, GenerateRequest};

/// One sequence: what it reads, and what is then to be done.
pub(crate) struct Job {
    pub(crate) prompt: Vec<u32>,
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) priority: i32,
    pub(crate) task: Task,
    /// What was being logged about when it was submitted.
    pub(crate) log: tracing::Span,
    pub(crate) submitted: Instant,
    pub(crate) outlet: Outlet,
    /// Those that begin when this one has read its prompt.
    pub(crate) followers: Vec<Job>,
    /// Whether it took a place in the queue when its request was submitted; else it takes one when its
    /// turn comes.
    pub(crate) placed: bool,
}

/// What is to be done once the prompt is read.
pub(crate) enum Task {
    /// Text.
    Write(Box<GenerateRequest>),
    /// A vector of the prompt, perhaps a shorter one.
    Embed { dimensions: Option<usize> },
}

impl Job {
    /// One that writes.
    pub(crate) fn write(mut request: GenerateRequest, outlet: Outlet) -> Self {
        let prompt = std::mem::take(&mut request.prompt_tokens);
        let (tenant, priority) = (request.tenant.take(), request.priority);
        Self::new(prompt, (tenant, priority), Task::Write(Box::new(request)), outlet)
    }

    /// One that holds a place in the queue.
    pub(crate) fn new(
        prompt: Vec<u32>,
        (tenant, priority): (Option<Arc<str>>, i32),
        task: Task,
        outlet: Outlet,
    ) -> Self {
        Self {
            prompt,
            tenant,
            priority,
            task,
            log: tracing::Span::current(),
            submitted: Instant::now(),
            outlet,
            followers: Vec::new(),
            placed: true,
        }
    }

    /// Most tokens that it may sample.
    pub(crate) fn max_tokens(&self) -> u32 {
        match &self.task {
            Task::Write(request) => request.max_tokens,
            Task::Embed { .. } => 0,
        }
    }

    pub(crate) fn emit(&self, event: Event) {
        self.outlet.emit(event);
    }
}
