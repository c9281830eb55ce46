//! The operator's configuration of one plugin.

use crate::bindings::lifecycle::exports::tollgate::plugin::lifecycle as raw;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use std::fmt::{self, Write};

/// The configuration as the operator wrote it, in JSON.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) json: String,
    pub(crate) host: raw::HostInfo,
}

impl Config {
    /// Reads it into a type of yours. Give the type `#[serde(deny_unknown_fields)]`: a misspelt key should be an error,
    /// not a price that silently stays what it was. An empty text reads as `{}`.
    ///
    /// # Errors
    /// With a JSON pointer to the fault and the message of the type that refused it.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let json = if self.json.trim().is_empty() { "{}" } else { &self.json };
        self.parse_text(json)
    }

    /// Reads another text in place of the operator's, such as defaults that are kept in a file.
    ///
    /// # Errors
    /// Those of [`Config::parse`].
    pub fn parse_text<T: DeserializeOwned>(&self, json: &str) -> Result<T, ConfigError> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let message = error.inner().to_string();
            // The pointer says it better than a line of a text that the operator may have written in another form.
            let message =
                message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
            ConfigError::invalid(pointer(error.path()), message)
        })?;
        deserializer.end().map_err(|error| ConfigError::invalid("", error.to_string()))?;
        Ok(value)
    }

    /// The text itself.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Name and version of the host.
    pub fn host(&self) -> (&str, &str) {
        (&self.host.name, &self.host.version)
    }
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// Something in it is wrong.
    Invalid {
        /// JSON pointer to the fault, such as `/models/2/input`; empty for the whole.
        pointer: String,
        /// What is wrong with it.
        message: String,
    },
    /// It reads well and still cannot be used.
    Failed(String),
}

impl ConfigError {
    /// A fault at a place.
    pub fn invalid(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { pointer: pointer.into(), message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { pointer, message } if pointer.is_empty() => f.write_str(message),
            Self::Invalid { pointer, message } => write!(f, "{pointer}: {message}"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for raw::ConfigError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Invalid { pointer, message } => Self::Invalid((pointer, message)),
            ConfigError::Failed(message) => Self::Failed(message),
        }
    }
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                // Writing to a string cannot fail.
                let _ = write!(pointer, "/{index}");
            }
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Price;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        #[expect(dead_code, reason = "only its errors matter here")]
        #[serde(default)]
        models: Vec<std::collections::BTreeMap<String, Price>>,
    }

    fn fault(json: &str) -> String {
        let config = Config {
            json: json.into(),
            host: raw::HostInfo { name: "test".into(), version: "0".into() },
        };
        config.parse::<Table>().map(|_| String::new()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn faults_point_at_their_place() {
        assert_eq!(fault(""), "");
        assert_eq!(fault(r#"{"models":[{"a":"$1/M"}]}"#), "");
        assert!(
            fault(r#"{"models":[{},{"a/b":"$1"}]}"#)
                .starts_with("/models/1/a~1b: `$1` has no unit")
        );
        assert!(fault(r#"{"models":[{"a":0.15}]}"#).contains("expected text such as $0.15/M"));
        assert!(
            fault(r#"{"model":[]}"#)
                .starts_with("/model: unknown field `model`, expected `models`")
        );
        assert!(fault("{} {}").contains("trailing"));
        assert!(fault("[").contains("EOF"));
    }
}
