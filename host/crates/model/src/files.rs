//! The files that make up a model, wherever they come from: the binary, a folder, the hub.
//!
//! Small files are read whole; weights are read one file at a time by [`crate::load`], so a large
//! model is not in memory twice over.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::embedding::Said;
use crate::hub::HubRepo;
use crate::{ModelError, ModelSource, demo, gguf};

/// Everything needed to build a model.
pub(crate) struct ModelFiles {
    pub(crate) name: String,
    pub(crate) config: Cow<'static, [u8]>,
    pub(crate) tokenizer: Cow<'static, [u8]>,
    pub(crate) tokenizer_config: Option<Cow<'static, [u8]>>,
    pub(crate) generation_config: Option<Cow<'static, [u8]>>,
    /// `chat_template.jinja`, which newer models have beside `tokenizer_config.json`.
    pub(crate) chat_template: Option<String>,
    pub(crate) embedding: Said,
    pub(crate) weights: Vec<WeightFile>,
}

/// One file of weights.
pub(crate) enum WeightFile {
    /// safetensors in the binary.
    Embedded(&'static [u8]),
    /// safetensors on disk.
    Path(PathBuf),
    /// GGUF on disk.
    Gguf(PathBuf),
}

impl From<&'static [u8]> for WeightFile {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Embedded(bytes)
    }
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl ModelFiles {
    pub(crate) fn find(source: &ModelSource) -> Result<Self, ModelError> {
        match source {
            ModelSource::Demo => Ok(demo::files()),
            ModelSource::Folder(folder) => Self::in_folder(folder),
            ModelSource::HuggingFace { id, revision } => Self::on_hub(id, revision),
            ModelSource::Gguf(path) => gguf::files(path),
        }
    }

    /// As [`Self::find`], but nothing is fetched: none where it would have to be.
    pub(crate) fn here(source: &ModelSource) -> Result<Option<Self>, ModelError> {
        let ModelSource::HuggingFace { id, revision } = source else {
            return Self::find(source).map(Some);
        };
        let Some(repo) = HubRepo::cached(id, revision) else { return Ok(None) };
        Self::gather(id.to_owned(), |file| repo.file(file), |file| repo.optional(file)).map(Some)
    }

    /// Size of all weights; fails where a file of them is missing.
    pub(crate) fn weight_bytes(&self) -> Result<u64, ModelError> {
        let sizes = self.weights.iter().map(|file| match file {
            WeightFile::Embedded(bytes) => Ok(bytes.len() as u64),
            WeightFile::Path(path) | WeightFile::Gguf(path) => std::fs::metadata(path)
                .map(|metadata| metadata.len())
                .map_err(|source| ModelError::Read { path: path.clone(), source }),
        });
        sizes.sum()
    }

    /// Bytes of all weights as f32, as far as the files tell before they are read.
    pub(crate) fn unpacked_bytes(&self) -> Result<u64, ModelError> {
        if let [WeightFile::Gguf(path)] = self.weights.as_slice() {
            return gguf::numbers(path).map(|numbers| numbers.saturating_mul(4));
        }
        let config: serde_json::Value = serde_json::from_slice(&self.config).unwrap_or_default();
        let dtype = config.get("torch_dtype").or_else(|| config.get("dtype"));
        let factor = match dtype.and_then(serde_json::Value::as_str) {
            Some("float16" | "bfloat16") => 2,
            _ => 1,
        };
        Ok(self.weight_bytes()?.saturating_mul(factor))
    }

    fn in_folder(folder: &Path) -> Result<Self, ModelError> {
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let required = |file: &str| Ok(folder.join(file));
        let optional = |file: &str| Ok(Some(folder.join(file)).filter(|path| path.exists()));
        Self::gather(name.unwrap_or_else(|| folder.display().to_string()), required, optional)
    }

    fn on_hub(id: &str, revision: &str) -> Result<Self, ModelError> {
        let repo = HubRepo::open(id, revision)?;
        let files =
            Self::gather(id.to_owned(), |file| repo.file(file), |file| repo.optional(file))?;
        repo.remember();
        Ok(files)
    }

    fn gather(
        name: String,
        required: impl Fn(&str) -> Result<PathBuf, ModelError>,
        optional: impl Fn(&str) -> Result<Option<PathBuf>, ModelError>,
    ) -> Result<Self, ModelError> {
        let read_optional = |file: &str| optional(file)?.map(|path| read(&path)).transpose();
        let config = without_infinities(&read(&required("config.json")?)?).into();
        let tokenizer = read(&required("tokenizer.json")?)?.into();
        let chat_template =
            match read_optional("chat_template.jinja")? {
                Some(bytes) => Some(String::from_utf8(bytes).map_err(|_| {
                    ModelError::malformed("chat_template.jinja", "is not UTF-8 text")
                })?),
                None => None,
            };
        // The index first: a repository may hold both, and a lone `model.safetensors` beside it
        // would be one shard.
        let weights = match optional(INDEX)? {
            Some(index) => shards(&read(&index)?)?
                .iter()
                .map(|file| required(file))
                .collect::<Result<Vec<_>, _>>()?,
            None => vec![required(SINGLE)?],
        };
        Ok(Self {
            name,
            config,
            tokenizer,
            tokenizer_config: read_optional("tokenizer_config.json")?.map(Into::into),
            generation_config: read_optional("generation_config.json")?.map(Into::into),
            chat_template,
            embedding: Said::find(read_optional)?,
            weights: weights.into_iter().map(WeightFile::Path).collect(),
        })
    }
}

