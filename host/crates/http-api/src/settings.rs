//! What an operator can set about the HTTP side.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::tls::ServerTls;

/// Addresses, sizes and patience. [`HttpSettings::default`] is right for most.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Where to listen. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// The name of the setting that says so, for errors.
    pub setting: &'static str,
    /// Largest request body, in bytes. A larger one is refused with 413.
    pub max_body_bytes: usize,
    /// Most connections at a time. Policy when there are more: they wait, not yet accepted, in the
    /// kernel's backlog.
    pub max_connections: usize,
    /// The certificate to speak TLS with; none: connections are not encrypted.
    pub tls: Option<ServerTls>,
    /// Whether HTTP/2 is spoken, too, as gRPC needs.
    pub http2: bool,
    /// Longest wait for a request's head, which is also how long a kept-alive connection may be
    /// idle. Load balancers keep theirs for a minute, and a server should outlast them.
    pub header_timeout: Duration,
    /// Longest wait for a whole request body. A slower one is refused with 408.
    pub body_timeout: Duration,
    /// How long a client may leave an answer unread. After that its connection is closed.
    pub write_stall: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            setting: "listen",
            max_body_bytes: 1024 * 1024,
            max_connections: 1024,
            tls: None,
            http2: false,
            header_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
        }
    }
}
