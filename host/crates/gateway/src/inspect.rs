//! What an operator may look at: requests on record and under way, one of them as a trace, sums,
//! limits and budgets, the ledger and who reads it.
//!
//! All of it is read where it lies, on a thread of its own, with bounded work each time: an answer
//! that has looked at as much as one answer does says so, and the next goes on from there.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tokio::task::spawn_blocking;
use tollgate_domain::{ErrorKind, UnixNanos};
use tollgate_ledger::{
    Durability, Head, LedgerError, LedgerState, Outbound, Page, Payload, Query, Stored, UnderWay,
};
use tollgate_summary::{Dimension, Period, Request, Summary};
use tollgate_tenancy::{LimiterStatus, Standings};

use crate::admin::Admin;
use crate::call::Refusal;
use crate::exporters::ExporterStatus;

/// Most records that are added up for one answer.
const ADDED_UP: usize = 100_000;

/// Most looks at the ledger for one answer.
const LOOKS: usize = 400;

/// Records of one such look.
const PAGE: usize = 512;

/// Most groups of one answer.
const GROUPS: usize = 5_000;

/// Most keys and tenants of one answer.
const NAMES: usize = 1_000;

/// One request on record, as a trace.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The record.
    pub stored: Stored,
    /// Its spans, root first, each as the NDJSON exporter writes it.
    pub spans: Vec<Value>,
}

/// What is to be added up.
#[derive(Clone, Debug, Default)]
pub struct TotalsAsk {
    /// What to group by.
    pub by: Vec<Dimension>,
    /// Requests that began then.
    pub period: Period,
    /// Of this tenant.
    pub tenant: Option<String>,
    /// That asked for this model or were served by it.
    pub model: Option<String>,
}

/// Sums of what was asked for.
#[derive(Debug)]
pub struct Totals {
    /// The sums.
    pub summary: Summary,
    /// How many records are in them.
    pub records: u64,
    /// Where they were cut off: only records that ended after this moment are in them.
    pub cut_off: Option<UnixNanos>,
}

/// How the ledger stands.
#[derive(Clone, Debug)]
pub struct LedgerStanding {
    /// What it did and how it stands.
    pub state: LedgerState,
    /// How far it goes.
    pub head: Head,
    /// What a commit survives.
    pub durability: Durability,
}

/// Limits and budgets, and how they are counted.
#[derive(Clone, Debug)]
pub struct LimitsStanding {
    /// Whether everybody is let in without a key.
    pub open: bool,
    /// Why the file of keys, as it is now, does not hold.
    pub trouble: Option<String>,
    /// How everybody stands.
    pub standings: Standings,
    /// How the counting does.
    pub limiter: LimiterStatus,
}

impl Admin {
    /// The newest requests on record before number `before`.
    ///
    /// # Errors
    /// `record_unavailable`: the ledger cannot be read.
    pub async fn requests(
        &self,
        query: Query,
        before: Option<u64>,
        most: usize,
    ) -> Result<Page, Refusal> {
        self.look(move |admin| admin.ledger.reader()?.newest(&query, before, most)).await
    }

    /// The requests in flight that began last.
    ///
    /// # Errors
    /// As [`Admin::requests`].
    pub async fn in_flight(&self, most: usize) -> Result<Vec<UnderWay>, Refusal> {
        self.look(move |admin| admin.ledger.in_flight(most)).await
    }

    /// One request on record. With an exporter's name its spans are what leaves through that one,
    /// which may be none of them; without one what plugins filter is there too.
    ///
    /// # Errors
    /// `not_found`: no such record, or no such exporter; as [`Admin::requests`].
    pub async fn request(&self, number: u64, exporter: Option<String>) -> Result<Seen, Refusal> {
        if let Some(name) = &exporter
            && !self.exporters.iter().any(|meter| meter.name() == name)
        {
            let message = format!(
                "There is no exporter {name:?}; `GET /admin/exporters` lists those there are."
            );
            return Err(Refusal::new(ErrorKind::NotFound, message).param("exporter"));
        }
        let found = self.look(move |admin| {
            let Some(stored) = admin.ledger.reader()?.numbered(number)? else { return Ok(None) };
            let Stored { seq, number, record } = stored.clone();
            let leaves = Outbound { seq, number, what: Payload::Record(Arc::new(record)) };
            let leaves = Arc::new(leaves);
            let spans = match &exporter {
                Some(name) => {
                    let bound = admin.tracer.bound_for(name, std::slice::from_ref(&leaves));
                    bound.into_iter().next().unwrap_or_default()
                }
                None => admin.tracer.whole(&leaves),
            };
            let resource = admin.tracer.resource();
            let json = |span| tollgate_telemetry::span_json(span, resource);
            let spans = spans.iter().map(json).collect();
            Ok(Some(Seen { spans, stored }))
        });
        found.await?.ok_or_else(|| {
            let message = format!(
                "There is no record {number}. Numbers begin at 1; old records may have been \
                 deleted by retention."
            );
            Refusal::new(ErrorKind::NotFound, message)
        })
    }

