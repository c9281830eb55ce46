//! One turn of this engine.

use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tollgate_engine::{Engine, EngineOptions, Event, GenerateRequest, Generation, SamplingOptions};
use tollgate_model::Model;

use crate::{Taken, Work};

/// An engine with its model.
pub(crate) struct Ours {
    engine: Engine,
    runtime: Runtime,
    weight_bytes: usize,
}

impl Ours {
    pub(crate) fn start(model: Model, max_running: usize, max_step_tokens: usize) -> Self {
        let weight_bytes = model.weight_bytes();
        let options = EngineOptions { max_running, max_step_tokens, ..EngineOptions::default() };
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        Self { engine: Engine::start(model, options).unwrap(), runtime, weight_bytes }
    }

    pub(crate) fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    pub(crate) fn turn(&self, work: &Work, prompts: &[Vec<u32>]) -> Taken {
        let spent = processor_seconds();
        let (began, firsts, last) = self.runtime.block_on(async {
            let began = Instant::now();
            let all = prompts.iter().map(|prompt| {
                let request = GenerateRequest {
                    prompt_tokens: prompt.clone(),
                    max_tokens: work.written,
                    sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
                    ignore_eos: true,
                    ..GenerateRequest::default()
                };
                tokio::spawn(watch(self.engine.submit(request).unwrap()))
            });
            let all: Vec<_> = all.collect();
            let (mut firsts, mut last) = (0.0, began);
            for one in all {
                let (prefilled, ended) = one.await.unwrap();
                firsts += (prefilled - began).as_secs_f64();
                last = last.max(ended);
            }
            (began, firsts, last)
        });
        Taken {
            first: firsts / prompts.len() as f64,
            whole: (last - began).as_secs_f64(),
            processors: processor_seconds() - spent,
        }
    }
}

/// When the prompt was read, and when the last token was written.
async fn watch(mut generation: Generation) -> (Instant, Instant) {
    let now = Instant::now();
    let (mut prefilled, mut ended) = (now, now);
    while let Some(event) = generation.next().await {
        match event {
            Event::Prefilled { at, .. } => prefilled = at,
            Event::Ended { at, .. } => ended = at,
            Event::Started { .. } | Event::Text { .. } => {}
        }
    }
    (prefilled, ended)
}

/// What this process has had of processors so far; none where the system has no such file.
fn processor_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return f64::NAN };
    let of = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    tasks.flatten().filter_map(of).sum::<f64>() / 1e9
}
