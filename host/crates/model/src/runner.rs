//! Whatever computes the passes: the decoder of our own, on the CPU or a GPU, a model of
//! candle-transformers, or an encoder.

use crate::architecture::{Architecture, Passes};
use crate::compute_device::{CPU, Opened};
use crate::decoder::{Decoder, Row};
use crate::encoder::Encoder;
use crate::files::WeightFile;
use crate::kv::{Keeper, KvShape, KvStore};
use crate::load::{self, Unpacked};
use crate::model::Computed;
use crate::on_device::DeviceDecoder;
use crate::sequential::Sequential;
use crate::{ComputeDevice, ModelError, Pooling};

/// A model without its names and its tokenizer.
#[derive(Debug)]
pub(crate) enum Runner {
    Shared(Box<Decoder>),
    OnDevice(Box<DeviceDecoder>),
    Alone(Sequential),
    Whole(Encoder),
}

/// A model and what its files said of the weights.
pub(crate) struct Loaded {
    pub(crate) runner: Runner,
    pub(crate) parameters: u64,
    /// As stored; the arithmetic is in f32.
    pub(crate) stored_dtype: String,
    /// Whether it writes text.
    pub(crate) generates: bool,
    /// Numbers of a token's state, and how these are pooled where its files do not say; nothing if
    /// states are not told of.
    pub(crate) states: Option<(usize, Pooling)>,
}

