//! Rows in columns as wide as they need to be, and notes between them.

/// A table under way.
pub(super) struct Table<const N: usize> {
    lines: Vec<Line<N>>,
}

enum Line<const N: usize> {
    Row([String; N]),
    Note(String),
}

impl<const N: usize> Table<N> {
    /// One with these headings.
    pub(super) fn new(headings: [&str; N]) -> Self {
        Self { lines: vec![Line::Row(headings.map(str::to_owned))] }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: [&str; N]) {
        self.lines.push(Line::Row(cells.map(str::to_owned)));
    }

    /// Adds a line of its own below the last row.
    pub(super) fn note(&mut self, text: &str) {
        self.lines.push(Line::Note(text.to_owned()));
    }

    /// All lines.
    pub(super) fn text(&self) -> String {
        let mut widths = [0; N];
        for line in &self.lines {
            if let Line::Row(cells) = line {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = cell.chars().count().max(*width);
                }
            }
        }
        let mut text = String::new();
        for line in &self.lines {
            match line {
                Line::Note(note) => text.push_str(&format!("  {note}")),
                Line::Row(cells) => {
                    let mut row = String::new();
                    for (cell, width) in cells.iter().zip(widths) {
                        row.push_str(&format!("{cell:width$}  "));
                    }
                    text.push_str(row.trim_end());
                }
            }
            text.push('\n');
        }
        text
    }
}
