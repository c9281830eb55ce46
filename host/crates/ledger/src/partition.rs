//! One file of the ledger: its tables and the statements on them.
//!
//! Entries are only ever added. What changes (requests in flight, cursors) and what is known of the
//! files before lies in the newest file, in the same transactions, and is carried over into the
//! next one by its first transaction.

mod queries;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::chain::Hash;
use crate::entry::{Cursor, NewEntry, Seq, VERSION, count, integer};
use crate::error::LedgerError;
use crate::files;
use crate::lying::{Lying, lying};
use crate::settings::Durability;

pub(crate) use queries::{Bodies, READ_BYTES};

type Result<T> = std::result::Result<T, rusqlite::Error>;

/// Version of the tables.
const TABLES: u32 = 1;

/// "Toll" in the file's header, by which tools tell what it is.
const APPLICATION: u32 = 0x546f_6c6c;

/// Size of the journal from which on it is written back, and to which it is cut when it begins again.
pub(crate) const WAL_BYTES: u64 = 16 << 20;

/// How long a reader waits for another connection.
const PATIENCE: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE entry (
  seq INTEGER PRIMARY KEY,        -- 1, 2, 3 ... over all files
  kind TEXT NOT NULL,             -- started, finished, aborted, refused, repriced, received, spans,
                                  -- passed
  number INTEGER,                 -- of what leaves: ends of requests, received spans: 1, 2, 3 ...
  started_seq INTEGER,            -- of an end: the entry of its start
  request_id TEXT NOT NULL,
  trace_id TEXT NOT NULL,         -- 32 hex digits
  started_at INTEGER NOT NULL,    -- nanoseconds since 1970, UTC
  ended_at INTEGER NOT NULL,
  tenant TEXT,
  requested_model TEXT NOT NULL,
  served_model TEXT,
  outcome TEXT NOT NULL,          -- empty of spans and passed
  cost_status TEXT NOT NULL,      -- priced, estimated, unpriced, plugin_failed
  amount TEXT,                    -- exact decimal number of major units
  currency TEXT,                  -- ISO 4217
  input_tokens INTEGER,
  output_tokens INTEGER,
  plugin_digest TEXT,             -- SHA-256 of the cost plugin
  version INTEGER NOT NULL,       -- of the body's form
  body TEXT NOT NULL,             -- the whole record, JSON
  hash BLOB NOT NULL              -- SHA-256 over the hash before and this entry
) STRICT;
CREATE INDEX entry_number ON entry (number) WHERE number IS NOT NULL;
CREATE INDEX entry_ended_at ON entry (ended_at) WHERE number IS NOT NULL;
CREATE TABLE in_flight (
  started_seq INTEGER PRIMARY KEY,
  slot INTEGER NOT NULL,          -- of the file in-flight
  plugin_set TEXT NOT NULL
) STRICT;
CREATE TABLE cursor (
  exporter TEXT PRIMARY KEY,
  seq INTEGER NOT NULL,
  records INTEGER NOT NULL,
  delivered INTEGER NOT NULL,
  filtered INTEGER NOT NULL,
  rejected INTEGER NOT NULL
) STRICT;
CREATE TABLE partition (           -- this file and all before it
  ordinal INTEGER PRIMARY KEY,
  first_seq INTEGER NOT NULL,
  first_number INTEGER NOT NULL,
  hash_before BLOB NOT NULL,      -- of the last entry of the file before
  retired_at INTEGER              -- when retention deleted it
) STRICT;
";

/// What a partition says of itself or of one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) ordinal: u64,
    pub(crate) first: Seq,
    pub(crate) first_number: u64,
    pub(crate) hash_before: Hash,
    pub(crate) retired: bool,
}

/// The last entry of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) seq: Seq,
    pub(crate) records: u64,
    pub(crate) hash: Hash,
}

/// A request on record as started and not as ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub(crate) started: Seq,
    pub(crate) slot: u32,
    pub(crate) plugin_set: String,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) ordinal: u64,
    pub(crate) path: PathBuf,
    db: Connection,
}

impl Partition {
    /// Opens the file to write, made if it is missing.
    pub(crate) fn open(
        path: &Path,
        ordinal: u64,
        durability: Durability,
    ) -> std::result::Result<Self, LedgerError> {
        files::make(path)?;
        let opened = || {
            let db = Connection::open(path)?;
            db.busy_timeout(PATIENCE)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            // A thread of its own writes back; in the committing one it would hold up everybody.
            db.pragma_update(None, "wal_autocheckpoint", 0)?;
            // Written back, it is written from the start again, and would keep its length: who looks at that would
            // take it for full for ever.
            db.pragma_update(None, "journal_size_limit", integer(WAL_BYTES))?;
            let synchronous = match durability {
                Durability::Power => "FULL",
                Durability::Process => "NORMAL",
            };
            db.pragma_update(None, "synchronous", synchronous)?;
            db.pragma_update(None, "trusted_schema", "OFF")?;
            Ok(db)
        };
        let db = opened().map_err(|error| LedgerError::sqlite(path, &error))?;
        Ok(Self { ordinal, path: path.to_owned(), db })
    }

