//! Spans in OTLP's protobuf and back, without messages between: in this form they are sent, put on
//! record and delivered.
//!
//! Attributes stay the bytes that they came in ([`crate::span::Attributes`]) and leave as these bytes,
//! but for those that somebody changed: most spans pass through without a value of theirs being
//! made. What is read has been checked whole, so that nothing fails later.

mod attributes;
mod packed;
mod request;
mod span;
mod wire;

pub(crate) use self::attributes::{Sent, Unread, by_name, pairs, values};
pub use self::packed::{NotPacked, pack, unpack};
pub(crate) use self::packed::{pack_one, unpack_one};
pub use self::request::{Incoming, read, write, write_frame, write_groups, write_span};
pub use self::span::{HAS_IS_REMOTE, IS_REMOTE, SAMPLED, flags};
pub use self::wire::{Content, Fields};

/// Why a request cannot be read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is not what it says that it is.
    Unreadable(&'static str),
    /// There is more in it than is taken.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are taken.
        most: usize,
    },
}

/// How much is taken of a request: what is two bytes on the wire is hundreds in memory.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Spans.
    pub spans: usize,
    /// Attributes, values, events and links, all together.
    pub values: usize,
    /// Bytes of resources and scopes, if each span had its own.
    pub shared: usize,
}

impl Most {
    /// Of what has been taken before.
    pub const ANY: Self = Self { spans: usize::MAX, values: usize::MAX, shared: usize::MAX };
}

/// How deep messages may lie within each other.
const DEPTH: usize = 64;

/// What has been found so far.
#[derive(Debug, Default)]
pub struct Counts {
    spans: usize,
    values: usize,
    shared: usize,
}

impl Counts {
    fn span(&mut self, most: &Most) -> Result<(), Malformed> {
        self.spans += 1;
        limit(self.spans, "spans", most.spans)
    }

    /// One more attribute, value, event, link or whatever else may be many.
    ///
    /// # Errors
    /// There are too many.
    pub fn value(&mut self, most: &Most) -> Result<(), Malformed> {
        self.values += 1;
        limit(self.values, "attributes, values, events and links", most.values)
    }

    /// So many spans have so many bytes in common.
    fn shared(&mut self, bytes: usize, spans: usize, most: &Most) -> Result<(), Malformed> {
        self.shared = self.shared.saturating_add(bytes.saturating_mul(spans));
        let what = "bytes of resources and scopes, counted for each of their spans";
        limit(self.shared, what, most.shared)
    }
}

/// Whether a message may lie that deep.
///
/// # Errors
/// It may not.
pub fn check_depth(depth: usize) -> Result<(), Malformed> {
    let too_deep = Malformed::Unreadable("values lie too deep within each other");
    if depth > DEPTH { Err(too_deep) } else { Ok(()) }
}

fn limit(count: usize, what: &'static str, most: usize) -> Result<(), Malformed> {
    if count > most { Err(Malformed::TooMany { what, most }) } else { Ok(()) }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(problem) => f.write_str(problem),
            Self::TooMany { what, most } => write!(f, "it has more than {most} {what}"),
        }
    }
}

#[cfg(test)]
mod tests;
