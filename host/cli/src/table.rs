//! Plain tables for a terminal.

use std::fmt;

/// A text for a terminal. Whatever would move the cursor is shown as a dot: much of it comes from afar.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '·' } else { letter }).collect()
}

/// Rows under headings, columns as wide as their widest cell.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| heading.to_uppercase()).collect()] }
    }

    /// Adds a row, [`clean`].
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "  {}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// `8.0 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    let (whole, tenth, unit) = match count {
        0..=1023 => return format!("{count} B"),
        1024..=1_048_575 => (count >> 10, ((count & 1023) * 10) >> 10, "KiB"),
        _ => (count >> 20, ((count & 1_048_575) * 10) >> 20, "MiB"),
    };
    format!("{whole}.{tenth} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_nothing_moves_the_cursor() {
        let mut table = Table::new(&["id", "why"]);
        table.row(["broker-1".into(), "a\u{1b}[2J".into()]);
        assert_eq!(table.to_string(), "  ID        WHY\n  broker-1  a·[2J\n");
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!([bytes(7), bytes(1536), bytes(8 << 20)], ["7 B", "1.5 KiB", "8.0 MiB"]);
    }
}
