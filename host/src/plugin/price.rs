//! `tollgate plugin price`: what a plugin would bill for a usage record.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tollgate_domain::PluginIdentity;

use super::{PluginError, pretty};
use crate::admin::{Ask, Client, Target};
use crate::table::Table;

/// Most bytes of a usage record; the gateway takes no more.
const USAGE_BYTES: u64 = 256 * 1024;

/// Which plugin, and for what.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the file in the plugin folder, or of the plugin
    file: String,

    /// Usage record as JSON, such as {"request_model": "m", "tokens": {"input": 9}}; - for
    /// standard input
    #[arg(long, value_name = "FILE")]
    usage: PathBuf,

    #[command(flatten)]
    target: Target,

    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The answer as far as people want it.
#[derive(Deserialize)]
struct Answer {
    status: String,
    amount: Option<String>,
    currency: Option<String>,
    #[serde(default)]
    lines: Vec<Line>,
    reason: Option<String>,
    message: Option<String>,
    plugin: Option<PluginIdentity>,
}

#[derive(Deserialize)]
struct Line {
    kind: String,
    quantity: u64,
    amount: String,
}

/// What it would bill.
pub(super) fn run(arguments: &Arguments) -> Result<String, PluginError> {
    let usage = read(&arguments.usage)?;
    let client = Client::of(&arguments.target)?;
    let route = ["admin", "plugins", arguments.file.as_str(), "price"];
    let answer: Value = client.ask(&Ask::Send(&usage), &route)?;
    if arguments.json {
        return pretty(&answer);
    }
    let answer: Answer =
        serde_json::from_value(answer).map_err(|error| PluginError::Host(error.to_string()))?;
    Ok(text(&answer))
}

fn read(path: &Path) -> Result<String, PluginError> {
    let unreadable = |error: std::io::Error| PluginError::Usage {
        path: path.display().to_string(),
        why: error.to_string(),
    };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(USAGE_BYTES).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(USAGE_BYTES).read_to_string(&mut text)
    };
    read.map_err(unreadable)?;
    Ok(text)
}

fn text(answer: &Answer) -> String {
    let mut text = answer.status.clone();
    if let (Some(amount), Some(currency)) = (&answer.amount, &answer.currency) {
        text.push_str(&format!(": {amount} {currency}"));
    }
    if let Some(reason) = &answer.reason {
        text.push_str(&format!(": {reason}"));
    }
    if let Some(message) = &answer.message {
        text.push_str(&format!(": {message}"));
    }
    if let Some(plugin) = &answer.plugin {
        text.push_str(&format!(" (by {} {})", plugin.name, plugin.version));
    }
    text.push('\n');
    if !answer.lines.is_empty() {
        let mut table = Table::new(["KIND", "QUANTITY", "AMOUNT"]);
        for line in &answer.lines {
            table.row([&line.kind, &line.quantity.to_string(), &line.amount]);
        }
        text.push_str(&table.text());
    }
    text
}
