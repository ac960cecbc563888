use std::fmt;
use std::io;

/// Exit status of a command that failed, docker's convention.
pub(crate) const EXIT_FAILURE: u8 = 1;

/// What a command tells its user when it could not do its work.
#[derive(Debug)]
pub(crate) struct CliError {
    /// One sentence or paragraph: what, and where.
    message: String,
    /// Something the user can do about it.
    hint: Option<String>,
    /// Exit status of the process.
    exit_code: u8,
}

impl CliError {
    pub(crate) fn new(message: impl Into<String>) -> CliError {
        CliError { message: message.into(), hint: None, exit_code: EXIT_FAILURE }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn exit_code(mut self, exit_code: u8) -> CliError {
        self.exit_code = exit_code;
        self
    }

    pub(crate) fn code(&self) -> u8 {
        self.exit_code
    }

    /// Whether this is only the other end of our output having gone away, as in `dhow images | head -1`.
    pub(crate) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nHint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Writes an error and what caused it on one line, the way Go programs do and docker's users expect.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Every error of the engine is told with its causes. `CliError` is not an error itself, so that this holds.
impl<E: std::error::Error> From<E> for CliError {
    fn from(error: E) -> CliError {
        CliError::new(chain(&error))
    }
}

/// An error of writing to our own output.
pub(crate) fn output_error(error: &io::Error) -> CliError {
    match error.kind() {
        // Somebody closed the pipe; like every Unix tool, stop without a word. 141 is 128 + SIGPIPE.
        io::ErrorKind::BrokenPipe => CliError::new("").exit_code(141),
        _ => CliError::new(format!("cannot write the output: {error}")),
    }
}
