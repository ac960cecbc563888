//! What a line of text takes on a terminal.

/// A line without what moves the cursor or changes colours, cut to `cells` columns. A live line must not
/// wrap, or the count of lines to go back is wrong.
pub(super) fn cut(line: &str, cells: usize) -> String {
    let mut left = cells;
    let fits = |c: &char| {
        let room = left.checked_sub(width(*c));
        left = room.unwrap_or(left);
        room.is_some()
    };
    plain(line).chars().take_while(fits).collect()
}

/// The columns that a line takes.
pub(super) fn cells(line: &str) -> usize {
    plain(line).chars().map(width).sum()
}

/// Whether a character takes no column, one or two. Where terminals differ the larger answer is taken.
fn width(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x231a..=0x23ff | 0x2600..=0x27bf | 0x2b00..=0x2bff => 2,
        0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 => 2,
        0x1f000..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// `line` without escape sequences and control characters; a tab becomes a space.
pub(super) fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_escape(&mut chars),
            '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        // Parameters, then one letter.
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        // A text, such as the title of the window, up to a bell or another escape.
        Some(']') => {
            while let Some(c) = chars.next() {
                match c {
                    '\x07' => return,
                    '\x1b' => {
                        chars.next();
                        return;
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_what_moves_the_cursor_and_fit() {
        for (line, columns, shown) in [
            ("\x1b[31mred\x1b[0m alert", 7, "red ale"),
            ("tab\tand\x07bell", 80, "tab andbell"),
            ("\x1b]0;title\x07text", 80, "text"),
            ("\x1b]0;title\x1b\\text", 80, "text"),
            ("\u{65e5}\u{672c}\u{8a9e}", 5, "\u{65e5}\u{672c}"),
            ("\x1b[", 80, ""),
        ] {
            assert_eq!(cut(line, columns), shown, "{line:?}");
        }
        assert_eq!(cells("\u{1f4e6} box"), 6);
    }
}
