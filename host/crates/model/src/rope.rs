//! Rotary positions: the angle that each pair of a head's numbers is turned by, per position.

use candle_core::{DType, Device, Result, Tensor};

use crate::config::{LlamaConfig, RopeScaling};

/// Cosines and sines of every position, `[context, head_dim / 2]`.
#[derive(Debug)]
pub(crate) struct Rope {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

impl Rope {
    pub(crate) fn new(config: &LlamaConfig, device: &Device) -> Result<Self> {
        let half = config.head_dim / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|i| {
                stretch(
                    config.rope_theta.powf(-((2 * i) as f64) / config.head_dim as f64),
                    config.rope_scaling,
                )
            })
            .collect();
        let angles: Vec<f64> = (0..config.context_length)
            .flat_map(|position| {
                frequencies.iter().map(move |frequency| position as f64 * frequency)
            })
            .collect();
        let angles = Tensor::from_vec(angles, (config.context_length, half), device)?;
        Ok(Self {
            cos: angles.cos()?.to_dtype(DType::F32)?,
            sin: angles.sin()?.to_dtype(DType::F32)?,
        })
    }

    /// The tables of `count` positions from `start` on.
    pub(crate) fn positions(&self, start: usize, count: usize) -> Result<Self> {
        Ok(Self { cos: self.cos.narrow(0, start, count)?, sin: self.sin.narrow(0, start, count)? })
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
