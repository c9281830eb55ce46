//! `tollgate report`: what was used, what it cost, how long it took and what went wrong, by tenant, model, plugin and day.

mod print;

use std::path::PathBuf;
use std::time::SystemTime;

use tollgate_ledger::Query;
use tollgate_summary::{Dimension, MOST_GROUPS, Period, Request, Summary};

use super::error::AuditError;
use super::output::Format;
use super::period::Typed;
use super::place::Place;
use super::progress::Quiet;
use super::records::records;
use super::{Found, spans};

/// Sum up what was used, what it cost, how long it took and what went wrong
///
/// Amounts are exact and each currency has a sum of its own. A request without an amount is counted under the reason why
/// (unpriced, plugin_failed; unknown if its span does not tell), never as zero. Durations are those of completed requests,
/// times to the first token those of all that had one; both are exact up to 4096 requests a group and within 0.1 % beyond.
/// Days are UTC, and a request belongs to the day it began.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 it is done, 1 something could not be read, 2 the arguments are wrong."
)]
pub struct Report {
    #[command(flatten)]
    place: Place,

    /// NDJSON span files instead of the ledger, also .gz and .zst; - for standard input. Only root spans count, each once
    #[arg(long, value_name = "FILE", num_args = 1..)]
    from_spans: Vec<PathBuf>,

    /// What to group by, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [By::Tenant, By::Model])]
    by: Vec<By>,

    #[command(flatten)]
    period: Typed,

    /// Only requests of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,

    /// Only requests that asked for this model or were served by it
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// How the answer is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    quiet: Quiet,
}

/// What to group by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// Who pays.
    Tenant,
    /// The model as the client named it.
    Model,
    /// The build of the cost plugin.
    Plugin,
    /// The day it began, UTC.
    Day,
}

impl From<By> for Dimension {
    fn from(by: By) -> Self {
        match by {
            By::Tenant => Self::Tenant,
            By::Model => Self::Model,
            By::Plugin => Self::Plugin,
            By::Day => Self::Day,
        }
    }
}

/// Which requests count.
struct Filter<'a> {
    period: Period,
    tenant: Option<&'a str>,
    model: Option<&'a str>,
}

impl Filter<'_> {
    fn holds(&self, request: &Request<'_>) -> bool {
        self.period.holds(request.began)
            && self.tenant.is_none_or(|tenant| request.tenant == Some(tenant))
            && self
                .model
                .is_none_or(|model| request.model == model || request.served_model == Some(model))
    }
}

/// Reads and sums up.
pub(super) fn run(arguments: &Report) -> Result<Found, AuditError> {
    let period =
        arguments.period.period(SystemTime::now().into()).map_err(AuditError::Arguments)?;
    let filter =
        Filter { period, tenant: arguments.tenant.as_deref(), model: arguments.model.as_deref() };
    let by: Vec<Dimension> = arguments.by.iter().map(|by| Dimension::from(*by)).collect();
    let mut summary = Summary::new(&by, MOST_GROUPS);
    let mut add = |request: &Request<'_>| {
        if filter.holds(request) { Ok(summary.add(request)?) } else { Ok(()) }
    };
    if arguments.from_spans.is_empty() {
        let (tenant, model) = (arguments.tenant.clone(), arguments.model.clone());
        let query = Query { tenant, model, ..Query::default() };
        let reader = arguments.place.open()?;
        for stored in records(&reader, query, period, "reading the ledger", arguments.quiet) {
            add(&Request::from(&stored?.record))?;
        }
    } else {
        spans::read(&arguments.from_spans, arguments.quiet, &mut add)?;
    }
    print::written(&summary, period, arguments.format).map(Found::Good)
}
