//! A receiver by OTLP/HTTP that takes everything and counts the spans of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use flate2::read::MultiGzDecoder;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

pub struct Receiver {
    endpoint: String,
    spans: Arc<AtomicUsize>,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&spans);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, spans) = (BufReader::new(stream.unwrap()), Arc::clone(&counted));
                thread::spawn(move || serve(stream, &spans));
            }
        });
        Self { endpoint, spans }
    }

    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// That have arrived.
    pub fn spans(&self) -> usize {
        self.spans.load(Ordering::Relaxed)
    }
}

/// Answers requests until the connection is closed.
fn serve(mut stream: BufReader<TcpStream>, spans: &AtomicUsize) {
    while let Some(body) = request(&mut stream) {
        // ResourceSpans, ScopeSpans, Span.
        spans.fetch_add(count(&body, &[1, 2, 2]), Ordering::Relaxed);
        if stream.get_mut().write_all(ANSWER).is_err() {
            return;
        }
    }
}

fn request(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let (mut length, mut compressed) = (None, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().ok();
        }
        compressed |= line.starts_with("content-encoding: gzip");
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).ok()?;
    if !compressed {
        return Some(body);
    }
    let mut plain = Vec::new();
    MultiGzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
    Some(plain)
}

/// Messages at the end of this path of fields.
fn count(mut bytes: &[u8], path: &[u64]) -> usize {
    let Some((field, rest)) = path.split_first() else { return 1 };
    let mut found = 0;
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = match tag & 7 {
            0 => {
                varint(&mut bytes);
                continue;
            }
            1 => 8,
            5 => 4,
            _ => varint(&mut bytes) as usize,
        };
        let (content, after) = bytes.split_at(length);
        if tag >> 3 == *field {
            found += count(content, rest);
        }
        bytes = after;
    }
    found
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return value;
        }
        shift += 7;
    }
}
