//! What accounts for the past: `tollgate audit`. Reads the ledger only, so it runs beside a gateway that serves.

mod place;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

/// What an auditor asks of the ledger itself.
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Check the ledger's hash chain from end to end and name the first broken entry
    Verify(verify::Verify),
}

/// Carries it out.
pub fn run(command: &AuditCommand) -> ExitCode {
    match command {
        AuditCommand::Verify(arguments) => verify::run(arguments),
    }
}
