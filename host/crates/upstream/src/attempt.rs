//! One request to one backend: what is sent, and what is made of the start of the answer.

use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::timeout_at;
use tollgate_domain::record::Operation;

use crate::anthropic;
use crate::backend::Slot;
use crate::config::Kind;
use crate::error::{UpstreamError, chain};
use crate::exchange::{Exchange, Head, frame};
use crate::headers::hold_back;
use crate::openai::ChunkReader;
use crate::outgoing::Outgoing;
use crate::reading::{EventReader, Source, WholeReader};
use crate::route::Candidate;
use crate::send::UpstreamAnswer;

/// Most bytes kept of a refusal, and how long it may take to come.
const REFUSAL: usize = 64 << 10;
const REFUSAL_TIME: Duration = Duration::from_secs(2);
/// Statuses that may go better elsewhere or later: 429, 502, 503, 504, and what Anthropic says when it is overloaded.
const NOT_NOW: [u16; 5] = [429, 502, 503, 504, 529];
/// Headers of an answer that the client gets.
const PASSED_ON: [&str; 6] = [
    "x-request-id",
    "request-id",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "content-disposition",
];

/// Whether an answer of this status is about one backend rather than about the request, so that another may do better: it does
/// not take the gateway's key, does not have the model, or is not well.
#[must_use]
pub fn another_may_do_better(status: u16) -> bool {
    says_the_same_again(status) || status == 408 || status >= 500
}

/// Whether the same backend would say the same again.
pub(crate) fn says_the_same_again(status: u16) -> bool {
    refuses_our_key(status) || status == 404
}

/// Whether by this status a backend does not take the gateway's own key, or its proxy does not.
#[must_use]
pub fn refuses_our_key(status: u16) -> bool {
    matches!(status, 401 | 403 | 407)
}

/// A request as a backend gets it.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    path: String,
    body: Bytes,
    /// Whether the client did not ask for the usage that will come.
    strip_usage: bool,
}

/// An attempt without an answer.
#[derive(Debug)]
pub(crate) struct Missed {
    pub error: UpstreamError,
    pub answer: Option<UpstreamAnswer>,
    pub retry_after: Option<Duration>,
    /// Whether the server may have worked on it.
    pub reached: bool,
}

impl Missed {
    fn reached(error: UpstreamError) -> Self {
        Self { error, answer: None, retry_after: None, reached: true }
    }
}

/// Makes the request that this candidate gets.
pub(crate) fn prepare(outgoing: &Outgoing, candidate: &Candidate) -> Result<Ready, UpstreamError> {
    let settings = &candidate.backend.settings;
    match settings.kind {
        Kind::Openai => {
            let edited = outgoing.edit(&candidate.upstream_model, settings.inject_usage)?;
            let path = outgoing.path.clone().into_owned();
            Ok(Ready { path, body: edited.body, strip_usage: edited.strip_usage })
        }
        Kind::Anthropic => {
            let body = anthropic::request::translate(outgoing, &candidate.upstream_model)?;
            let strip_usage = !outgoing.asks_for_usage();
            Ok(Ready { path: "/messages".to_owned(), body, strip_usage })
        }
    }
}

/// Sends it and waits for what there is to tell of an answer.
pub(crate) async fn attempt(
    candidate: &Candidate,
    ready: &Ready,
    outgoing: &Outgoing,
    slot: Slot,
) -> Result<Exchange, Missed> {
    let backend = &candidate.backend;
    let patience = backend.settings.first_byte_timeout;
    let deadline = tokio::time::Instant::now() + patience;
    let request = request(candidate, ready, outgoing)
        .map_err(|error| Missed { reached: false, ..Missed::reached(error) })?;
    let too_slow = || Missed::reached(UpstreamError::NoFirstByte(patience));
    let sent = timeout_at(deadline, backend.transport.send(request)).await;
    let response = sent.map_err(|_| too_slow())?.map_err(|error| {
        let problem = chain(&error);
        if error.is_connect() {
            Missed { reached: false, ..Missed::reached(UpstreamError::Connect { problem }) }
        } else {
            Missed::reached(UpstreamError::Lost { problem })
        }
    })?;
    if NOT_NOW.contains(&response.status().as_u16()) {
        return Err(refusal(response, backend.settings.kind).await);
    }
    // It would lead past the gateway. Where nobody knows what is asked, it may be the answer.
    if response.status().is_redirection() && outgoing.operation != Operation::Other {
        return Err(Missed::reached(UpstreamError::Status(response.status().as_u16())));
    }
    let source = source(candidate, ready, outgoing, &response).map_err(Missed::reached)?;
    let (parts, mut body) = response.into_parts();
    let first = timeout_at(deadline, frame(&mut body, patience)).await;
    let first = first.map_err(|_| too_slow())?.map_err(Missed::reached)?;
    let head = Head {
        candidate: candidate.clone(),
        status: parts.status.as_u16(),
        content_type: content_type(&parts.headers, &source),
        headers: passed_on(&parts.headers, &source),
        first_byte_at: Instant::now(),
    };
    let body = first.is_some().then_some(body);
    let (status, opaque) = (head.status, matches!(source, Source::Opaque { .. }));
    let mut exchange = Exchange::new(head, slot, body, first, source, outgoing.keep_output);
    let begun = match status {
        // An error that is told only if nobody does better is there whole by then, and holds no place.
        _ if another_may_do_better(status) => {
            let begun = tokio::time::timeout(REFUSAL_TIME, exchange.begin()).await;
            begun.unwrap_or(Err(UpstreamError::Status(status)))
        }
        ..400 if !opaque => exchange.begin().await,
        _ => return Ok(exchange.begun()),
    };
    begun.map(|()| exchange).map_err(Missed::reached)
}

