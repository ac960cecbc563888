//! Any bytes as a Dockerfile: it is read or refused, every finding can be shown, and what was read can be written.

use dhow_dockerfile::{Dockerfile, expand, expand_heredoc, expand_words, sexpr};

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (dockerfile, diagnostics) = Dockerfile::parse(&text);
    for found in &diagnostics {
        let span = found.span;
        assert!(span.start <= span.end && span.end <= text.len(), "{span:?} of {} bytes", text.len());
        assert!(1 <= span.start_line && span.start_line <= span.end_line, "{span:?}");
        assert!(!found.render("Dockerfile", &text).is_empty());
    }
    let names = |dockerfile: &Dockerfile| -> Vec<&'static str> {
        let instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
        instructions.map(|instruction| instruction.kind.name()).collect()
    };
    if !diagnostics.iter().any(|found| found.is_error()) {
        assert!(sexpr(&text).is_ok(), "a file that can be built has a tree");
        let (again, diagnostics) = Dockerfile::parse(&dockerfile.to_string());
        assert!(!diagnostics.iter().any(|found| found.is_error()), "{dockerfile}\n{diagnostics:?}");
        assert_eq!(names(&dockerfile), names(&again), "{dockerfile}");
        assert_eq!(dockerfile.stages.len(), again.stages.len(), "{dockerfile}");
    }
    let value = |name: &str| name.len().is_multiple_of(2).then(|| "a b".to_owned());
    for line in text.lines() {
        drop((expand(line, '\\', value), expand_words(line, '`', value), expand_heredoc(line, value)));
    }
}
