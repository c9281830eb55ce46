//! AdamW over plain slices, with the gradient clipped by its norm.

use candle_core::{Result, Tensor, Var};

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.98;
const EPSILON: f32 = 1e-8;
const WEIGHT_DECAY: f32 = 0.02;
const LONGEST_GRADIENT: f32 = 1.0;

pub struct AdamW {
    vars: Vec<Var>,
    states: Vec<State>,
    steps: i32,
}

struct State {
    values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    decay: f32,
}

impl AdamW {
    pub fn new(vars: Vec<Var>) -> Self {
        let state = |var: &Var| {
            let values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let zeros = vec![0.0; values.len()];
            // Gains of norms are not pulled towards zero.
            let decay = if var.rank() > 1 { WEIGHT_DECAY } else { 0.0 };
            State { first: zeros.clone(), second: zeros, values, decay }
        };
        let states = vars.iter().map(state).collect();
        Self { vars, states, steps: 0 }
    }

    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// One step; returns the gradient's norm before clipping.
    pub fn step(&mut self, gradients: &[Vec<f32>], rate: f64) -> f32 {
        self.steps += 1;
        let squares: f64 = gradients.iter().flatten().map(|g| f64::from(g * g)).sum();
        let norm = squares.sqrt() as f32;
        let scale = (LONGEST_GRADIENT / norm.max(1e-12)).min(1.0);
        let rate = rate as f32;
        let first_scale = 1.0 / (1.0 - BETA1.powi(self.steps));
        let second_scale = 1.0 / (1.0 - BETA2.powi(self.steps));
        for (state, gradient) in self.states.iter_mut().zip(gradients) {
            let State { values, first, second, decay } = state;
            for (((value, first), second), gradient) in
                values.iter_mut().zip(first).zip(second).zip(gradient)
            {
                let gradient = gradient * scale;
                *first = BETA1 * *first + (1.0 - BETA1) * gradient;
                *second = BETA2 * *second + (1.0 - BETA2) * gradient * gradient;
                let direction = *first * first_scale / ((*second * second_scale).sqrt() + EPSILON);
                *value -= rate * (direction + *decay * *value);
            }
        }
        norm
    }

    /// Copies the new values into the variables that the model is made of.
    pub fn publish(&self) -> Result<()> {
        for (var, state) in self.vars.iter().zip(&self.states) {
            var.set(&Tensor::from_slice(&state.values, var.shape(), var.device())?)?;
        }
        Ok(())
    }
}