    /// Opens the file to read, beside whoever writes.
    pub(crate) fn read_only(path: &Path, ordinal: u64) -> std::result::Result<Self, LedgerError> {
        let opened = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let db = Connection::open_with_flags(path, flags)?;
            db.busy_timeout(PATIENCE)?;
            Ok(db)
        };
        let db = opened().map_err(|error| LedgerError::sqlite(path, &error))?;
        Ok(Self { ordinal, path: path.to_owned(), db })
    }

    /// `error`, said of this file.
    pub(crate) fn failed(&self, error: &rusqlite::Error) -> LedgerError {
        LedgerError::sqlite(&self.path, error)
    }

    /// The files of `folder` that are there for a reader, oldest first: the newest may be made and
    /// not begun yet.
    pub(crate) fn begun(folder: &Path) -> std::result::Result<Vec<u64>, LedgerError> {
        let mut ordinals = files::partitions(folder)?;
        if let Some(newest) = ordinals.last().copied()
            && !Self::read_only(&files::partition(folder, newest), newest)?.is_begun()?
        {
            ordinals.pop();
        }
        if ordinals.is_empty() {
            let message = "there is no ledger here: it has no ledger-*.sqlite".to_owned();
            return Err(LedgerError::File { path: folder.to_owned(), message });
        }
        Ok(ordinals)
    }

    /// Version of its tables; 0 before its first transaction.
    pub(crate) fn tables(&self) -> Result<u32> {
        self.db.pragma_query_value(None, "user_version", |row| row.get(0))
    }

    /// Whether its first transaction was committed, and the form of its tables is ours.
    pub(crate) fn is_begun(&self) -> std::result::Result<bool, LedgerError> {
        match self.tables().map_err(|error| self.failed(&error))? {
            0 => Ok(false),
            TABLES => Ok(true),
            found => Err(LedgerError::Newer { path: self.path.clone(), found, known: TABLES }),
        }
    }

    /// Its first transaction: the tables, and what is carried over from the file before.
    pub(crate) fn begin_file(
        &self,
        listed: &[Listed],
        in_flight: &[InFlight],
        cursors: &[(String, Cursor)],
    ) -> Result<()> {
        self.transaction(|this| {
            this.db.execute_batch(SCHEMA)?;
            for file in listed {
                this.db.execute(
                    "INSERT INTO partition VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        integer(file.ordinal),
                        integer(file.first.0),
                        integer(file.first_number),
                        file.hash_before.0,
                        file.retired.then_some(0_i64),
                    ],
                )?;
            }
            for request in in_flight {
                this.add_in_flight(request)?;
            }
            for (exporter, cursor) in cursors {
                this.set_cursor(exporter, cursor)?;
            }
            this.db.pragma_update(None, "application_id", APPLICATION)?;
            this.db.pragma_update(None, "user_version", TABLES)
        })
    }

    /// What `work` does, all of it or nothing.
    pub(crate) fn transaction<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.statement("BEGIN IMMEDIATE")?;
        let done = work(self).and_then(|value| self.statement("COMMIT").map(|()| value));
        if done.is_err() && !self.db.is_autocommit() {
            // What fails here fails because it was rolled back already.
            let _ = self.db.execute_batch("ROLLBACK");
        }
        done
    }

    /// What `work` reads, all of one moment.
    pub(crate) fn snapshot<T>(&self, work: impl FnOnce(&Self) -> T) -> Result<T> {
        self.statement("BEGIN")?;
        let value = work(self);
        self.statement("COMMIT")?;
        Ok(value)
    }

    /// One that is said often, and so is parsed once.
    fn statement(&self, sql: &str) -> Result<()> {
        self.db.prepare_cached(sql)?.execute([]).map(drop)
    }

    pub(crate) fn add_entry(
        &self,
        seq: Seq,
        number: Option<u64>,
        started_seq: Option<u64>,
        entry: &NewEntry,
        hash: &Hash,
    ) -> Result<()> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, \
             ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
        )?;
        let columns = &entry.columns;
        insert.execute(params![
            integer(seq.0),
            entry.kind.name(),
            number.map(integer),
            started_seq.map(integer),
            columns.request_id,
            columns.trace_id,
            columns.started_at,
            columns.ended_at,
            columns.tenant,
            columns.requested_model,
            columns.served_model,
            columns.outcome,
            columns.cost_status,
            columns.amount,
            columns.currency,
            columns.input_tokens,
            columns.output_tokens,
            columns.plugin_digest,
            VERSION,
            entry.body,
            hash.0,
        ])?;
        Ok(())
    }

    pub(crate) fn add_in_flight(&self, request: &InFlight) -> Result<()> {
        let sql = "INSERT INTO in_flight VALUES (?1, ?2, ?3)";
        let mut insert = self.db.prepare_cached(sql)?;
        insert.execute(params![integer(request.started.0), request.slot, request.plugin_set])?;
        Ok(())
    }

    /// Whether the request was in flight.
    pub(crate) fn end_in_flight(&self, started: Seq) -> Result<bool> {
        let mut delete = self.db.prepare_cached("DELETE FROM in_flight WHERE started_seq = ?1")?;
        Ok(delete.execute([integer(started.0)])? > 0)
    }

    pub(crate) fn in_flight(&self) -> Result<Vec<InFlight>> {
        let sql = "SELECT started_seq, slot, plugin_set FROM in_flight ORDER BY started_seq";
        self.rows(sql, |row| {
            let started = Seq(count(row.get(0)?));
            Ok(InFlight { started, slot: row.get(1)?, plugin_set: row.get(2)? })
        })
    }

    pub(crate) fn set_cursor(&self, exporter: &str, cursor: &Cursor) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO cursor VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.db.prepare_cached(sql)?.execute(params![
            exporter,
            integer(cursor.seq.0),
            integer(cursor.records),
            integer(cursor.delivered),
            integer(cursor.filtered),
            integer(cursor.rejected),
        ])?;
        Ok(())
    }

    pub(crate) fn cursors(&self) -> Result<Vec<(String, Cursor)>> {
        self.rows("SELECT * FROM cursor ORDER BY exporter", |row| {
            let number = |column: usize| row.get(column).map(count);
            let cursor = Cursor {
                seq: Seq(number(1)?),
                records: number(2)?,
                delivered: number(3)?,
                filtered: number(4)?,
                rejected: number(5)?,
            };
            Ok((row.get(0)?, cursor))
        })
    }

    /// This file and all before it, oldest first.
    pub(crate) fn listed(&self) -> Result<Vec<Listed>> {
        self.rows("SELECT * FROM partition ORDER BY ordinal", |row| {
            Ok(Listed {
                ordinal: count(row.get(0)?),
                first: Seq(count(row.get(1)?)),
                first_number: count(row.get(2)?),
                hash_before: Hash(row.get(3)?),
                retired: row.get::<_, Option<i64>>(4)?.is_some(),
            })
        })
    }

    pub(crate) fn retire(&self, ordinal: u64, at: i64) -> Result<()> {
        let sql = "UPDATE partition SET retired_at = ?2 WHERE ordinal = ?1";
        self.db.execute(sql, params![integer(ordinal), at]).map(drop)
    }

    /// The last entry and record, if there is one in this file.
    pub(crate) fn last(&self) -> Result<Option<(Seq, Hash)>> {
        let sql = "SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1";
        let last =
            self.db.query_row(sql, [], |row| Ok((Seq(count(row.get(0)?)), Hash(row.get(1)?))));
        last.optional()
    }

    /// Number of the last record in this file.
    pub(crate) fn last_number(&self) -> Result<Option<u64>> {
        let sql = "SELECT max(number) FROM entry WHERE number IS NOT NULL";
        let last = self.db.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?;
        Ok(last.map(count))
    }

    /// When the last record of this file ended; if it has none, when its last request started.
    pub(crate) fn last_ended_at(&self) -> Result<Option<i64>> {
        let sql = "SELECT coalesce((SELECT max(ended_at) FROM entry WHERE number IS NOT NULL), \
                   (SELECT ended_at FROM entry ORDER BY seq DESC LIMIT 1))";
        self.db.query_row(sql, [], |row| row.get(0))
    }

    /// The smallest place in this file, whatever was put there.
    pub(crate) fn lowest(&self) -> Result<Option<i64>> {
        self.db.query_row("SELECT min(seq) FROM entry", [], |row| row.get(0))
    }

    /// The body of one entry.
    pub(crate) fn body(&self, seq: Seq) -> Result<Option<String>> {
        let sql = "SELECT body FROM entry WHERE seq = ?1";
        self.db.query_row(sql, [integer(seq.0)], |row| row.get(0)).optional()
    }

    /// Writes something that changes nothing, to see whether writing works.
    pub(crate) fn probe(&self) -> Result<()> {
        self.db.execute("UPDATE partition SET first_seq = first_seq", []).map(drop)
    }

    /// Entries after `after` as they lie there, at most `most`.
    pub(crate) fn lying(&self, after: Seq, most: u32) -> Result<Vec<Lying>> {
        let sql = "SELECT * FROM entry WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let mut select = self.db.prepare_cached(sql)?;
        let rows = select.query_map(params![integer(after.0), most], lying)?;
        rows.collect()
    }

    /// Writes the journal back into the file, as far as nobody reads it; how many of its pages are left. When none is,
    /// what is written next begins it anew.
    pub(crate) fn write_back(&self) -> Result<u64> {
        self.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            let (all, written_back): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(count(all).saturating_sub(count(written_back)))
        })
    }

    /// Writes the journal back, waiting for readers, and empties it.
    pub(crate) fn empty_journal(&self) -> Result<()> {
        self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    /// Size of the file's pages, the journal's included; within a transaction those that it adds, too.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let value = |sql| self.db.prepare_cached(sql)?.query_row([], |row| row.get(0).map(count));
        Ok(value("PRAGMA page_count")?.saturating_mul(value("PRAGMA page_size")?))
    }

    fn rows<T>(&self, sql: &str, read: impl FnMut(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        self.db.prepare_cached(sql)?.query_map([], read)?.collect()
    }
}
