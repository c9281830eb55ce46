//! Reading a ledger from outside, also beside the process that writes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_domain::{Record, UnixNanos};

use crate::entry::{Cursor, Head, Kind, Outbound, Payload, Seq, Stored};
use crate::error::LedgerError;
use crate::files;
use crate::partition::Partition;

/// Records that are read from a file at once.
const PAGE: usize = 512;

/// Between saying that a file is deleted and deleting it there are a few of these at most.
const MOMENT: Duration = Duration::from_millis(20);

/// Which records are asked for; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// That ended then or later.
    pub since: Option<UnixNanos>,
    /// That ended before then.
    pub until: Option<UnixNanos>,
    /// Of this tenant.
    pub tenant: Option<String>,
    /// That asked for this model or were served by it.
    pub model: Option<String>,
    /// After this entry.
    pub after: Seq,
}

/// A ledger that is read and not written.
#[derive(Debug)]
pub struct LedgerReader {
    folder: PathBuf,
    ordinals: Vec<u64>,
}

impl LedgerReader {
    /// Opens the ledger in `folder`.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        let ordinals = Partition::begun(folder)?;
        Ok(Self { folder: folder.to_owned(), ordinals })
    }

    /// The records that are asked for, in order; few of them are in memory at once. Files that
    /// retention deletes meanwhile are left out.
    pub fn records(&self, query: Query) -> impl Iterator<Item = Result<Stored, LedgerError>> {
        let folder = self.folder.clone();
        self.ordinals.clone().into_iter().flat_map(move |ordinal| {
            let (query, after) = (query.clone(), query.after);
            let path = files::partition(&folder, ordinal);
            Pages { file: None, query, after, ended: false }.of(path, ordinal)
        })
    }

    /// How many entries there are in the files that are there that leave: records and batches of
    /// received spans.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn count(&self) -> Result<u64, LedgerError> {
        let first = self.first()?;
        Ok(self.head()?.records.saturating_sub(first.saturating_sub(1)))
    }

    /// How far it goes.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn head(&self) -> Result<Head, LedgerError> {
        let newest = self.newest()?;
        let failed = |error| newest.failed(&error);
        let own = newest.listed().map_err(failed)?.into_iter().last();
        let own = own.ok_or_else(|| LedgerError::damaged(&newest.path, "it lists no file"))?;
        let last = newest.last().map_err(failed)?.map(|(seq, _)| seq);
        let records = newest.last_number().map_err(failed)?;
        Ok(Head {
            seq: last.unwrap_or(Seq(own.first.0.saturating_sub(1))),
            records: records.unwrap_or(own.first_number.saturating_sub(1)),
        })
    }

    /// Where each exporter is.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn cursors(&self) -> Result<Vec<(String, Cursor)>, LedgerError> {
        let newest = self.newest()?;
        newest.cursors().map_err(|error| newest.failed(&error))
    }

    /// Number of the first record that is still there.
    fn first(&self) -> Result<u64, LedgerError> {
        let newest = self.newest()?;
        let listed = newest.listed().map_err(|error| newest.failed(&error))?;
        let oldest = self.ordinals.first().copied();
        let first = listed.iter().find(|file| Some(file.ordinal) == oldest);
        Ok(first.map_or(1, |file| file.first_number))
    }

    fn newest(&self) -> Result<Partition, LedgerError> {
        let ordinal = Partition::begun(&self.folder)?.last().copied().unwrap_or(1);
        Partition::read_only(&files::partition(&self.folder, ordinal), ordinal)
    }
}

/// Whether a file is gone, or about to be, and the newest says that retention deleted it.
pub(crate) fn deleted_by_retention(path: &Path, ordinal: u64) -> bool {
    let listed = || {
        let folder = path.parent()?;
        let newest = *Partition::begun(folder).ok()?.last()?;
        let newest = Partition::read_only(&files::partition(folder, newest), newest).ok()?;
        newest.listed().ok()?.into_iter().find(|file| file.ordinal == ordinal)
    };
    let gone = || {
        let is_there = path.exists();
        if is_there {
            std::thread::sleep(MOMENT);
        }
        !is_there
    };
    listed().is_some_and(|file| file.retired) && (0..50).any(|_| gone())
}

/// The records of one file, a page at a time.
struct Pages {
    file: Option<Partition>,
    query: Query,
    after: Seq,
    ended: bool,
}

impl Pages {
    fn of(
        mut self,
        path: PathBuf,
        ordinal: u64,
    ) -> impl Iterator<Item = Result<Stored, LedgerError>> {
        std::iter::from_fn(move || {
            if self.ended {
                return None;
            }
            let page = match self.next(&path, ordinal) {
                Err(_) if self.file.is_none() && deleted_by_retention(&path, ordinal) => {
                    Ok(Vec::new())
                }
                page => page,
            };
            self.ended = page.as_ref().map_or(true, |page| page.len() < PAGE);
            Some(match page {
                Ok(page) => page.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            })
        })
        .flatten()
    }

    fn next(&mut self, path: &Path, ordinal: u64) -> Result<Vec<Stored>, LedgerError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => Partition::read_only(path, ordinal)?,
        };
        let page = decode(&file, file.queried(&self.query, self.after, PAGE))?;
        self.after = page.last().map_or(self.after, |last| last.seq);
        self.file = Some(file);
        Ok(page)
    }
}

type Rows = Result<Vec<(Seq, u64, String)>, rusqlite::Error>;

/// Rows of a file as records.
pub(crate) fn decode(file: &Partition, rows: Rows) -> Result<Vec<Stored>, LedgerError> {
    let rows = rows.map_err(|error| file.failed(&error))?;
    rows.into_iter()
        .map(|(seq, number, body)| Ok(Stored { seq, number, record: record(file, seq, &body)? }))
        .collect()
}

/// What leaves of a file.
pub(crate) fn outbound(
    file: &Partition,
    after: Seq,
    most: usize,
) -> Result<Vec<Outbound>, LedgerError> {
    let rows = file.outbound(after, most).map_err(|error| file.failed(&error))?;
    rows.into_iter()
        .map(|(seq, number, kind, body)| {
            Ok(Outbound { seq, number, what: payload(file, seq, &kind, &body)? })
        })
        .collect()
}

/// The body of an entry of that kind.
pub(crate) fn payload(
    file: &Partition,
    seq: Seq,
    kind: &str,
    body: &str,
) -> Result<Payload, LedgerError> {
    if kind != Kind::Spans.name() {
        return Ok(Payload::Record(Box::new(record(file, seq, body)?)));
    }
    let batch = serde_json::from_str(body).map_err(|error| {
        LedgerError::damaged(&file.path, format!("entry {} has no spans: {error}", seq.0))
    })?;
    Ok(Payload::Spans(Box::new(batch)))
}

/// The body of an entry as a record.
pub(crate) fn record(file: &Partition, seq: Seq, body: &str) -> Result<Record, LedgerError> {
    serde_json::from_str(body).map_err(|error| {
        LedgerError::damaged(&file.path, format!("entry {} is no record: {error}", seq.0))
    })
}
