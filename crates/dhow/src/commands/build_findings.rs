use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Mutex;

use dhow_engine::BuildEvent;

use crate::ui::Ui;

/// More findings than this are counted, not listed: `--check` shows them all.
const LISTED_MAX: usize = 20;

/// What the rules found during a build, told once it is over.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<Vec<String>>);

impl Findings {
    /// Takes down what an event says about a rule.
    pub(crate) fn note(&self, event: &BuildEvent<'_>) {
        if let BuildEvent::Warning { diagnostic, .. } = event
            && let Some(rule) = diagnostic.rule
        {
            let line = diagnostic.span.start_line;
            let finding = format!("{}: {} (line {line})", rule.name(), diagnostic.message);
            self.0.lock().expect("no display panics").push(finding);
        }
    }

    /// Lists them the way docker does.
    pub(crate) fn tell(self, ui: &Ui) {
        let text = summary(self.0.into_inner().expect("no display panics"));
        if !text.is_empty() {
            ui.note(text.trim_end_matches('\n'));
        }
    }
}

fn summary(mut findings: Vec<String>) -> String {
    let mut seen = HashSet::new();
    findings.retain(|finding| seen.insert(finding.clone()));
    let mut text = match findings.len() {
        0 => return String::new(),
        1 => "\n 1 warning found (use --check to expand):\n".to_owned(),
        count => format!("\n {count} warnings found (use --check to expand):\n"),
    };
    for finding in findings.iter().take(LISTED_MAX) {
        // A name in a Dockerfile cannot steer the terminal.
        let finding: String =
            finding.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        writeln!(text, " - {finding}").expect("writing to a String cannot fail");
    }
    if let Some(more @ 1..) = findings.len().checked_sub(LISTED_MAX) {
        writeln!(text, " - and {more} more").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_listed_once_and_not_endlessly() {
        assert_eq!(summary(Vec::new()), "");
        assert_eq!(
            summary(vec!["A: b (line 1)".to_owned(); 2]),
            "\n 1 warning found (use --check to expand):\n - A: b (line 1)\n"
        );
        let many = summary((0..30).map(|line| format!("A: b (line {line})")).collect());
        assert!(many.contains(" 30 warnings found") && many.ends_with(" - and 10 more\n"), "{many}");
    }
}
