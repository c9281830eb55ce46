//! Rotary positions: the angle that each pair of a head's numbers is turned by, per position.

use candle_core::{Device, Result, Tensor};

use crate::config::{LlamaConfig, RopeScaling};

/// What a position is multiplied with for the angle of each pair.
#[derive(Debug)]
pub(crate) struct Rope {
    /// `[head_dim / 2]`.
    frequencies: Vec<f64>,
    /// What queries and keys are multiplied with besides.
    attention: f64,
}

impl Rope {
    pub(crate) fn new(config: &LlamaConfig) -> Self {
        let width = config.head_dim as f64;
        let frequency = |pair: usize| config.rope_theta.powf(-((2 * pair) as f64) / width);
        let scaling = config.rope_scaling;
        let attention = match scaling {
            RopeScaling::Yarn { attention, .. } => attention,
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => 1.0,
        };
        let ramp = Ramp::of(config);
        let frequencies = (0..config.head_dim / 2)
            .map(|pair| stretch(frequency(pair), scaling, ramp.at(pair)))
            .collect();
        Self { frequencies, attention }
    }

    /// With each frequency divided by its factor, as GGUF has it for Llama 3.1 and later.
    pub(crate) fn divided_by(mut self, factors: Option<Vec<f32>>) -> Self {
        for (frequency, factor) in self.frequencies.iter_mut().zip(factors.unwrap_or_default()) {
            *frequency /= f64::from(factor);
        }
        self
    }

    /// Cosines and sines of some positions' angles, `[positions, head_dim / 2]` each, and scaled where
    /// queries and keys are. Computed anew
    /// for each pass, which costs less than a table of a long context.
    pub(crate) fn angles(&self, positions: impl Iterator<Item = usize>) -> (Vec<f32>, Vec<f32>) {
        let angles = positions.flat_map(|position| {
            self.frequencies.iter().map(move |frequency| (position as f64 * frequency).sin_cos())
        });
        let scale = self.attention;
        angles.map(|(sin, cos)| ((cos * scale) as f32, (sin * scale) as f32)).unzip()
    }

    /// The first `count` positions' cosines and sines as tensors.
    pub(crate) fn tensors(&self, count: usize, device: &Device) -> Result<(Tensor, Tensor)> {
        let (cos, sin) = self.angles(0..count);
        let shape = (count, self.frequencies.len());
        Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
    }
}

/// What YaRN multiplies queries and keys with, to keep attention as sharp over more positions.
pub(crate) fn yarn_attention(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

/// Where YaRN passes from frequencies that are kept to those that are divided, in pairs.
struct Ramp {
    from: f64,
    to: f64,
}

impl Ramp {
    fn of(config: &LlamaConfig) -> Self {
        let RopeScaling::Yarn { fast, slow, original_context, whole_pairs, .. } =
            config.rope_scaling
        else {
            return Self { from: 0.0, to: 1.0 };
        };
        let width = config.head_dim as f64;
        // The pair that turns so often within the original context.
        let pair = |turns: f64| {
            let wavelength = original_context / (turns * 2.0 * std::f64::consts::PI);
            width * wavelength.ln() / (2.0 * config.rope_theta.ln())
        };
        let (mut from, mut to) = (pair(fast), pair(slow));
        if whole_pairs {
            (from, to) = (from.floor(), to.ceil());
        }
        let (from, to) = (from.max(0.0), to.min(width - 1.0));
        Self { from, to: if to > from { to } else { from + 0.001 } }
    }

    /// 0 before it, 1 behind it.
    fn at(&self, pair: usize) -> f64 {
        ((pair as f64 - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// One rotary frequency after scaling; `ramp` is how far it is divided, where that depends on its pair.
fn stretch(frequency: f64, scaling: RopeScaling, ramp: f64) -> f64 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Yarn { factor, .. } => frequency / factor * ramp + frequency * (1.0 - ramp),
        RopeScaling::Llama3 { factor, low, high, original_context } => {
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength < original_context / high {
                frequency
            } else if wavelength > original_context / low {
                frequency / factor
            } else {
                let smooth = (original_context / wavelength - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192.0 };
        let of_wavelength = |wavelength: f64| 2.0 * std::f64::consts::PI / wavelength;
        // From 2048 = 8192 / 4 positions a turn on it is stretched, from 8192 on all the way.
        let table = [(100.0, 1.0), (2047.0, 1.0), (8193.0, 8.0), (1e6, 8.0)];
        for (wavelength, divisor) in table {
            let frequency = of_wavelength(wavelength);
            let ratio = frequency / stretch(frequency, scaling, 0.0);
            assert!((ratio - divisor).abs() < 1e-9, "{wavelength}: {ratio}");
        }
        let between = of_wavelength(4096.0);
        // smooth = (8192 / 4096 - 1) / (4 - 1)
        let expected = between * ((2.0 / 3.0) / 8.0 + 1.0 / 3.0);
        assert!((stretch(between, scaling, 0.0) - expected).abs() < 1e-12);
        assert_eq!(stretch(2.0, RopeScaling::Linear { factor: 4.0 }, 0.0), 0.5);
        assert_eq!(stretch(2.0, RopeScaling::None, 0.0), 2.0);
    }
}
