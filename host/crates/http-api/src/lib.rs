//! The gateway's face: axum routes, OpenAI's wire types, server-sent events and errors.
//!
//! [`bind`] takes the address, [`HttpServer::run`] serves until it is told to stop. What a request
//! means, costs and leaves on record is the gateway crate's; this crate reads requests, writes
//! answers, and keeps clients from holding what they do not use: every wait on a client has a
//! limit, every buffer a bound.
//!
//! A request is read field by field (`request`), so that whatever is wrong with it is named
//! by its parameter. An answer is OpenAI's plus what it cost (`response`, `sse`).
//!
//! Other programs export their spans to listeners of their own: [`bind_otlp`].
//!
//! Operators have an API of their own on a listener of its own: [`bind_admin`], whose routes are
//! listed in `admin`.

mod account;
mod admin;
mod body;
mod embeddings;
mod error;
mod forwarded;
mod headers;
mod logprobs;
mod openapi;
mod otlp;
mod path;
mod request;
mod response;
mod routes;
mod server;
mod settings;
mod sse;
mod stall;
mod tls;
mod tokens;
mod version;
mod wire;

pub use admin::{
    AdminServer, AdminSettings, BreakerView, FaultCount, MeterView, PluginView, PluginsView,
    RefusalView, bind_admin, has_dashboard,
};
pub use otlp::{OtlpServer, bind_otlp};
pub use server::{HttpError, HttpServer, bind};
pub use settings::HttpSettings;
pub use tls::{ServerTls, TlsError, TlsFiles};
