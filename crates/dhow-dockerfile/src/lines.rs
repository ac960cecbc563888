//! Text to logical lines: continuations joined, comments dropped, heredoc bodies cut out.
use crate::diagnostic::{Diagnostic, Span};
use crate::directive::Head;
use crate::heredoc::Heredoc;

/// Docker refuses longer lines; a carriage return counts, the line feed does not.
const LINE_BYTES_MAX: usize = 65_535;

/// A line of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Physical<'a> {
    /// Without its line break.
    pub(crate) text: &'a str,
    /// With it.
    pub(crate) raw: &'a str,
    /// Counted from 1.
    pub(crate) number: usize,
    /// Offset of `raw` in the file.
    pub(crate) start: usize,
}

impl Physical<'_> {
    pub(crate) fn span(&self) -> Span {
        let end = self.start + self.text.len();
        Span { start_line: self.number, end_line: self.number, start: self.start, end }
    }

    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// The lines of `source`, a byte order mark left out.
pub(crate) fn physical_lines(source: &str) -> impl Iterator<Item = Physical<'_>> {
    let bom = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut start = bom;
    source[bom..].split_inclusive('\n').enumerate().map(move |(index, raw)| {
        let line = Physical { text: raw.trim_end_matches(['\r', '\n']), raw, number: index + 1, start };
        start += raw.len();
        line
    })
}

/// An instruction's text in one line.
#[derive(Clone, Debug)]
pub(crate) struct Logical {
    pub(crate) text: String,
    pub(crate) span: Span,
    /// The comment lines above, since the last instruction or empty comment.
    pub(crate) comments: Vec<String>,
    /// A blank line stands between continued lines.
    pub(crate) has_blank_continuation: bool,
}

/// Walks over the file.
pub(crate) struct Reader<'a> {
    lines: Vec<Physical<'a>>,
    at: usize,
    escape: char,
}

impl<'a> Reader<'a> {
    /// Starts behind the directives. Lines that are too long are reported here.
    pub(crate) fn new(source: &'a str, head: &Head, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let lines: Vec<_> = physical_lines(source).collect();
        let bytes = |line: &Physical<'_>| line.raw.strip_suffix('\n').unwrap_or(line.raw).len();
        for line in lines.iter().filter(|line| bytes(line) > LINE_BYTES_MAX) {
            let message = format!("dockerfile line greater than max allowed size of {LINE_BYTES_MAX}");
            diagnostics.push(Diagnostic::error(line.span(), message));
        }
        Self { lines, at: head.lines, escape: head.directives.escape }
    }

    /// The span of the whole file.
    pub(crate) fn whole(&self) -> Span {
        let end = self.lines.last().map_or(0, |line| line.start + line.raw.len());
        Span { start_line: 1, end_line: self.lines.len().max(1), start: 0, end }
    }

    /// The last line of `span`.
    pub(crate) fn last_line(&self, span: &Span) -> Span {
        self.lines.get(span.end_line.saturating_sub(1)).map_or(*span, Physical::span)
    }

    /// The next instruction.
    pub(crate) fn next_logical(&mut self) -> Option<Logical> {
        let mut comments = Vec::new();
        loop {
            let line = *self.lines.get(self.at)?;
            if line.is_comment() {
                note_comment(&mut comments, line.text);
            } else if !line.is_blank() {
                return Some(self.joined(comments));
            }
            self.at += 1;
        }
    }

    fn joined(&mut self, comments: Vec<String>) -> Logical {
        let first = self.lines[self.at];
        let mut logical =
            Logical { text: String::new(), span: first.span(), comments, has_blank_continuation: false };
        let (text, mut continues) = self.without_continuation(first.text.trim_start());
        logical.text.push_str(text);
        self.at += 1;
        while continues && let Some(&line) = self.lines.get(self.at) {
            self.at += 1;
            if line.is_blank() {
                logical.has_blank_continuation = true;
            } else if !line.is_comment() {
                let (text, more) = self.without_continuation(line.text);
                logical.text.push_str(text);
                continues = more;
            }
            logical.span.end_line = line.number;
            logical.span.end = line.span().end;
        }
        logical
    }

    /// The line without the escape character that continues it, and whether there was one.
    fn without_continuation<'t>(&self, line: &'t str) -> (&'t str, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (rest, true),
            _ => (line, false),
        }
    }

    /// Takes the lines up to the one that ends `heredoc` as its body. Without such a line nothing
    /// is taken and the answer is false.
    pub(crate) fn take_body(&mut self, heredoc: &mut Heredoc, span: &mut Span) -> bool {
        let ends = |line: &Physical<'_>| {
            let text = if heredoc.strip_tabs { line.text.trim_start_matches('\t') } else { line.text };
            text == heredoc.name
        };
        let Some(count) = self.lines[self.at..].iter().position(ends) else { return false };
        let body = &self.lines[self.at..self.at + count];
        heredoc.content = body.iter().map(|line| line.raw).collect();
        let last = self.lines[self.at + count];
        (span.end_line, span.end) = (last.number, last.span().end);
        self.at += count + 1;
        true
    }

    /// Leaves the rest unread.
    pub(crate) fn skip_to_end(&mut self) {
        self.at = self.lines.len();
    }
}

/// Adds a comment line; one without text separates what is above from what is below. Its first character is
/// dropped, whatever it is: the `#` of an indented comment stays, as in Docker.
fn note_comment(comments: &mut Vec<String>, line: &str) {
    let mut rest = line.chars();
    rest.next();
    match rest.as_str().trim() {
        "" => comments.clear(),
        text => comments.push(text.to_owned()),
    }
}
