//! `tollgate top`: how a gateway does, as a screen that renews itself or as text once.

mod limits;
mod scrape;
mod screen;
mod view;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::admin::{Ask, Client, ClientError, Target};
use crate::table::Table;
use crate::{fail, say};
use scrape::Samples;
use view::{Reading, Section, sections};

/// Longest that one answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watch a running gateway: requests, tokens, latency, cost, tenants, limits, plugins, backends, exporters
#[derive(Args)]
pub struct Top {
    #[command(flatten)]
    target: Target,
    /// Seconds between two looks
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Look twice, print what came in between, and end
    #[arg(long)]
    once: bool,
}

/// Until `q` is pressed, or once.
pub fn run(arguments: &Top) -> ExitCode {
    let client = match Client::of(&arguments.target) {
        Ok(client) => client.patient_for(PATIENCE),
        Err(error) => return fail(&error, 2),
    };
    let interval = Duration::from_secs(arguments.interval);
    if arguments.once {
        return match once(&client, interval) {
            Ok(text) => {
                say(&text);
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, 1),
        };
    }
    if !std::io::stdout().is_terminal() {
        return fail("standard output is no terminal; --once prints one look as text", 2);
    }
    match screen::run(client, interval, &arguments.target.admin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn once(client: &Client, interval: Duration) -> Result<String, ClientError> {
    let before = look(client)?;
    std::thread::sleep(interval);
    let now = look(client)?;
    let texts: Vec<String> = sections(&now, Some(&before)).iter().map(text).collect();
    Ok(texts.join("\n"))
}

fn text(section: &Section) -> String {
    let headings = section.headings.iter().map(|heading| (*heading).to_owned()).collect();
    let numbers = section.text_columns..section.headings.len();
    let mut table = Table::with(headings).right(numbers);
    for row in &section.rows {
        table.row(row);
    }
    table.text()
}

/// Reads everything that is shown.
fn look(client: &Client) -> Result<Reading, ClientError> {
    let text = client.text(&Ask::Get, &["metrics"])?;
    let at = Instant::now();
    Ok(Reading {
        at,
        samples: Samples::read(&text),
        plugins: client.ask(&Ask::Get, &["admin", "plugins"])?,
        limits: client.ask(&Ask::Get, &["admin", "limits"])?,
        backends: client.ask(&Ask::Get, &["admin", "backends"])?,
        shadow: client.ask(&Ask::Get, &["admin", "shadow"])?,
    })
}
