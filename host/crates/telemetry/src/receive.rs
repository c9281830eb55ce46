//! OTLP from the receiver's side: requests to spans, and the answers that senders understand.
//!
//! Whatever a sender says is bounded before it is decoded: how many spans, how many values, how
//! deep. What OTLP forbids of a single span (no id, a wrong one) rejects that span and no other.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
#[cfg(any(test, feature = "fuzzing"))]
mod judge;
mod limits;
mod passed;
mod status;

use std::fmt::Display;

use tollgate_domain::otlp;

use crate::json;

pub use self::limits::{MAX_SPANS, MAX_VALUES};
pub use self::passed::passed;
pub use self::status::{GrpcCode, accepted, refused};
pub use tollgate_domain::otlp::Incoming;

/// How a request or an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

/// Why a request cannot be taken at all. Sent again it cannot be taken either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is not what it says that it is.
    #[error("the body is no request of OTLP: {0}")]
    Unreadable(String),
    /// It is larger than we take.
    #[error("the request has more than {most} {what}; send it in smaller batches")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are taken.
        most: usize,
    },
}

/// How much of a complaint is told: it may quote what was sent.
const COMPLAINT: usize = 300;

impl Malformed {
    fn unreadable(problem: impl Display) -> Self {
        let mut said: String = problem.to_string();
        if let Some((end, _)) = said.char_indices().nth(COMPLAINT) {
            said.truncate(end);
            said.push_str(" ...");
        }
        Self::Unreadable(said)
    }
}

/// The spans of a request, whose bytes are not compressed any more.
///
/// # Errors
/// If it is malformed or has too much in it.
pub fn decode(bytes: &[u8], encoding: Encoding) -> Result<Incoming, Malformed> {
    Ok(match encoding {
        Encoding::Protobuf => otlp::read(bytes, &limits::MOST)?,
        Encoding::Json => {
            limits::check_json(bytes)?;
            let request = json::read(bytes, &json::TRACES).map_err(Malformed::unreadable)?;
            // By the same limits as in the form in which it leaves.
            otlp::read(&request, &limits::MOST)?
        }
    })
}

impl From<otlp::Malformed> for Malformed {
    fn from(malformed: otlp::Malformed) -> Self {
        match malformed {
            otlp::Malformed::Unreadable(problem) => Self::unreadable(problem),
            otlp::Malformed::TooMany { what, most } => Self::TooMany { what, most },
        }
    }
}

#[cfg(test)]
mod tests;
