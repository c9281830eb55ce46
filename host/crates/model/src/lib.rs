//! candle behind one handle: load a model folder or GGUF file, tokenize, forward, sample.
//!
//! A [`Model`] comes from a [`ModelSource`] and belongs to one thread; its [`Tokenizer`] may go to
//! any. What the forward pass runs is the Llama family (Llama, Mistral, TinyLlama, SmolLM);
//! anything else is refused when it is loaded, with a reason. [`config`], [`llama`] and [`cache`]
//! are public for the program that trains the demo model.

pub mod cache;
mod chat;
pub mod config;
mod demo;
mod error;
pub mod estimate;
mod files;
#[cfg(feature = "fixture")]
pub mod fixture;
mod gguf;
mod hub;
pub mod llama;
mod load;
mod model;
mod rope;
mod sample;
mod source;
mod text_stream;
mod tokenizer;

pub use chat::ChatMessage;
pub use error::{ErrorKind, ModelError};
pub use model::{Model, ModelInfo, Sequence};
pub use sample::{Sampler, SamplingOptions};
pub use source::ModelSource;
pub use text_stream::TextStream;
pub use tokenizer::Tokenizer;
