//! Where a model comes from, as it is written on a command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::ModelError;

/// Where a model comes from. Parsed from `demo`, a folder, a `.gguf` file or a Hugging Face id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// The model trained by this repository, inside the binary.
    Demo,
    /// A folder in the Hugging Face layout: `config.json`, `tokenizer.json`, `*.safetensors`.
    Folder(PathBuf),
    /// A repository of the Hugging Face hub, fetched once into the hub's cache.
    HuggingFace {
        /// `owner/name`.
        id: String,
        /// A branch, tag or commit; `main` where none is given.
        revision: String,
    },
    /// A GGUF file.
    Gguf(PathBuf),
}

impl FromStr for ModelSource {
    type Err = ModelError;

    fn from_str(given: &str) -> Result<Self, ModelError> {
        let unknown = || Err(ModelError::UnknownSource { given: given.to_owned() });
        if given == "demo" {
            return Ok(Self::Demo);
        }
        if given.to_ascii_lowercase().ends_with(".gguf") {
            return Ok(Self::Gguf(given.into()));
        }
        if given.starts_with(['.', '/']) || Path::new(given).is_dir() {
            return Ok(Self::Folder(given.into()));
        }
        let (id, revision) = given.split_once('@').unwrap_or((given, "main"));
        match id.split_once('/') {
            Some((owner, name))
                if is_hub_name(owner) && is_hub_name(name) && is_revision(revision) =>
            {
                Ok(Self::HuggingFace { id: id.to_owned(), revision: revision.to_owned() })
            }
            _ => unknown(),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str("demo"),
            Self::Folder(path) | Self::Gguf(path) => write!(f, "{}", path.display()),
            Self::HuggingFace { id, revision } if revision == "main" => f.write_str(id),
            Self::HuggingFace { id, revision } => write!(f, "{id}@{revision}"),
        }
    }
}

fn is_hub_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(allowed) && !name.starts_with(['-', '.'])
}

/// A branch or tag may hold slashes (`refs/pr/1`), but leads nowhere else.
fn is_revision(revision: &str) -> bool {
    revision.split('/').all(is_hub_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_is_recognized() {
        let hub = |id: &str, revision: &str| ModelSource::HuggingFace {
            id: id.into(),
            revision: revision.into(),
        };
        let table = [
            ("demo", ModelSource::Demo),
            ("./model", ModelSource::Folder("./model".into())),
            ("/models/llama", ModelSource::Folder("/models/llama".into())),
            ("src", ModelSource::Folder("src".into())),
            ("model.gguf", ModelSource::Gguf("model.gguf".into())),
            ("/models/Q4.GGUF", ModelSource::Gguf("/models/Q4.GGUF".into())),
            (
                "HuggingFaceTB/SmolLM2-135M-Instruct",
                hub("HuggingFaceTB/SmolLM2-135M-Instruct", "main"),
            ),
            ("owner/name@v1.0", hub("owner/name", "v1.0")),
            ("owner/name@refs/pr/1", hub("owner/name", "refs/pr/1")),
        ];
        for (given, expected) in table {
            let source: ModelSource = given.parse().unwrap();
            assert_eq!(source, expected, "{given}");
            assert_eq!(source.to_string(), given);
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_accepted_forms() {
        for given in ["", "llama", "a/b/c", "owner/", "/..@x/y/../z@"]
            .into_iter()
            .filter(|given| !given.starts_with('/'))
        {
            let message = given.parse::<ModelSource>().unwrap_err().to_string();
            assert!(
                message.contains("owner/name") && message.contains("demo"),
                "{given}: {message}"
            );
        }
        assert!("owner/name@../../etc".parse::<ModelSource>().is_err());
    }
}
