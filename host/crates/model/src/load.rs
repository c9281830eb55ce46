//! Weights from safetensors or GGUF files, on the CPU in f32 whatever the file holds.
//!
//! Every tensor the model needs must be there in the right shape; what is missing is never made up.
//! Files are not memory-mapped: each is read, converted and let go before the next, which costs one
//! copy at start-up and needs no unsafe code.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use crate::config::LlamaConfig;
use crate::files::WeightFile;
use crate::llama::{Kernels, Llama};
use crate::{ModelError, gguf};

/// A model and what its files said of the weights.
pub(crate) struct Loaded {
    pub(crate) llama: Llama,
    pub(crate) parameters: u64,
    /// As stored; the arithmetic is in f32.
    pub(crate) stored_dtype: String,
}

pub(crate) fn llama(config: LlamaConfig, files: &[WeightFile]) -> Result<Loaded, ModelError> {
    let mut tensors = HashMap::new();
    let mut stored_dtype = DType::F32.as_str().to_owned();
    for file in files {
        read_into(&mut tensors, file, &mut stored_dtype)?;
    }
    let mut parameters = 0;
    let llama = Llama::assemble(config, Kernels::Fused, |name, shape| {
        let tensor = tensors.remove(name).ok_or_else(|| {
            ModelError::malformed("weights", format!("no tensor `{name}` in any file"))
        })?;
        if tensor.dims() != shape {
            let reason =
                format!("tensor `{name}` is {:?}, config.json says {shape:?}", tensor.dims());
            return Err(ModelError::malformed("weights", reason));
        }
        parameters += tensor.elem_count() as u64;
        Ok(tensor)
    })?;
    Ok(Loaded { llama, parameters, stored_dtype })
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
        tensors.insert(tensor_name, tensor.to_dtype(DType::F32)?);
    }
    Ok(())
}
