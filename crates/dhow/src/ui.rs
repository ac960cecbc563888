use std::fmt;
use std::io::{self, IsTerminal as _, Write};

use crate::error::{CliError, output_error};

/// Where a command prints. Results go to standard output, everything about the work to standard error.
pub(crate) struct Ui {
    out: io::BufWriter<io::Stdout>,
}

impl Ui {
    pub(crate) fn new() -> Ui {
        Ui { out: io::BufWriter::new(io::stdout()) }
    }

    /// Prints a line of the result.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), CliError> {
        writeln!(self.out, "{text}").map_err(|error| output_error(&error))
    }

    /// Prints part of the result as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Prints bytes of the result as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).map_err(|error| output_error(&error))
    }

    /// Makes what was printed visible now.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush().map_err(|error| output_error(&error))
    }

    /// Whether standard output is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Tells the user something beside the result.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        // Standard error gone means that nobody is left to be told.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Warns.
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        self.note(format_args!("WARNING: {text}"));
    }
}