    /// Adds records up, newest first, as many as one answer adds up. One is computed at a time.
    ///
    /// # Errors
    /// `invalid_request`: more groups than anyone could read; as [`Admin::requests`].
    pub async fn totals(&self, ask: TotalsAsk) -> Result<Totals, Refusal> {
        let turn = Arc::clone(&self.adding_up).acquire_owned().await;
        let done = self.look(move |admin| {
            let _turn = turn;
            add_up(admin, &ask)
        });
        done.await?.map_err(|error| {
            let sentence = format!("Nothing was added up: {error}.");
            Refusal::new(ErrorKind::InvalidRequest, sentence).param("by")
        })
    }

    /// What everybody may use and has used.
    #[must_use]
    pub fn limits(&self) -> LimitsStanding {
        let tenancy = &self.tenancy;
        let now = SystemTime::now().into();
        LimitsStanding {
            open: tenancy.keys.is_open(),
            trouble: tenancy.keys.trouble(),
            standings: tenancy.limiter.standings(&tenancy.keys, NAMES, now),
            limiter: tenancy.limiter.status(),
        }
    }

    /// How the ledger stands.
    #[must_use]
    pub fn ledger(&self) -> LedgerStanding {
        LedgerStanding {
            state: self.ledger.state(),
            head: *self.ledger.head().borrow(),
            durability: self.ledger.settings().durability,
        }
    }

    /// How all exporters do.
    ///
    /// # Errors
    /// As [`Admin::requests`].
    pub async fn exporters(&self) -> Result<Vec<ExporterStatus>, Refusal> {
        let status = |admin: &Self| {
            admin.exporters.iter().map(|meter| meter.status(&admin.ledger)).collect()
        };
        self.look(move |admin| Ok(status(admin))).await
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Self) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let admin = self.clone();
        let done = spawn_blocking(move || look(&admin)).await.map_err(|error| {
            tracing::error!(%error, "an operator's look failed");
            Refusal::new(ErrorKind::Internal, "That failed; the log says how.")
        })?;
        done.map_err(|error| {
            tracing::warn!(%error, "the ledger could not be read for an operator");
            Refusal::new(
                ErrorKind::RecordUnavailable,
                format!("The ledger cannot be read: {error}."),
            )
        })
    }
}

type Added = Result<Totals, tollgate_summary::SummaryError>;

fn add_up(admin: &Admin, ask: &TotalsAsk) -> Result<Added, LedgerError> {
    let reader = admin.ledger.reader()?;
    // What began then ended then or later.
    let (since, tenant, model) = (ask.period.since, ask.tenant.clone(), ask.model.clone());
    let query = Query { since, tenant, model, ..Query::default() };
    let mut summary = Summary::new(&ask.by, GROUPS);
    let (mut records, mut before, mut oldest) = (0_u64, None, None);
    for _ in 0..LOOKS {
        let page = reader.newest(&query, before, PAGE)?;
        for stored in &page.records {
            oldest = Some(stored.record.phases.request.end);
            let request = Request::from(&stored.record);
            if !ask.period.holds(request.began) {
                continue;
            }
            records = records.saturating_add(1);
            if let Err(error) = summary.add(&request) {
                return Ok(Err(error));
            }
        }
        before = page.next;
        if before.is_none() || records >= ADDED_UP as u64 {
            break;
        }
    }
    let cut_off = before.and(oldest.or(Some(SystemTime::now().into())));
    Ok(Ok(Totals { summary, records, cut_off }))
}
