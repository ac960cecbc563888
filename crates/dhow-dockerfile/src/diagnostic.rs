//! What is wrong with a text, where, and what to do about it.
use std::fmt::Write as _;

use crate::rule::Rule;

/// A part of the source text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First line, counted from 1.
    pub start_line: usize,
    /// Last line, counted from 1.
    pub end_line: usize,
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

/// Whether a build can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be built.
    Error,
    /// The file can be built, perhaps not into what its author meant.
    Warning,
}

/// One finding about a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether a build can go on.
    pub severity: Severity,
    /// The lint rule that speaks; `None` for errors and warnings proper.
    pub rule: Option<Rule>,
    /// What is wrong, in one line.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What the author can do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(crate) fn error(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, rule: None, message: message.into(), span, hint: None }
    }

    pub(crate) fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// What a lint rule has found.
    pub fn lint(rule: Rule, span: Span, message: impl Into<String>) -> Self {
        Self { rule: Some(rule), ..Self::warning(span, message) }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether this stops a build.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The finding for people: message, place, the marked lines and the hint. `name` is what the
    /// user calls the file and `source` its text.
    pub fn render(&self, name: &str, source: &str) -> String {
        let kind = match (self.severity, self.rule) {
            (Severity::Error, _) => "Error",
            (Severity::Warning, _) => "Warning",
        };
        let rule = self.rule.map(|rule| format!("{rule}: ")).unwrap_or_default();
        let mut out =
            format!("{kind}: {rule}{}\n{}", printable(&self.message), excerpt(name, source, self.span));
        if let Some(hint) = &self.hint {
            writeln!(out, "Hint: {}", printable(hint)).expect("writing to a String cannot fail");
        }
        out
    }
}

/// Lines shown before and after the marked ones.
const CONTEXT_LINES: usize = 2;
/// Marked lines shown; what lies between is left out.
const MARKED_LINES_MAX: usize = 16;
/// Characters shown of one line.
const LINE_CHARS_MAX: usize = 200;

/// The lines of `span` marked with `>>>` and two lines around them, headed by `name` and line.
pub fn excerpt(name: &str, source: &str, span: Span) -> String {
    let mut out = format!("  --> {name}:{}\n", span.start_line);
    let first = span.start_line.saturating_sub(CONTEXT_LINES).max(1);
    let last = span.end_line.saturating_add(CONTEXT_LINES);
    let width = last.to_string().len().max(4);
    let marked_last = span.start_line.saturating_add(MARKED_LINES_MAX);
    let lines = source.lines().enumerate().map(|(index, line)| (index + 1, line));
    for (number, line) in lines.skip(first - 1).take_while(|(number, _)| *number <= last) {
        let marked = (span.start_line..=span.end_line).contains(&number);
        if marked && number > marked_last {
            if number == marked_last + 1 {
                writeln!(out, "{:>width$} |", "...").expect("writing to a String cannot fail");
            }
            continue;
        }
        let mark = if marked { ">>>" } else { "" };
        let text = format!("{number:>width$} | {mark:3} {}", printable(line));
        writeln!(out, "{}", text.trim_end()).expect("writing to a String cannot fail");
    }
    out
}

/// A line that cannot steer a terminal, cut to a readable length.
fn printable(line: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    let mut text: String = line.chars().take(LINE_CHARS_MAX).map(shown).collect();
    if line.chars().nth(LINE_CHARS_MAX).is_some() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn rendering_marks_the_lines_and_disarms_control_characters() {
        let source = "FROM a\n\nRUNN \x1b[31mx \\\n  y\nRUN z\n";
        let span = Span { start_line: 3, end_line: 4, start: 8, end: 22 };
        let diagnostic = Diagnostic::error(span, "unknown instruction: RUNN").with_hint("write RUN");
        expect![[r#"
            Error: unknown instruction: RUNN
              --> Dockerfile:3
               1 |     FROM a
               2 |
               3 | >>> RUNN �[31mx \
               4 | >>>   y
               5 |     RUN z
            Hint: write RUN
        "#]]
        .assert_eq(&diagnostic.render("Dockerfile", source));
    }

    #[test]
    fn a_long_instruction_is_not_shown_in_full() {
        let source = "RUN a\\\n".repeat(100);
        let span = Span { start_line: 1, end_line: 100, start: 0, end: source.len() };
        let text = excerpt("Dockerfile", &source, span);
        assert!(text.lines().count() < 30, "{text}");
        assert!(text.contains("...") && text.contains(" 17 |"), "{text}");
    }
}
