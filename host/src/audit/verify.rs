//! `tollgate audit verify`: whether the ledger says today what it said when it was written.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tollgate_ledger::{Anchor, Verified, VerifyError};

use super::place::Place;

/// How often a person who waits is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Which ledger, and what is known of it from elsewhere.
#[derive(clap::Args)]
pub struct Verify {
    #[command(flatten)]
    place: Place,

    /// An entry and its hash as an earlier run printed them: finds that the end was cut off since
    #[arg(long, value_name = "SEQ:HASH")]
    anchor: Option<Anchor>,

    /// Say nothing on standard error meanwhile
    #[arg(long)]
    quiet: bool,
}

/// Exits with 0 if it is whole, with 1 if it is broken or cannot be read.
pub(super) fn run(arguments: &Verify) -> ExitCode {
    let folder = arguments.place.folder();
    let mut told = Instant::now();
    let shows = !arguments.quiet && std::io::stderr().is_terminal();
    let verified = tollgate_ledger::verify(&folder, arguments.anchor, |entries| {
        if shows && told.elapsed() > TELL_EVERY {
            told = Instant::now();
            let _ = write!(std::io::stderr(), "\r{entries} entries verified");
        }
    });
    if shows {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    match verified {
        Ok(verified) => {
            let _ = writeln!(std::io::stdout(), "{}", text(&verified));
            ExitCode::SUCCESS
        }
        Err(VerifyError::Broken(broken)) => crate::fail(&format!("broken: {broken}"), 1),
        Err(error) => crate::fail(&error, 1),
    }
}

fn text(verified: &Verified) -> String {
    format!(
        "whole: {} entries, {} of them records, in {} files; {} requests in flight\nhead: {}\n\
         Keep the head elsewhere; --anchor finds later that entries were cut off after it.",
        verified.entries, verified.records, verified.files, verified.in_flight, verified.head
    )
}
