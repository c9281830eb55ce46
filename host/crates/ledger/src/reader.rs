//! Reading a ledger from outside, also beside the process that writes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tollgate_domain::{Record, UnixNanos};

use crate::batch;
use crate::entry::{self, Cursor, Head, Kind, Outbound, Payload, Seq, Stored, nanos};
use crate::error::LedgerError;
use crate::files;
use crate::partition::{Bodies, Listed, Partition, READ_BYTES};

/// Records that are read from a file at once.
const PAGE: usize = 512;

/// Records and files that one page looks at, whatever it finds.
const LOOKED_AT: u64 = 20_000;
const FILES: usize = 64;

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
    /// After this entry; of no meaning to [`LedgerReader::newest`].
    pub after: Seq,
    /// That ended so: `completed`, `client_gone`, `refused`, `failed`, `aborted`.
    pub outcome: Option<String>,
    /// Whose price is `priced`, `estimated`, `unpriced` or `plugin_failed`.
    pub cost_status: Option<String>,
    /// With this request id or this trace id.
    pub id: Option<String>,
}

/// Some of the newest records.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Newest first.
    pub records: Vec<Stored>,
    /// Before which number to look on; none: there is nothing more. A page may have few records,
    /// or none, and say so: then it has looked at as many as one call does.
    pub next: Option<u64>,
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

    /// The newest records before number `before` that are asked for, at most `most`. The work is
    /// bounded: see [`Page::next`].
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn newest(
        &self,
        query: &Query,
        before: Option<u64>,
        most: usize,
    ) -> Result<Page, LedgerError> {
        let newest = self.newest_file()?;
        let mut listed = newest.listed().map_err(|error| newest.failed(&error))?;
        let (mut end, mut left) = (before.unwrap_or(u64::MAX), LOOKED_AT);
        listed.retain(|file| !file.retired && file.first_number < end);
        let mut page = Page::default();
        for (looked_into, file) in listed.iter().rev().enumerate() {
            if left == 0 || looked_into >= FILES {
                page.next = Some(end);
                break;
            }
            let path = files::partition(&self.folder, file.ordinal);
            let most = most.saturating_sub(page.records.len());
            let search = Search { query, file: &path, end, left, most };
            let found = match search.of(file) {
                Err(_) if deleted_by_retention(&path, file.ordinal) => continue,
                found => found?,
            };
            page.records.extend(found.records);
            end = found.next.unwrap_or(file.first_number);
            left = left.saturating_sub(found.looked_at);
            if found.next.is_some() {
                page.next = found.next;
                break;
            }
        }
        // Nothing is before the first.
        page.next = page.next.filter(|next| *next > 1);
        Ok(page)
    }

    /// The record of that number, if it is still there.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn numbered(&self, number: u64) -> Result<Option<Stored>, LedgerError> {
        let page = self.newest(&Query::default(), number.checked_add(1), 1)?;
        Ok(page.records.into_iter().find(|stored| stored.number == number))
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
        let newest = self.newest_file()?;
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
        let newest = self.newest_file()?;
        newest.cursors().map_err(|error| newest.failed(&error))
    }

    /// Number of the first record that is still there.
    fn first(&self) -> Result<u64, LedgerError> {
        let newest = self.newest_file()?;
        let listed = newest.listed().map_err(|error| newest.failed(&error))?;
        let oldest = self.ordinals.first().copied();
        let first = listed.iter().find(|file| Some(file.ordinal) == oldest);
        Ok(first.map_or(1, |file| file.first_number))
    }

    fn newest_file(&self) -> Result<Partition, LedgerError> {
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

/// A look at one file for the newest records.
struct Search<'a> {
    query: &'a Query,
    file: &'a Path,
    /// Before this number.
    end: u64,
    /// Most records to look at.
    left: u64,
    /// Most records to find.
    most: usize,
}

/// What it found.
struct Found {
    records: Vec<Stored>,
    looked_at: u64,
    /// Before which number to look on, if not in the file before.
    next: Option<u64>,
}

