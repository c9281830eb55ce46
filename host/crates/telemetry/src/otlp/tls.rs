//! The files that TLS is spoken with, read and checked when an exporter is built: what is no
//! certificate should not be found out when the first spans leave.

use std::fs;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::TelemetryError;
use crate::settings::OtlpSettings;

/// Our own certificate and its key, as PEM.
pub(crate) struct Own {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// The authorities to trust instead of the usual ones, as PEM.
pub(crate) fn authorities(settings: &OtlpSettings) -> Result<Option<Vec<u8>>, TelemetryError> {
    let path = settings.certificate.as_deref();
    path.map(|path| certificates("certificate", path)).transpose()
}

/// What to show a receiver that asks who we are.
pub(crate) fn own(settings: &OtlpSettings) -> Result<Option<Own>, TelemetryError> {
    let Some((certificate, key)) = &settings.client_certificate else { return Ok(None) };
    let (certificate_pem, key_pem) = (certificates("client-certificate", certificate)?, read(key)?);
    let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| {
        unusable("client-key", key, "it must hold a key in PEM, without a password")
    })?;
    let chain = CertificateDer::pem_slice_iter(&certificate_pem).filter_map(Result::ok).collect();
    let ring = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, private, &ring).map_err(|error| {
        let problem = format!("it is not the key of {}: {error}", certificate.display());
        unusable("client-key", key, &problem)
    })?;
    Ok(Some(Own { certificate: certificate_pem, key: key_pem }))
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<u8>, TelemetryError> {
    let pem = read(path)?;
    let mut found = CertificateDer::pem_slice_iter(&pem).peekable();
    if found.peek().is_none() || found.any(|certificate| certificate.is_err()) {
        return Err(unusable(setting, path, "it must hold certificates in PEM, whole ones"));
    }
    Ok(pem)
}

fn read(path: &Path) -> Result<Vec<u8>, TelemetryError> {
    fs::read(path).map_err(|source| TelemetryError::File { path: path.to_owned(), source })
}

fn unusable(setting: &str, path: &Path, problem: &str) -> TelemetryError {
    TelemetryError::Setting {
        name: format!("OTLP {setting}"),
        value: path.display().to_string(),
        problem: problem.to_owned(),
    }
}
