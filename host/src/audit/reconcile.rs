//! `tollgate reconcile`: a provider's invoice beside what is on record, by day and model, and what can account for the gap.

mod invoice;
mod join;
mod print;

use std::path::PathBuf;
use std::time::SystemTime;

use tollgate_domain::Currency;
use tollgate_ledger::Query;

use super::Found;
use super::amounts::{NotAnAmount, parse};
use super::error::AuditError;
use super::output::Format;
use super::period::Typed;
use super::place::Place;
use super::progress::Quiet;
use super::records::records;
use invoice::Columns;
use join::{Naming, Reconciliation};
use tollgate_summary::Period;

/// Hold a provider's invoice against what is on record, by day and model
///
/// Reads the invoice as comma-separated lines with headings, sums it by day and model, and puts the requests on record
/// beside it. The gap is the invoice less our amounts. What can account for it is told by status: requests that have no
/// amount (unpriced, plugin_failed), whose counts are estimates (estimated), that the client or the backend broke off
/// (interrupted), whose process ended (aborted), or that were priced in another currency. Every amount is exact; only
/// what stands behind "about" is an estimate: the tokens of requests without an amount at our mean price of that model.
///
/// Days are UTC, and a request belongs to the day it began. Requests outside the invoice's days, and refused ones, are
/// left out.
#[derive(clap::Args)]
#[command(
    after_help = "Verdicts: agrees (within --tolerance), explained (requests with one of those statuses can account for it), \
                  unexplained (none can), only_invoice, only_ours.\n\nExit codes: 0 it is done; 1 something could not be read, \
                  or with --strict a line does not agree; 2 the arguments are wrong."
)]
pub struct Reconcile {
    #[command(flatten)]
    place: Place,

    /// The invoice; - for standard input
    #[arg(long, value_name = "FILE.csv")]
    invoice: PathBuf,

    #[command(flatten)]
    columns: Columns,

    /// Currency of the invoice
    #[arg(long, value_name = "CODE", default_value = "USD", value_parser = currency)]
    currency: Currency,

    /// Name of a model on the invoice and on record, where they differ
    #[arg(long, value_name = "INVOICE=OURS", value_parser = alias)]
    alias: Vec<(String, String)>,

    /// Which of a request's models the invoice names
    #[arg(long, value_enum, default_value_t)]
    naming: Naming,

    /// Only requests that this provider served, as in gen_ai.provider.name
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,

    #[command(flatten)]
    period: Typed,

    /// Largest gap of a day and model that counts as none, such as 0.01 for an invoice in cents
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    tolerance: String,

    /// Exit with 1 if any day and model does not agree
    #[arg(long)]
    strict: bool,

    /// How the answer is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    quiet: Quiet,
}

/// Reads both sides and compares.
pub(super) fn run(arguments: &Reconcile) -> Result<Found, AuditError> {
    let typed = arguments.period.period(SystemTime::now().into()).map_err(AuditError::Arguments)?;
    let currency = arguments.currency;
    let tolerance = parse(&arguments.tolerance, currency, false)
        .ok()
        .filter(|tolerance| tolerance.pico >= 0)
        .ok_or_else(|| {
            let given = &arguments.tolerance;
            AuditError::Arguments(format!("--tolerance {given:?} is no amount such as 0.01"))
        })?;
    let reader = arguments.place.open()?;
    let lines = invoice::read(&arguments.invoice, &arguments.columns, currency)?;
    let days = lines.iter().map(|line| line.day);
    let (Some(first), Some(last)) = (days.clone().min(), days.max()) else {
        return Err(AuditError::Arguments(format!(
            "{} has headings and no lines; there is nothing to hold against the ledger",
            arguments.invoice.display()
        )));
    };
    let period = Period::of_days(first, last).within(typed);
    let mut joined = Reconciliation::new(currency, tolerance.pico, arguments.naming);
    for line in lines {
        if period.holds(line.day.start()) {
            joined.add_line(&line, &arguments.alias)?;
        }
    }
    let quiet = arguments.quiet;
    for stored in records(&reader, Query::default(), period, "reading the ledger", quiet) {
        let record = stored?.record;
        let provider = record.served_by.as_ref().map(|by| by.provider.as_str());
        let wanted = arguments.provider.as_deref().is_none_or(|wanted| provider == Some(wanted));
        if wanted {
            joined.add_record(&record)?;
        }
    }
    let text = print::written(&joined, arguments.format)?;
    let agrees = joined.agrees()?;
    Ok(if arguments.strict && !agrees { Found::Amiss(text) } else { Found::Good(text) })
}

fn currency(code: &str) -> Result<Currency, String> {
    Currency::parse(code).ok_or_else(|| "write an ISO 4217 code such as USD".to_owned())
}

fn alias(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((theirs, ours)) if !theirs.trim().is_empty() && !ours.trim().is_empty() => {
            Ok((theirs.trim().to_owned(), ours.trim().to_owned()))
        }
        _ => Err("write the name on the invoice, =, and the name on record".to_owned()),
    }
}

/// What is wrong with an amount, and what to do.
fn advice(why: NotAnAmount) -> &'static str {
    match why {
        NotAnAmount::Malformed => "is no amount such as 1234.56",
        NotAnAmount::TooFine => {
            "is finer than a millionth of a millionth; --round rounds such amounts"
        }
        NotAnAmount::TooLarge => "is more than can be counted",
    }
}
