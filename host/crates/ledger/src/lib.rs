//! The ledger: the durable, ordered, local store of records.
//!
//! Each request has two entries: one when it starts, one when it ends. Entries are only ever
//! added, each with a hash over itself and the one before, so that a changed or missing one is
//! found. A request that has a start and no end when the ledger is opened was in flight when the
//! process died; it is handed out as [`Interrupted`] and ends as `aborted`.
//!
//! One thread writes; what arrives while it commits is committed together next. SQLite holds the
//! entries, in files of bounded size, so that whoever audits opens them with tools they have and
//! retention deletes files.

mod entry;
mod error;
mod settings;
mod store;

pub use entry::{Head, Interrupted, Seq, Stored, Ticket};
pub use error::{LedgerError, LedgerErrorKind};
pub use settings::{Durability, LedgerSettings};
pub use store::{Cursor, Ledger, Opened};
