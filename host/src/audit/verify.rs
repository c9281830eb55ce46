//! `tollgate audit verify`: whether the ledger says today what it said when it was written.

use serde_json::json;
use tollgate_ledger::{Anchor, Broken, Verified, VerifyError, verify};

use super::Found;
use super::error::AuditError;
use super::output::json as pretty;
use super::place::Place;
use super::progress::{Progress, Quiet};

/// Which ledger, and against what.
#[derive(clap::Args)]
#[command(
    after_help = "The answer ends with the head, SEQ:HASH. Keep it where whoever can write the ledger cannot, and give it \
                  as --anchor later: only then is it found that the ledger's end was cut off.\n\n\
                  Exit codes: 0 all is as it was written, 1 it is not, or it cannot be read, 2 the arguments are wrong."
)]
pub struct Verify {
    #[command(flatten)]
    place: Place,

    /// An entry and its hash as an earlier run told them
    #[arg(long, value_name = "SEQ:HASH")]
    anchor: Option<Anchor>,

    /// Answer in JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    quiet: Quiet,
}

/// Verifies.
pub(super) fn run(arguments: &Verify) -> Result<Found, AuditError> {
    let reader = arguments.place.open();
    let folder = match &reader {
        Err(AuditError::NoLedger(_)) => return reader.map(|_| Found::Good(String::new())),
        // What is wrong with it is found below, and said more exactly.
        _ => arguments.place.folder(),
    };
    let entries = reader.ok().and_then(|reader| reader.head().ok()).map(|head| head.seq.0);
    let progress = Progress::of_records(entries, "verifying", arguments.quiet);
    let verified = verify(&folder, arguments.anchor, |done| {
        progress.at(done, entries.unwrap_or(done).max(done));
    });
    drop(progress);
    let anchored = arguments.anchor.is_some();
    match verified {
        Ok(verified) if arguments.json => good_json(&verified).map(Found::Good),
        Ok(verified) => Ok(Found::Good(good(&verified, anchored))),
        Err(VerifyError::Broken(broken)) if arguments.json => bad_json(&broken).map(Found::Amiss),
        Err(VerifyError::Broken(broken)) => Ok(Found::Amiss(bad(&broken))),
        Err(VerifyError::Unreadable(error)) => Err(error.into()),
    }
}

fn good(verified: &Verified, anchored: bool) -> String {
    let Verified { head, entries, records, files, in_flight } = verified;
    let anchor = if anchored { "\nthe anchor is in it" } else { "" };
    format!(
        "ok: {entries} entries, {records} of them records; files: {files}; requests in flight: {in_flight}{anchor}\n\
         head {head}"
    )
}

fn good_json(verified: &Verified) -> Result<String, AuditError> {
    let Verified { head, entries, records, files, in_flight } = verified;
    pretty(&json!({
        "ok": true,
        "head": head.to_string(),
        "entries": entries,
        "records": records,
        "files": files,
        "in_flight": in_flight,
    }))
}

fn bad(broken: &Broken) -> String {
    format!("broken: {broken}")
}

fn bad_json(broken: &Broken) -> Result<String, AuditError> {
    pretty(&json!({
        "ok": false,
        "file": broken.file,
        "entry": broken.seq,
        "what": broken.what,
    }))
}
