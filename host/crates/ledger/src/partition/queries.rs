//! What is looked for in one file: what leaves, and what somebody asks for. Every query reads as many rows as it is told
//! to, and goes along an index or the table's own order.

use std::ops::Range;

use rusqlite::params;

use super::{Partition, Result};
use crate::entry::{ReceivedKey, Seq, count, integer, nanos};
use crate::reader::Query;

/// Sequence, number and body of records.
pub(crate) type Bodies = Vec<(Seq, u64, String)>;

/// What is read at once, in bytes: beyond them no further entry is.
pub(crate) const READ_BYTES: usize = 8 << 20;

/// What a [`Query`] asks for, as parameters from the fourth on.
const ASKED: &str = "AND kind NOT IN ('spans', 'passed') AND (?4 IS NULL OR ended_at >= ?4) AND (?5 IS NULL OR ended_at < ?5) \
    AND (?6 IS NULL OR tenant = ?6) AND (?7 IS NULL OR requested_model = ?7 OR served_model = ?7) \
    AND (?8 IS NULL OR outcome = ?8) AND (?9 IS NULL OR cost_status = ?9) \
    AND (?10 IS NULL OR request_id = ?10 OR trace_id = ?10)";

impl Partition {
    /// Sequence, number, kind and body of what leaves after `after`; fewer than there are if they
    /// are large.
    pub(crate) fn outbound(
        &self,
        after: Seq,
        most: usize,
    ) -> Result<Vec<(Seq, u64, String, String)>> {
        let sql = "SELECT seq, number, kind, body FROM entry WHERE seq > ?1 AND number IS NOT NULL \
                   ORDER BY seq LIMIT ?2";
        let mut select = self.db.prepare_cached(sql)?;
        let rows = select.query_map(params![integer(after.0), limit(most)], |row| {
            let body: String = row.get(3)?;
            Ok((Seq(count(row.get(0)?)), count(row.get(1)?), row.get(2)?, body))
        })?;
        let (mut found, mut bytes) = (Vec::new(), 0_usize);
        for row in rows {
            let row = row?;
            bytes = bytes.saturating_add(row.3.len());
            found.push(row);
            if bytes > READ_BYTES {
                break;
            }
        }
        Ok(found)
    }

    /// Sequence, kind and body of what leaves before `before` and from `from` on, newest first: all, or
    /// only records.
    pub(crate) fn newest_first(
        &self,
        before: Seq,
        from: Seq,
        records: bool,
        most: usize,
    ) -> Result<Vec<(Seq, String, String)>> {
        let sql = "SELECT seq, kind, body FROM entry WHERE seq < ?1 AND seq >= ?2 \
                   AND number IS NOT NULL AND (?4 OR kind NOT IN ('spans', 'passed')) \
                   ORDER BY seq DESC LIMIT ?3";
        let mut select = self.db.prepare_cached(sql)?;
        let given = params![integer(before.0), integer(from.0), limit(most), !records];
        let rows = select
            .query_map(given, |row| Ok((Seq(count(row.get(0)?)), row.get(1)?, row.get(2)?)))?;
        rows.collect()
    }

    /// Sequence, number and body of the records after `after` that `query` asks for.
    pub(crate) fn queried(&self, query: &Query, after: Seq, most: usize) -> Result<Bodies> {
        // The plus keeps the order that of the table.
        let sql = format!(
            "SELECT seq, number, body FROM entry WHERE seq > ?1 AND number IS NOT NULL \
             AND +number < ?3 {ASKED} ORDER BY seq LIMIT ?2"
        );
        self.asked(&sql, query, [integer(after.0), limit(most), i64::MAX])
    }

    /// Those that `query` asks for of the records `numbers`, newest first.
    pub(crate) fn newest(&self, query: &Query, numbers: Range<u64>, most: usize) -> Result<Bodies> {
        let sql = format!(
            "SELECT seq, number, body FROM entry WHERE number >= ?1 AND number < ?3 {ASKED} \
             ORDER BY number DESC LIMIT ?2"
        );
        let bounds = [integer(numbers.start), limit(most), integer(numbers.end)];
        self.asked(&sql, query, bounds)
    }

    /// Whether a call that another program told of is in here.
    pub(crate) fn has_received(&self, call: &ReceivedKey) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM entry INDEXED BY entry_ended_at \
                   WHERE number IS NOT NULL AND ended_at = ?1 AND request_id = ?2 \
                   AND kind = 'received' AND (?3 IS NULL OR tenant = ?3))";
        let ReceivedKey { id, ended, tenant } = call;
        let mut select = self.db.prepare_cached(sql)?;
        select.query_row(params![nanos(*ended), id.0, tenant], |row| row.get(0))
    }

    /// When the first and the last record ended, by the clock.
    pub(crate) fn ended_between(&self) -> Result<Option<(i64, i64)>> {
        let end = |of: &str| {
            let sql = format!("SELECT {of}(ended_at) FROM entry WHERE number IS NOT NULL");
            self.db.query_row(&sql, [], |row| row.get::<_, Option<i64>>(0))
        };
        Ok(end("min")?.zip(end("max")?))
    }

    fn asked(&self, sql: &str, query: &Query, [from, most, to]: [i64; 3]) -> Result<Bodies> {
        let mut select = self.db.prepare_cached(sql)?;
        let (since, until) = (query.since.map(nanos), query.until.map(nanos));
        let Query { tenant, model, outcome, cost_status, id, .. } = query;
        let given = params![from, most, to, since, until, tenant, model, outcome, cost_status, id];
        let rows = select.query_map(given, |row| {
            Ok((Seq(count(row.get(0)?)), count(row.get(1)?), row.get(2)?))
        })?;
        rows.collect()
    }
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
