//! What the log says.

use std::time::Instant;

/// What has been seen so far, for the log and the model card.
pub struct Progress {
    start: Instant,
    parameters: usize,
    tokens: usize,
    labels: usize,
    loss: f32,
    pub validation: f32,
}

impl Progress {
    pub fn new(parameters: usize) -> Self {
        Self {
            start: Instant::now(),
            parameters,
            tokens: 0,
            labels: 0,
            loss: f32::NAN,
            validation: f32::NAN,
        }
    }

    pub fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub fn record(&mut self, loss: f32, labels: usize, tokens: usize) {
        self.tokens += tokens;
        self.labels += labels;
        self.loss = if self.loss.is_nan() { loss } else { 0.98 * self.loss + 0.02 * loss };
    }

    pub fn print(&self, step: usize, rate: f64, norm: f32, epochs: usize) {
        let seconds = self.elapsed();
        println!(
            "step {step}: loss {:.4} (running mean), rate {rate:.2e}, gradient norm {norm:.2}, epoch {epochs}, {} tokens \
             ({} with a label), {:.0} tokens/s, {:.0} s",
            self.loss,
            self.tokens,
            self.labels,
            self.tokens as f64 / seconds,
            seconds,
        );
    }

    pub fn summary(&self, steps: usize) {
        println!(
            "done: {steps} steps, {} parameters, {} tokens seen, training loss {:.4}, validation loss {:.4}, {:.0} s",
            self.parameters,
            self.tokens,
            self.loss,
            self.validation,
            self.elapsed(),
        );
    }
}
