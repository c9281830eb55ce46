//! What accounts for the past: `tollgate report`, `reprice`, `audit verify` and `reconcile`.
//!
//! Each command is two things that are kept apart: pure functions from records to figures, tested on their own, and the
//! shell around them that opens files and prints. All of them read the ledger only, so they run beside a gateway that
//! serves; nothing here writes to a ledger but `reprice`, and that to a new one.
//!
//! Money is summed in whole pico-units for each currency. What has no amount is counted under its reason, never as zero.

mod amounts;
mod error;
mod output;
mod period;
mod place;
mod progress;
mod reconcile;
mod records;
mod report;
mod reprice;
mod spans;
#[cfg(test)]
mod testing;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use error::AuditError;

pub use reconcile::Reconcile;
pub use report::Report;
pub use reprice::Reprice;

/// What an auditor asks of the ledger itself.
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Check the ledger's hash chain from end to end and name the first broken row
    Verify(verify::Verify),
}

/// Carries out `tollgate report`.
pub fn report(arguments: &Report) -> ExitCode {
    finish(report::run(arguments))
}

/// Carries out `tollgate reprice`.
pub fn reprice(arguments: &Reprice) -> ExitCode {
    finish(reprice::run(arguments))
}

/// Carries out `tollgate audit ...`.
pub fn audit(command: &AuditCommand) -> ExitCode {
    match command {
        AuditCommand::Verify(arguments) => finish(verify::run(arguments)),
    }
}

/// Carries out `tollgate reconcile`.
pub fn reconcile(arguments: &Reconcile) -> ExitCode {
    finish(reconcile::run(arguments))
}

/// What a command found.
enum Found {
    /// Nothing amiss.
    Good(String),
    /// It did its work, and what it looked at is not as it should be.
    Amiss(String),
}

/// An answer on standard output, or what is wrong on standard error.
fn finish(done: Result<Found, AuditError>) -> ExitCode {
    match done {
        Ok(Found::Good(text)) => {
            crate::say(&text);
            ExitCode::SUCCESS
        }
        Ok(Found::Amiss(text)) => {
            crate::say(&text);
            ExitCode::FAILURE
        }
        Err(error) => crate::fail(&error, error.exit_code()),
    }
}
