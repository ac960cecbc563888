//! What went wrong in a template, and where.

/// Why a template could not be read or run.
///
/// The text has the shape docker prints, so scripts that look for it keep working.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is not a template.
    #[error("template parsing error: template: :{line}: {message}")]
    Parse {
        /// Line of the offending token, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The template is well formed but does not fit the data, or outgrew a limit.
    #[error(
        "template parsing error: template: :{line}:{column}: executing {template:?} at <{at}>: {message}"
    )]
    Exec {
        /// Line of the offending node, from 1.
        line: usize,
        /// Byte column of the offending node, from 0 as Go counts it.
        column: usize,
        /// Name of the `define`d template that was running; empty for the main one.
        template: String,
        /// The offending node as text.
        at: String,
        /// What is wrong with it.
        message: String,
    },
}
