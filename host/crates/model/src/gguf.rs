//! GGUF files of decoders, read as what a Hugging Face folder would hold: a configuration, a tokenizer
//! and weights under their usual names.
//!
//! Of Llama, Qwen2 and Qwen3 weights stay packed as the file has them ([`crate::kernels::quantised`]); types that have no
//! kernel here are unpacked to f32, and a warning says so. The families that run one sequence at a time
//! ([`crate::sequential`]) have all of them unpacked. A file whose tokenizer cannot be
//! reproduced exactly is refused: wrong text is worse than no text.

mod family;
mod metadata;
mod tokenizer;

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};

use self::family::Family;
use self::metadata::{Metadata, integer};
use crate::ModelError;
use crate::files::{ModelFiles, WeightFile};
use crate::kernels::block::Packing;
use crate::kernels::linear::Weights;
use crate::kernels::pack;
use crate::kernels::quantised::Quantised;
use crate::on_device::Matrix;

/// Divisors of rotary frequencies that Llama 3.1 and later have in place of a formula.
pub(crate) const FREQUENCIES: &str = "rope_freqs.weight";

/// What rotary frequencies of Phi-3 are divided by in texts of the length that it was first trained with.
const SHORT_FACTORS: &str = "rope_factors_short.weight";

/// The files that a folder of this model would hold.
pub(crate) fn files(path: &Path) -> Result<ModelFiles, ModelError> {
    let (mut content, mut reader) = open(path)?;
    Metadata { content: &content, path }.family()?;
    let factors = match content.tensor_infos.contains_key(SHORT_FACTORS) {
        true => {
            let factors = content.tensor(&mut reader, SHORT_FACTORS, &Device::Cpu)?;
            Some(factors.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?)
        }
        false => None,
    };
    let tokenizer = tokenizer::json(&mut content, &file_name(path))?;
    let metadata = Metadata { content: &content, path };
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(ModelFiles {
        name,
        config: metadata.config(factors)?.to_string().into_bytes().into(),
        tokenizer: tokenizer.into(),
        tokenizer_config: Some(metadata.tokenizer_config().to_string().into_bytes().into()),
        generation_config: None,
        chat_template: None,
        embedding: metadata.pooling(),
        weights: vec![WeightFile::Gguf(path.to_owned())],
    })
}

/// A tensor of a file.
pub(crate) struct Packed {
    tensor: QTensor,
    /// Heads whose rotary pairs lie side by side, and half a head apart in folders.
    turned: Option<usize>,
    /// Whether it is one more than in folders.
    one_more: bool,
}

/// Every tensor of the file under the name it has in a folder; and how most are packed.
pub(crate) fn tensors(path: &Path) -> Result<(HashMap<String, Packed>, String), ModelError> {
    let (content, mut reader) = open(path)?;
    let metadata = Metadata { content: &content, path };
    let heads = metadata.count("attention.head_count")?;
    let kv_heads = metadata.count("attention.head_count_kv").unwrap_or(heads);
    let family = metadata.family()?;
    let pairs_side_by_side = family == Family::Llama;
    let mut tensors = HashMap::new();
    let mut packings: HashMap<String, usize> = HashMap::new();
    for name in content.tensor_infos.keys() {
        let tensor = content.tensor(&mut reader, name, &Device::Cpu)?;
        *packings.entry(format!("{:?}", tensor.dtype())).or_default() +=
            tensor.shape().elem_count();
        let turned = match name.rsplit('.').nth(1) {
            Some("attn_q") if pairs_side_by_side => Some(heads),
            Some("attn_k") if pairs_side_by_side => Some(kv_heads),
            _ => None,
        };
        let one_more = family.is_gemma() && name.ends_with("norm.weight");
        let name = family.folder_name(name).unwrap_or_else(|| name.clone());
        tensors.insert(name, Packed { tensor, turned, one_more });
    }
    let packing = packings.into_iter().max_by_key(|(_, elements)| *elements);
    Ok((tensors, packing.map_or_else(String::new, |(name, _)| name.to_lowercase())))
}

/// Numbers of all tensors of the file.
pub(crate) fn numbers(path: &Path) -> Result<u64, ModelError> {
    let (content, _) = open(path)?;
    let each = content.tensor_infos.values().map(|info| info.shape.elem_count() as u64);
    Ok(each.fold(0, u64::saturating_add))
}

impl Packed {
    pub(crate) fn dims(&self) -> &[usize] {
        self.tensor.shape().dims()
    }

