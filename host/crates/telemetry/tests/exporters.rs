//! Exporters when all goes wrong: receivers that refuse, hang and speak something else, files
//! that cannot be written, processes that stop.

mod fixtures;

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use fixtures::record;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tollgate_domain::Resource;
use tollgate_telemetry::{
    ExporterHandle, ExporterSettings, OtlpSettings, Overflow, Protocol, TelemetryError,
    TelemetryErrorKind, spans, start_exporters,
};

type Outcome = Result<(), Box<dyn Error>>;

const SPANS: u64 = 5;

async fn otlp(
    protocol: Protocol,
    address: &str,
    change: impl FnOnce(&mut OtlpSettings),
) -> Result<ExporterHandle, Box<dyn Error>> {
    let mut otlp = OtlpSettings::new(protocol);
    otlp.endpoint = format!("http://{address}/v1/traces");
    otlp.timeout = Duration::from_millis(500);
    change(&mut otlp);
    let settings = ExporterSettings { otlp: Some(otlp), ..ExporterSettings::default() };
    let exporters = start_exporters(settings, Resource::default()).await?;
    exporters.into_iter().next().ok_or_else(|| "no exporter".into())
}

/// An HTTP server that gives each connection the next of `answers` and counts requests.
async fn receiver(answers: &'static [&'static str]) -> Result<String, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        let mut answers = answers.iter();
        let mut last = "";
        while let Ok((mut stream, _)) = listener.accept().await {
            last = answers.next().unwrap_or(&last);
            read_request(&mut stream).await;
            let head = "content-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(format!("HTTP/1.1 {last}\r\n{head}").as_bytes()).await;
        }
    });
    Ok(address)
}

async fn read_request(stream: &mut tokio::net::TcpStream) {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if request.len() >= head.len() + 4 + length {
                return;
            }
        }
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

async fn nobody() -> Result<String, Box<dyn Error>> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string())
}

