//! Compressed bodies, with a bound on what they become.

use std::io::{self, Read};

use bytes::Bytes;
use tollgate_domain::ErrorKind;
use tollgate_gateway::Refusal;

use super::LARGEST;

/// Largest window of a Zstandard frame, as a power of two: what larger ones need in memory a sender
/// could ask for with a few bytes.
const ZSTD_WINDOW: u32 = 24;

/// `body` without its compression, whose name is that of `Content-Encoding` or `grpc-encoding`.
pub(super) fn decompressed(encoding: &str, body: Bytes) -> Result<Bytes, Refusal> {
    let read = match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => return Ok(body),
        "gzip" | "x-gzip" => bounded(flate2::read::MultiGzDecoder::new(&*body)),
        "zstd" => zstd::Decoder::new(&*body).and_then(|mut decoder| {
            decoder.window_log_max(ZSTD_WINDOW)?;
            bounded(decoder)
        }),
        other => {
            let message = format!("The encoding {other:?} is not known; gzip and zstd are.");
            return Err(Refusal::new(ErrorKind::UnsupportedMediaType, message));
        }
    };
    match read {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(too_large()),
        Err(error) => {
            let message = format!("The body is not {encoding}: {error}.");
            Err(Refusal::new(ErrorKind::InvalidRequest, message))
        }
    }
}

/// All that there is to read; `None` if it is too much.
fn bounded(reader: impl Read) -> io::Result<Option<Bytes>> {
    let mut bytes = Vec::new();
    reader.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= LARGEST).then(|| bytes.into()))
}

pub(super) fn too_large() -> Refusal {
    let message = format!(
        "The request has more than {LARGEST} bytes, which is the limit; send smaller batches."
    );
    Refusal::new(ErrorKind::TooLarge, message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bodies_come_out_and_bombs_do_not() {
        let gzip = |bytes: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let bomb = vec![0; LARGEST + 1];
        for (encoding, body, wanted) in [
            ("", b"abc".to_vec(), Ok("abc")),
            ("identity", b"abc".to_vec(), Ok("abc")),
            ("GZIP", gzip(b"abc"), Ok("abc")),
            // Its older name, which HTTP says is the same.
            ("x-gzip", gzip(b"abc"), Ok("abc")),
            ("zstd", zstd(b"abc"), Ok("abc")),
            ("gzip", b"abc".to_vec(), Err(ErrorKind::InvalidRequest)),
            ("zstd", b"abc".to_vec(), Err(ErrorKind::InvalidRequest)),
            ("gzip", gzip(&bomb), Err(ErrorKind::TooLarge)),
            ("zstd", zstd(&bomb), Err(ErrorKind::TooLarge)),
            ("br", b"abc".to_vec(), Err(ErrorKind::UnsupportedMediaType)),
        ] {
            let found = decompressed(encoding, body.into()).map_err(|refusal| refusal.kind);
            assert_eq!(found, wanted.map(Bytes::from), "{encoding}");
        }
    }
}
