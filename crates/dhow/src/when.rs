use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::error::CliError;

/// Reads a point in time as docker does: seconds since 1970, a date with or without a time (local unless it
/// says otherwise), or how long ago, such as `10m` or `1h30m`. Returns seconds since 1970.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<i64, CliError> {
    let invalid = || CliError::new(format!("'{text}' is not a time, such as 2026-01-31T12:00:00 or 24h"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Ok(seconds) = whole.parse::<i64>()
        && fraction.bytes().all(|c| c.is_ascii_digit())
    {
        return Ok(seconds);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_second());
    }
    if let Ok(time) = text.parse::<DateTime>() {
        let zoned = time.to_zoned(TimeZone::system()).map_err(|_| invalid())?;
        return Ok(zoned.timestamp().as_second());
    }
    let seconds = duration_seconds(text).ok_or_else(invalid)?;
    Ok(now.as_second().saturating_sub(seconds))
}

/// Go's durations: numbers with units, one after the other.
fn duration_seconds(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty() && total < i64::MAX as f64).then_some(total as i64)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_relative() {
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let check = |text: &str, seconds| assert_eq!(parse(text, now).ok(), seconds, "{text}");
        check("10m", Some(999_400));
        check("1h30m", Some(994_600));
        check("1.5h", Some(994_600));
        check("123", Some(123));
        check("123.5", Some(123));
        check("1970-01-01T00:02:00Z", Some(120));
        check("1970-01-01T01:02:00+01:00", Some(120));
        check("", None);
        check("10", Some(10));
        check("10x", None);
        check("yesterday", None);
    }
}
