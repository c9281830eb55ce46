//! A `config.json` as its keys and values, for models whose code reads it itself.
//!
//! That code takes what it is given: it divides by what may be zero, and leaves out what it does not
//! know. So whatever it does not compute is refused here, whatever it divides by is checked, and what
//! the file leaves out is filled in.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ModelError;
use crate::config::FILE;
use crate::kv::KvShape;

/// A size that no model has.
const MOST: u64 = 1 << 24;
/// Layers, experts and widths of heads that no model has: of these, memory is taken before a tensor is
/// looked for.
const MOST_PARTS: usize = 1 << 12;

/// What a file says.
pub(crate) struct Written(Map<String, Value>);

/// Families by the names that `config.json` gives their architectures, with what reads the rest of it.
pub(crate) type Families<P> = [(&'static str, fn(Written) -> Result<P, ModelError>)];

/// What a family makes of a configuration.
pub(crate) struct Found<P> {
    pub(crate) architecture: String,
    pub(crate) vocabulary: usize,
    pub(crate) parts: P,
}

/// Reads `config.json` as the family of this name does, if it is one of these.
pub(crate) fn find<P>(
    families: &Families<P>,
    architecture: &str,
    json: &[u8],
) -> Option<Result<Found<P>, ModelError>> {
    let (name, read) = families.iter().find(|(name, _)| *name == architecture)?;
    let read = || {
        let written = Written::read(json)?;
        let vocabulary = written.size("vocab_size")?;
        Ok(Found { architecture: (*name).to_owned(), vocabulary, parts: read(written)? })
    };
    Some(read())
}

impl Written {
    /// Reads `config.json`.
    pub(crate) fn read(json: &[u8]) -> Result<Self, ModelError> {
        match serde_json::from_slice(json) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(ModelError::malformed(FILE, "is no object")),
            Err(error) => Err(ModelError::malformed(FILE, format!("not JSON: {error}"))),
        }
    }

    /// A value, unless there is none or `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Whether the file says anything of it, if only `null`.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Puts a value in the place of whatever the file says.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Gives a value the name that others have for it.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.0.remove(from).filter(|value| !value.is_null()) {
            self.set(to, value);
        }
    }

    /// What a value is where the file does not say.
    pub(crate) fn usually(&mut self, name: &str, value: impl Into<Value>) {
        if self.get(name).is_none() {
            self.set(name, value);
        }
    }

    /// A size: a whole number from 1 on.
    pub(crate) fn size(&self, name: &str) -> Result<usize, ModelError> {
        let Some(value) = self.get(name) else {
            return Err(ModelError::malformed(FILE, format!("lacks `{name}`")));
        };
        let size = value.as_u64().filter(|size| (1..=MOST).contains(size));
        size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| {
            ModelError::malformed(FILE, format!("{name} is {value}, which no model has"))
        })
    }

    /// A size, if the file says one.
    pub(crate) fn size_if_any(&self, name: &str) -> Result<Option<usize>, ModelError> {
        self.get(name).map(|_| self.size(name)).transpose()
    }

    /// The number of layers, experts and the like.
    pub(crate) fn parts(&self, name: &str) -> Result<usize, ModelError> {
        let parts = self.size(name)?;
        match parts <= MOST_PARTS {
            true => Ok(parts),
            false => {
                Err(ModelError::malformed(FILE, format!("{name} is {parts}, which no model has")))
            }
        }
    }

    /// A number above 0.
    pub(crate) fn number(&self, name: &str) -> Result<f64, ModelError> {
        let number = self.get(name).and_then(Value::as_f64);
        let sound = number.filter(|number| number.is_finite() && *number > 0.0);
        sound.ok_or_else(|| {
            let said = self.get(name).map_or_else(|| "missing".to_owned(), Value::to_string);
            ModelError::malformed(FILE, format!("{name} is {said}, and has to be a number above 0"))
        })
    }

    /// Refuses a value other than the one that is computed; one that the file leaves out is it.
    pub(crate) fn only(&self, name: &str, run: impl Into<Value>) -> Result<(), ModelError> {
        let run = run.into();
        let same = |value: &Value| match (value.as_f64(), run.as_f64()) {
            (Some(value), Some(run)) => value == run,
            _ => *value == run,
        };
        match self.get(name) {
            Some(value) if !same(value) => Err(ModelError::Unsupported {
                what: format!("a model with `{name}` of {value}"),
                instead: format!("{run} is"),
            }),
            _ => Ok(()),
        }
    }

    /// The shape of keys and values, for which heads have to divide what they divide.
    pub(crate) fn kv(&mut self) -> Result<KvShape, ModelError> {
        let wrong = |reason: String| Err(ModelError::malformed(FILE, reason));
        let (hidden, heads) = (self.size("hidden_size")?, self.size("num_attention_heads")?);
        self.usually("num_key_value_heads", heads);
        let kv_heads = self.size("num_key_value_heads")?;
        if !heads.is_multiple_of(kv_heads) {
            return wrong(format!("{kv_heads} key-value heads do not divide {heads} heads"));
        }
        let head_dim = match self.size_if_any("head_dim")? {
            Some(size) => size,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return wrong(format!("{heads} heads do not divide a width of {hidden}")),
        };
        if !head_dim.is_multiple_of(2) || head_dim > MOST_PARTS {
            return wrong(format!(
                "head_dim is {head_dim}, which is odd or more than any model has"
            ));
        }
        Ok(KvShape { layers: self.parts("num_hidden_layers")?, heads: kv_heads, head_dim })
    }

    /// The same for code that knows no `head_dim` but the width by the heads.
    pub(crate) fn kv_of_width(&mut self) -> Result<KvShape, ModelError> {
        let shape = self.kv()?;
        let (hidden, heads) = (self.size("hidden_size")?, self.size("num_attention_heads")?);
        match hidden == heads.saturating_mul(shape.head_dim) {
            true => Ok(shape),
            false => Err(ModelError::Unsupported {
                what: format!("{heads} heads of {} in a width of {hidden}", shape.head_dim),
                instead: "heads that share the width are".to_owned(),
            }),
        }
    }

    /// The base of rotary positions, wherever the file has it; those that are stretched are refused.
    pub(crate) fn plain_rotary(&mut self, usual_base: f64) -> Result<(), ModelError> {
        for place in ["rope_scaling", "rope_parameters"] {
            let Some(rope) = self.get(place) else { continue };
            let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
            if !matches!(kind, None | Some("default")) {
                return Err(ModelError::Unsupported {
                    what: format!("{place} of type `{}`", kind.unwrap_or_default()),
                    instead: "plain rotary positions are, in this family".to_owned(),
                });
            }
        }
        self.set("rope_scaling", Value::Null);
        self.rotary_base(usual_base)
    }

    /// The base alone.
    pub(crate) fn rotary_base(&mut self, usual: f64) -> Result<(), ModelError> {
        if let Some(base) = self.get("rope_parameters").and_then(|rope| rope.get("rope_theta")) {
            let base = base.clone();
            self.usually("rope_theta", base);
        }
        self.usually("rope_theta", usual);
        self.number("rope_theta").map(|_| ())
    }

    /// How many numbers of a head are turned, where it is a part of them.
    pub(crate) fn turned(&mut self, usual: f64, head_dim: usize) -> Result<usize, ModelError> {
        let name = "partial_rotary_factor";
        if let Some(factor) = self.get("rope_parameters").and_then(|rope| rope.get(name)) {
            let factor = factor.clone();
            self.set(name, factor);
        }
        self.usually(name, usual);
        let turned = self.number(name)? * head_dim as f64;
        match turned >= 2.0 && turned % 2.0 == 0.0 && turned < head_dim as f64 {
            true => Ok(turned as usize),
            false => {
                let reason = format!("{name} turns {turned} numbers of {head_dim}");
                Err(ModelError::malformed(FILE, reason))
            }
        }
    }

    /// The positions that are run: at most `most`, for which tables are made.
    pub(crate) fn positions(&mut self, usual: usize, most: usize) -> Result<usize, ModelError> {
        self.usually("max_position_embeddings", usual);
        let positions = self.size("max_position_embeddings")?.min(most);
        self.set("max_position_embeddings", positions);
        Ok(positions)
    }

    /// As the model's own code reads it.
    pub(crate) fn into<T: DeserializeOwned>(self) -> Result<T, ModelError> {
        serde_json::from_value(Value::Object(self.0))
            .map_err(|error| ModelError::malformed(FILE, error.to_string()))
    }
}
