//! The ledger: the durable, ordered, local store of records.
//!
//! Each request has two entries: one when it starts, one when it ends. Entries are only ever
//! added, each with a hash over itself and the one before, so that a changed or missing one is
//! found ([`verify()`]). A request that has a start and no end when the ledger is opened was in
//! flight when the process died; it is handed out as [`Interrupted`] and ends as `aborted`.
//!
//! What other programs told us (`Ledger::received`) has one entry: a record for each request, and
//! their other spans in batches. Both have numbers and leave by the exporters in their order.
//!
//! One thread writes; what arrives while it commits is committed together next. SQLite holds the
//! entries, in files of bounded size, so that whoever audits opens them with tools they have and
//! retention deletes files. What an acknowledged commit survives is a setting ([`Durability`]).
//!
//! When a commit fails nobody is told that it did not: the ledger takes nothing new
//! ([`Ledger::admits`] says why), tries again by itself, and puts on record first what it owes.

mod append;
mod batch;
mod book;
mod chain;
mod decisions;
mod entry;
mod error;
mod files;
mod ledger;
mod lying;
mod partition;
mod reader;
mod recent;
mod settings;
mod shared;
mod slots;
mod state;
mod upkeep;
mod verify;
mod writer;

pub use append::LedgerWriter;
pub use chain::Hash;
pub use decisions::{Decisions, Remembered};
pub use entry::{
    Cursor, Head, Interrupted, Kind, Look, Outbound, Payload, ReceivedKey, Seq, Stored, UnderWay,
};
pub use error::{LedgerError, LedgerErrorKind};
pub use files::free_bytes;
pub use ledger::{Ledger, Opened};
pub use reader::{LedgerReader, Page, Query};
pub use settings::{Durability, LedgerSettings};
pub use slots::Ticket;
pub use state::{LedgerState, Spread};
pub use verify::{Anchor, Broken, Verified, VerifyError, verify};
