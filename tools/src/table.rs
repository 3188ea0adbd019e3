//! Tables for people: plain columns under their names, as wide as they need to be; numbers stand to the right.

use std::fmt;

/// Rows under column names.
#[derive(Debug)]
pub struct Table {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(names: &[&str]) -> Table {
        Table {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, which has a cell for each column.
    pub fn row<T: ToString>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| cell.to_string()).collect();
        assert!(
            cells.len() == self.names.len(),
            "a row has a cell for each column"
        );
        self.rows.push(cells);
    }

    fn is_numeric(&self, column: usize) -> bool {
        let number = |cell: &String| {
            cell.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+')
                && cell.chars().any(|c| c.is_ascii_digit())
                || cell == "-"
        };
        let mut cells = self
            .rows
            .iter()
            .map(|row| &row[column])
            .filter(|cell| !cell.is_empty());
        cells.clone().any(|cell| cell != "-") && cells.all(number)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<(usize, bool)> = (0..self.names.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].chars().count());
                let name = self.names[column].chars().count();
                (cells.max().unwrap_or(0).max(name), self.is_numeric(column))
            })
            .collect();
        for row in std::iter::once(&self.names).chain(&self.rows) {
            let mut line = String::new();
            for (cell, (width, is_numeric)) in row.iter().zip(&columns) {
                let padded = match is_numeric {
                    true => format!("{cell:>width$}  "),
                    false => format!("{cell:<width$}  "),
                };
                line.push_str(&padded);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_names_and_numbers_to_the_right() {
        let mut table = Table::new(&["TOPIC", "LAG"]);
        table.row(["readings", "7"]);
        table.row(["a", "1200"]);
        table.row(["b", "-"]);
        let expected = "TOPIC      LAG\nreadings     7\na         1200\nb            -\n";
        assert_eq!(table.to_string(), expected);
    }
}
