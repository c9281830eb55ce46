//! Exporters to OTLP receivers that refuse, throttle, hang, break off, take a part, or are no
//! receivers at all.

mod fixtures;
mod receivers;

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fixtures::record;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use receivers::{
    Fallible, GrpcReceiver, HttpReceiver, PROTOCOLS, Received, answer, attempt, nobody, otlp,
    spans_of,
};
use tokio::net::TcpListener;
use tollgate_domain::{Span, Value};
use tollgate_telemetry::{Compression, Protocol, spans};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const SECRET: &str = "s3cret";
const ANY_SIZE: usize = usize::MAX;

fn trace() -> Vec<Span> {
    spans(&record("completed"), None)
}

/// `traces` traces with `bytes` of attribute in each root, all ids different.
fn traces(traces: u64, bytes: usize) -> Vec<Span> {
    let one = |number: u64| {
        let mut spans = trace();
        for span in &mut spans {
            span.context.trace_id.0 += u128::from(number);
        }
        if let Some(root) = spans.first_mut() {
            root.attributes.set("padding", "x".repeat(bytes));
        }
        spans
    };
    (0..traces).flat_map(one).collect()
}

fn ids(spans: &[Span]) -> Vec<(u128, u64)> {
    spans.iter().map(|span| (span.context.trace_id.0, span.context.span_id.0)).collect()
}

fn ids_of<'a>(
    requests: impl IntoIterator<Item = &'a ExportTraceServiceRequest>,
) -> Vec<(u128, u64)> {
    let id = |bytes: &[u8]| bytes.iter().fold(0, |id: u128, byte| id << 8 | u128::from(*byte));
    let low = |bytes: &[u8]| u64::try_from(id(bytes)).unwrap_or_default();
    spans_of(requests).iter().map(|span| (id(&span.trace_id), low(&span.span_id))).collect()
}

fn partial(rejected_spans: i64, message: &str) -> ExportTraceServiceResponse {
    let error_message = message.to_owned();
    let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
    ExportTraceServiceResponse { partial_success }
}

