//! Tollgate, assembled: [`start`] builds every part in order and [`Running::shut_down`] takes
//! them down in the opposite order, so that nothing is cut off from what it still needs.

mod banner;
mod examination;
mod exporters;
mod start;
mod tenancy;

pub use examination::{Finding, Verdict, examine};
pub use start::{Running, StartError, start};
