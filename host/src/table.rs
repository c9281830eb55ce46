//! Rows in columns as wide as they need to be, and notes between them.
//!
//! Cells may hold what clients sent, so nothing in them can move the cursor or colour the screen.

use tollgate_domain::text::printable;

/// A table under way.
pub(crate) struct Table {
    lines: Vec<Line>,
    /// Columns that hold numbers.
    right: Vec<usize>,
}

enum Line {
    Row(Vec<String>),
    Note(String),
}

impl Table {
    /// One with these headings.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self::with(headings.map(str::to_owned).into())
    }

    /// One with as many columns as there are headings.
    pub(crate) fn with(headings: Vec<String>) -> Self {
        Self { lines: vec![Line::Row(headings)], right: Vec::new() }
    }

    /// Aligns these columns, counted from zero, to the right.
    pub(crate) fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.right.extend(columns);
        self
    }

    /// Adds a row.
    pub(crate) fn row<T: AsRef<str>>(&mut self, cells: impl AsRef<[T]>) {
        let cells = cells.as_ref().iter().map(|cell| printable(cell.as_ref()));
        self.lines.push(Line::Row(cells.collect()));
    }

    /// Adds a line of its own below the last row.
    pub(crate) fn note(&mut self, text: &str) {
        self.lines.push(Line::Note(printable(text)));
    }

    /// All lines.
    pub(crate) fn text(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for line in &self.lines {
            match line {
                Line::Note(note) => text.push_str(&format!("  {note}")),
                Line::Row(cells) => {
                    let mut row = String::new();
                    for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
                        if self.right.contains(&column) {
                            row.push_str(&format!("{cell:>width$}  "));
                        } else {
                            row.push_str(&format!("{cell:width$}  "));
                        }
                    }
                    text.push_str(row.trim_end());
                }
            }
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for line in &self.lines {
            if let Line::Row(cells) = line {
                widths.resize(widths.len().max(cells.len()), 0);
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = cell.chars().count().max(*width);
                }
            }
        }
        widths
    }
}

/// Enough of a digest to tell two builds apart.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_nothing_moves_the_cursor() {
        let mut table = Table::new(["NAME", "COUNT"]).right([1]);
        table.row(["a\u{1b}[2J", "7"]);
        table.note("more\nof it");
        table.row(["b", "1234567"]);
        assert_eq!(
            table.text(),
            "\
NAME          COUNT
a\\u{1b}[2J        7
  more\\u{a}of it
b           1234567
"
        );
    }
}
