//! Turning the kernel's errors into sentences.

use std::fmt::Display;

use crate::StartError;

/// Says what was being done when an error came.
pub(crate) trait Step<T> {
    /// Wraps the error as "`doing`: error".
    fn step(self, doing: impl Display) -> Result<T, StartError>;
}

impl<T, E: std::error::Error> Step<T> for Result<T, E> {
    fn step(self, doing: impl Display) -> Result<T, StartError> {
        self.map_err(|error| {
            let mut text = format!("{doing}: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            StartError::Setup(text)
        })
    }
}
