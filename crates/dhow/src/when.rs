use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::error::CliError;

const NS_PER_S: i64 = 1_000_000_000;

/// Reads a point in time as docker does: seconds since 1970, a date with or without a time (local unless it
/// says otherwise), or how long ago, such as `10m` or `1h30m`. Returns seconds since 1970.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<i64, CliError> {
    Ok(parse_ns(text, now)?.div_euclid(NS_PER_S))
}

/// The same in nanoseconds.
pub(crate) fn parse_ns(text: &str, now: Timestamp) -> Result<i64, CliError> {
    let invalid = || CliError::new(format!("'{text}' is not a time, such as 2026-01-31T12:00:00 or 24h"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds = |time: Timestamp| i64::try_from(time.as_nanosecond()).map_err(|_| invalid());
    if let Ok(seconds) = whole.parse::<i64>()
        && fraction.bytes().all(|c| c.is_ascii_digit())
    {
        let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
        let fraction: i64 = digits.parse().map_err(|_| invalid())?;
        return seconds.checked_mul(NS_PER_S).and_then(|ns| ns.checked_add(fraction)).ok_or_else(invalid);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return nanoseconds(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        let zoned = time.to_zoned(TimeZone::system()).map_err(|_| invalid())?;
        return nanoseconds(zoned.timestamp());
    }
    let seconds = duration_seconds(text).ok_or_else(invalid)?;
    Ok(nanoseconds(now)?.saturating_sub((seconds * NS_PER_S as f64) as i64))
}

/// Go's durations: numbers with units, one after the other.
fn duration_seconds(text: &str) -> Option<f64> {
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
    (!text.is_empty()).then_some(total)
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
        assert_eq!(parse_ns("1.5", now).ok(), Some(1_500_000_000));
        assert_eq!(parse_ns("1ms", now).ok(), Some(999_999_999_000_000));
        check("yesterday", None);
    }
}
