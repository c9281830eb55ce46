//! Lines of files that may be compressed, whatever they are called. A line is bounded, so memory is, too.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::super::error::AuditError;
use super::super::progress::{Progress, Quiet};

/// Most bytes of a line: spans that hold what was said are long.
const LINE_BYTES: u64 = 16 << 20;

/// What gzip and Zstandard files begin with.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The lines of one file, one after the other.
pub(super) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    torn: bool,
    _progress: Progress,
}

impl Lines {
    /// Opens a file, or standard input if it is called `-`.
    pub(super) fn open(path: &Path, quiet: Quiet) -> Result<Self, AuditError> {
        let opened = || -> io::Result<(Box<dyn Read>, Option<u64>)> {
            if path == Path::new("-") {
                return Ok((Box::new(io::stdin()), None));
            }
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
        };
        let (raw, length) = opened().map_err(AuditError::file("read", path))?;
        let progress = Progress::of_bytes(length, &path.display().to_string(), quiet);
        let reader = decompressed(Box::new(progress.reading(raw)));
        let reader = reader.map_err(AuditError::file("read", path))?;
        let (line, path) = (Vec::new(), path.to_owned());
        Ok(Self { path, reader, line, number: 0, torn: false, _progress: progress })
    }

    /// Goes on to the next line; whether there is one.
    pub(super) fn advance(&mut self) -> Result<bool, AuditError> {
        self.line.clear();
        let mut bounded = Read::take(&mut self.reader, LINE_BYTES);
        let read = bounded.read_until(b'\n', &mut self.line);
        if read.map_err(AuditError::file("read", &self.path))? == 0 {
            return Ok(false);
        }
        self.number = self.number.saturating_add(1);
        self.torn = self.line.pop_if(|last| *last == b'\n').is_none();
        if self.torn && u64::try_from(self.line.len()).is_ok_and(|bytes| bytes >= LINE_BYTES) {
            return Err(AuditError::Line {
                file: self.path.display().to_string(),
                line: self.number,
                why: format!("it has more than {LINE_BYTES} bytes, which no span has"),
            });
        }
        Ok(true)
    }

    /// The line without its end.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Its number, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether it has no end.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }
}

/// What is in a file, by its first bytes.
fn decompressed(mut raw: Box<dyn Read>) -> io::Result<Box<dyn BufRead>> {
    let mut first = Vec::new();
    Read::take(&mut raw, 4).read_to_end(&mut first)?;
    let whole = io::Cursor::new(first.clone()).chain(raw);
    Ok(if first.starts_with(GZIP) {
        Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(BufReader::new(whole))))
    } else if first.starts_with(ZSTD) {
        Box::new(BufReader::new(zstd::Decoder::new(whole)?))
    } else {
        Box::new(BufReader::new(whole))
    })
}
