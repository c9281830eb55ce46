//! What exporters have decided of traces, so that spans that come late follow it also after a restart.
//!
//! In a file of its own: it holds nothing that is on record, no hash is over it, and who deletes it
//! loses no span. An exporter commits what it decides before anything leaves by that and before its
//! cursor moves, so that what is read again after a crash meets the same decision.
//!
//! Bounded: of each exporter the newest [`DECISIONS`], and none older than [`REMEMBERED_FOR`] when it
//! is opened. Policy when there are more: the oldest are *forgotten*.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, params};
use tollgate_domain::sampling::{DECISIONS, Decision, REMEMBERED_FOR};
use tollgate_domain::{TraceId, UnixNanos};

use crate::entry::{count, integer, nanos};
use crate::error::LedgerError;
use crate::files;
use crate::settings::Durability;

/// Version of its form.
const VERSION: u32 = 1;

/// How long it waits for another exporter that writes.
const PATIENCE: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE decision (
  exporter TEXT NOT NULL,
  number INTEGER NOT NULL,        -- 1, 2, 3 ... of each exporter
  trace BLOB NOT NULL,            -- 16 bytes
  decision TEXT NOT NULL,         -- error, cost, slow, share, dropped
  at INTEGER NOT NULL,            -- nanoseconds since 1970, UTC
  PRIMARY KEY (exporter, number)
) STRICT, WITHOUT ROWID;
";

/// What one exporter has decided, in the ledger's folder.
#[derive(Debug)]
pub struct Decisions {
    exporter: String,
    path: PathBuf,
    db: Connection,
    /// Number of the last one.
    last: u64,
}

/// What was decided of a trace, and how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Which.
    pub trace: TraceId,
    /// What.
    pub decision: Decision,
    /// How long ago.
    pub age: Duration,
}

impl Decisions {
    /// Opens the file, made if it is missing.
    pub(crate) fn open(
        folder: &Path,
        durability: Durability,
        exporter: &str,
    ) -> Result<Self, LedgerError> {
        let path = folder.join("decisions.sqlite");
        files::make(&path)?;
        let opened = || {
            let mut db = Connection::open(&path)?;
            db.busy_timeout(PATIENCE)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            let synchronous = match durability {
                Durability::Power => "FULL",
                Durability::Process => "NORMAL",
            };
            db.pragma_update(None, "synchronous", synchronous)?;
            db.pragma_update(None, "trusted_schema", "OFF")?;
            let begun = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let version: u32 = begun.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                begun.execute_batch(SCHEMA)?;
                begun.pragma_update(None, "user_version", VERSION)?;
            }
            let oldest = now().0.saturating_sub(tollgate_domain::time::nanos(REMEMBERED_FOR));
            if version <= VERSION {
                begun.execute("DELETE FROM decision WHERE at < ?1", [integer(oldest)])?;
            }
            begun.commit()?;
            Ok((db, version))
        };
        let (db, found) = opened().map_err(|error| failed(&path, &error))?;
        if found > VERSION {
            return Err(LedgerError::Newer { path, found, known: VERSION });
        }
        let sql = "SELECT coalesce(max(number), 0) FROM decision WHERE exporter = ?1";
        let last = db.query_row(sql, [exporter], |row| row.get(0));
        let last = count(last.map_err(|error| failed(&path, &error))?);
        Ok(Self { exporter: exporter.to_owned(), path, db, last })
    }

    /// All that are remembered, oldest first; blocks.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn all(&self) -> Result<Vec<Remembered>, LedgerError> {
        let read = || -> Result<Vec<Remembered>, rusqlite::Error> {
            let sql = "SELECT trace, decision, at FROM decision WHERE exporter = ?1 AND number > ?2 \
                       ORDER BY number";
            let mut select = self.db.prepare(sql)?;
            let from = integer(self.last.saturating_sub(DECISIONS as u64));
            let now = now();
            let rows = select.query_map(params![self.exporter, from], |row| {
                let (trace, name): ([u8; 16], String) = (row.get(0)?, row.get(1)?);
                let age = now.since(UnixNanos(count(row.get(2)?)));
                let trace = TraceId(u128::from_be_bytes(trace));
                // One that a later program knows counts for nothing here.
                let decision = Decision::named(&name);
                Ok(decision.map(|decision| Remembered { trace, decision, age }))
            })?;
            rows.filter_map(Result::transpose).collect()
        };
        read().map_err(|error| failed(&self.path, &error))
    }

    /// Puts them down, newest last, and forgets those that are too many; blocks for a commit.
    ///
    /// # Errors
    /// If they could not be committed: then none of them is there.
    pub fn remember(&mut self, decided: &[(TraceId, Decision)]) -> Result<(), LedgerError> {
        let (at, mut last) = (nanos(now()), self.last);
        let mut write = || {
            let immediate = rusqlite::TransactionBehavior::Immediate;
            let page = self.db.transaction_with_behavior(immediate)?;
            {
                let mut insert =
                    page.prepare_cached("INSERT INTO decision VALUES (?1, ?2, ?3, ?4, ?5)")?;
                for (trace, decision) in decided {
                    last += 1;
                    let trace = trace.0.to_be_bytes();
                    insert.execute(params![
                        self.exporter,
                        integer(last),
                        trace,
                        decision.name(),
                        at
                    ])?;
                }
            }
            let forgotten = integer(last.saturating_sub(DECISIONS as u64));
            page.prepare_cached("DELETE FROM decision WHERE exporter = ?1 AND number <= ?2")?
                .execute(params![self.exporter, forgotten])?;
            page.commit()
        };
        write().map_err(|error| failed(&self.path, &error))?;
        self.last = last;
        Ok(())
    }
}