impl Search<'_> {
    fn of(&self, listed: &Listed) -> Result<Found, LedgerError> {
        let Self { query, end, left, most, .. } = *self;
        let file = Partition::read_only(self.file, listed.ordinal)?;
        let failed = |error| file.failed(&error);
        let nothing = Found { records: Vec::new(), looked_at: 0, next: None };
        let Some(last) = file.last_number().map_err(failed)? else { return Ok(nothing) };
        let Some((first_end, last_end)) = file.ended_between().map_err(failed)? else {
            return Ok(nothing);
        };
        let early = query.since.is_some_and(|since| last_end < nanos(since));
        let late = query.until.is_some_and(|until| first_end >= nanos(until));
        if early || late {
            return Ok(nothing);
        }
        let end = end.min(last.saturating_add(1));
        let start = end.saturating_sub(left).max(listed.first_number);
        let (records, all) = decode(&file, file.newest(query, start..end, most))?;
        let next = match records.last() {
            Some(oldest) if !all || records.len() >= most => Some(oldest.number),
            _ if start > listed.first_number => Some(start),
            _ => None,
        };
        Ok(Found { records, looked_at: end.saturating_sub(start), next })
    }
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
            // Unless there is a next page.
            self.ended = true;
            let page = match self.next(&path, ordinal) {
                Err(_) if self.file.is_none() && deleted_by_retention(&path, ordinal) => {
                    Ok(Vec::new())
                }
                page => page,
            };
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
        let rows = file.queried(&self.query, self.after, PAGE);
        let found = rows.as_ref().map_or(0, Vec::len);
        let (page, all) = decode(&file, rows)?;
        self.ended = all && found < PAGE;
        self.after = page.last().map_or(self.after, |last| last.seq);
        self.file = Some(file);
        Ok(page)
    }
}

type Rows = Result<Bodies, rusqlite::Error>;

/// Rows of a file as records; and whether these are all, or the rest would be too much at once.
pub(crate) fn decode(file: &Partition, rows: Rows) -> Result<(Vec<Stored>, bool), LedgerError> {
    let rows = rows.map_err(|error| file.failed(&error))?;
    let (of, mut records, mut bytes) = (rows.len(), Vec::with_capacity(rows.len()), 0_usize);
    for (seq, number, body) in rows {
        let record = record(&file.path, seq, &body)?;
        bytes = bytes.saturating_add(entry::bytes(&record, &body));
        records.push(Stored { seq, number, record });
        if bytes > READ_BYTES {
            break;
        }
    }
    let all = records.len() == of;
    Ok((records, all))
}

/// What leaves of a file; less than there is if it is large.
pub(crate) fn outbound(
    file: &Partition,
    after: Seq,
    most: usize,
) -> Result<Vec<Outbound>, LedgerError> {
    let rows = file.outbound(after, most).map_err(|error| file.failed(&error))?;
    let (mut found, mut bytes) = (Vec::with_capacity(rows.len()), 0_usize);
    for (seq, number, kind, body) in rows {
        let (what, more) = payload(&file.path, seq, &kind, &body)?;
        found.push(Outbound { seq, number, what });
        bytes = bytes.saturating_add(more);
        if bytes > READ_BYTES {
            break;
        }
    }
    Ok(found)
}

/// The body of an entry of that kind, and how many bytes it says.
pub(crate) fn payload(
    path: &Path,
    seq: Seq,
    kind: &str,
    body: &str,
) -> Result<(Payload, usize), LedgerError> {
    let damaged = |error: serde_json::Error| {
        let what = format!("entry {} is not what its kind is: {error}", seq.0);
        LedgerError::damaged(path, what)
    };
    Ok(match Kind::named(kind) {
        Some(Kind::Spans) => {
            let (batch, bytes) = batch::unpack(body).map_err(damaged)?;
            (Payload::Spans(Box::new(batch)), bytes)
        }
        Some(Kind::Passed) => {
            (Payload::Passed(serde_json::from_str(body).map_err(damaged)?), body.len())
        }
        _ => {
            let record = record(path, seq, body)?;
            let bytes = entry::bytes(&record, body);
            (Payload::Record(Arc::new(record)), bytes)
        }
    })
}

/// The body of an entry as a record.
pub(crate) fn record(path: &Path, seq: Seq, body: &str) -> Result<Record, LedgerError> {
    serde_json::from_str(body).map_err(|error| {
        LedgerError::damaged(path, format!("entry {} is no record: {error}", seq.0))
    })
}
