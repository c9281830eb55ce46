//! `tollgate key create|list|revoke`: edits the file of keys, which gateways that run take note of
//! within a second or two.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use tollgate_domain::UnixNanos;
use tollgate_tenancy::{KeyInfo, KeyOrder, Limits, TenancyError, create, list, revoke};

use crate::table::Table;

/// What is done about keys.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// Make a key; its secret is shown once and kept nowhere
    Create(Create),
    /// Show all keys; their secrets are not known
    List(List),
    /// Have a key no longer hold
    Revoke(Revoke),
}

#[derive(Args)]
struct File {
    /// TOML file of keys
    #[arg(long, env = "TOLLGATE_KEYS_FILE", value_name = "FILE", default_value = "keys.toml")]
    keys_file: PathBuf,
}

/// A key to be made.
#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    file: File,
    /// Who pays
    #[arg(long)]
    tenant: String,
    /// Models that it may use; `*` is any text [default: all]
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    models: Vec<String>,
    /// When it stops to hold, as in `2027-01-31T00:00:00Z` [default: never]
    #[arg(long, value_name = "TIME")]
    expires: Option<jiff::Timestamp>,
    /// A word to whoever reads the list
    #[arg(long)]
    note: Option<String>,
    /// Most requests in a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u64>,
    /// Most tokens in a minute, prompts and answers together
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
    /// Most requests at a time
    #[arg(long, value_name = "N")]
    concurrent: Option<u64>,
}

/// All keys.
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    file: File,
}

/// A key to be revoked.
#[derive(Args)]
pub struct Revoke {
    #[command(flatten)]
    file: File,
    /// Its id, as `list` shows it
    id: String,
}

/// Carries it out.
pub fn run(command: KeyCommand) -> ExitCode {
    let done = match command {
        KeyCommand::Create(order) => created(order),
        KeyCommand::List(List { file }) => list(&file.keys_file).map(|keys| table(&keys)),
        KeyCommand::Revoke(Revoke { file, id }) => {
            revoke(&file.keys_file, &id).map(|new| match new {
                true => format!("{id} is revoked"),
                false => format!("{id} was revoked before"),
            })
        }
    };
    match done {
        Ok(text) => {
            crate::say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => crate::fail(&error, 1),
    }
}

fn created(order: Create) -> Result<String, TenancyError> {
    let new = create(
        &order.file.keys_file,
        &KeyOrder {
            tenant: order.tenant,
            models: order.models,
            expires: order.expires.map(nanos),
            note: order.note,
            limits: Limits {
                requests_per_minute: order.requests_per_minute,
                tokens_per_minute: order.tokens_per_minute,
                concurrent: order.concurrent,
            },
        },
        SystemTime::now().into(),
    )?;
    let (id, secret) = (new.id, new.secret);
    Ok(format!(
        "id      {id}\nsecret  {secret}\n\nIt is shown this once: the file holds its SHA-256 only."
    ))
}

fn nanos(time: jiff::Timestamp) -> UnixNanos {
    UnixNanos(u64::try_from(time.as_nanosecond()).unwrap_or_default())
}

fn table(keys: &[KeyInfo]) -> String {
    if keys.is_empty() {
        return "no keys".to_owned();
    }
    let mut table = Table::new(["ID", "TENANT", "MODELS", "CREATED", "EXPIRES", "STATE", "NOTE"]);
    for key in keys {
        let models = if key.models.is_empty() { "*".to_owned() } else { key.models.join(",") };
        table.row([
            key.id.as_str(),
            &key.tenant,
            &models,
            &date(key.created),
            &date(key.expires),
            state(key),
            key.note.as_deref().unwrap_or("-"),
        ]);
    }
    table.text()
}

fn state(key: &KeyInfo) -> &'static str {
    let now: UnixNanos = SystemTime::now().into();
    match key {
        KeyInfo { revoked: true, .. } => "revoked",
        KeyInfo { expires: Some(expires), .. } if *expires <= now => "expired",
        _ => "holds",
    }
}

fn date(time: Option<UnixNanos>) -> String {
    let time =
        time.and_then(|time| jiff::Timestamp::from_second(time.seconds().cast_signed()).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
