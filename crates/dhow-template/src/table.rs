//! Text in columns, laid out as docker does through Go's `tabwriter`.

use unicode_width::UnicodeWidthStr;

/// The narrowest column, its gap included.
const CELL_WIDTH_MIN: usize = 10;
/// The gap between two columns.
const CELL_GAP: usize = 3;

/// Headers and rows of text.
///
/// ```
/// use dhow_template::Table;
///
/// let mut table = Table::new(["NETWORK ID", "NAME"]);
/// table.row(["9f3a", "bridge"]);
/// assert_eq!(table.render(), "NETWORK ID   NAME\n9f3a         bridge\n");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Table {
    lines: Vec<String>,
}

impl Table {
    /// A table with only its header.
    pub fn new<S: AsRef<str>>(headers: impl IntoIterator<Item = S>) -> Self {
        let mut table = Self::default();
        table.row(headers);
        table
    }

    /// Adds a row below the others.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        // A tab or line end inside a cell would shift all that follow.
        let clean = |cell: S| cell.as_ref().replace(['\t', '\n'], " ");
        let cells: Vec<String> = cells.into_iter().map(clean).collect();
        self.lines.push(cells.join("\t"));
    }

    /// The table as text, a line per row.
    pub fn render(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        align(&text)
    }
}

/// Replaces the tabs of `text` by spaces so that cells stand in columns.
///
/// A tab ends a cell. A column is as wide as the widest cell in a run of lines that have that cell,
/// plus a gap of three, and at least ten. What follows a line's last tab belongs to no column.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let widths = column_widths(&lines);
    let mut out = String::with_capacity(text.len() * 2);
    for (i, (line, widths)) in lines.iter().zip(&widths).enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        for (column, cell) in line.iter().enumerate() {
            out.push_str(cell);
            let width = widths.get(column).copied().unwrap_or(0);
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width())));
        }
    }
    out
}

/// For each line, the widths of the cells that a tab ends.
fn column_widths(lines: &[Vec<&str>]) -> Vec<Vec<usize>> {
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            let run = widths[start..].iter().take_while(|w| w.len() > column).count();
            let block = start..start + run;
            let widest = lines[block.clone()].iter().map(|line| line[column].width() + CELL_GAP).max();
            let width = widest.unwrap_or(0).max(CELL_WIDTH_MIN);
            widths[block].iter_mut().for_each(|w| w[column] = width);
            start += run + 1;
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(align(text), expected);
    }

    #[test]
    fn a_column_is_at_least_ten_wide_and_three_wider_than_its_widest_cell() {
        check(
            "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\nalpine\tlatest\t0d81fc72e790\t2 weeks ago\t5.54MB\n",
            "REPOSITORY   TAG       IMAGE ID       CREATED       SIZE\n\
             alpine       latest    0d81fc72e790   2 weeks ago   5.54MB\n",
        );
        check("A\tB\nx\ty\n", "A         B\nx         y\n");
    }

    #[test]
    fn a_line_without_a_cell_ends_that_column() {
        check(
            "a\tb\tc\nmuch longer cell\tb\n\na\tb\n",
            "a                  b         c\nmuch longer cell   b\n\na         b\n",
        );
    }

    #[test]
    fn widths_are_those_of_the_terminal() {
        check("日本語日本語\tx\nabcdefghijkl\tx\n", "日本語日本語   x\nabcdefghijkl   x\n");
    }

    #[test]
    fn a_cell_cannot_break_its_row() {
        let mut table = Table::new(["A", "B"]);
        table.row(["x\ty", "line\nend"]);
        assert_eq!(table.render(), "A         B\nx y       line end\n");
    }
}
