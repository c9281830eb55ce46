//! The client of Redis, by its address and, for `rediss://`, by the authorities that are trusted.
//!
//! Its certificate is checked in any case; nothing here turns that off.

use redis::Client;

use super::RedisSettings;
use crate::error::TenancyError;

/// Connects to nothing yet.
///
/// # Errors
/// An address that is none, authorities that cannot be read or have no use.
pub(super) fn client(settings: &RedisSettings) -> Result<Client, TenancyError> {
    // Which is refused if the program has chosen one; without any, connecting would panic.
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::ring::default_provider().install_default();
    match &settings.ca_file {
        None => Client::open(settings.url.as_str()).map_err(TenancyError::Redis),
        Some(file) => trusting(settings, file),
    }
}

#[cfg(feature = "tls")]
fn trusting(settings: &RedisSettings, file: &std::path::Path) -> Result<Client, TenancyError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let wrong = |problem: String| TenancyError::configuration(&file.display().to_string(), problem);
    if !is_tls(&settings.url) {
        let why = "authorities are of use for rediss:// only, and the address of Redis is none";
        return Err(wrong(why.to_owned()));
    }
    let pem = std::fs::read(file).map_err(|source| TenancyError::io(file, "read", source))?;
    let mut certificates = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        certificate.map_err(|error| wrong(format!("a certificate is damaged: {error}")))?;
        certificates += 1;
    }
    if certificates == 0 {
        return Err(wrong("there is no certificate in it; it must be PEM".to_owned()));
    }
    let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(pem) };
    Client::build_with_tls(settings.url.as_str(), certificates).map_err(TenancyError::Redis)
}

#[cfg(feature = "tls")]
fn is_tls(url: &str) -> bool {
    let scheme = url.split("://").next().unwrap_or_default();
    ["rediss", "valkeys"].iter().any(|tls| scheme.eq_ignore_ascii_case(tls))
}

#[cfg(not(feature = "tls"))]
fn trusting(_: &RedisSettings, file: &std::path::Path) -> Result<Client, TenancyError> {
    let why = "this program was built without TLS for Redis";
    Err(TenancyError::configuration(&file.display().to_string(), why))
}
