//! The addresses that are listened on, and the certificate that is shown there.

use std::net::{SocketAddr, TcpListener};

use tollgate_http_api::ServerTls;
use tollgate_settings::Settings;

use super::Finding;
use crate::start::otlp_tls;

const CHECK: &str = "port";

/// Whether all addresses are free, at the same time.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let mut held = Vec::new();
    let admin = settings.admin_listen.map(|address| ("admin-listen", address));
    let all = settings.listens().chain(admin);
    let addresses = all.map(|(name, address)| one(name, address, &mut held));
    addresses.chain(certificate(settings)).collect()
}

fn certificate(settings: &Settings) -> Option<Finding> {
    let files = otlp_tls(settings)?;
    let seen = format!("{} serves spans under TLS", files.certificate.display());
    Some(match ServerTls::load(files) {
        Ok(_) => Finding::ok("certificate", seen),
        Err(error) => Finding::failed(
            "certificate",
            error.to_string(),
            "put a certificate with its chain, and its key, both in PEM, where otlp-certificate and \
             otlp-key say",
        ),
    })
}

/// `held` keeps what was listened on, so that the next does not find it free.
fn one(name: &str, address: SocketAddr, held: &mut Vec<TcpListener>) -> Finding {
    match TcpListener::bind(address) {
        Ok(listener) => {
            held.push(listener);
            Finding::ok(CHECK, format!("{name} {address} is free"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::failed(
            CHECK,
            format!("{name} {address} is in use"),
            format!(
                "stop what listens there (`ss -ltnp 'sport = :{}'` names it; all is well if it is this \
                 gateway), or choose another with --{name}",
                address.port()
            ),
        ),
        Err(error) => Finding::failed(
            CHECK,
            format!("{name} {address} cannot be listened on: {error}"),
            format!(
                "choose an address of this machine, and a port from 1024 on, with --{name}, such as \
                 127.0.0.1:8080"
            ),
        ),
    }
}
