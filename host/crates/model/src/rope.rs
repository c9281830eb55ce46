//! Rotary positions: the angle that each pair of a head's numbers is turned by, per position.

use candle_core::{Device, Result, Tensor};

use crate::config::{LlamaConfig, RopeScaling};

/// What a position is multiplied with for the angle of each pair.
#[derive(Debug)]
pub(crate) struct Rope {
    /// `[head_dim / 2]`.
    frequencies: Vec<f64>,
}

impl Rope {
    pub(crate) fn new(config: &LlamaConfig) -> Self {
        let width = config.head_dim as f64;
        let frequency = |pair: usize| config.rope_theta.powf(-((2 * pair) as f64) / width);
        let frequencies = (0..config.head_dim / 2)
            .map(|pair| stretch(frequency(pair), config.rope_scaling))
            .collect();
        Self { frequencies }
    }

    /// With each frequency divided by its factor, as GGUF has it for Llama 3.1 and later.
    pub(crate) fn divided_by(mut self, factors: Option<Vec<f32>>) -> Self {
        for (frequency, factor) in self.frequencies.iter_mut().zip(factors.unwrap_or_default()) {
            *frequency /= f64::from(factor);
        }
        self
    }

    /// Cosines and sines of some positions' angles, `[positions, head_dim / 2]` each. Computed anew
    /// for each pass, which costs less than a table of a long context.
    pub(crate) fn angles(&self, positions: impl Iterator<Item = usize>) -> (Vec<f32>, Vec<f32>) {
        let angles = positions.flat_map(|position| {
            self.frequencies.iter().map(move |frequency| (position as f64 * frequency).sin_cos())
        });
        angles.map(|(sin, cos)| (cos as f32, sin as f32)).unzip()
    }

    /// The first `count` positions' cosines and sines as tensors.
    pub(crate) fn tensors(&self, count: usize, device: &Device) -> Result<(Tensor, Tensor)> {
        let (cos, sin) = self.angles(0..count);
        let shape = (count, self.frequencies.len());
        Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
    }
}

/// One rotary frequency after scaling.
fn stretch(frequency: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
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
            let ratio = frequency / stretch(frequency, scaling);
            assert!((ratio - divisor).abs() < 1e-9, "{wavelength}: {ratio}");
        }
        let between = of_wavelength(4096.0);
        // smooth = (8192 / 4096 - 1) / (4 - 1)
        let expected = between * ((2.0 / 3.0) / 8.0 + 1.0 / 3.0);
        assert!((stretch(between, scaling) - expected).abs() < 1e-12);
        assert_eq!(stretch(2.0, RopeScaling::Linear { factor: 4.0 }), 0.5);
        assert_eq!(stretch(2.0, RopeScaling::None), 2.0);
    }
}
