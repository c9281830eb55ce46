//! Weights from safetensors or GGUF files, packed for the kernels in the type that the file has, or
//! unpacked to f32 for the models of candle-transformers.
//!
//! Every tensor the model needs must be there in the right shape; what is missing is never made up.
//! Files are not memory-mapped: each is read whole, and a tensor is let go once it is packed.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use crate::config::LlamaConfig;
use crate::decoder::Decoder;
use crate::files::WeightFile;
use crate::kernels::linear::{Linear, Weights};
use crate::kernels::pack;
use crate::layers::{self, Source};
use crate::{ModelError, gguf};

/// A decoder of our own and what its files said of the weights.
pub(crate) struct Loaded {
    pub(crate) decoder: Decoder,
    pub(crate) parameters: u64,
    /// As stored; the arithmetic is in f32.
    pub(crate) stored_dtype: String,
}

pub(crate) fn decoder(config: LlamaConfig, files: &[WeightFile]) -> Result<Loaded, ModelError> {
    let (mut tensors, stored_dtype) = Tensors::read(files)?;
    let decoder = Decoder::new(layers::Weights::assemble(config, &mut tensors)?);
    Ok(Loaded { decoder, parameters: tensors.parameters, stored_dtype })
}

/// The weights of a model whose code wants them all in f32, by their names in a folder.
pub(crate) struct Unpacked {
    pub(crate) tensors: HashMap<String, Tensor>,
    pub(crate) parameters: u64,
    /// As stored.
    pub(crate) stored_dtype: String,
}

impl Unpacked {
    /// Reads them, one file after another.
    pub(crate) fn read(files: &[WeightFile]) -> Result<Self, ModelError> {
        let mut all = Self { tensors: HashMap::new(), parameters: 0, stored_dtype: String::new() };
        DType::F32.as_str().clone_into(&mut all.stored_dtype);
        for file in files {
            let mut stored = HashMap::new();
            read_into(&mut stored, file, &mut all.stored_dtype)?;
            for (name, tensor) in stored {
                let tensor = match tensor {
                    Stored::Plain(tensor) => tensor.to_dtype(DType::F32)?,
                    Stored::Gguf(packed) => packed.floats()?,
                };
                all.parameters += tensor.elem_count() as u64;
                all.tensors.insert(name, tensor);
            }
        }
        Ok(all)
    }

    /// Bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        let each = self.tensors.values().map(Tensor::elem_count);
        each.sum::<usize>().saturating_mul(size_of::<f32>())
    }
}

/// A tensor of either kind of file.
pub(crate) enum Stored {
    Plain(Tensor),
    Gguf(Box<gguf::Packed>),
}

/// What the files hold and the model has not asked for yet.
pub(crate) struct Tensors {
    tensors: HashMap<String, Stored>,
    parameters: u64,
}

impl Tensors {
    /// Reads them, and how they are stored.
    pub(crate) fn read(files: &[WeightFile]) -> Result<(Self, String), ModelError> {
        let mut tensors = HashMap::new();
        let mut stored_dtype = DType::F32.as_str().to_owned();
        for file in files {
            read_into(&mut tensors, file, &mut stored_dtype)?;
        }
        Ok((Self { tensors, parameters: 0 }, stored_dtype))
    }

    /// Numbers of all that was taken.
    pub(crate) fn parameters(&self) -> u64 {
        self.parameters
    }

    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Stored, ModelError> {
        // Models of embeddings are often stored without the outermost name.
        let mut found = self.tensors.remove(name);
        if let (None, Some(inner)) = (&found, name.strip_prefix("model.")) {
            found = self.tensors.remove(inner);
        }
        let tensor = found.ok_or_else(|| {
            ModelError::malformed("weights", format!("no tensor `{name}` in any file"))
        })?;
        let dims = match &tensor {
            Stored::Plain(tensor) => tensor.dims(),
            Stored::Gguf(packed) => packed.dims(),
        };
        if dims != shape {
            let reason = format!("tensor `{name}` is {dims:?}, config.json says {shape:?}");
            return Err(ModelError::malformed("weights", reason));
        }
        self.parameters += shape.iter().product::<usize>() as u64;
        Ok(tensor)
    }
}

impl Source for Tensors {
    type Error = ModelError;
    type Matrix = Linear;
    type Vector = Vec<f32>;

    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, ModelError> {
        let weights = match self.take(name, &[outputs, inputs])? {
            Stored::Plain(tensor) => weights(&tensor, inputs)?,
            Stored::Gguf(packed) => packed.matrix(outputs, inputs)?.ok_or_else(|| {
                let reason = format!("tensor `{name}` has scales that are no numbers");
                ModelError::malformed("weights", reason)
            })?,
        };
        Ok(Linear::new(inputs, outputs, weights))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        match self.take(name, &[length])? {
            Stored::Plain(tensor) => Ok(tensor.to_dtype(DType::F32)?.to_vec1()?),
            Stored::Gguf(packed) => packed.vector(),
        }
    }

    fn biased(&mut self, matrix: Linear, bias: Vec<f32>) -> Linear {
        matrix.with_bias(bias)
    }

    fn rope_factors(&mut self, count: usize) -> Result<Option<Vec<f32>>, ModelError> {
        if !self.tensors.contains_key(gguf::FREQUENCIES) {
            return Ok(None);
        }
        let factors = self.vector(gguf::FREQUENCIES, count)?;
        self.parameters -= count as u64;
        match factors.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
            true => Ok(Some(factors)),
            false => Err(ModelError::malformed("weights", "rotary factors that are no numbers")),
        }
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
    tensors: &mut HashMap<String, Stored>,
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
            let stored =
                unpacked.into_iter().map(|(name, tensor)| (name, Stored::Gguf(Box::new(tensor))));
            tensors.extend(stored);
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
        tensors.insert(tensor_name, Stored::Plain(tensor));
    }
    Ok(())
}
