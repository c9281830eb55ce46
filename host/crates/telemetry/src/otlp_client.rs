//! Builds the OTLP crate's exporter: transport, headers, compression, TLS.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{
    Compression as OtlpCompression, Protocol as OtlpProtocol, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::TelemetryError;
use crate::settings::{Compression, OtlpSettings, Protocol};

/// The exporter that `settings` describe. Needs a Tokio runtime around it.
pub(crate) fn build(settings: &OtlpSettings) -> Result<SpanExporter, TelemetryError> {
    // The one TLS provider of this program; an error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match settings.protocol {
        Protocol::Grpc => grpc(settings),
        Protocol::HttpProtobuf => http(settings),
    }
}

fn grpc(settings: &OtlpSettings) -> Result<SpanExporter, TelemetryError> {
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&settings.endpoint)
        .with_timeout(settings.timeout)
        .with_metadata(MetadataMap::from_headers(headers(settings)?));
    if let Some(compression) = settings.compression {
        builder = builder.with_compression(otlp_compression(compression));
    }
    if is_tls(settings) {
        let mut tls = match &settings.certificate {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        if let Some((certificate, key)) = &settings.client_certificate {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        builder = builder.with_tls_config(tls);
    }
    builder.build().map_err(|error| no_client(settings, error))
}

fn http(settings: &OtlpSettings) -> Result<SpanExporter, TelemetryError> {
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).ok();
    let headers: HashMap<String, String> = headers(settings)?
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)))
        .collect();
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_protocol(OtlpProtocol::HttpBinary)
        .with_endpoint(&settings.endpoint)
        .with_timeout(settings.timeout)
        .with_headers(headers)
        .with_http_client(http_client(settings)?);
    if let Some(compression) = settings.compression {
        builder = builder.with_compression(otlp_compression(compression));
    }
    builder.build().map_err(|error| no_client(settings, error))
}

fn http_client(settings: &OtlpSettings) -> Result<reqwest::Client, TelemetryError> {
    let failed = |error: reqwest::Error| no_client(settings, error);
    let mut client = reqwest::Client::builder()
        .timeout(settings.timeout)
        .redirect(reqwest::redirect::Policy::none());
    if !is_tls(settings) {
        // Does not look for the system's authorities, which a small container may not have.
        client = client.tls_certs_only([]);
    } else if let Some(path) = &settings.certificate {
        let authorities = reqwest::Certificate::from_pem_bundle(&read(path)?).map_err(failed)?;
        client = client.tls_certs_only(authorities);
    }
    if let Some((certificate, key)) = &settings.client_certificate {
        let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
        client = client.identity(reqwest::Identity::from_pem(&pem).map_err(failed)?);
    }
    if is_on_this_machine(&settings.endpoint) {
        client = client.no_proxy();
    }
    client.build().map_err(failed)
}

fn headers(settings: &OtlpSettings) -> Result<HeaderMap, TelemetryError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let (header, mut secret) = header.ok_or_else(|| TelemetryError::Setting {
            name: "OTLP header".to_owned(),
            value: name.clone(),
            problem: "the name or the value is not allowed in a header".to_owned(),
        })?;
        secret.set_sensitive(true);
        headers.append(header, secret);
    }
    Ok(headers)
}

fn otlp_compression(compression: Compression) -> OtlpCompression {
    match compression {
        Compression::Gzip => OtlpCompression::Gzip,
        Compression::Zstd => OtlpCompression::Zstd,
    }
}

fn is_tls(settings: &OtlpSettings) -> bool {
    settings.endpoint.starts_with("https://")
}

/// Whether the endpoint is this machine itself, where no proxy leads.
fn is_on_this_machine(endpoint: &str) -> bool {
    let host = reqwest::Url::parse(endpoint).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TelemetryError> {
    fs::read(path).map_err(|source| TelemetryError::File { path: path.to_owned(), source })
}

fn no_client(
    settings: &OtlpSettings,
    error: impl std::error::Error + Send + Sync + 'static,
) -> TelemetryError {
    TelemetryError::Client { endpoint: settings.endpoint.clone(), source: Box::new(error) }
}