fn now() -> UnixNanos {
    UnixNanos::from(SystemTime::now())
}

/// What SQLite said, and what to do about it.
fn failed(path: &Path, error: &rusqlite::Error) -> LedgerError {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            let message = format!(
                "{error}; delete the file while the gateway is stopped: only what was decided of \
                 traces is lost with it"
            );
            LedgerError::File { path: path.to_owned(), message }
        }
        _ => LedgerError::sqlite(path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path, exporter: &str) -> Decisions {
        Decisions::open(folder, Durability::Process, exporter).unwrap()
    }

    fn known(of: &Decisions) -> Vec<(u128, Decision)> {
        let all = of.all().unwrap();
        all.into_iter().map(|Remembered { trace, decision, .. }| (trace.0, decision)).collect()
    }

    #[test]
    fn what_was_decided_is_known_to_the_next_and_to_no_other_exporter() {
        let folder = tempfile::tempdir().unwrap();
        let (mut one, mut two) = (open(folder.path(), "one"), open(folder.path(), "two"));
        one.remember(&[(TraceId(1), Decision::Error), (TraceId(u128::MAX), Decision::Dropped)])
            .unwrap();
        two.remember(&[(TraceId(1), Decision::Dropped)]).unwrap();
        one.remember(&[(TraceId(2), Decision::Slow)]).unwrap();
        drop((one, two));
        let one = open(folder.path(), "one");
        let wanted = [(1, Decision::Error), (u128::MAX, Decision::Dropped), (2, Decision::Slow)];
        assert_eq!(known(&one), wanted);
        assert!(one.all().unwrap().iter().all(|one| one.age < Duration::from_secs(600)));
        assert_eq!(known(&open(folder.path(), "two")), [(1, Decision::Dropped)]);
        assert_eq!(known(&open(folder.path(), "three")), []);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = open(folder.path(), "one");
        let batch = |from: u128, to: u128| -> Vec<_> {
            (from..to).map(|trace| (TraceId(trace), Decision::Share)).collect()
        };
        one.remember(&batch(0, 100)).unwrap();
        one.remember(&batch(100, 110 + DECISIONS as u128)).unwrap();
        let rows = |of: &Decisions| -> usize {
            let sql = "SELECT count(*) FROM decision";
            usize::try_from(count(of.db.query_row(sql, [], |row| row.get(0)).unwrap())).unwrap()
        };
        assert_eq!(rows(&one), DECISIONS);
        assert_eq!(known(&one)[0].0, 110);
        // Half of them a week and a minute ago.
        let old = now().0 - tollgate_domain::time::nanos(REMEMBERED_FOR) - 60_000_000_000;
        let sql = "UPDATE decision SET at = ?1 WHERE number <= ?2";
        let half = DECISIONS as u64 / 2 + 110;
        one.db.execute(sql, params![integer(old), integer(half)]).unwrap();
        drop(one);
        let one = open(folder.path(), "one");
        assert_eq!((rows(&one), known(&one)[0].0), (DECISIONS / 2, u128::from(half)));
    }

    #[test]
    fn what_cannot_be_read_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.sqlite");
        std::fs::write(&path, [b'x'; 4096]).unwrap();
        let opened = |durability| Decisions::open(folder.path(), durability, "one");
        let error = opened(Durability::Process).unwrap_err().to_string();
        assert!(error.contains("delete the file while the gateway is stopped"), "{error}");
        std::fs::remove_file(&path).unwrap();
        drop(open(folder.path(), "one"));
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
        assert!(matches!(opened(Durability::Power), Err(LedgerError::Newer { found: 2, .. })));
    }
}
