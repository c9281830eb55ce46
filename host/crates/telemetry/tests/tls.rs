//! OTLP under TLS, with authorities and certificates made for the test.

mod fixtures;
mod receivers;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use fixtures::record;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use receivers::{Fallible, GrpcReceiver, HttpReceiver, answer, attempt, otlp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tollgate_telemetry::{OtlpSettings, Protocol, TelemetryErrorKind, spans};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

/// An authority and the files of what it signed.
struct Pki {
    folder: TempDir,
}

impl Pki {
    /// `ca.pem`, and a certificate and a key for `localhost`, `elsewhere` and `client`; `other.pem`
    /// is an authority that signed nothing.
    fn new() -> Fallible<Self> {
        let pki = Self { folder: tempfile::tempdir()? };
        let ca = authority()?;
        fs::write(pki.path("ca.pem"), ca.pem())?;
        fs::write(pki.path("other.pem"), authority()?.pem())?;
        for name in ["localhost", "elsewhere.example", "client"] {
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &ca)?;
            fs::write(pki.path(&format!("{name}.pem")), certificate.pem())?;
            fs::write(pki.path(&format!("{name}.key")), key.serialize_pem())?;
        }
        Ok(pki)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Fallible<Vec<u8>> {
        Ok(fs::read(self.path(name))?)
    }

    /// The address of a receiver that calls itself `name` and may ask for a certificate.
    async fn receiver(&self, protocol: Protocol, name: &str, asks: bool) -> Fallible<String> {
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        if protocol == Protocol::Grpc {
            let identity = Identity::from_pem(self.read(&pem)?, self.read(&key)?);
            let mut tls = ServerTlsConfig::new().identity(identity);
            if asks {
                tls = tls.client_ca_root(Certificate::from_pem(self.read("ca.pem")?));
            }
            return Ok(GrpcReceiver::start_with(vec![], 1 << 20, Some(tls)).await?.address);
        }
        let config = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.path("ca.pem"))?)?;
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
            ServerConfig::builder().with_client_cert_verifier(verifier)
        } else {
            ServerConfig::builder().with_no_client_auth()
        };
        let config = config.with_single_cert(
            vec![CertificateDer::from_pem_file(self.path(&pem))?],
            PrivateKeyDer::from_pem_file(self.path(&key))?,
        )?;
        let ok = Arc::new(|_: &_| answer("200 OK", &[], b""));
        Ok(HttpReceiver::start_tls(ok, config).await?.address)
    }
}

fn authority() -> Fallible<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

async fn outcome(
    protocol: Protocol,
    address: &str,
    change: impl FnOnce(&mut OtlpSettings),
) -> Fallible<(String, String)> {
    let mut exporter = otlp(protocol, address, |settings| {
        settings.endpoint = format!("https://{address}/v1/traces");
        change(settings);
    })?;
    Ok(attempt(&mut exporter, &spans(&record("completed"), None)).await)
}

#[tokio::test]
async fn a_receiver_is_trusted_by_its_authority() -> Fallible<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pki = Pki::new()?;
    for protocol in PROTOCOLS {
        let receiver = pki.receiver(protocol, "localhost", false).await?;
        let stranger = pki.receiver(protocol, "elsewhere.example", false).await?;
        let cases = [
            (&receiver, Some("ca.pem"), "taken", ""),
            (&receiver, Some("other.pem"), "later", "certificate"),
            (&receiver, None, "later", "certificate"),
            (&stranger, Some("ca.pem"), "later", "certificate not valid for name \"localhost\""),
        ];
        for (address, trusted, wanted, words) in cases {
            let certificate = trusted.map(|name| pki.path(name));
            let found = outcome(protocol, address, |otlp| otlp.certificate = certificate).await?;
            assert_eq!(found.0, wanted, "{protocol:?} {trusted:?}: {}", found.1);
            assert!(found.1.contains(words), "{protocol:?} {trusted:?}: {}", found.1);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_certificate_gets_one() -> Fallible<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pki = Pki::new()?;
    for protocol in PROTOCOLS {
        let receiver = pki.receiver(protocol, "localhost", true).await?;
        for (ours, wanted) in [(Some("client"), "taken"), (None, "later")] {
            let found = outcome(protocol, &receiver, |otlp| {
                let file = |name, kind| pki.path(&format!("{name}.{kind}"));
                otlp.certificate = Some(pki.path("ca.pem"));
                otlp.client_certificate = ours.map(|name| (file(name, "pem"), file(name, "key")));
            });
            let found = found.await?;
            assert_eq!(found.0, wanted, "{protocol:?} {ours:?}: {}", found.1);
        }
    }
    Ok(())
}

#[tokio::test]
async fn files_that_are_no_certificates_stop_the_start() -> Fallible<()> {
    let pki = Pki::new()?;
    fs::write(pki.path("empty"), "")?;
    fs::write(pki.path("text"), "no certificate")?;
    for protocol in PROTOCOLS {
        for name in ["missing.pem", "empty", "text", "localhost.key"] {
            let built = otlp(protocol, "x", |otlp| {
                otlp.endpoint = "https://localhost:1".to_owned();
                otlp.certificate = Some(pki.path(name));
            });
            let error = built.err().ok_or_else(|| format!("{protocol:?} took {name}"))?;
            assert!(error.to_string().contains(name), "{protocol:?} {name}: {error}");
        }
        // A key that belongs to another certificate.
        let built = otlp(protocol, "x", |otlp| {
            otlp.endpoint = "https://localhost:1".to_owned();
            otlp.client_certificate = Some((pki.path("client.pem"), pki.path("localhost.key")));
        });
        let error = built.err().ok_or("a wrong key")?;
        let error = error.downcast::<tollgate_telemetry::TelemetryError>().map_err(|_| "kind")?;
        assert_eq!(error.kind(), TelemetryErrorKind::Configuration, "{error}");
    }
    Ok(())
}
