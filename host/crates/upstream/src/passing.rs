//! Which of the paths that nobody here knows go on to a backend, with its key.
//!
//! Servers have more below `/v1` than what answers questions: vLLM loads adapters there, others load and unload models,
//! OpenAI keeps its members and their keys. Such paths are for whoever runs the server, so they go on only where the file
//! names them. The list of them cannot be whole, which is why the file can also name what goes on, or nothing.

use crate::route::Route;

/// Segments that make a path one for the operator, wherever they stand, as servers are known to have them.
const OPERATORS: [&str; 22] = [
    // vLLM, SGLang.
    "load_lora_adapter",
    "unload_lora_adapter",
    "lora_adapters",
    "reset_prefix_cache",
    "reset_mm_cache",
    "flush_cache",
    "collective_rpc",
    "start_profile",
    "stop_profile",
    "wake_up",
    "sleep",
    "update_weights_from_disk",
    // TabbyAPI, llama.cpp's server, LM Studio, LocalAI.
    "load",
    "unload",
    "reload",
    "switch",
    "download",
    "apply",
    "shutdown",
    // OpenAI's administration, and what many call theirs.
    "organization",
    "admin",
    "internal",
];

/// What goes on to one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum PassThrough {
    /// All but what is the operator's.
    #[default]
    Usual,
    /// Nothing.
    Nothing,
    /// What is at one of these paths, which begin with `/`, or below it.
    Below(Vec<String>),
}

impl PassThrough {
    /// Whether that path goes on. It has one spelling, and may have a query.
    pub fn takes(&self, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        match self {
            Self::Usual => !path.split('/').any(is_operators),
            Self::Nothing => false,
            Self::Below(places) => places.iter().any(|place| {
                let rest = path.strip_prefix(place.trim_end_matches('/'));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }),
        }
    }
}

fn is_operators(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace('-', "_");
    OPERATORS.contains(&plain.as_str())
}

impl Route {
    /// What is left of the plan for a path that nobody here knows; none if no backend takes it. `path` comes below the base
    /// URL, its query included.
    #[must_use]
    pub fn passing(mut self, path: &str) -> Option<Self> {
        self.candidates.retain(|candidate| candidate.backend.settings.pass_through.takes(path));
        for (place, candidate) in (0..).zip(&mut self.candidates) {
            candidate.place = place;
        }
        (!self.candidates.is_empty()).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_paths_stay_here() {
        let some = PassThrough::Below(vec!["/files".to_owned(), "/a/b/".to_owned()]);
        let all = PassThrough::Below(vec!["/".to_owned()]);
        let cases = [
            ("/files", [true, true, true]),
            ("/files/file-1/content?x=/load", [true, true, true]),
            ("/filesystem", [true, false, true]),
            ("/a/b", [true, true, true]),
            ("/a", [true, false, true]),
            ("/fine_tuning/jobs/j/pause", [true, false, true]),
            ("/load_lora_adapter", [false, false, true]),
            ("/Load-LoRA-adapter/", [false, false, true]),
            ("/model/unload", [false, false, true]),
            ("/organization/admin_api_keys", [false, false, true]),
        ];
        for (path, expected) in cases {
            let found = [&PassThrough::Usual, &some, &all].map(|passes| passes.takes(path));
            assert_eq!(found, expected, "{path}");
            assert!(!PassThrough::Nothing.takes(path));
        }
    }
}