#[tokio::test]
async fn each_http_answer_means_what_otlp_says() -> Fallible<()> {
    const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
    const JSON: (&str, &str) = ("content-type", "application/json");
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(5000));
    let past = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(100));
    let two = partial(2, "two are old").encode_to_vec();
    let status = tonic_types::Status { message: "bad span".to_owned(), ..Default::default() };
    let status = status.encode_to_vec();
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], &'a str, &'a str);
    let cases: [Case; 34] = [
        ("200 OK", &[], b"", "taken", ""),
        ("200 OK", &[PROTOBUF], b"", "taken", ""),
        ("202 Accepted", &[], b"", "taken", ""),
        ("200 OK", &[PROTOBUF], &two, "taken but 2", "two are old"),
        ("200 OK", &[PROTOBUF], b"\xff\xff", "taken", ""),
        ("200 OK", &[JSON], b"{}", "taken", ""),
        ("200 OK", &[JSON], br#"{"partialSuccess":{"rejectedSpans":"5"}}"#, "taken but 5", ""),
        (
            "200 OK",
            &[("content-type", "application/json; charset=utf-8")],
            br#"{"partialSuccess":{"errorMessage":"slow down"}}"#,
            "taken",
            "slow down",
        ),
        ("200 OK", &[("content-type", "text/plain")], b"ok", "taken", ""),
        ("200 OK", &[("content-type", "text/html; x")], b"<p>login", "later", "no OTLP receiver"),
        ("429 Many", &[("retry-after", "7")], b"", "later in 7 s", "429"),
        ("429 Many", &[("Retry-After", " 7 ")], b"", "later in 7 s", "429"),
        ("429 Many", &[("retry-after", &date)], b"", "later in 3600 s", "429"),
        ("429 Many", &[("retry-after", &past)], b"", "later in 0 s", "429"),
        ("429 Many", &[("retry-after", "99999999999")], b"", "later in 3600 s", "429"),
        ("429 Many", &[("retry-after", "-1")], b"", "later", "429"),
        ("429 Many", &[("retry-after", "soon")], b"", "later", "429"),
        ("429 Many", &[], b"", "later", "429"),
        ("502 Bad", &[], b"", "later", "502"),
        ("503 Busy", &[("retry-after", "1")], b"", "later in 1 s", "503"),
        ("503 Busy", &[], b"come back", "later", "come back"),
        ("504 Slow", &[], b"", "later", "504"),
        ("500 Oops", &[("retry-after", "1")], b"", "never", "500"),
        ("501 What", &[], b"", "never", "501"),
        ("400 Bad", &[PROTOBUF], &status, "never", "bad span"),
        ("400 Bad", &[JSON], br#"{"message":"bad json"}"#, "never", "bad json"),
        ("400 Bad", &[("content-type", "text/html")], b"<html>", "never", "400 Bad Request;"),
        ("400 Bad", &[], b"a\x1b[2Jb", "never", "a [2Jb"),
        ("401 Who", &[], b"", "later", "check endpoint, protocol and headers"),
        ("403 No", &[], b"", "later", "403"),
        ("404 None", &[], b"", "later", "404"),
        ("301 Moved", &[("location", "http://127.0.0.1:1/")], b"", "later", "301"),
        ("413 Large", &[], b"", "never", "413"),
        ("415 Type", &[], b"", "never", "415"),
    ];
    for (status, headers, body, wanted, words) in cases {
        let bytes = answer(status, headers, body);
        let receiver = HttpReceiver::start(Arc::new(move |_| bytes.clone())).await?;
        for protocol in [Protocol::HttpProtobuf, Protocol::HttpJson] {
            let headers = vec![("authorization".to_owned(), SECRET.to_owned())];
            let mut exporter = otlp(protocol, &receiver.address, |otlp| otlp.headers = headers)?;
            let (found, message) = attempt(&mut exporter, &trace()).await;
            assert_eq!(found, wanted, "{status} {protocol:?}: {message}");
            assert!(message.contains(words), "{status}: {message}");
            assert!(!message.contains(SECRET), "{message}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn each_grpc_answer_means_what_otlp_says() -> Fallible<()> {
    let retry = |code, seconds| {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
        Status::with_error_details(code, "busy", details)
    };
    let cases = [
        (Ok(partial(0, "")), "taken", ""),
        (Ok(ExportTraceServiceResponse::default()), "taken", ""),
        (Ok(partial(3, "three are old")), "taken but 3", "three are old"),
        (Err(Status::unavailable("restarting")), "later", "Unavailable: restarting"),
        (Err(retry(Code::Unavailable, 5)), "later in 5 s", "busy"),
        (Err(retry(Code::ResourceExhausted, 7)), "later in 7 s", "busy"),
        (Err(Status::resource_exhausted("quota")), "never", "quota"),
        (Err(Status::invalid_argument("bad span")), "never", "bad span"),
        (Err(Status::unauthenticated("who")), "later", "headers"),
        (Err(Status::unimplemented("no traces")), "later", "no traces"),
        (Err(Status::deadline_exceeded("slow")), "later", "slow"),
    ];
    for (answer, wanted, words) in cases {
        let receiver = GrpcReceiver::start(vec![answer], ANY_SIZE).await?;
        let mut exporter = otlp(Protocol::Grpc, &receiver.address, |_| {})?;
        let (found, message) = attempt(&mut exporter, &trace()).await;
        assert_eq!(found, wanted, "{message}");
        assert!(message.contains(words), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn whoever_cannot_be_asked_is_asked_later() -> Fallible<()> {
    let hangs = TcpListener::bind("127.0.0.1:0").await?;
    let resets = TcpListener::bind("127.0.0.1:0").await?;
    let (hangs_at, resets_at) = (hangs.local_addr()?.to_string(), resets.local_addr()?.to_string());
    tokio::spawn(async move {
        while let Ok((stream, _)) = resets.accept().await {
            let _ = stream.set_zero_linger();
        }
    });
    let smtp = HttpReceiver::start(Arc::new(|_| b"220 mail ESMTP\r\n".to_vec())).await?;
    let half = b"HTTP/1.1 200 OK\r\ncontent-le".to_vec();
    let half = HttpReceiver::start(Arc::new(move |_| half.clone())).await?;
    let places = [hangs_at, resets_at, smtp.address, half.address, nobody().await?];
    for (address, protocol) in
        places.iter().flat_map(|address| PROTOCOLS.iter().map(move |p| (address, *p)))
    {
        let mut exporter =
            otlp(protocol, address, |otlp| otlp.timeout = Duration::from_millis(300))?;
        let began = Instant::now();
        let (found, message) = attempt(&mut exporter, &trace()).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{protocol:?} {address}");
        assert_eq!(found, "later", "{protocol:?} {address}: {message}");
        assert!(message.contains(address) && message.contains("start the receiver"), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn grpc_to_a_web_server_and_http_to_a_grpc_server_say_so() -> Fallible<()> {
    let web = HttpReceiver::start(Arc::new(|_| answer("404 None", &[], b""))).await?;
    let mut exporter = otlp(Protocol::Grpc, &web.address, |_| {})?;
    let (found, message) = attempt(&mut exporter, &trace()).await;
    assert_eq!(found, "later", "{message}");

    let grpc = GrpcReceiver::start(vec![], ANY_SIZE).await?;
    let mut exporter = otlp(Protocol::HttpProtobuf, &grpc.address, |_| {})?;
    let (found, message) = attempt(&mut exporter, &trace()).await;
    assert_eq!(found, "later", "{message}");
    assert!(grpc.received().is_empty());
    Ok(())
}

#[tokio::test]
async fn an_exporter_goes_on_when_its_receiver_is_back() -> Fallible<()> {
    for protocol in PROTOCOLS {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut exporter = otlp(protocol, &address.to_string(), |otlp| {
            otlp.timeout = Duration::from_millis(300);
        })?;
        // It hangs, then is gone, then is another one.
        assert_eq!(attempt(&mut exporter, &trace()).await.0, "later");
        drop(listener);
        assert_eq!(attempt(&mut exporter, &trace()).await.0, "later");
        let listener = TcpListener::bind(address).await?;
        if protocol == Protocol::Grpc {
            let service = opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::
                TraceServiceServer::new(GrpcReceiver::default());
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            tokio::spawn(server.serve_with_incoming(incoming));
        } else {
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut some = [0; 65536];
                    let _ = stream.read(&mut some).await;
                    let _ = stream.write_all(&answer("200 OK", &[], b"")).await;
                }
            });
        }
        let (found, message) = attempt(&mut exporter, &trace()).await;
        assert_eq!(found, "taken", "{protocol:?}: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_say_what_they_are() -> Fallible<()> {
    let decode_gzip = |bytes: &[u8]| {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).map(|_| plain)
    };
    let receiver = HttpReceiver::start(Arc::new(|_| answer("200 OK", &[], b""))).await?;
    let compressions = [None, Some(Compression::Gzip), Some(Compression::Zstd)];
    for protocol in [Protocol::HttpProtobuf, Protocol::HttpJson] {
        for compression in compressions {
            let mut exporter = otlp(protocol, &receiver.address, |otlp| {
                otlp.compression = compression;
                otlp.headers = vec![("x-key".to_owned(), SECRET.to_owned())];
            })?;
            assert_eq!(attempt(&mut exporter, &trace()).await.0, "taken");
            let request = receiver.received().pop().ok_or("nothing came")?;
            let Received { head, body } = &request;
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            assert_eq!(request.header("x-key"), Some(SECRET));
            assert!(request.header("user-agent").is_some_and(|who| who.starts_with("tollgate/")));
            let plain = match compression {
                None => body.clone(),
                Some(Compression::Gzip) => decode_gzip(body)?,
                Some(Compression::Zstd) => zstd::decode_all(body.as_slice())?,
            };
            let named =
                ["gzip", "zstd"].map(|name| request.header("content-encoding") == Some(name));
            let wanted =
                [compression == Some(Compression::Gzip), compression == Some(Compression::Zstd)];
            assert_eq!(named, wanted);
            let decoded: ExportTraceServiceRequest = match protocol {
                Protocol::HttpJson => serde_json::from_slice(&plain)?,
                _ => ExportTraceServiceRequest::decode(plain.as_slice())?,
            };
            let content_type = request.header("content-type");
            let json = protocol == Protocol::HttpJson;
            let wanted = if json { "application/json" } else { "application/x-protobuf" };
            assert_eq!(content_type, Some(wanted));
            assert_eq!(ids_of([&decoded]), ids(&trace()));
        }
    }
    let receiver = GrpcReceiver::start(vec![], ANY_SIZE).await?;
    let mut exporter = otlp(Protocol::Grpc, &receiver.address, |otlp| {
        otlp.compression = Some(Compression::Gzip);
        otlp.headers = vec![("X-Key".to_owned(), SECRET.to_owned())];
    })?;
    assert_eq!(attempt(&mut exporter, &trace()).await.0, "taken");
    let (metadata, request) = receiver.received().pop().ok_or("nothing came")?;
    let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
    assert_eq!(text("x-key"), Some(SECRET));
    assert_eq!(text("grpc-encoding"), Some("gzip"));
    assert!(text("user-agent").is_some_and(|who| who.starts_with("tollgate/")), "{metadata:?}");
    assert_eq!(ids_of([&request]), ids(&trace()));
    let zstd = otlp(Protocol::Grpc, "x", |otlp| otlp.compression = Some(Compression::Zstd));
    assert!(zstd.is_err_and(|error| error.to_string().contains("gzip or none")));
    Ok(())
}

#[tokio::test]
async fn a_span_arrives_with_all_it_has() -> Fallible<()> {
    let receiver = GrpcReceiver::start(vec![], ANY_SIZE).await?;
    let mut exporter = otlp(Protocol::Grpc, &receiver.address, |_| {})?;
    let mut sent = spans(&record("streamed"), None);
    if let Some(root) = sent.first_mut() {
        root.attributes.set("list", Value::List(vec!["a".into(), 1_i64.into()]));
    }
    sent.extend(spans(&record("failed"), None));
    assert_eq!(attempt(&mut exporter, &sent).await.0, "taken");
    let arrived = spans_of(receiver.received().iter().map(|(_, request)| request));
    assert_eq!(arrived.len(), sent.len());
    for (sent, arrived) in sent.iter().zip(&arrived) {
        assert_eq!(arrived.name, sent.name);
        assert_eq!(arrived.start_time_unix_nano, sent.interval.start.0);
        assert_eq!(arrived.end_time_unix_nano, sent.interval.end.0);
        assert_eq!(arrived.attributes.len(), sent.attributes.len());
        assert_eq!(arrived.events.len(), sent.events.len());
        let parent = sent.parent.map(|parent| parent.0.to_be_bytes().to_vec());
        assert_eq!(arrived.parent_span_id, parent.unwrap_or_default());
    }
    let [root, .., failed] = &arrived[..] else { return Err("too few".into()) };
    // Not sampled, and a parent that is known to be in another process.
    assert_eq!((root.flags, root.kind, root.trace_state.as_str()), (0x300, 2, "congo=t61"));
    assert_eq!((failed.flags, failed.kind), (0x101, 1));
    let error = arrived.iter().find(|span| span.status.as_ref().is_some_and(|s| s.code == 2));
    assert!(error.is_some_and(|span| !span.status.as_ref().unwrap().message.is_empty()));
    Ok(())
}

#[tokio::test]
async fn no_request_is_larger_than_receivers_take() -> Fallible<()> {
    // About 9 MiB.
    let sent = traces(300, 30_000);
    let receiver = HttpReceiver::start(Arc::new(|_| answer("200 OK", &[], b""))).await?;
    let mut exporter = otlp(Protocol::HttpProtobuf, &receiver.address, |_| {})?;
    assert_eq!(attempt(&mut exporter, &sent).await.0, "taken");
    let received = receiver.received();
    assert!(received.iter().all(|request| request.body.len() < 4 << 20));
    assert!((3..6).contains(&received.len()), "{}", received.len());
    let requests: Vec<ExportTraceServiceRequest> = received
        .iter()
        .map(|request| ExportTraceServiceRequest::decode(request.body.as_slice()))
        .collect::<Result<_, _>>()?;
    assert_eq!(ids_of(&requests), ids(&sent), "each once, in order");
    let rest = requests.iter().flat_map(|request| &request.resource_spans);
    assert!(rest.into_iter().all(|spans| spans.resource.is_some()));

    // tonic's own limit of 4 MiB.
    let receiver = GrpcReceiver::start(vec![], 4 << 20).await?;
    let mut exporter = otlp(Protocol::Grpc, &receiver.address, |_| {})?;
    assert_eq!(attempt(&mut exporter, &sent).await.0, "taken");
    assert_eq!(ids_of(receiver.received().iter().map(|(_, r)| r)), ids(&sent));
    Ok(())
}

#[tokio::test]
async fn what_a_receiver_finds_too_large_is_sent_in_smaller_parts() -> Fallible<()> {
    const LIMIT: usize = 20_000;
    let mut sent = traces(40, 1000);
    if let Some(root) = sent.get_mut(100) {
        root.attributes.set("padding", "x".repeat(2 * LIMIT));
    }
    let mut small = ids(&sent);
    small.remove(100);
    let strict = |request: &Received| {
        let status = if request.body.len() > LIMIT { "413 Large" } else { "200 OK" };
        answer(status, &[], b"")
    };
    let receiver = HttpReceiver::start(Arc::new(strict)).await?;
    let mut exporter = otlp(Protocol::HttpProtobuf, &receiver.address, |_| {})?;
    let (found, message) = attempt(&mut exporter, &sent).await;
    assert_eq!(found, "taken but 1", "{message}");
    assert!(message.contains("413"), "{message}");
    let taken: Vec<_> = receiver.received();
    let taken = taken.iter().filter(|request| request.body.len() <= LIMIT);
    let taken: Vec<ExportTraceServiceRequest> = taken
        .map(|request| ExportTraceServiceRequest::decode(request.body.as_slice()))
        .collect::<Result<_, _>>()?;
    assert_eq!(ids_of(&taken), small, "each once, in order");

    let receiver = GrpcReceiver::start(vec![], LIMIT).await?;
    let mut exporter = otlp(Protocol::Grpc, &receiver.address, |_| {})?;
    let (found, message) = attempt(&mut exporter, &sent).await;
    assert_eq!(found, "taken but 1", "{message}");
    assert_eq!(ids_of(receiver.received().iter().map(|(_, r)| r)), small);

    // Nothing fits.
    let receiver = HttpReceiver::start(Arc::new(|_| answer("413 Large", &[], b""))).await?;
    let mut exporter = otlp(Protocol::HttpProtobuf, &receiver.address, |_| {})?;
    assert_eq!(attempt(&mut exporter, &trace()).await.0, "never");
    Ok(())
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_the_end() -> Fallible<()> {
    let endless = |_: &Received| answer("200 OK", &[], &vec![b'x'; 64 << 20]);
    let receiver = HttpReceiver::start(Arc::new(endless)).await?;
    let mut exporter = otlp(Protocol::HttpProtobuf, &receiver.address, |_| {})?;
    let began = Instant::now();
    assert_eq!(attempt(&mut exporter, &trace()).await.0, "taken");
    assert!(began.elapsed() < Duration::from_secs(5));
    Ok(())
}

#[tokio::test]
async fn nothing_is_sent_for_no_spans() -> Fallible<()> {
    let receiver = HttpReceiver::start(Arc::new(|_| answer("500 Oops", &[], b""))).await?;
    let mut exporter = otlp(Protocol::HttpProtobuf, &receiver.address, |_| {})?;
    assert_eq!(attempt(&mut exporter, &[]).await.0, "taken");
    assert!(receiver.received().is_empty());
    Ok(())
}
