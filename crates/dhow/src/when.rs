use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::CliError;

fn invalid(text: &str) -> CliError {
    CliError::new(format!("'{text}' is not a time, such as 2026-01-31T12:00:00 or 24h"))
}

/// Reads a point in time as docker does: seconds since 1970, a date with or without a time (local unless it
/// says otherwise), or how long ago, such as `10m` or `1h30m`. Returns seconds since 1970.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<i64, CliError> {
    dhow_serve::when::seconds(text, now).ok_or_else(|| invalid(text))
}

/// The same in nanoseconds.
pub(crate) fn parse_ns(text: &str, now: Timestamp) -> Result<i64, CliError> {
    dhow_serve::when::nanoseconds(text, now).ok_or_else(|| invalid(text))
}

/// How long ago a time is, as lists show it.
pub(crate) fn ago(seconds: i64, now: Timestamp) -> String {
    let elapsed = u64::try_from(now.as_second().saturating_sub(seconds)).unwrap_or(0);
    format!("{} ago", dhow_template::units::human_duration(elapsed))
}

/// A time as Go prints it: `2026-01-31 12:00:00 +0000 UTC`.
pub(crate) fn local(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string(),
        Err(_) => "N/A".to_owned(),
    }
}
