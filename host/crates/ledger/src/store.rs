//! The handle of an open ledger.

use tokio::sync::watch;
use tollgate_domain::Record;

use crate::entry::{Head, Interrupted, Seq, Stored, Ticket};
use crate::error::LedgerError;
use crate::settings::LedgerSettings;

/// An open ledger; clones share it.
#[derive(Clone, Debug)]
pub struct Ledger;

/// A ledger that was opened, and what its last process left behind.
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// Requests that were in flight.
    pub interrupted: Vec<Interrupted>,
}

/// How far an exporter has come, and what became of the spans of the records up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last entry it is done with.
    pub seq: Seq,
    /// Records it is done with; `delivered + filtered + rejected` of them.
    pub records: u64,
    /// Records of which at least one span is where it should be.
    pub delivered: u64,
    /// Records of which plugins let no span leave.
    pub filtered: u64,
    /// Records that the receiver refused for good.
    pub rejected: u64,
}

impl Ledger {
    /// Opens or makes the ledger; blocks.
    pub fn open(settings: LedgerSettings) -> Result<Opened, LedgerError> {
        let _ = settings;
        Err(LedgerError::Closed)
    }

    /// Whether a request may be admitted.
    pub fn admits(&self) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Puts a request on record as started: `record` is what it will be if nothing more is heard
    /// of it. Waits for the commit.
    pub async fn start(&self, record: &Record, plugin_set: &str) -> Result<Ticket, LedgerError> {
        let _ = (record, plugin_set);
        Err(LedgerError::Closed)
    }

    /// Ends a started request. Waits for the commit.
    pub async fn finish(&self, ticket: Ticket, record: &Record) -> Result<Seq, LedgerError> {
        let _ = (ticket, record);
        Err(LedgerError::Closed)
    }

    /// Puts a request on record that was refused before it started. Waits for the commit.
    pub async fn refused(&self, record: &Record) -> Result<Seq, LedgerError> {
        let _ = record;
        Err(LedgerError::Closed)
    }

    /// How far the ledger goes, as it grows.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Head> {
        watch::channel(Head::default()).1
    }

    /// The records after `after`, in order, at most `most`; blocks.
    pub fn read(&self, after: Seq, most: usize) -> Result<Vec<Stored>, LedgerError> {
        let _ = (after, most);
        Err(LedgerError::Closed)
    }

    /// Where `exporter` goes on reading; none if it has never read. From the first call on nothing
    /// after its cursor is deleted.
    pub fn cursor(&self, exporter: &str) -> Result<Option<Cursor>, LedgerError> {
        let _ = exporter;
        Err(LedgerError::Closed)
    }

    /// Moves a cursor. Waits for the commit.
    pub async fn advance(&self, exporter: &str, cursor: Cursor) -> Result<(), LedgerError> {
        let _ = (exporter, cursor);
        Err(LedgerError::Closed)
    }

    /// Commits what is under way, writes everything back and closes the files.
    pub async fn close(self) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }
}
