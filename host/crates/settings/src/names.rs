//! The names of all settings, taken from [`Given`] itself, and the one nearest to a wrong name.

use clap::Args;

use crate::given::Given;
use crate::secret::ADMIN_TOKEN;
use crate::tenancy::{KEYS, REDIS_URL};

/// The key of the file that is a list of tables and no flag.
pub(crate) const EXPORTER: &str = "exporter";

/// Keys that the file may hold.
pub(crate) fn keys() -> Vec<String> {
    let flags = arguments().into_iter().map(|(key, _)| key).filter(|key| key != "config");
    flags.chain([EXPORTER.to_owned()]).collect()
}

/// Variables that the environment may hold.
pub(crate) fn variables() -> Vec<String> {
    let secrets = [ADMIN_TOKEN, KEYS, REDIS_URL].map(str::to_owned);
    arguments().into_iter().map(|(_, variable)| variable).chain(secrets).collect()
}

/// The name among `known` that `wrong` was probably meant to be.
pub(crate) fn nearest<'a>(wrong: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), name.as_str()))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// What a text says besides its default, and the default.
pub(crate) fn split_default(text: &str) -> (String, Option<String>) {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.split_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), Some(default.trim_end_matches(']').to_owned())),
        None => (text, None),
    }
}

fn arguments() -> Vec<(String, String)> {
    Given::augment_args(clap::Command::new("tollgate"))
        .get_arguments()
        .filter_map(|argument| {
            let key = argument.get_long()?.to_owned();
            let variable = argument.get_env()?.to_str()?.to_owned();
            Some((key, variable))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_a_variable_and_a_key() {
        for (key, variable) in arguments() {
            assert_eq!(variable, format!("TOLLGATE_{}", key.to_uppercase().replace('-', "_")));
        }
        assert!(keys().contains(&"data-dir".to_owned()));
    }

    #[test]
    fn a_slip_of_the_pen_finds_what_was_meant() {
        for (wrong, meant) in [("lisen", "listen"), ("datadir", "data-dir"), ("plugin", "plugins")]
        {
            assert_eq!(nearest(wrong, &keys()), Some(meant));
        }
    }
}
