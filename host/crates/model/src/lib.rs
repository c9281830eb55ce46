//! Models behind one handle: load a folder or GGUF file, tokenize, forward, sample.
//!
//! A [`Model`] comes from a [`ModelSource`] and belongs to one thread; its [`Tokenizer`] may go to
//! any. One pass ([`Model::forward_batch`]) computes tokens of many sequences, whose keys and values
//! are in a [`KvStore`]. The Llama family (Llama, Mistral, TinyLlama, SmolLM, Qwen2, Qwen3) has kernels
//! of its own for that. Other families are run by the code of candle-transformers, one sequence at a
//! time ([`Passes`]), and encoders one text at a time; anything else is refused when it is loaded,
//! with a reason. [`config`] and [`llama`] are public for the program that trains the demo model.

mod architecture;
mod batch;
mod chat;
mod compute_device;
pub mod config;
mod constraint;
mod decoder;
mod demo;
mod embedding;
mod encoder;
mod error;
pub mod estimate;
mod files;
#[cfg(feature = "fixture")]
pub mod fixture;
mod gguf;
mod hub;
mod kernels;
mod kv;
mod layers;
pub mod llama;
mod load;
mod model;
mod on_device;
mod rope;
mod runner;
mod sample;
mod schema_cache;
mod sequence;
mod sequential;
mod source;
mod text_stream;
mod tokenizer;
mod vocabulary;

pub use architecture::Passes;
pub use chat::ChatMessage;
pub use compute_device::ComputeDevice;
pub use constraint::{Constraint, Mask};
pub use decoder::{Row, Wanted};
pub use embedding::{Embedder, Embedding, Pooling};
pub use error::{ErrorKind, ModelError};
pub use kv::{BLOCK_TOKENS, KvStore};
pub use model::{Computed, Model, ModelInfo, ModelLook, look};
pub use sample::{Sampler, SamplingOptions, TokenLogprobs};
pub use sequence::Sequence;
pub use source::ModelSource;
pub use text_stream::TextStream;
pub use tokenizer::Tokenizer;
pub use vocabulary::TokenBytes;
