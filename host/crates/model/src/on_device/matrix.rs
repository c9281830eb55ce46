//! Matrices of weights in a GPU's memory, and their products.
//!
//! Weights stay in the type that the file has. Activations are f32 between products and are rounded to
//! the type of the weights for them; what comes out is f32 again. Packed weights (GGUF) are multiplied
//! by candle's kernels for them, which round activations to eight bits.

use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{DType, Module, Result, Tensor};

/// A matrix of `[outputs, inputs]`, and what is added to its products.
#[derive(Debug)]
pub(crate) struct Matrix {
    weights: Weights,
    bias: Option<Tensor>,
}

#[derive(Debug)]
enum Weights {
    Plain(Tensor),
    Packed { product: QMatMul, bytes: usize, table: std::sync::Arc<QTensor> },
}

/// Matrices of the same inputs. Plain ones are one matrix, for one product in the place of many.
#[derive(Debug)]
pub(crate) struct Side {
    matrices: Vec<Matrix>,
    /// Where one matrix is several: the outputs of each.
    outputs: Vec<usize>,
}

impl Matrix {
    pub(crate) fn plain(weights: Tensor) -> Self {
        Self { weights: Weights::Plain(weights), bias: None }
    }

    pub(crate) fn packed(weights: QTensor) -> Result<Self> {
        let bytes = weights.storage_size_in_bytes();
        let table = std::sync::Arc::new(weights);
        let product = QMatMul::from_arc(std::sync::Arc::clone(&table))?;
        Ok(Self { weights: Weights::Packed { product, bytes, table }, bias: None })
    }

    /// Adds `bias` (f32, one number per output) to every product.
    pub(crate) fn with_bias(self, bias: Tensor) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// Bytes that the weights take.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Plain(weights) => weights.elem_count() * weights.dtype().size_in_bytes(),
            Weights::Packed { bytes, .. } => *bytes,
        }
    }

    /// The type in which sixteen-bit attention goes with these weights.
    pub(crate) fn attention_dtype(&self) -> DType {
        match &self.weights {
            Weights::Plain(weights) => weights.dtype(),
            // What such weights say of keys and values is less than f16 holds.
            Weights::Packed { .. } => DType::F16,
        }
    }

    /// Some rows, in f32.
    pub(crate) fn rows(&self, which: &Tensor) -> Result<Tensor> {
        match &self.weights {
            Weights::Plain(weights) => weights.index_select(which, 0)?.to_dtype(DType::F32),
            Weights::Packed { table, .. } => table.embedding(which),
        }
    }

    /// `[tokens, outputs]` of `[tokens, inputs]`, both f32.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = match &self.weights {
            Weights::Plain(weights) => {
                let product = x.to_dtype(weights.dtype())?.matmul(&weights.t()?)?;
                product.to_dtype(DType::F32)?
            }
            Weights::Packed { product, .. } => product.forward(&x.contiguous()?)?,
        };
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }

    fn plain_dtype(&self) -> Option<DType> {
        match &self.weights {
            Weights::Plain(weights) => Some(weights.dtype()),
            Weights::Packed { .. } => None,
        }
    }
}

impl Side {
    /// Side by side; as one matrix where that can be.
    pub(crate) fn new(matrices: Vec<Matrix>) -> Result<Self> {
        let dtype = matrices.first().and_then(Matrix::plain_dtype);
        let alike = matrices.iter().all(|matrix| matrix.plain_dtype() == dtype);
        let biased = matrices.iter().filter(|matrix| matrix.bias.is_some()).count();
        if dtype.is_none() || !alike || (biased != 0 && biased != matrices.len()) {
            return Ok(Self { matrices, outputs: Vec::new() });
        }
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for matrix in matrices {
            if let Weights::Plain(plain) = matrix.weights {
                weights.push(plain);
            }
            biases.extend(matrix.bias);
        }
        let outputs = weights.iter().map(|weights| weights.dim(0)).collect::<Result<_>>()?;
        let mut matrix = Matrix::plain(Tensor::cat(&weights, 0)?);
        if biased != 0 {
            matrix = matrix.with_bias(Tensor::cat(&biases, 0)?);
        }
        Ok(Self { matrices: vec![matrix], outputs })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.matrices.iter().map(Matrix::bytes).sum()
    }

    /// The products with each, which may be views into one.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let [matrix] = self.matrices.as_slice() else {
            return self.matrices.iter().map(|matrix| matrix.forward(x)).collect();
        };
        let all = matrix.forward(x)?;
        let mut start = 0;
        let each = self.outputs.iter().map(|outputs| {
            start += outputs;
            all.narrow(1, start - outputs, *outputs)
        });
        each.collect()
    }
}
