//! Embeddings: the states of a text's tokens, pooled into one vector of length 1.
//!
//! How they are pooled is what the folder says in the files of sentence-transformers (`modules.json`
//! and the `config.json` of its pooling), or a GGUF file in its metadata; a decoder that says nothing
//! gives the state of its last token, which has seen all others. A folder that asks for more than
//! that, such as another projection afterwards, has no embeddings here: other numbers would be worse
//! than none.

use serde::Deserialize;

use crate::ModelError;

/// What a model can make of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// How the states of the tokens become one.
    pub pooling: Pooling,
    /// Numbers of a vector.
    pub width: usize,
    /// Whether the model was trained so that the first numbers of a vector do by themselves.
    pub shortens: bool,
}

/// How the states of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the last token.
    Last,
    /// That of the first token.
    First,
}

/// What the files say of embeddings: nothing if they do not mention them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Said {
    #[default]
    Nothing,
    Pool(Pooling),
    /// Something that is not done here.
    Other(String),
}

/// The name of sentence-transformers' list of what follows one another.
pub(crate) const MODULES: &str = "modules.json";
/// Where the pooling is described, where no list says so.
pub(crate) const POOLING: &str = "1_Pooling";

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

#[derive(Deserialize)]
struct RawPooling {
    /// Newer files have this in the place of the switches.
    pooling_mode: Option<String>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize, Default)]
struct RawModel {
    is_matryoshka: Option<bool>,
    matryoshka_dimensions: Option<serde_json::Value>,
}

impl Pooling {
    /// As start-up messages name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Last => "last token",
            Self::First => "first token",
        }
    }
}

impl Said {
    /// Reads a folder's files; `read` gives what is there.
    pub(crate) fn find(
        read: impl Fn(&str) -> Result<Option<Vec<u8>>, ModelError>,
    ) -> Result<Self, ModelError> {
        let folder = match read(MODULES)? {
            None => Some(POOLING.to_owned()),
            Some(modules) => match pooling_folder(&modules)? {
                Ok(folder) => folder,
                Err(other) => return Ok(Self::Other(other)),
            },
        };
        let Some(folder) = folder else { return Ok(Self::Nothing) };
        match read(&format!("{folder}/config.json"))? {
            Some(config) => Self::pooled(&folder, &config),
            None => Ok(Self::Nothing),
        }
    }

    fn pooled(folder: &str, config: &[u8]) -> Result<Self, ModelError> {
        let file = format!("{folder}/config.json");
        let raw: RawPooling = serde_json::from_slice(config)
            .map_err(|error| ModelError::malformed(&file, error.to_string()))?;
        let switches = [
            (raw.pooling_mode_cls_token, "cls"),
            (raw.pooling_mode_mean_tokens, "mean"),
            (raw.pooling_mode_max_tokens, "max"),
            (raw.pooling_mode_mean_sqrt_len_tokens, "mean_sqrt_len"),
            (raw.pooling_mode_weightedmean_tokens, "weightedmean"),
            (raw.pooling_mode_lasttoken, "lasttoken"),
        ];
        let on = switches.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned());
        let modes: Vec<String> = raw.pooling_mode.map_or_else(|| on.collect(), |mode| vec![mode]);
        match modes.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["mean"] => Ok(Self::Pool(Pooling::Mean)),
            ["lasttoken"] => Ok(Self::Pool(Pooling::Last)),
            ["cls"] => Ok(Self::Pool(Pooling::First)),
            [] => Err(ModelError::malformed(file, "names no way of pooling")),
            others => Ok(Self::Other(format!("pooling by {}", others.join(" and ")))),
        }
    }

    /// What `llama.cpp` calls its ways of pooling.
    pub(crate) fn numbered(kind: u64) -> Self {
        match kind {
            0 => Self::Nothing,
            1 => Self::Pool(Pooling::Mean),
            2 => Self::Pool(Pooling::First),
            3 => Self::Pool(Pooling::Last),
            other => Self::Other(format!("pooling of type {other}")),
        }
    }
}

/// The folder of the pooling, if there is one; or what there is besides that is not done here.
fn pooling_folder(modules: &[u8]) -> Result<Result<Option<String>, String>, ModelError> {
    let modules: Vec<Module> = serde_json::from_slice(modules)
        .map_err(|error| ModelError::malformed(MODULES, error.to_string()))?;
    let mut folder = None;
    for Module { kind, path } in modules {
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" | "Normalize" => {}
            "Pooling" if path.is_empty() || path.contains(['/', '\\']) || path.starts_with('.') => {
                let reason = format!("`{path}` is no folder beside it");
                return Err(ModelError::malformed(MODULES, reason));
            }
            "Pooling" => folder = Some(path),
            other => return Ok(Err(format!("a `{other}` after the model"))),
        }
    }
    Ok(Ok(folder))
}

impl Embedding {
    /// What a model of this width makes, if it does; `usual` is how it pools where nothing is said.
    pub(crate) fn of(said: &Said, config: &[u8], width: usize, usual: Pooling) -> Option<Self> {
        let pooling = match said {
            Said::Nothing => usual,
            Said::Pool(pooling) => *pooling,
            Said::Other(what) => {
                tracing::warn!("the model has no embeddings here: {what} is not supported");
                return None;
            }
        };
        let raw: RawModel = serde_json::from_slice(config).unwrap_or_default();
        let shortens = raw.is_matryoshka.unwrap_or(false) || raw.matryoshka_dimensions.is_some();
        Some(Self { pooling, width, shortens })
    }

    /// Whether every token's state is needed, and not only one's.
    #[must_use]
    pub fn needs_all(&self) -> bool {
        self.pooling != Pooling::Last
    }
}

