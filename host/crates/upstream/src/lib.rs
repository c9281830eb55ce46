//! The client side of model servers: which one a request goes to, what is sent, and the truth about what comes back.
//!
//! [`Upstreams::route`] makes a plan from the model and the tenant, [`Upstreams::send`] gets an answer along it, and
//! [`Exchange::next`] hands out the answer's bytes, ready for the client, while [`Exchange::account`] says what they were:
//! tokens in one meaning whoever reports them, the model that answered, why it ended, how far it got.
//!
//! What holds:
//! - a retry happens before the first byte of an answer and never after it;
//! - what goes out is what came in, byte for byte, but for usage that the client did not ask for, and but for answers of
//!   Anthropic, which are translated; how the network split it makes no difference to bytes or account;
//! - a request keeps the configuration it was routed by;
//! - nothing that an upstream or the file controls can grow without bound.

mod account;
mod anthropic;
mod attempt;
mod backend;
mod breaker;
mod budget;
mod config;
mod error;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod headers;
mod json;
mod matching;
mod multipart;
mod openai;
mod outgoing;
mod passing;
mod probe;
mod proxy;
mod reach;
mod reading;
mod responses;
mod route;
mod send;
mod sse;
mod trail;
mod transport;
mod upstreams;
mod usage;
mod watch;
mod written;

pub use account::{Account, ReportedError};
pub use attempt::{another_may_do_better, refuses_our_key};
pub use backend::{BackendStatus, HealthState};
pub use config::{Balance, Kind};
pub use error::{UpstreamError, UpstreamErrorKind};
pub use exchange::{Exchange, Form, Head, Piece, PieceKind};
pub use multipart::field as form_field;
pub use outgoing::Outgoing;
pub use probe::{Heard, Probe};
#[doc(hidden)]
pub use reading::reading_bench;
pub use route::{Candidate, Route};
pub use send::{Failed, FailedKind, UpstreamAnswer};
pub use trail::{Asking, Attempt, AttemptOutcome, Trail, Tried};
pub use upstreams::{ServedModel, Upstreams};
pub use usage::ReportedPhases;
