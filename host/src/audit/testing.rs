//! Records for the tests of this folder, and a look into comma-separated lines.

pub(super) use tollgate_summary::testing::*;

/// The cells of one column of comma-separated lines.
pub(super) fn column(text: &str, name: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let place = reader.headers().unwrap().iter().position(|heading| heading == name).unwrap();
    reader.records().map(|row| row.unwrap()[place].to_owned()).collect()
}
