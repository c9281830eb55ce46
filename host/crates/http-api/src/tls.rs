//! The server's side of TLS: a certificate and its key from PEM files.
//!
//! Whoever renews a certificate replaces the files; they are looked at again while connections come
//! in. What cannot be used then changes nothing: the certificate before goes on serving.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at, while somebody connects.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Largest file that is read.
const LARGEST: u64 = 1 << 20;

/// What is spoken above, in the order that we like it.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where a server's certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file of the certificate, followed by those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// PEM file of its key, without a password.
    pub key: PathBuf,
}

/// Why TLS cannot be spoken with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One is not what it should be.
    #[error("{} must hold {expected}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What it must hold.
        expected: &'static str,
    },
    /// They do not belong together, or are of a kind that is not known.
    #[error("{} and {} cannot be used together: {source}", files.certificate.display(), files.key.display())]
    Mismatched {
        /// Which.
        files: TlsFiles,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate to serve with; clones share it.
#[derive(Clone)]
pub struct ServerTls(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// When the files that it is from, or that could not be used, were changed last.
    changed: Changed,
    looked: Instant,
}

type Changed = [Option<SystemTime>; 2];

impl ServerTls {
    /// Reads the files; blocks for a moment.
    ///
    /// # Errors
    /// [`TlsError`], which says which file is wrong and what it must hold.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let changed = changed(&files);
        let config = config(&files)?;
        let current = Mutex::new(Current { config, changed, looked: Instant::now() });
        Ok(Self(Arc::new(Inner { files, current })))
    }

    /// What greets a new connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let Inner { files, current } = &*self.0;
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            current.renew(files);
        }
        TlsAcceptor::from(Arc::clone(&current.config))
    }
}

impl Current {
    /// Reads the files again if they have changed.
    fn renew(&mut self, files: &TlsFiles) {
        let changed = changed(files);
        if changed == self.changed {
            return;
        }
        match config(files) {
            Ok(config) => {
                self.config = config;
                tracing::info!(certificate = %files.certificate.display(), "the certificate was read again");
            }
            // Between two files that are replaced one after the other, too: the next change tells.
            Err(error) => {
                tracing::warn!(%error, "a changed certificate cannot be used; the one before goes on");
            }
        }
        self.changed = changed;
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.0.files).finish()
    }
}

fn config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |path: &Path, expected| TlsError::Unusable { path: path.to_owned(), expected };
    let pem = read(&files.certificate)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain =
        chain.ok_or_else(|| unusable(&files.certificate, "certificates in PEM, whole ones"))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|_| unusable(&files.key, "a key in PEM, without a password"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config =
        config.map_err(|source| TlsError::Mismatched { files: files.clone(), source })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), source };
    if fs::metadata(path).map_err(unreadable)?.len() > LARGEST {
        let expected = "a few certificates or a key, not more than a MiB";
        return Err(TlsError::Unusable { path: path.to_owned(), expected });
    }
    fs::read(path).map_err(unreadable)
}

fn changed(files: &TlsFiles) -> Changed {
    let of = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    [of(&files.certificate), of(&files.key)]
}
