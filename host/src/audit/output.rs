//! How answers are written: for people, for spreadsheets, for programs.

use std::io::Write;

use super::error::AuditError;

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// In columns, for people.
    #[default]
    Table,
    /// Comma-separated, with headings.
    Csv,
    /// One JSON object; amounts are decimal strings.
    Json,
}

/// Comma-separated lines.
pub(super) struct Csv(csv::Writer<Vec<u8>>);

impl Csv {
    pub(super) fn new<T: AsRef<[u8]>>(
        headings: impl IntoIterator<Item = T>,
    ) -> Result<Self, AuditError> {
        let mut csv = Self(csv::Writer::from_writer(Vec::new()));
        csv.row(headings)?;
        Ok(csv)
    }

    pub(super) fn row<T: AsRef<[u8]>>(
        &mut self,
        cells: impl IntoIterator<Item = T>,
    ) -> Result<(), AuditError> {
        Ok(self.0.write_record(cells)?)
    }

    pub(super) fn text(self) -> Result<String, AuditError> {
        let bytes = self.0.into_inner().map_err(|error| AuditError::Output(error.to_string()))?;
        String::from_utf8(bytes).map_err(|error| AuditError::Output(error.to_string()))
    }
}

/// JSON for programs.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String, AuditError> {
    Ok(serde_json::to_string_pretty(value)?)
}

/// `unknown_model 2, missing_usage 1`: what was counted by name.
pub(super) fn counts<'a>(counts: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    let counts = counts.into_iter().map(|(name, count)| format!("{name} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// Something to know that is not part of the answer.
pub(super) fn remark(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "tollgate: {text}");
}
