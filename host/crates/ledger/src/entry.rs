//! What goes in and comes out.

use std::sync::Arc;

use serde::Serialize;
use tollgate_domain::passed::Passed;
use tollgate_domain::received::SpanBatch;
use tollgate_domain::time::UnixNanos;
use tollgate_domain::{Outcome, Record, RequestId};

use crate::batch;
use crate::slots::Ticket;

/// Version of the stored form of a record: JSON of [`Record`].
pub(crate) const VERSION: u32 = 1;

/// Room for the JSON of most records: text that grows is copied.
const RECORD_BYTES: usize = 4 << 10;

/// Place of an entry in the ledger: 1, 2, 3 ... without gaps, over all files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// How far the ledger goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The last committed entry.
    pub seq: Seq,
    /// How many of all entries have a number: ends of requests, and what else other programs sent.
    pub records: u64,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A request was admitted. (Hashes are over the places of these: add at the end only.)
    Started,
    /// It ended, whatever its outcome.
    Finished,
    /// The process that served it died; found by the next one.
    Aborted,
    /// A request was not admitted.
    Refused,
    /// A record of another ledger with a new price.
    Repriced,
    /// A request that another program served and told us of.
    Received,
    /// Spans of another program that are no requests. Has a number, for exporters, and is no
    /// record.
    Spans,
    /// Metrics or logs of another program. Likewise.
    Passed,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Started,
        Self::Finished,
        Self::Aborted,
        Self::Refused,
        Self::Repriced,
        Self::Received,
        Self::Spans,
        Self::Passed,
    ];

    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Finished => "finished",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
            Self::Repriced => "repriced",
            Self::Received => "received",
            Self::Spans => "spans",
            Self::Passed => "passed",
        }
    }

    /// Whether it tells of a request.
    pub(crate) fn is_record(self) -> bool {
        !matches!(self, Self::Spans | Self::Passed)
    }

    /// The one of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of a record that ends a started request.
    pub(crate) fn of_end(record: &Record) -> Self {
        if record.outcome == Outcome::Aborted { Self::Aborted } else { Self::Finished }
    }
}

/// A record as it lies in the ledger.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its entry.
    pub seq: Seq,
    /// It is the how-manieth record: 1, 2, 3 ... without gaps.
    pub number: u64,
    /// The record.
    pub record: Record,
}

/// What leaves by the exporters, as it lies in the ledger.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Its entry.
    pub seq: Seq,
    /// It is the how-manieth that leaves: 1, 2, 3 ... without gaps.
    pub number: u64,
    /// What it is.
    pub what: Payload,
}

/// What leaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// The record of a request.
    Record(Arc<Record>),
    /// Spans of other programs.
    Spans(Box<SpanBatch>),
    /// Metrics or logs of other programs.
    Passed(Box<Passed>),
}

impl Payload {
    /// The record, if it is one.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Spans(_) | Self::Passed(_) => None,
        }
    }

    /// Who pays, or whose they are.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::Record(record) => record.tenant.as_deref(),
            Self::Spans(batch) => batch.tenant.as_deref(),
            Self::Passed(passed) => passed.tenant.as_deref(),
        }
    }

    /// When it ended, or arrived.
    #[must_use]
    pub fn ended(&self) -> UnixNanos {
        match self {
            Self::Record(record) => record.phases.request.end,
            Self::Spans(batch) => batch.arrived,
            Self::Passed(passed) => passed.arrived,
        }
    }

    /// The entry that holds it, if it has come in from another program.
    pub(crate) fn received(&self) -> Result<NewEntry, serde_json::Error> {
        match self {
            Self::Record(record) => NewEntry::new(Kind::Received, record),
            Self::Spans(batch) => {
                let (body, bytes) = batch::pack(batch)?;
                Ok(NewEntry { kind: Kind::Spans, columns: Columns::of_spans(batch), body, bytes })
            }
            Self::Passed(passed) => {
                let body = serde_json::to_string(passed)?;
                let (columns, bytes) = (Columns::of_passed(passed), body.len());
                Ok(NewEntry { kind: Kind::Passed, columns, body, bytes })
            }
        }
    }
}

/// By what a call that another program told of is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedKey {
    /// Of its record.
    pub id: RequestId,
    /// When it ended, as its record has it.
    pub ended: UnixNanos,
    /// Who pays; none: whoever it is.
    pub tenant: Option<String>,
}

/// How to go on looking back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As far as the ledger goes.
    On,
    /// The same, and at records only.
    OnAtRecords,
    /// Not any more.
    NoFurther,
}

/// A request that was in flight when the last process ended.
#[derive(Debug)]
pub struct Interrupted {
    /// To end it with.
    pub ticket: Ticket,
    /// Its record as of its start, with the usage and the time of its last progress, who was asked
    /// last, the outcome `aborted`, and no price yet.
    pub record: Record,
    /// Fingerprint of the plugin set it was admitted under.
    pub plugin_set: String,
}

