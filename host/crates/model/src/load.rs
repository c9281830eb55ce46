//! Weights from safetensors or GGUF files, packed for the kernels in the type that the file has.
//!
//! Every tensor the model needs must be there in the right shape; what is missing is never made up.
//! Files are not memory-mapped: each is read whole, and a tensor is let go once it is packed.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use crate::config::LlamaConfig;
use crate::decoder::{Decoder, Source};
use crate::files::WeightFile;
use crate::kernels::linear::{Linear, Weights};
use crate::kernels::pack;
use crate::{ModelError, gguf};

/// A model and what its files said of the weights.
pub(crate) struct Loaded {
    pub(crate) decoder: Decoder,
    pub(crate) parameters: u64,
    /// As stored; the arithmetic is in f32.
    pub(crate) stored_dtype: String,
}

pub(crate) fn decoder(config: LlamaConfig, files: &[WeightFile]) -> Result<Loaded, ModelError> {
    let mut tensors = HashMap::new();
    let mut stored_dtype = DType::F32.as_str().to_owned();
    for file in files {
        read_into(&mut tensors, file, &mut stored_dtype)?;
    }
    let mut tensors = Tensors { tensors, parameters: 0 };
    let decoder = Decoder::assemble(config, &mut tensors)?;
    Ok(Loaded { decoder, parameters: tensors.parameters, stored_dtype })
}

/// What the files hold and the model has not asked for yet.
struct Tensors {
    tensors: HashMap<String, Tensor>,
    parameters: u64,
}

impl Tensors {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let tensor = self.tensors.remove(name).ok_or_else(|| {
            ModelError::malformed("weights", format!("no tensor `{name}` in any file"))
        })?;
        if tensor.dims() != shape {
            let reason =
                format!("tensor `{name}` is {:?}, config.json says {shape:?}", tensor.dims());
            return Err(ModelError::malformed("weights", reason));
        }
        self.parameters += tensor.elem_count() as u64;
        Ok(tensor)
    }
}

impl Source for Tensors {
    type Error = ModelError;

    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, ModelError> {
        let tensor = self.take(name, &[outputs, inputs])?;
        Ok(Linear::new(inputs, outputs, weights(&tensor, inputs)?))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        Ok(self.take(name, &[length])?.to_dtype(DType::F32)?.to_vec1()?)
    }
}

fn weights(matrix: &Tensor, inputs: usize) -> Result<Weights, ModelError> {
    let flat = matrix.flatten_all()?;
    match flat.dtype() {
        DType::BF16 => {
            let bits: Vec<u16> = flat.to_vec1::<bf16>()?.into_iter().map(bf16::to_bits).collect();
            return Ok(Weights::Bf16(pack::halves(&bits, inputs)));
        }
        DType::F16 => {
            let all = flat.to_vec1::<f16>()?;
            // The kernels read no others.
            if all.iter().all(|weight| weight.is_finite()) {
                let bits: Vec<u16> = all.into_iter().map(f16::to_bits).collect();
                return Ok(Weights::F16(pack::halves(&bits, inputs)));
            }
        }
        _ => {}
    }
    Ok(Weights::F32(pack::floats(&flat.to_dtype(DType::F32)?.to_vec1()?, inputs)))
}

fn read_into(
    tensors: &mut HashMap<String, Tensor>,
    file: &WeightFile,
    stored_dtype: &mut String,
) -> Result<(), ModelError> {
    let (name, bytes) = match file {
        WeightFile::Embedded(bytes) => {
            ("model.safetensors".to_owned(), std::borrow::Cow::Borrowed(*bytes))
        }
        WeightFile::Path(path) => {
            let bytes = std::fs::read(path)
                .map_err(|source| ModelError::Read { path: path.clone(), source })?;
            let name = path
                .file_name()
                .map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
            (name, bytes.into())
        }
        WeightFile::Gguf(path) => {
            let (unpacked, packing) = gguf::tensors(path)?;
            tensors.extend(unpacked);
            *stored_dtype = packing;
            return Ok(());
        }
    };
    let malformed = |error: candle_core::Error| ModelError::malformed(&name, error.to_string());
    let slices = candle_core::safetensors::SliceSafetensors::new(&bytes).map_err(malformed)?;
    for (tensor_name, view) in slices.tensors() {
        let tensor = slices.load(&tensor_name, &Device::Cpu).map_err(malformed)?;
        match tensor.dtype() {
            dtype @ (DType::F32 | DType::F16 | DType::BF16) => {
                dtype.as_str().clone_into(stored_dtype);
            }
            _ if tensor_name.ends_with("rotary_emb.inv_freq") => continue,
            _ => {
                return Err(ModelError::Unsupported {
                    what: format!("tensor `{tensor_name}` of {:?} in {name}", view.dtype()),
                    instead: "f32, f16 and bf16 are".to_owned(),
                });
            }
        }
        tensors.insert(tensor_name, tensor);
    }
    Ok(())
}
