//! Errors as the API tells them.

use hyper::StatusCode;

/// An answer that is none.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The client asks for something that cannot be.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Something is known and not done here.
    pub(crate) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported by dhow"))
    }

    /// Whatever else went wrong, with its causes.
    pub(crate) fn of(status: StatusCode, error: &dyn std::error::Error) -> Self {
        Self::new(status, chain(error))
    }
}

/// An error and what caused it, on one line. Those that repeat their cause say it once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Gives error types their status: those named here, and 500 for the rest.
macro_rules! statuses {
    ($($error:ty { $($pattern:pat $(if $guard:expr)? => $status:ident),* $(,)? })*) => {
        $(impl From<$error> for ApiError {
            fn from(error: $error) -> Self {
                #[allow(unreachable_patterns)]
                let status = match &error {
                    $($pattern $(if $guard)? => hyper::StatusCode::$status,)*
                    _ => hyper::StatusCode::INTERNAL_SERVER_ERROR,
                };
                ApiError::of(status, &error)
            }
        })*
    };
}
pub(crate) use statuses;
