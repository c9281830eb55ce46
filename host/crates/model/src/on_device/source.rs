//! Weights from files to a device's memory, one tensor after another, in the type that the file has.

use candle_core::{DType, Device, Tensor};

use super::matrix::Matrix;
use crate::ModelError;
use crate::config::LlamaConfig;
use crate::files::WeightFile;
use crate::layers::{Source, Weights};
use crate::load::{Stored, Tensors};

/// The weights, how many they are, and how they were stored.
pub(crate) fn read(
    config: LlamaConfig,
    files: &[WeightFile],
    device: &Device,
) -> Result<(Weights<Matrix, Tensor>, u64, String), ModelError> {
    let (tensors, stored_dtype) = Tensors::read(files)?;
    let mut moved = Moved { tensors, device };
    let weights = Weights::assemble(config, &mut moved)?;
    // Copies go on while the host does something else.
    device.synchronize()?;
    Ok((weights, moved.tensors.parameters(), stored_dtype))
}

/// Moves what it is asked for.
struct Moved<'a> {
    tensors: Tensors,
    device: &'a Device,
}

impl Source for Moved<'_> {
    type Error = ModelError;
    type Matrix = Matrix;
    type Vector = Tensor;

    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, ModelError> {
        match self.tensors.take(name, &[outputs, inputs])? {
            Stored::Plain(tensor) => Ok(Matrix::plain(tensor.to_device(self.device)?)),
            Stored::Gguf(packed) => packed.on(self.device, outputs, inputs),
        }
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor, ModelError> {
        let vector = match self.tensors.take(name, &[length])? {
            Stored::Plain(tensor) => tensor.to_dtype(DType::F32)?,
            Stored::Gguf(packed) => Tensor::new(packed.vector()?, &Device::Cpu)?,
        };
        Ok(vector.to_device(self.device)?)
    }

    fn biased(&mut self, matrix: Matrix, bias: Tensor) -> Matrix {
        matrix.with_bias(bias)
    }

    fn rope_factors(&mut self, count: usize) -> Result<Option<Vec<f32>>, ModelError> {
        self.tensors.rope_factors(count)
    }
}
