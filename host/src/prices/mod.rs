//! `tollgate import-prices`: from LiteLLM's file of model prices to the configuration of the bundled price table.

mod decimal;
mod litellm;
mod ranges;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{fail, say};
use litellm::{Entry, LeftOut, Read, Wanted, read};

/// Largest file that is read, in bytes; the real one has less than two million.
const LARGEST: u64 = 64 << 20;
/// Names of models that are shown of many.
const NAMES: usize = 3;

/// Write the price table that a LiteLLM price file stands for.
///
/// Every price is copied exactly, as decimal text. What the table cannot say is left out and told on standard error; prices
/// of 0, which may mean free or unknown, are left out too. Requests for models that are left out are `unpriced`.
#[derive(Args)]
pub struct ImportPrices {
    /// The file, such as model_prices_and_context_window.json
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only models of these providers (`litellm_provider`) [default: all]
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    provider: Vec<String>,
    /// Take `azure/` and the like off the names of models
    #[arg(long)]
    strip_prefix: bool,
    /// Take prices of 0 as free
    #[arg(long)]
    keep_free: bool,
    /// What to write: the configuration itself, or an entry of plugins.toml with it
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// CSV file for all that was left out, one line each: model, field, reason
    #[arg(long, value_name = "FILE")]
    left_out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    PluginsToml,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
enum PricesError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too large for a price file.
    #[error("{} is larger than {} MiB, and no price file; name the right one", .0.display(), LARGEST >> 20)]
    TooLarge(PathBuf),
    /// It is not what LiteLLM has.
    #[error("{} is no price file of LiteLLM, which is a JSON object of models: {source}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// There is nothing to import.
    #[error("no model of {} has prices that can be imported; what was left out says why", .0.display())]
    Empty(PathBuf),
    /// What was left out cannot be written down.
    #[error("cannot write {}: {source}", path.display())]
    Report {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// The table cannot be written.
    #[error("cannot write the table: {0}")]
    Table(String),
}

/// What the plugin is configured with.
#[derive(Serialize)]
struct Configuration<'a> {
    currency: &'static str,
    models: &'a [Entry],
}

/// Writes the table on standard output, and what was left out on standard error.
pub fn run(arguments: &ImportPrices) -> ExitCode {
    match import(arguments) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

fn import(arguments: &ImportPrices) -> Result<String, PricesError> {
    let path = &arguments.file;
    let text = text_of(path)?;
    let wanted = Wanted {
        providers: arguments.provider.clone(),
        strip_prefix: arguments.strip_prefix,
        keep_free: arguments.keep_free,
    };
    let found = read(&text, &wanted)
        .map_err(|source| PricesError::Malformed { path: path.clone(), source })?;
    tell(&found);
    if let Some(path) = &arguments.left_out {
        write_left_out(path, &found.left_out)
            .map_err(|source| PricesError::Report { path: path.clone(), source })?;
    }
    if found.entries.is_empty() {
        return Err(PricesError::Empty(path.clone()));
    }
    let config = Configuration { currency: "USD", models: &found.entries };
    match arguments.format {
        Format::Json => serde_json::to_string_pretty(&config)
            .map_err(|error| PricesError::Table(error.to_string())),
        Format::PluginsToml => Ok(plugins_toml(&found.entries)),
    }
}

/// An entry of `plugins.toml` for the table's plugin.
fn plugins_toml(entries: &[Entry]) -> String {
    let mut text = String::from(
        "[[plugin]]\nfile = \"cost-per-token.wasm\"\n\n[plugin.config]\ncurrency = \"USD\"\n",
    );
    for entry in entries {
        text.push_str(&format!("\n[[plugin.config.models]]\nmatch = {}\n", quoted(&entry.model)));
        if let Some(tier) = entry.service_tier {
            text.push_str(&format!("service_tier = {}\n", quoted(tier)));
        }
        for (part, price) in &entry.prices {
            text.push_str(&format!("{part} = {}\n", quoted(price)));
        }
        let tiers = entry.context_over.iter().map(|tier| {
            let prices = tier.prices.iter();
            let prices: String =
                prices.map(|(part, price)| format!(", {part} = {}", quoted(price))).collect();
            format!("{{ tokens = {}{prices} }}", tier.tokens)
        });
        let tiers: Vec<String> = tiers.collect();
        if !tiers.is_empty() {
            text.push_str(&format!("context_over = [{}]\n", tiers.join(", ")));
        }
    }
    text
}

/// A string of TOML: what JSON escapes, TOML reads, but for one character that TOML wants escaped, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn text_of(path: &Path) -> Result<String, PricesError> {
    let unreadable = |source| PricesError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.take(LARGEST.saturating_add(1)).read_to_string(&mut text);
    match bytes.map_err(unreadable)? as u64 {
        bytes if bytes > LARGEST => Err(PricesError::TooLarge(path.to_owned())),
        _ => Ok(text),
    }
}

/// One line for each reason, with some of those whom it concerns.
#[expect(clippy::print_stderr, reason = "standard output is the table")]
fn tell(found: &Read) {
    let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for left in &found.left_out {
        reasons.entry((&left.field, left.reason)).or_default().push(&left.model);
    }
    eprintln!("{} models imported, as {} entries", found.models, found.entries.len());
    for ((field, reason), models) in reasons {
        let what = if field == "*" { "the whole model" } else { field };
        let names: Vec<&str> = models.iter().take(NAMES).copied().collect();
        let more = if models.len() > NAMES { ", ..." } else { "" };
        let line =
            format!("left out of {}: {what}: {reason} ({}{more})", models.len(), names.join(", "));
        eprintln!("{}", line.replace(char::is_control, " "));
    }
}

fn write_left_out(path: &Path, left_out: &[LeftOut]) -> Result<(), csv::Error> {
    let mut writer = csv::Writer::from_path(path)?;
    for left in left_out {
        writer.serialize(left)?;
    }
    writer.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let name = "a \"b\" \\ \u{7f} \u{1} é\n";
        let file = serde_json::json!({name: {
            "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "output_cost_per_token_flex": 1e-6,
            "input_cost_per_token_above_128k_tokens": 2e-6, "output_cost_per_token_above_200k_tokens": 4e-6,
        }});
        let read = read(&file.to_string(), &Wanted::default()).unwrap();
        let value: toml::Value = toml::from_str(&plugins_toml(&read.entries)).unwrap();
        let config = serde_json::to_value(&value["plugin"][0]["config"]).unwrap();
        let wanted = Configuration { currency: "USD", models: &read.entries };
        assert_eq!(config, serde_json::to_value(wanted).unwrap());
        assert_eq!(config["models"].as_array().unwrap().len(), 2);
    }
}
