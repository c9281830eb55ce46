//! Whether a ledger says today what it said when it was written.
//!
//! Found are: a changed, missing, added or moved entry, columns that say something else than the
//! record, a second end of a request, a start without an end that is not in flight, a file that is
//! missing without retention having deleted it. What cannot be found in the ledger itself is that
//! its end was cut off: for that its head is kept elsewhere and given as an [`Anchor`].

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::batch;
use crate::chain::{Hash, Link};
use crate::entry::{Columns, Kind, Seq, VERSION, integer};
use crate::error::LedgerError;
use crate::files;
use crate::lying::{Columned, Lying};
use crate::partition::{InFlight, Listed, Partition};
use crate::reader::deleted_by_retention;

/// Entries that are read at once.
const PAGE: u32 = 512;

/// An entry and its hash, kept outside of the ledger. Written `SEQ:HASH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Which entry.
    pub seq: Seq,
    /// Its hash.
    pub hash: Hash,
}

/// What was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The last entry: keep it elsewhere to find a cut-off end later.
    pub head: Anchor,
    /// Entries.
    pub entries: u64,
    /// Of those, records.
    pub records: u64,
    /// Files.
    pub files: u64,
    /// Requests in flight.
    pub in_flight: u64,
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// In which file.
    pub file: String,
    /// At which entry; none if it is about the whole file.
    pub seq: Option<Seq>,
    /// What is wrong.
    pub what: String,
}

/// Why a ledger was not verified.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not as it was written.
    #[error("{0}")]
    Broken(Broken),
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] LedgerError),
}

/// Verifies the ledger in `folder`, also beside the process that writes it. `progress` hears after
/// each page how many entries were looked at.
///
/// # Errors
/// The first thing that is wrong, or why it cannot be read.
pub fn verify(
    folder: &Path,
    anchor: Option<Anchor>,
    mut progress: impl FnMut(u64),
) -> Result<Verified, VerifyError> {
    loop {
        // Retention may overtake whoever walks: then there are newer files.
        if let Some(verified) = walk_all(folder, anchor, &mut progress)? {
            return Ok(verified);
        }
    }
}

/// Walks through all files that are there; `None` if they were all deleted meanwhile.
fn walk_all(
    folder: &Path,
    anchor: Option<Anchor>,
    progress: &mut impl FnMut(u64),
) -> Result<Option<Verified>, VerifyError> {
    let ordinals = begun(folder)?;
    let newest = ordinals.last().copied();
    let mut walk = Walk::new(anchor);
    let mut listed = Vec::new();
    let (mut there, mut deleted) = (HashSet::new(), None);
    for ordinal in ordinals {
        match walk_file(&mut walk, folder, ordinal, Some(ordinal) == newest, progress) {
            Ok(found) => {
                listed = found;
                there.insert(ordinal);
            }
            // With it all before it: what is left begins after it.
            Err(_) if deleted_by_retention(&files::partition(folder, ordinal), ordinal) => {
                (walk, deleted) = (Walk::new(anchor), Some(ordinal));
                there.clear();
            }
            Err(error) => return Err(error),
        }
    }
    if there.is_empty() {
        return Ok(None);
    }
    let gone = |file: &&Listed| {
        !file.retired && !there.contains(&file.ordinal) && Some(file.ordinal) > deleted
    };
    if let Some(file) = listed.iter().find(gone) {
        let path = files::partition(folder, file.ordinal);
        return Err(broken(&path, None, "the file is missing, and no retention has deleted it"));
    }
    walk.end(folder, there.len()).map(Some)
}

/// Walks through one file; what it lists.
fn walk_file(
    walk: &mut Walk,
    folder: &Path,
    ordinal: u64,
    is_newest: bool,
    progress: &mut impl FnMut(u64),
) -> Result<Vec<Listed>, VerifyError> {
    let file = Partition::read_only(&files::partition(folder, ordinal), ordinal)?;
    let walked = file.snapshot(|file| {
        let listed = file.listed().map_err(|error| unreadable(file, &error))?;
        walk.file(file, &listed, progress)?;
        if is_newest {
            walk.in_flight(file, &file.in_flight().map_err(|error| unreadable(file, &error))?)?;
        }
        Ok::<_, VerifyError>(listed)
    });
    walked.map_err(|error| unreadable(&file, &error))?
}