#[tokio::test]
async fn a_receiver_that_is_down_is_retried_until_the_deadline() -> Outcome {
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let exporter = otlp(protocol, &nobody().await?, |_| {}).await?;
        assert_eq!((exporter.name(), exporter.overflow()), ("otlp", Overflow::DropNewest));
        exporter.deliver(spans(&record("completed"), None)).await;
        assert_eq!(exporter.counts().pending, SPANS);
        let began = Instant::now();
        let closed = exporter.close(Duration::from_secs(1)).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{protocol:?} {:?}", began.elapsed());
        let Err(error) = closed else { return Err("delivered to nobody".into()) };
        assert_eq!(error.kind(), TelemetryErrorKind::Unfinished);
        assert!(matches!(error, TelemetryError::Unfinished { left: SPANS, .. }), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_nobody_up() -> Outcome {
    // Connections wait in the listener's backlog and nothing ever answers.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let exporter = otlp(protocol, &address, |_| {}).await?;
        let began = Instant::now();
        for _ in 0..5000 {
            exporter.deliver(spans(&record("completed"), None)).await;
        }
        assert!(began.elapsed() < Duration::from_secs(2), "deliver waited");
        let counts = exporter.counts();
        assert!(counts.dropped > 0, "the queue is bounded: {counts:?}");
        assert_eq!(counts.dropped + counts.pending, 5000 * SPANS, "{counts:?}");
        assert!(exporter.close(Duration::from_millis(300)).await.is_err());
    }
    Ok(())
}

#[tokio::test]
async fn an_outage_loses_nothing() -> Outcome {
    let address = receiver(&["503 Busy", "503 Busy", "503 Busy", "503 Busy", "200 OK"]).await?;
    let exporter = otlp(Protocol::HttpProtobuf, &address, |_| {}).await?;
    for _ in 0..300 {
        exporter.deliver(spans(&record("completed"), None)).await;
    }
    let began = Instant::now();
    while exporter.counts().pending > 0 && began.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let counts = exporter.counts();
    assert_eq!((counts.delivered, counts.dropped, counts.failed), (300 * SPANS, 0, 0));
    exporter.close(Duration::from_secs(5)).await?;
    Ok(())
}

#[tokio::test]
async fn closing_delivers_what_is_queued() -> Outcome {
    let address = receiver(&["503 Busy", "200 OK"]).await?;
    let exporter = otlp(Protocol::HttpProtobuf, &address, |_| {}).await?;
    for _ in 0..300 {
        exporter.deliver(spans(&record("completed"), None)).await;
    }
    exporter.close(Duration::from_secs(10)).await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_batch_is_not_sent_again() -> Outcome {
    let address = receiver(&["400 Bad", "200 OK"]).await?;
    let exporter = otlp(Protocol::HttpProtobuf, &address, |_| {}).await?;
    exporter.deliver(spans(&record("completed"), None)).await;
    let began = Instant::now();
    while exporter.counts().pending > 0 && began.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(exporter.counts().failed, SPANS);
    exporter.deliver(spans(&record("completed"), None)).await;
    exporter.close(Duration::from_secs(5)).await?;
    Ok(())
}

#[tokio::test]
async fn retries_are_bounded() -> Outcome {
    let change = |otlp: &mut OtlpSettings| otlp.retry_for = Duration::from_millis(100);
    let exporter = otlp(Protocol::HttpProtobuf, &nobody().await?, change).await?;
    exporter.deliver(spans(&record("completed"), None)).await;
    let began = Instant::now();
    while exporter.counts().failed == 0 && began.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((exporter.counts().failed, exporter.counts().pending), (SPANS, 0));
    exporter.close(Duration::from_secs(1)).await?;
    Ok(())
}

#[tokio::test]
async fn what_cannot_start_says_so() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "")?;
    let ndjson = Some(file.join("below/spans.ndjson"));
    let settings = ExporterSettings { ndjson, ..ExporterSettings::default() };
    let Err(error) = start_exporters(settings, Resource::default()).await else {
        return Err("a file is no folder".into());
    };
    assert_eq!(error.kind(), TelemetryErrorKind::System);

    let missing = |otlp: &mut OtlpSettings| {
        otlp.endpoint = "https://localhost:1".to_owned();
        otlp.certificate = Some("missing.pem".into());
    };
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let Err(error) = otlp(protocol, "x", missing).await else {
            return Err("there is no such file".into());
        };
        assert!(error.to_string().contains("missing.pem"), "{error}");
        assert!(
            otlp(protocol, "x", |otlp| otlp.endpoint = "https://localhost:1".into()).await.is_ok()
        );
    }
    Ok(())
}

#[tokio::test]
async fn disabled_means_none() -> Outcome {
    let otlp = Some(OtlpSettings::new(Protocol::Grpc));
    let settings = ExporterSettings { disabled: true, otlp, ..ExporterSettings::default() };
    assert!(start_exporters(settings, Resource::default()).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_make_whole_lines() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("spans.ndjson");
    let settings = ExporterSettings { ndjson: Some(path.clone()), ..ExporterSettings::default() };
    let mut exporters = start_exporters(settings, Resource::default()).await?;
    let exporter = exporters.pop().ok_or("no exporter")?;
    let exporter = std::sync::Arc::new(exporter);
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let exporter = std::sync::Arc::clone(&exporter);
            tokio::spawn(async move {
                for _ in 0..500 {
                    exporter.deliver(spans(&record("completed"), None)).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await?;
    }
    let exporter = std::sync::Arc::into_inner(exporter).ok_or("still shared")?;
    exporter.close(Duration::from_secs(30)).await?;
    let text = fs::read_to_string(&path)?;
    let names: Vec<String> = text
        .lines()
        .map(serde_json::from_str::<serde_json::Value>)
        .map(|line| line.map(|line| line["name"].as_str().unwrap_or_default().to_owned()))
        .collect::<Result<_, _>>()?;
    assert_eq!(names.len(), 8 * 500 * 5);
    // Each trace stands together, root first.
    assert!(names.chunks(5).all(|trace| trace.first().is_some_and(|n| n == "inference.request")));
    Ok(())
}