/// The files that an index of shards names, each once.
fn shards(index: &[u8]) -> Result<BTreeSet<String>, ModelError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index)
        .map_err(|error| ModelError::malformed(INDEX, error.to_string()))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    match files.iter().find(|file| file.contains(['/', '\\']) || !file.ends_with(".safetensors")) {
        Some(file) => {
            Err(ModelError::malformed(INDEX, format!("`{file}` is no safetensors file beside it")))
        }
        None if files.is_empty() => Err(ModelError::malformed(INDEX, "names no file")),
        None => Ok(files),
    }
}

/// The JSON that Python writes, with `null` for the numbers that JSON has not. Mamba 2 has a bound that is
/// infinite.
fn without_infinities(mut json: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    while let Some((first, rest)) = json.split_first() {
        let words: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
        if let Some(after) = words.iter().find_map(|word| json.strip_prefix(*word))
            && !quoted
        {
            written.extend_from_slice(b"null");
            json = after;
            continue;
        }
        quoted ^= *first == b'"' && !escaped;
        escaped = quoted && *first == b'\\' && !escaped;
        written.push(*first);
        json = rest;
    }
    written
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_has_not_are_none() {
        for (python, json) in [
            ("[0.0, Infinity]", "[0.0, null]"),
            ("{\"a\": -Infinity, \"b\": NaN}", "{\"a\": null, \"b\": null}"),
            (r#"{"Infinity": "to \" NaN \\", "b": 1}"#, r#"{"Infinity": "to \" NaN \\", "b": 1}"#),
            ("[1e5, \"\u{221e}\"]", "[1e5, \"\u{221e}\"]"),
        ] {
            assert_eq!(without_infinities(python.as_bytes()), json.as_bytes());
        }
    }

    #[test]
    fn an_index_names_each_shard_once_and_nothing_outside_the_folder() {
        let good = br#"{"weight_map":
            {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}}"#;
        assert_eq!(
            shards(good).unwrap().into_iter().collect::<Vec<_>>(),
            ["1.safetensors", "2.safetensors"]
        );
        for bad in [
            r#"{}"#,
            r#"{"weight_map": {}}"#,
            r#"{"weight_map": {"a": "../1.safetensors"}}"#,
            r#"{"weight_map": {"a": "weights.bin"}}"#,
            "nonsense",
        ] {
            assert!(shards(bad.as_bytes()).unwrap_err().to_string().contains(INDEX), "{bad}");
        }
    }
}
