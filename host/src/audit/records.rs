//! Records of a ledger by when their requests began, and a bar that says how far they are read.

use tollgate_ledger::{LedgerReader, Query, Stored};

use super::error::AuditError;
use super::progress::{Progress, Quiet};
use tollgate_summary::Period;

/// What a query selects of the requests that began in this period, in order. The bar is gone when the iterator is.
pub(super) fn records(
    reader: &LedgerReader,
    query: Query,
    period: Period,
    what: &str,
    quiet: Quiet,
) -> impl Iterator<Item = Result<Stored, AuditError>> {
    let mut progress = Progress::of_records(reader.count().ok(), what, quiet);
    // What began then ended then or later.
    let read = reader.records(Query { since: period.since, ..query });
    let began = |stored: &Stored| stored.record.phases.request.start;
    read.inspect(move |_| progress.step())
        .filter(move |stored| stored.as_ref().map_or(true, |stored| period.holds(began(stored))))
        .map(|stored| Ok(stored?))
}
