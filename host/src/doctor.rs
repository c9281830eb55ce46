//! `tollgate doctor`: shows what an examination found, worst news in words that help.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use tollgate::{Finding, Verdict};
use tollgate_settings::Given;

use crate::table::Table;
use crate::{config, fail, log, say};

/// What is examined: a gateway with these settings.
#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    given: Given,

    /// Answer in JSON: an array with an object for each thing that was looked at
    #[arg(long)]
    json: bool,
}

/// Exit code 0 if nothing failed, 1 if something did, 2 if the settings are wrong.
pub fn run(arguments: Doctor) -> ExitCode {
    let settings = match config::resolve(arguments.given) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, 2),
    };
    if let Err(message) = log::filter(&settings.log) {
        return fail(&message, 2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}"), 1),
    };
    let findings = runtime.block_on(tollgate::examine(&settings));
    // What still waits for a server is not worth waiting for.
    runtime.shutdown_background();
    if arguments.json {
        let values: Vec<Value> = findings.iter().map(as_json).collect();
        say(&format!("{:#}", Value::Array(values)));
    } else {
        say(&as_text(&findings));
    }
    match findings.iter().any(|finding| finding.verdict == Verdict::Failed) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "check": finding.check,
        "verdict": finding.verdict.name(),
        "seen": finding.seen,
        "mend": finding.mend,
    })
}

fn as_text(findings: &[Finding]) -> String {
    let mut table = Table::new(["", "CHECK", "SEEN"]);
    for finding in findings {
        table.row([finding.verdict.name(), finding.check, &finding.seen]);
        if let Some(mend) = &finding.mend {
            table.row(["", "", &format!("→ {mend}")]);
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
    format!("{}\n{failed} failed, {warnings} warnings", table.text())
}
