//! What can go wrong between a model's name and its logits.
//!
//! Every message says which file or value is at fault and what would be accepted: most of them are
//! read by somebody who has just pointed the gateway at a folder.

use std::path::PathBuf;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The name given for a model has none of the accepted forms.
    #[error(
        "`{given}` names no model: give `demo`, a folder, a FILE.gguf, or a Hugging Face id such as `owner/name` or \
         `owner/name@revision`"
    )]
    UnknownSource {
        /// What was given.
        given: String,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of the model is there, but is not what it should be.
    #[error("{file}: {reason}")]
    Malformed {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A well-formed model that this crate does not run.
    #[error("{what} is not supported; {instead}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What is supported.
        instead: String,
    },
    /// A download from the Hugging Face hub failed.
    #[error("cannot fetch {file} of {id} from the Hugging Face hub: {reason}")]
    Hub {
        /// The repository.
        id: String,
        /// The file asked for.
        file: String,
        /// What the client said.
        reason: String,
    },
    /// Text could not be turned into tokens or back.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A conversation could not be turned into a prompt.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// A JSON schema that answers cannot be held to.
    #[error("schema: {0}")]
    Schema(String),
    /// More tokens than the model has positions.
    #[error("{wanted} tokens exceed the model's context of {context_length}")]
    ContextExceeded {
        /// Positions the sequence would need.
        wanted: usize,
        /// Positions the model has.
        context_length: usize,
    },
    /// A forward pass without a token, or with one outside the vocabulary.
    #[error("invalid input: {0}")]
    Input(String),
    /// Memory for keys and values is too small for one block, or cannot be had.
    #[error("{bytes} bytes for keys and values: {needed} are needed and must be free")]
    KvMemory {
        /// What was asked for.
        bytes: usize,
        /// What would do.
        needed: usize,
    },
    /// The model computed nothing that could be sampled from.
    #[error(
        "the model's output holds no number; its weights are damaged, or overflow the type that they are computed in"
    )]
    NoNumbers,
    /// The name given for a device has none of the accepted forms.
    #[error("`{given}` names no device: give `auto`, `cpu`, `cuda` or `cuda:N`")]
    UnknownDevice {
        /// What was given.
        given: String,
    },
    /// A device was asked for by name and cannot be used.
    #[error("no model can be computed on {device}: {reason}")]
    NoDevice {
        /// Its name.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// A device failed in the middle, most often because its memory is full.
    #[error("{device} failed: {source}")]
    OnDevice {
        /// Its name.
        device: String,
        /// What the tensor library said.
        source: Box<candle_core::Error>,
    },
    /// The tensor library failed.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
}

/// What a [`ModelError`] means to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The model's name, files or kind are at fault: nothing will change until an operator acts.
    Model,
    /// The network or the hub failed; the same call may succeed later.
    Unavailable,
    /// The request is at fault: too long, empty, or not what the template takes.
    Request,
    /// A defect here or in the tensor library.
    Internal,
}

impl ModelError {
    /// What this error means to whoever asked.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownSource { .. }
            | Self::Read { .. }
            | Self::Malformed { .. }
            | Self::Unsupported { .. }
            | Self::KvMemory { .. }
            | Self::UnknownDevice { .. }
            | Self::NoDevice { .. }
            | Self::NoNumbers => ErrorKind::Model,
            Self::Hub { .. } => ErrorKind::Unavailable,
            Self::ChatTemplate(_)
            | Self::Schema(_)
            | Self::ContextExceeded { .. }
            | Self::Input(_) => ErrorKind::Request,
            Self::Tokenizer(_) | Self::OnDevice { .. } | Self::Tensor(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn malformed(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed { file: file.into(), reason: reason.into() }
    }
}
