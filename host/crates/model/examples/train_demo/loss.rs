//! Cross entropy as one operation with its own backward pass: composed of candle's operations it
//! would walk the logits, by far the largest tensor of a step, a dozen times.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

struct CrossEntropy {
    labels: Vec<u32>,
    scale: f32,
}

/// The sum of the rows' losses, divided by `total`.
pub fn cross_entropy(logits: &Tensor, labels: Vec<u32>, total: usize) -> Result<Tensor> {
    logits.apply_op1(CrossEntropy { labels, scale: 1.0 / total as f32 })
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            bail!("cross entropy takes contiguous f32 logits");
        };
        let rows = values[start..end].chunks_exact(width).zip(&self.labels);
        let loss: f64 =
            rows.map(|(row, label)| f64::from(log_sum_exp(row) - row[*label as usize])).sum();
        Ok((CpuStorage::F32(vec![loss as f32 * self.scale]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = logits.dims2()?;
        let scale = self.scale * gradient.to_scalar::<f32>()?;
        let mut values = logits.flatten_all()?.to_vec1::<f32>()?;
        for (row, label) in values.chunks_exact_mut(width).zip(&self.labels) {
            let normalizer = log_sum_exp(row);
            row.iter_mut().for_each(|value| *value = scale * (*value - normalizer).exp());
            row[*label as usize] -= scale;
        }
        Ok(Some(Tensor::from_vec(values, logits.shape(), logits.device())?))
    }
}

fn log_sum_exp(row: &[f32]) -> f32 {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    highest + row.iter().map(|value| (value - highest).exp()).sum::<f32>().ln()
}