fn request(
    candidate: &Candidate,
    ready: &Ready,
    outgoing: &Outgoing,
) -> Result<Request<Full<Bytes>>, UpstreamError> {
    let backend = &candidate.backend;
    let url = backend
        .below(&ready.path)
        .ok_or_else(|| UpstreamError::parameter("path", "The path cannot stand in a URL."))?;
    let mut request = Request::new(Full::new(ready.body.clone()));
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = url;
    let headers = request.headers_mut();
    *headers = outgoing.headers.clone();
    hold_back(headers);
    let anthropic = backend.settings.kind == Kind::Anthropic;
    if anthropic || (!ready.body.is_empty() && !headers.contains_key(header::CONTENT_TYPE)) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if anthropic {
        headers.insert("anthropic-version", HeaderValue::from_static(anthropic::VERSION));
    }
    if let Some(credentials) = &backend.credentials {
        headers.insert(backend.credentials_header(), credentials.clone());
    }
    Ok(request)
}

/// A "not now", with as much of it as comes soon.
async fn refusal(response: Response<Incoming>, kind: Kind) -> Missed {
    let (parts, mut body) = response.into_parts();
    let mut collected = BytesMut::new();
    let collect = async {
        while let Ok(Some(bytes)) = frame(&mut body, REFUSAL_TIME).await {
            let room = REFUSAL - collected.len();
            collected.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
            if collected.len() == REFUSAL {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(REFUSAL_TIME, collect).await;
    let status = parts.status.as_u16();
    let (content_type, body) = match kind {
        Kind::Openai => (text(&parts.headers, &header::CONTENT_TYPE), collected.freeze()),
        Kind::Anthropic => {
            let (_, body) = anthropic::answer::translate_error(&collected);
            (Some("application/json".to_owned()), body)
        }
    };
    Missed {
        error: UpstreamError::Status(status),
        answer: Some(UpstreamAnswer { status, content_type, body }),
        retry_after: retry_after(&parts.headers),
        reached: true,
    }
}

/// How the answer is read, by what it says it is.
fn source(
    candidate: &Candidate,
    ready: &Ready,
    outgoing: &Outgoing,
    response: &Response<Incoming>,
) -> Result<Source, UpstreamError> {
    let settings = &candidate.backend.settings;
    let anthropic = settings.kind == Kind::Anthropic;
    let status = response.status();
    let whole = |reader| Source::whole(reader, settings.max_answer);
    if status.is_client_error() || status.is_server_error() {
        let known = outgoing.operation != Operation::Other;
        let told_as = known.then_some(status.as_u16());
        return Ok(whole(WholeReader::Error { anthropic, told_as }));
    }
    let said = text(response.headers(), &header::CONTENT_TYPE).map(|s| s.to_ascii_lowercase());
    let kind = said.as_deref().map(|said| said.split(';').next().unwrap_or_default().trim());
    let encoded = response.headers().contains_key(header::CONTENT_ENCODING);
    let (events, json) = match kind {
        _ if encoded => (false, false),
        Some(kind) => {
            (kind == "text/event-stream", kind == "application/json" || kind.ends_with("+json"))
        }
        None => (outgoing.stream, !outgoing.stream),
    };
    if outgoing.operation == Operation::Other {
        let opaque = Source::Opaque { held: None, live: events };
        return Ok(if json { whole(WholeReader::OpenAi(Operation::Other)) } else { opaque });
    }
    if events {
        let reader = match outgoing.operation {
            _ if anthropic => EventReader::Anthropic(Box::new(anthropic::stream::Translator::new(
                !ready.strip_usage,
            ))),
            Operation::Responses => EventReader::Responses,
            _ => EventReader::Chunks(ChunkReader { strip_usage: ready.strip_usage }),
        };
        return Ok(Source::events(reader, settings.max_event));
    }
    match (json, anthropic) {
        (true, true) => Ok(whole(WholeReader::Anthropic)),
        (true, false) => Ok(whole(WholeReader::OpenAi(outgoing.operation))),
        (false, _) => Err(UpstreamError::Garbage { expected: "JSON or a stream of events" }),
    }
}

fn content_type(headers: &HeaderMap, source: &Source) -> Option<String> {
    match source {
        Source::Events { .. } => Some("text/event-stream; charset=utf-8".to_owned()),
        Source::Whole {
            reader:
                WholeReader::Anthropic
                | WholeReader::Error { anthropic: true, .. }
                | WholeReader::Error { told_as: Some(_), .. },
            ..
        } => Some("application/json".to_owned()),
        Source::Whole { .. } | Source::Opaque { .. } => text(headers, &header::CONTENT_TYPE),
    }
}

fn passed_on(headers: &HeaderMap, source: &Source) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        if let Some(value) = headers.get(name) {
            passed.insert(HeaderName::from_static(name), value.clone());
        }
    }
    // What is not read goes out in the form in which it came.
    if let (Source::Opaque { .. }, Some(value)) = (source, headers.get(header::CONTENT_ENCODING)) {
        passed.insert(header::CONTENT_ENCODING, value.clone());
    }
    passed
}

/// Seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let said = text(headers, &header::RETRY_AFTER)?;
    if let Ok(seconds) = said.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(said.trim()).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