/// Pools the states of one text, piece by piece.
#[derive(Clone, Debug)]
pub struct Embedder {
    pooling: Pooling,
    width: usize,
    sum: Vec<f64>,
    tokens: usize,
}

impl Embedder {
    /// For a model that makes such vectors.
    #[must_use]
    pub fn new(embedding: &Embedding) -> Self {
        let Embedding { pooling, width, .. } = *embedding;
        Self { pooling, width, sum: Vec::new(), tokens: 0 }
    }

    /// Takes the states (`[tokens, width]`) of the tokens from position `start` on. Those from the
    /// first position on make all that came before void.
    pub fn push(&mut self, start: usize, states: &[f32]) {
        if start == 0 {
            (self.sum, self.tokens) = (Vec::new(), 0);
        }
        for state in states.chunks_exact(self.width.max(1)) {
            let first = self.sum.is_empty();
            self.sum.resize(self.width, 0.0);
            self.tokens += 1;
            let sums = self.sum.iter_mut().zip(state.iter().map(|value| f64::from(*value)));
            match self.pooling {
                Pooling::Mean => sums.for_each(|(sum, value)| *sum += value),
                Pooling::Last => sums.for_each(|(sum, value)| *sum = value),
                Pooling::First if first => sums.for_each(|(sum, value)| *sum = value),
                Pooling::First => {}
            }
        }
    }

    /// The vector, of length 1; of its numbers the first `dimensions`, if fewer are wanted.
    ///
    /// # Errors
    /// [`ModelError::NoNumbers`] where the model computed none, [`ModelError::Input`] where there was
    /// no token.
    pub fn finish(&self, dimensions: Option<usize>) -> Result<Vec<f32>, ModelError> {
        if self.tokens == 0 {
            return Err(ModelError::Input("no token to embed".to_owned()));
        }
        let kept = self.sum.get(..dimensions.unwrap_or(self.width)).unwrap_or(&self.sum);
        let length = kept.iter().map(|value| value * value).sum::<f64>().sqrt();
        if !length.is_finite() {
            return Err(ModelError::NoNumbers);
        }
        let scale = if length > 0.0 { length.recip() } else { 0.0 };
        Ok(kept.iter().map(|value| (value * scale) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(files: &[(&str, &str)]) -> Result<Said, ModelError> {
        Said::find(|name| {
            let found = files.iter().find(|(file, _)| *file == name);
            Ok(found.map(|(_, text)| text.as_bytes().to_vec()))
        })
    }

    #[test]
    fn files_of_sentence_transformers_are_read() {
        let modules = r#"[{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},
            {"idx":1,"name":"1","path":"2_P","type":"sentence_transformers.models.Pooling"},
            {"idx":2,"name":"2","path":"3","type":"sentence_transformers.models.Normalize"}]"#;
        let dense = modules.replace("Normalize", "Dense");
        let outside = modules.replace("2_P", "../x");
        let mean = r#"{"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":false}"#;
        let both = r#"{"pooling_mode_mean_tokens":true,"pooling_mode_max_tokens":true}"#;
        let new = r#"{"pooling_mode":"lasttoken"}"#;
        let other = |what: &str| Said::Other(what.to_owned());
        for (files, expected) in [
            (vec![], Said::Nothing),
            (vec![("1_Pooling/config.json", mean)], Said::Pool(Pooling::Mean)),
            (vec![(MODULES, modules), ("2_P/config.json", new)], Said::Pool(Pooling::Last)),
            (vec![(MODULES, modules)], Said::Nothing),
            (vec![(MODULES, &dense)], other("a `Dense` after the model")),
            (vec![("1_Pooling/config.json", both)], other("pooling by mean and max")),
        ] {
            assert_eq!(said(&files).unwrap(), expected, "{files:?}");
        }
        for files in [
            [(MODULES, outside.as_str())],
            [(MODULES, "{}")],
            [("1_Pooling/config.json", "{}")],
            [("1_Pooling/config.json", "[")],
        ] {
            assert!(said(&files).is_err(), "{files:?}");
        }
    }

    #[test]
    fn states_are_pooled_whatever_pieces_they_come_in() {
        let states = [3.0, 0.0, 1.0, 4.0, 0.0, 4.0];
        for (pooling, expected) in [
            (Pooling::Mean, [0.447_213_6, 0.894_427_2]),
            (Pooling::Last, [0.0, 1.0]),
            (Pooling::First, [1.0, 0.0]),
        ] {
            let embedding = Embedding { pooling, width: 2, shortens: true };
            let mut embedder = Embedder::new(&embedding);
            assert!(embedder.finish(None).is_err());
            // It was preempted after its first two tokens, and read again.
            for (start, piece) in [(0, &states[..4]), (0, &states[..2]), (1, &states[2..])] {
                embedder.push(start, piece);
            }
            let vector = embedder.finish(None).unwrap();
            assert!(vector.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{vector:?}");
        }
    }

    #[test]
    fn a_vector_that_is_cut_has_length_1_again_and_numbers_that_are_none_fail() {
        let embedding = Embedding { pooling: Pooling::Last, width: 3, shortens: true };
        let mut embedder = Embedder::new(&embedding);
        embedder.push(0, &[3.0, 4.0, 12.0]);
        assert_eq!(embedder.finish(Some(2)).unwrap(), [0.6, 0.8]);
        embedder.push(0, &[0.0; 3]);
        assert_eq!(embedder.finish(None).unwrap(), [0.0; 3]);
        embedder.push(0, &[f32::NAN, 1.0, 1.0]);
        assert!(matches!(embedder.finish(None), Err(ModelError::NoNumbers)));
    }
}
