//! Points in time as docker's users write them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const NS_PER_S: i64 = 1_000_000_000;

/// Reads a point in time: seconds since 1970, a date with or without a time (local unless it says otherwise), or how
/// long before `now`, such as `10m` or `1h30m`. Returns nanoseconds since 1970.
pub fn nanoseconds(text: &str, now: Timestamp) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let ns = |time: Timestamp| i64::try_from(time.as_nanosecond()).ok();
    if let Ok(seconds) = whole.parse::<i64>()
        && fraction.bytes().all(|c| c.is_ascii_digit())
    {
        let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
        return seconds.checked_mul(NS_PER_S)?.checked_add(digits.parse().ok()?);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return ns(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return ns(time.to_zoned(TimeZone::system()).ok()?.timestamp());
    }
    let seconds = duration_seconds(text)?;
    Some(ns(now)?.saturating_sub((seconds * NS_PER_S as f64) as i64))
}

/// The same in whole seconds.
pub fn seconds(text: &str, now: Timestamp) -> Option<i64> {
    nanoseconds(text, now).map(|ns| ns.div_euclid(NS_PER_S))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_relative() {
        let now = Timestamp::from_second(1_000_000).expect("a time");
        let check = |text: &str, expected| assert_eq!(seconds(text, now), expected, "{text}");
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
        check("99999999999999", None);
        assert_eq!(nanoseconds("1.5", now), Some(1_500_000_000));
        assert_eq!(nanoseconds("1136073600.000000001", now), Some(1_136_073_600_000_000_001));
        assert_eq!(nanoseconds("1ms", now), Some(999_999_999_000_000));
        check("yesterday", None);
    }
}
