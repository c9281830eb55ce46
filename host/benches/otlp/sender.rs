//! A sender by OTLP/HTTP on a few connections, which sends a request again that it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::spans::{SPANS, Template};

const CONNECTIONS: usize = 4;

/// Sends at least so many spans, a whole number of requests; returns when all are acknowledged.
pub fn send(to: SocketAddr, seed: u64, spans: usize) {
    assert!(spans.is_multiple_of(SPANS), "spans travel in requests of {SPANS}");
    let (next, all) = (AtomicU64::new(0), (spans / SPANS) as u64);
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut stream = BufReader::new(TcpStream::connect(to).unwrap());
                stream.get_ref().set_nodelay(true).unwrap();
                let mut template = Template::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= all {
                        break;
                    }
                    let body = template.numbered((seed >> 20) + number);
                    while !is_taken(&mut stream, body) {
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
    });
}

fn is_taken(stream: &mut BufReader<TcpStream>, body: &[u8]) -> bool {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    stream.get_mut().write_all(body).unwrap();
    let (mut status, mut length) = (String::new(), 0_u64);
    stream.read_line(&mut status).unwrap();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "it hung up");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    std::io::copy(&mut stream.take(length), &mut std::io::sink()).unwrap();
    match status.split(' ').nth(1) {
        Some("200") => true,
        Some("429" | "503") => false,
        _ => panic!("{status}"),
    }
}