    /// All of it in f32.
    pub(crate) fn floats(&self) -> Result<Tensor, ModelError> {
        let floats = self.tensor.dequantize(&Device::Cpu)?;
        Ok(if self.one_more { (floats - 1.0)? } else { floats })
    }

    pub(crate) fn vector(&self) -> Result<Vec<f32>, ModelError> {
        Ok(self.tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()?)
    }

    /// The matrix for the kernels; none if its scales are no numbers.
    pub(crate) fn matrix(
        &self,
        outputs: usize,
        inputs: usize,
    ) -> Result<Option<Weights>, ModelError> {
        let packing = match self.tensor.dtype() {
            GgmlDType::Q4_0 => Packing::Q4_0,
            GgmlDType::Q8_0 => Packing::Q8_0,
            GgmlDType::Q4K => Packing::Q4K,
            GgmlDType::Q5K => Packing::Q5K,
            GgmlDType::Q6K => Packing::Q6K,
            other => return self.unpacked(other, outputs, inputs).map(Some),
        };
        let data = self.tensor.data()?;
        let each = inputs / packing.block() * packing.bytes();
        let row = |row: usize| {
            let row = self.place(row, outputs);
            data.get(row * each..(row + 1) * each)
        };
        Ok(Quantised::pack(packing, inputs, outputs, row).map(Weights::Quantised))
    }

    /// The matrix in a device's memory: packed as it is, but for types of whole numbers of bytes a weight.
    pub(crate) fn on(
        &self,
        device: &Device,
        outputs: usize,
        inputs: usize,
    ) -> Result<Matrix, ModelError> {
        let kind = self.tensor.dtype();
        let plain = match kind {
            GgmlDType::F32 => Some(DType::F32),
            GgmlDType::F16 => Some(DType::F16),
            GgmlDType::BF16 => Some(DType::BF16),
            _ => None,
        };
        if let Some(dtype) = plain {
            let floats = self.in_order(&self.vector()?, outputs, inputs);
            let matrix = Tensor::from_vec(floats, (outputs, inputs), &Device::Cpu)?;
            return Ok(Matrix::plain(matrix.to_dtype(dtype)?.to_device(device)?));
        }
        let data = self.tensor.data()?;
        let bytes = self.in_order(&data, outputs, data.len() / outputs.max(1));
        let storage = QStorage::from_data(bytes.into(), device, kind)?;
        Ok(Matrix::packed(QTensor::new(storage, (outputs, inputs))?)?)
    }

    fn unpacked(
        &self,
        kind: GgmlDType,
        outputs: usize,
        inputs: usize,
    ) -> Result<Weights, ModelError> {
        if matches!(kind, GgmlDType::F16 | GgmlDType::BF16) {
            let data = self.tensor.data()?;
            let halves = data.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
            let halves = self.in_order(&halves.collect::<Vec<_>>(), outputs, inputs);
            let finite = |half: &u16| half & 0x7c00 != 0x7c00;
            match kind {
                GgmlDType::BF16 => return Ok(Weights::Bf16(pack::halves(&halves, inputs))),
                _ if halves.iter().all(finite) => {
                    return Ok(Weights::F16(pack::halves(&halves, inputs)));
                }
                _ => {}
            }
        } else if kind != GgmlDType::F32 {
            tracing::warn!(packing = ?kind, "weights of this packing are unpacked to f32");
        }
        let floats = self.in_order(&self.vector()?, outputs, inputs);
        Ok(Weights::F32(pack::floats(&floats, inputs)))
    }

    /// Rows as folders have them.
    fn in_order<T: Copy>(&self, matrix: &[T], outputs: usize, inputs: usize) -> Vec<T> {
        let rows = (0..outputs).map(|row| self.place(row, outputs) * inputs);
        let rows = rows.filter_map(|at| matrix.get(at..at + inputs));
        rows.flatten().copied().collect()
    }

    /// Where a folder's row is in the file.
    fn place(&self, row: usize, rows: usize) -> usize {
        let Some(heads) = self.turned else { return row };
        let head = rows / heads.max(1);
        let half = head / 2;
        if half == 0 {
            return row;
        }
        let (start, row) = (row / head * head, row % head);
        start + row % half * 2 + row / half
    }
}

fn open(path: &Path) -> Result<(Content, BufReader<File>), ModelError> {
    let file =
        File::open(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    let mut reader = BufReader::new(file);
    let content = Content::read(&mut reader)
        .map_err(|error| ModelError::malformed(file_name(path), error.to_string()))?;
    Ok((content, reader))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