impl Runner {
    pub(crate) fn load(
        architecture: Architecture,
        weights: &[WeightFile],
        device: ComputeDevice,
    ) -> Result<Loaded, ModelError> {
        let opened = device.open()?;
        if let (Opened::Tensors(_, name), Passes::Alone | Passes::Whole) =
            (&opened, architecture.passes())
        {
            tracing::warn!(device = name, "models of this family are computed on the CPU");
        }
        let shortened = |reason: Option<&'static str>| {
            if let Some(reason) = reason {
                tracing::warn!("the context is shorter than the model's own: {reason}");
            }
        };
        match architecture {
            Architecture::Shared(config) => {
                let (generates, width) = (config.generates, config.hidden);
                let states = Some((width, Pooling::Last));
                let (runner, parameters, stored_dtype) = match opened {
                    Opened::Kernels => {
                        let loaded = load::decoder(*config, weights)?;
                        let runner = Self::Shared(Box::new(loaded.decoder));
                        (runner, loaded.parameters, loaded.stored_dtype)
                    }
                    Opened::Tensors(device, name) => {
                        let loaded = DeviceDecoder::load(*config, weights, device, &name)?;
                        let runner = Self::OnDevice(Box::new(loaded.decoder));
                        (runner, loaded.parameters, loaded.stored_dtype)
                    }
                };
                Ok(Loaded { runner, parameters, stored_dtype, generates, states })
            }
            Architecture::Alone(recipe) => {
                shortened(recipe.shortened);
                let weights = Unpacked::read(weights)?;
                let (parameters, stored_dtype) = (weights.parameters, weights.stored_dtype.clone());
                let runner = Self::Alone(Sequential::build(recipe, weights)?);
                Ok(Loaded { runner, parameters, stored_dtype, generates: true, states: None })
            }
            Architecture::Whole(recipe) => {
                shortened(recipe.shortened);
                let states = Some((recipe.width, Pooling::Mean));
                let weights = Unpacked::read(weights)?;
                let (parameters, stored_dtype) = (weights.parameters, weights.stored_dtype.clone());
                let runner = Self::Whole(Encoder::build(recipe, weights)?);
                Ok(Loaded { runner, parameters, stored_dtype, generates: false, states })
            }
        }
    }

    pub(crate) fn passes(&self) -> Passes {
        match self {
            Self::Shared(_) | Self::OnDevice(_) => Passes::Shared,
            Self::Alone(_) => Passes::Alone,
            Self::Whole(_) => Passes::Whole,
        }
    }

    pub(crate) fn vocabulary(&self) -> usize {
        match self {
            Self::Shared(decoder) => decoder.config().vocabulary,
            Self::OnDevice(decoder) => decoder.config().vocabulary,
            Self::Alone(model) => model.vocabulary(),
            Self::Whole(encoder) => encoder.vocabulary(),
        }
    }

    pub(crate) fn context_length(&self) -> usize {
        match self {
            Self::Shared(decoder) => decoder.config().context_length,
            Self::OnDevice(decoder) => decoder.config().context_length,
            Self::Alone(model) => model.context_length(),
            Self::Whole(encoder) => encoder.context_length(),
        }
    }

    /// Bytes that the weights take.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Shared(decoder) => decoder.bytes(),
            Self::OnDevice(decoder) => decoder.bytes(),
            Self::Alone(model) => model.bytes(),
            Self::Whole(encoder) => encoder.bytes(),
        }
    }

    /// What a token's keys and values are.
    pub(crate) fn kv(&self) -> KvShape {
        match self {
            Self::Shared(decoder) => decoder.config().kv(),
            Self::OnDevice(decoder) => decoder.config().kv(),
            Self::Alone(model) => model.kv(),
            Self::Whole(_) => KvShape::default(),
        }
    }

    /// Bytes of a block of keys and values.
    pub(crate) fn block_bytes(&self) -> usize {
        match self {
            Self::OnDevice(decoder) => decoder.block_bytes(),
            _ => self.kv().block_bytes(),
        }
    }

    /// The name of the device that it is computed on.
    pub(crate) fn device(&self) -> &str {
        match self {
            Self::OnDevice(decoder) => decoder.device(),
            _ => CPU,
        }
    }

    /// Memory for keys and values, or what counts it.
    pub(crate) fn store(&self, bytes: usize) -> Result<KvStore, ModelError> {
        match self {
            Self::Shared(_) => KvStore::new(self.kv(), bytes),
            Self::OnDevice(decoder) => decoder.store(bytes),
            Self::Alone(model) => model.store(bytes),
            Self::Whole(encoder) => Ok(encoder.store()),
        }
    }

    /// Whether a store is one of these.
    pub(crate) fn fits(&self, store: &KvStore) -> bool {
        let keeper = match self {
            Self::Shared(_) => Keeper::Kernels,
            Self::OnDevice(_) => Keeper::Device,
            Self::Alone(_) => Keeper::Model,
            Self::Whole(_) => Keeper::Nobody,
        };
        store.fits(self.kv(), self.block_bytes(), keeper)
    }

    /// One pass over rows that are sound.
    pub(crate) fn forward(
        &self,
        store: &mut KvStore,
        rows: &[Row<'_>],
    ) -> Result<Vec<Computed>, ModelError> {
        match self {
            Self::Shared(decoder) => Ok(decoder.compute(store, rows)),
            Self::OnDevice(decoder) => {
                decoder.compute(store.tensors().ok_or_else(other_store)?, rows)
            }
            Self::Alone(model) => {
                let running = store.running().ok_or_else(other_store)?;
                rows.iter().map(|row| model.forward(running, row)).collect()
            }
            Self::Whole(encoder) => rows.iter().map(|row| encoder.forward(row)).collect(),
        }
    }

    /// The logits at every position of one row that is sound.
    pub(crate) fn forward_all(
        &self,
        store: &mut KvStore,
        row: &Row<'_>,
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        match self {
            Self::Shared(decoder) => Ok(decoder.compute_all(store, row)),
            Self::OnDevice(decoder) => {
                decoder.compute_all(store.tensors().ok_or_else(other_store)?, row)
            }
            Self::Alone(model) => model.forward_all(store.running().ok_or_else(other_store)?, row),
            Self::Whole(_) => Err(ModelError::Input("the model writes no text".to_owned())),
        }
    }
}

fn other_store() -> ModelError {
    ModelError::Input("the store was made for another model".to_owned())
}
