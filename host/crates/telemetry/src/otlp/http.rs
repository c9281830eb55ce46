//! OTLP over HTTP/1.1, as protobuf or JSON.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message;
use reqwest::Response;

use crate::error::TelemetryError;
use crate::json;
use crate::otlp::client::{self, LARGEST_ANSWER, Refusal, USER_AGENT};
use crate::otlp::signal::{PartialSuccess, Signal};
use crate::otlp::tls;
use crate::settings::{Compression, OtlpSettings, Protocol};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// A client of one receiver.
#[derive(Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    endpoint: String,
    headers: HeaderMap,
    json: bool,
    compression: Option<Compression>,
}

impl Http {
    /// Builds the client.
    pub(crate) fn new(settings: &OtlpSettings) -> Result<Self, TelemetryError> {
        let json = settings.protocol == Protocol::HttpJson;
        let mut headers = client::headers(settings)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(if json { JSON } else { PROTOBUF }));
        if let Some(compression) = settings.compression {
            let name = match compression {
                Compression::Gzip => "gzip",
                Compression::Zstd => "zstd",
            };
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        Ok(Self {
            client: http_client(settings)?,
            endpoint: settings.endpoint.clone(),
            headers,
            json,
            compression: settings.compression,
        })
    }

    /// One attempt at one request.
    pub(crate) async fn export<S: Signal>(
        &self,
        request: S,
    ) -> Result<Option<PartialSuccess>, Refusal> {
        let body = self.body(&request).map_err(|error| Refusal::Never {
            problem: format!("the request cannot be encoded: {error}"),
        })?;
        drop(request);
        let request = self.client.post(&self.endpoint).headers(self.headers.clone()).body(body);
        let answer = request.send().await.map_err(not_asked)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = read(answer).await;
        if status.is_success() {
            // What broke off after the status is still a success.
            return taken::<S>(&headers, &body.unwrap_or_default());
        }
        Err(refusal(status, &headers, &body.unwrap_or_default()))
    }

    fn body<S: Signal>(&self, request: &S) -> io::Result<Bytes> {
        let plain = match self.json {
            true => json::write(&request.bytes(), S::JSON)?.into(),
            false => request.bytes(),
        };
        match self.compression {
            None => Ok(plain),
            Some(Compression::Gzip) => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&plain)?;
                encoder.finish().map(Bytes::from)
            }
            Some(Compression::Zstd) => zstd::encode_all(&*plain, 0).map(Bytes::from),
        }
    }
}

fn http_client(settings: &OtlpSettings) -> Result<reqwest::Client, TelemetryError> {
    let failed = |error: reqwest::Error| client::no_client(settings, error.without_url());
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none());
    if !client::is_tls(settings) {
        // Does not look for the system's authorities, which a small container may not have.
        builder = builder.tls_certs_only([]);
    } else if let Some(pem) = tls::authorities(settings)? {
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(failed)?;
        builder = builder.tls_certs_only(authorities);
    }
    if let Some(own) = tls::own(settings)? {
        let pem = [&own.certificate[..], b"\n", &own.key].concat();
        builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(failed)?);
    }
    if is_on_this_machine(&settings.endpoint) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(failed)
}

/// Whether the endpoint is this machine itself, where no proxy leads.
fn is_on_this_machine(endpoint: &str) -> bool {
    let host = reqwest::Url::parse(endpoint).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// The receiver could not be asked, or did not answer: it may be up again later. The URL stands in
/// the message already, where it is not shown with a password in it.
fn not_asked(error: reqwest::Error) -> Refusal {
    Refusal::later(client::chain(&error.without_url()))
}

/// The answer's body up to [`LARGEST_ANSWER`]; `None` if the connection broke.
async fn read(mut answer: Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        let room = LARGEST_ANSWER.saturating_sub(body.len());
        body.extend(chunk.iter().take(room));
        if room <= chunk.len() {
            break;
        }
    }
    Some(body)
}

/// Reads the answer to a request that was taken, whatever form it has: many receivers answer with
/// nothing, or in JSON to protobuf. A web page is no receiver's answer.
fn taken<S: Signal>(headers: &HeaderMap, body: &[u8]) -> Result<Option<PartialSuccess>, Refusal> {
    let content_type = text(headers, CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    if content_type.starts_with("text/html") {
        return Err(Refusal::later("a web page answers there and no OTLP receiver".to_owned()));
    }
    if content_type.starts_with(JSON) {
        return Ok(PartialSuccess::from_json::<S>(body));
    }
    if !content_type.starts_with(PROTOBUF) {
        return Ok(None);
    }
    Ok(S::Response::decode(body).ok().and_then(S::partial))
}

/// What OTLP says of each status; where that would lose spans for a wrong setting, they wait.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let said = said(headers, body);
    let separator = if said.is_empty() { "" } else { ": " };
    let problem = format!("HTTP status {status}{separator}{said}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Refusal::after(problem, retry_after(headers)),
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED => Refusal::Setup { problem },
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Refusal::Missing { problem },
        _ if status.is_redirection() => Refusal::Setup { problem },
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge { problem },
        _ => Refusal::Never { problem },
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, RETRY_AFTER)?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// A refusal's text: the `google.rpc.Status` that OTLP asks for, or
/// whatever came.
fn said(headers: &HeaderMap, body: &[u8]) -> String {
    let content_type = text(headers, CONTENT_TYPE).unwrap_or_default();
    let said = if content_type.starts_with(PROTOBUF) {
        tonic_types::Status::decode(body).map(|status| status.message).unwrap_or_default()
    } else if content_type.starts_with(JSON) {
        let json = serde_json::from_slice::<serde_json::Value>(body).ok();
        let message = json.as_ref().and_then(|json| json.get("message")?.as_str());
        message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
    } else if content_type.starts_with("text/html") {
        String::new()
    } else {
        String::from_utf8_lossy(body).into_owned()
    };
    client::shown(&said)
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_to_retry_at_is_a_time_from_now() {
        let at = SystemTime::now() + Duration::from_secs(100);
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, httpdate::fmt_http_date(at).parse().unwrap());
        let after = retry_after(&headers).unwrap_or_default();
        assert!((90..=100).contains(&after.as_secs()), "{after:?}");
    }

    #[test]
    fn no_proxy_leads_to_this_machine() {
        for (endpoint, here) in [
            ("http://localhost:4318/v1/traces", true),
            ("http://127.0.0.1:4318", true),
            ("http://[::1]:4318", true),
            ("http://localhost.example:4318", false),
            ("https://10.0.0.1", false),
        ] {
            assert_eq!(is_on_this_machine(endpoint), here, "{endpoint}");
        }
    }
}