/// As [`Partition::begun`]; a newest file that is no database is a finding.
fn begun(folder: &Path) -> Result<Vec<u64>, VerifyError> {
    if let Some(newest) = files::partitions(folder)?.last() {
        let file = Partition::read_only(&files::partition(folder, *newest), *newest)?;
        file.tables().map_err(|error| unreadable(&file, &error))?;
    }
    Ok(Partition::begun(folder)?)
}

/// The way through the files.
struct Walk {
    anchor: Option<Anchor>,
    /// The entry before; its hash is the zero hash before the first of all.
    last: Option<Anchor>,
    entries: u64,
    records: u64,
    /// Number of the record before.
    number: Option<u64>,
    /// The first entry that is still there.
    oldest: Seq,
    /// Starts without an end so far.
    open: HashSet<u64>,
}

impl Walk {
    fn new(anchor: Option<Anchor>) -> Self {
        Self {
            anchor,
            last: None,
            entries: 0,
            records: 0,
            number: None,
            oldest: Seq::default(),
            open: HashSet::new(),
        }
    }

    fn file(
        &mut self,
        file: &Partition,
        listed: &[Listed],
        progress: &mut impl FnMut(u64),
    ) -> Result<(), VerifyError> {
        let Some(own) = listed.iter().find(|listed| listed.ordinal == file.ordinal) else {
            return Err(broken(&file.path, None, "the file does not list itself"));
        };
        let before = Anchor { seq: Seq(own.first.0.saturating_sub(1)), hash: own.hash_before };
        match self.last {
            None => {
                (self.oldest, self.number) = (own.first, Some(own.first_number.saturating_sub(1)));
            }
            Some(last) if last == before => {}
            Some(last) => {
                let what = format!(
                    "the file begins after entry {} with hash {}, and the one before ends with \
                     entry {} and hash {}",
                    before.seq.0, before.hash, last.seq.0, last.hash
                );
                return Err(broken(&file.path, None, what));
            }
        }
        self.last = Some(before);
        self.see_anchor(&file.path)?;
        // What was added before all others would not be met on the way.
        let lowest = file.lowest().map_err(|error| unreadable(file, &error))?;
        if lowest.is_some_and(|lowest| lowest < integer(own.first.0)) {
            let what = "it has an entry before its first: it was added";
            return Err(broken(&file.path, None, what));
        }
        loop {
            let after = self.last.map_or(Seq::default(), |last| last.seq);
            let page = file.lying(after, PAGE).map_err(|error| unreadable(file, &error))?;
            if page.is_empty() {
                return Ok(());
            }
            for entry in page {
                self.entry(file, &entry)?;
            }
            progress(self.entries);
        }
    }

    fn entry(&mut self, file: &Partition, entry: &Lying) -> Result<(), VerifyError> {
        let wrong = |what: &str| Err(broken(&file.path, Some(entry.seq), what));
        let before = self.last.unwrap_or(Anchor { seq: Seq(0), hash: Hash::default() });
        if entry.seq.0 != before.seq.0 + 1 {
            return wrong(&format!("entry {} is missing before it", before.seq.0 + 1));
        }
        let Some(kind) = entry.kind else { return wrong("its kind is none that there is") };
        let (seq, number, started_seq) = (entry.seq, entry.number, entry.started_seq);
        let (version, body) = (entry.version, entry.body.as_str());
        let hash = Link { seq, kind, number, started_seq, version, body }.after(&before.hash);
        if entry.hash != Some(hash) {
            return wrong("it is not what it was when it was written: its hash differs");
        }
        if version > VERSION {
            let path = file.path.clone();
            return Err(LedgerError::Newer { path, found: version, known: VERSION }.into());
        }
        if version != VERSION {
            return wrong(&format!("its version is {version}; this program knows {VERSION}"));
        }
        let columns = match kind {
            Kind::Spans => batch::unpack(body).map(|(batch, _)| Columns::of_spans(&batch)),
            Kind::Passed => serde_json::from_str(body).map(|passed| Columns::of_passed(&passed)),
            _ => serde_json::from_str(body).map(|record| Columns::of(&record)),
        };
        let Ok(columns) = columns else { return wrong("its body is not what its kind is") };
        if entry.row != Columned::of(&columns) {
            return wrong("its columns say something else than its record");
        }
        self.order(kind, entry).or_else(|what| wrong(&what))?;
        self.last = Some(Anchor { seq, hash });
        self.entries += 1;
        self.see_anchor(&file.path)
    }