/// A request that is in flight now.
#[derive(Clone, Debug)]
pub struct UnderWay {
    /// Entry of its start.
    pub started: Seq,
    /// Its record as of its start: who asks for what, and who is asked now.
    pub record: Record,
    /// Input and output tokens so far, once it has used any.
    pub tokens: Option<(u64, u64)>,
}

/// How far an exporter has come, and what became of the records that it is done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last entry it is done with.
    pub seq: Seq,
    /// Number of the last record it is done with. The first ones may have been before its time, so
    /// the next three need not come to as much.
    pub records: u64,
    /// Records of which at least one span is where it should be.
    pub delivered: u64,
    /// Records of which plugins let no span leave.
    pub filtered: u64,
    /// Records that the receiver refused for good.
    pub rejected: u64,
}

/// An entry on its way in: what its columns and its body hold. Made on the caller's thread.
#[derive(Clone, Debug)]
pub(crate) struct NewEntry {
    pub(crate) kind: Kind,
    pub(crate) columns: Columns,
    pub(crate) body: String,
    /// How many bytes it says, not packed.
    pub(crate) bytes: usize,
}

/// What can be searched for; all of it is in the body, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) request_id: String,
    pub(crate) trace_id: String,
    pub(crate) started_at: i64,
    /// Of a start the same as `started_at`.
    pub(crate) ended_at: i64,
    pub(crate) tenant: Option<String>,
    pub(crate) requested_model: String,
    pub(crate) served_model: Option<String>,
    pub(crate) outcome: &'static str,
    pub(crate) cost_status: &'static str,
    pub(crate) amount: Option<String>,
    pub(crate) currency: Option<String>,
    pub(crate) input_tokens: Option<i64>,
    pub(crate) output_tokens: Option<i64>,
    pub(crate) plugin_digest: Option<String>,
}

impl NewEntry {
    /// The entry that holds `record`.
    pub(crate) fn new(kind: Kind, record: &Record) -> Result<Self, serde_json::Error> {
        let mut body = Vec::with_capacity(RECORD_BYTES);
        serde_json::to_writer(&mut body, record)?;
        let body = String::from_utf8(body).map_err(serde::ser::Error::custom)?;
        let bytes = bytes(record, &body);
        Ok(Self { kind, columns: Columns::of(record), body, bytes })
    }
}

/// How many bytes a record says in this body: a span that is packed in it counts as what it is.
pub(crate) fn bytes(record: &Record, body: &str) -> usize {
    body.len() + record.received.as_ref().map_or(0, |call| call.bytes())
}

impl Columns {
    pub(crate) fn of(record: &Record) -> Self {
        let tokens = record.usage.as_ref().map(|usage| usage.tokens);
        let cost = record.cost.cost();
        Self {
            request_id: record.id.0.clone(),
            trace_id: record.trace.trace_id.to_string(),
            started_at: nanos(record.phases.request.start),
            ended_at: nanos(record.phases.request.end),
            tenant: record.tenant.clone(),
            requested_model: record.asked.model.clone(),
            served_model: record.served_by.as_ref().map(|by| by.model.clone()),
            outcome: record.outcome.name(),
            cost_status: record.cost.status(),
            amount: cost.map(|cost| cost.total.decimal()),
            currency: cost.map(|cost| cost.total.currency.code().to_owned()),
            input_tokens: tokens.map(|tokens| integer(tokens.input)),
            output_tokens: tokens.map(|tokens| integer(tokens.output)),
            plugin_digest: cost.map(|cost| cost.plugin.digest.clone()),
        }
    }
}

impl Columns {
    /// Those of a batch of spans.
    pub(crate) fn of_spans(batch: &SpanBatch) -> Self {
        let first = batch.groups.iter().find_map(|group| group.spans.first());
        let trace_id = first.map(|span| span.context.trace_id.to_string()).unwrap_or_default();
        Self { trace_id, ..Self::of_no_request(batch.arrived, batch.tenant.as_deref()) }
    }

    /// Those of metrics or logs.
    pub(crate) fn of_passed(passed: &Passed) -> Self {
        Self::of_no_request(passed.arrived, passed.tenant.as_deref())
    }

    /// Those of what is no request: what only a request has is empty. Its time is when it arrived,
    /// since retention goes by it and senders may say anything.
    fn of_no_request(arrived: UnixNanos, tenant: Option<&str>) -> Self {
        Self {
            request_id: String::new(),
            trace_id: String::new(),
            started_at: nanos(arrived),
            ended_at: nanos(arrived),
            tenant: tenant.map(str::to_owned),
            requested_model: String::new(),
            served_model: None,
            outcome: "",
            cost_status: "",
            amount: None,
            currency: None,
            input_tokens: None,
            output_tokens: None,
            plugin_digest: None,
        }
    }
}

/// SQLite's integers are signed; no count and no time comes near the difference.
pub(crate) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(crate) fn nanos(time: UnixNanos) -> i64 {
    integer(time.0)
}

/// Back from SQLite.
pub(crate) fn count(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}
