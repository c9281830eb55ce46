//! An entry as it lies in its file, to be held against what it must be.

use rusqlite::Row;

use crate::chain::Hash;
use crate::entry::{Columns, Kind, Seq, count};

type Result<T> = std::result::Result<T, rusqlite::Error>;

/// An entry as it lies in the file.
pub(crate) struct Lying {
    pub(crate) seq: Seq,
    pub(crate) kind: Option<Kind>,
    pub(crate) number: Option<u64>,
    pub(crate) started_seq: Option<u64>,
    pub(crate) version: u32,
    pub(crate) body: String,
    pub(crate) hash: Option<Hash>,
    pub(crate) row: Columned,
}

/// Its columns, as text, to be held against its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Columned(pub(crate) Vec<Option<String>>);

/// Reads a row of all columns.
pub(crate) fn lying(row: &Row<'_>) -> Result<Lying> {
    let kind: String = row.get(1)?;
    let columns = (4..18).map(|column| text(row, column)).collect::<Result<_>>()?;
    Ok(Lying {
        seq: Seq(count(row.get(0)?)),
        kind: Kind::named(&kind),
        number: row.get::<_, Option<i64>>(2)?.map(count),
        started_seq: row.get::<_, Option<i64>>(3)?.map(count),
        version: row.get(18)?,
        body: row.get(19)?,
        hash: row.get::<_, Vec<u8>>(20)?.try_into().ok(),
        row: Columned(columns),
    })
}

fn text(row: &Row<'_>, column: usize) -> Result<Option<String>> {
    use rusqlite::types::ValueRef;
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    })
}

impl Columned {
    /// What the columns of an entry with this body must be.
    pub(crate) fn of(columns: &Columns) -> Self {
        let number = |number: Option<i64>| number.map(|number| number.to_string());
        Self(vec![
            Some(columns.request_id.clone()),
            Some(columns.trace_id.clone()),
            number(Some(columns.started_at)),
            number(Some(columns.ended_at)),
            columns.tenant.clone(),
            Some(columns.requested_model.clone()),
            columns.served_model.clone(),
            Some(columns.outcome.to_owned()),
            Some(columns.cost_status.to_owned()),
            columns.amount.clone(),
            columns.currency.clone(),
            number(columns.input_tokens),
            number(columns.output_tokens),
            columns.plugin_digest.clone(),
        ])
    }
}