    /// Whether it may follow what came before.
    fn order(&mut self, kind: Kind, entry: &Lying) -> Result<(), String> {
        if kind == Kind::Started {
            self.open.insert(entry.seq.0);
            return Ok(());
        }
        let expected = self.number.map(|number| number + 1);
        if entry.number != expected {
            return Err(format!("it is record {:?}, where {expected:?} follows", entry.number));
        }
        self.number = entry.number;
        self.records += u64::from(kind.is_record());
        let needs_start = matches!(kind, Kind::Finished | Kind::Aborted);
        match entry.started_seq {
            None if needs_start => {
                Err("it ends a request and does not say where that began".into())
            }
            Some(started) if !self.open.remove(&started) && started >= self.oldest.0 => {
                Err(format!("it ends the request of entry {started}, which was not in flight"))
            }
            _ => Ok(()),
        }
    }

    fn in_flight(&self, file: &Partition, found: &[InFlight]) -> Result<(), VerifyError> {
        let found: HashSet<u64> = found.iter().map(|request| request.started.0).collect();
        if let Some(seq) = self.open.difference(&found).min() {
            let what = "the request has no end and is not in flight";
            return Err(broken(&file.path, Some(Seq(*seq)), what));
        }
        if let Some(seq) = found.difference(&self.open).min() {
            let what = "it is listed as in flight, and is no start without an end";
            return Err(broken(&file.path, Some(Seq(*seq)), what));
        }
        Ok(())
    }

    fn see_anchor(&self, path: &Path) -> Result<(), VerifyError> {
        match (self.anchor, self.last) {
            (Some(anchor), Some(last)) if anchor.seq == last.seq && anchor.hash != last.hash => {
                Err(broken(path, Some(last.seq), "its hash is not the one that was kept elsewhere"))
            }
            _ => Ok(()),
        }
    }

    fn end(self, folder: &Path, files: usize) -> Result<Verified, VerifyError> {
        let head = self.last.unwrap_or(Anchor { seq: Seq(0), hash: Hash::default() });
        if let Some(anchor) = self.anchor {
            if anchor.seq > head.seq {
                let what = format!(
                    "the ledger ends with entry {}, and entry {} was there once",
                    head.seq.0, anchor.seq.0
                );
                return Err(broken(folder, None, what));
            }
            if anchor.seq.0 + 1 < self.oldest.0 {
                let what = format!("entry {} was deleted by retention", anchor.seq.0);
                return Err(broken(folder, None, what));
            }
        }
        Ok(Verified {
            head,
            entries: self.entries,
            records: self.records,
            files: files as u64,
            in_flight: self.open.len() as u64,
        })
    }
}

fn broken(path: &Path, seq: Option<Seq>, what: impl Into<String>) -> VerifyError {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    VerifyError::Broken(Broken { file, seq, what: what.into() })
}

/// A file that SQLite cannot read, that lacks a table, or has values of another type, is damaged as
/// much as one that says something else.
fn unreadable(file: &Partition, error: &rusqlite::Error) -> VerifyError {
    use rusqlite::{Error, ErrorCode};
    let damaged = match error {
        Error::SqliteFailure(cause, _) => matches!(
            cause.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
        ),
        Error::SqlInputError { .. }
        | Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::InvalidColumnIndex(_)
        | Error::Utf8Error(..) => true,
        _ => false,
    };
    if damaged {
        return broken(&file.path, None, format!("the file is damaged: {error}"));
    }
    file.failed(error).into()
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seq {
            Some(Seq(seq)) => write!(f, "{}, entry {seq}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq.0, self.hash)
    }
}

impl FromStr for Anchor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').and_then(|(seq, hash)| Some((seq.parse().ok()?, hash)));
        let (seq, hash) = parts.ok_or_else(|| format!("{text:?} is not SEQ:HASH"))?;
        Ok(Self { seq: Seq(seq), hash: hash.parse()? })
    }
}
