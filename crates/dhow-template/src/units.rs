//! Sizes, durations and cut texts as docker shows them to people.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::float;

const DECIMAL: (f64, [&str; 7]) = (1000.0, ["B", "kB", "MB", "GB", "TB", "PB", "EB"]);
const BINARY: (f64, [&str; 7]) = (1024.0, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY_HOURS: u64 = 24;
const WEEK_HOURS: u64 = 7 * DAY_HOURS;
const MONTH_HOURS: u64 = 30 * DAY_HOURS;
const YEAR_HOURS: u64 = 365 * DAY_HOURS;

/// Decimal units and three digits, as image lists show: `5.54MB`, `13.3kB`, `0B`.
///
/// ```
/// assert_eq!(dhow_template::units::human_size(5_540_123), "5.54MB");
/// ```
pub fn human_size(bytes: u64) -> String {
    size(bytes, DECIMAL, 3)
}

/// Decimal units and four digits, as prune and network counters show: `1.234GB`.
pub fn human_size4(bytes: u64) -> String {
    size(bytes, DECIMAL, 4)
}

/// Binary units and four digits, as memory is shown: `23.45MiB`.
pub fn bytes_size(bytes: u64) -> String {
    size(bytes, BINARY, 4)
}

/// Docker's own rounding yields `1e+03kB` just below a unit's end; here that becomes `1MB`.
fn size(bytes: u64, (base, units): (f64, [&str; 7]), digits: usize) -> String {
    // A u64 of bytes beyond 2^53 loses digits nobody is shown.
    let mut size = bytes as f64;
    let mut unit = 0;
    let shown = |size| float::format(size, 'g', Some(digits));
    while unit + 1 < units.len() && (size >= base || shown(size).contains('e')) {
        size /= base;
        unit += 1;
    }
    shown(size) + units[unit]
}

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// There is no number, or not a sensible one.
    #[error("invalid size: '{0}'")]
    Number(String),
    /// What follows the number is no unit.
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
}

/// Reads an amount of memory: `512m`, `1g`, `1.5GiB`, `64 MB`. Units are binary whatever their name.
///
/// ```
/// assert_eq!(dhow_template::units::ram_in_bytes("1.5GiB"), Ok(1_610_612_736));
/// ```
pub fn ram_in_bytes(text: &str) -> Result<u64, SizeError> {
    let invalid = || SizeError::Number(text.to_owned());
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let (number, suffix) = text.split_at(last + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let plain = number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'e' | b'E'));
    let number: f64 = number.parse().ok().filter(|_| plain).ok_or_else(invalid)?;
    let bytes = number * multiplier(&suffix.to_lowercase())?;
    // The largest size docker can hold is an i64.
    if bytes < i64::MAX as f64 { Ok(bytes as u64) } else { Err(invalid()) }
}

fn multiplier(suffix: &str) -> Result<f64, SizeError> {
    let invalid = || SizeError::Suffix(suffix.to_owned());
    let Some(first) = suffix.chars().next() else { return Ok(1.0) };
    if suffix == "b" {
        return Ok(1.0);
    }
    let power = "kmgtp".find(first).ok_or_else(invalid)?;
    if !matches!(&suffix[1..], "" | "b" | "ib") {
        return Err(invalid());
    }
    let power = i32::try_from(power).map_err(|_| invalid())?;
    Ok(1024f64.powi(power + 1))
}

/// How long something took or is ago: `Less than a second`, `About an hour`, `2 weeks`.
pub fn human_duration(seconds: u64) -> String {
    let minutes = seconds / MINUTE;
    let hours = (seconds + HOUR / 2) / HOUR;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (..MINUTE, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".into(),
        (.., ..48) => format!("{hours} hours"),
        _ if hours < 2 * WEEK_HOURS => format!("{} days", hours / DAY_HOURS),
        _ if hours < 2 * MONTH_HOURS => format!("{} weeks", hours / WEEK_HOURS),
        _ if hours < 2 * YEAR_HOURS => format!("{} months", hours / MONTH_HOURS),
        _ => format!("{} years", seconds / HOUR / YEAR_HOURS),
    }
}

/// Cuts `text` to `width` terminal cells, the last of which then is `…`.
///
/// ```
/// assert_eq!(dhow_template::units::ellipsis("python /usr/src/app/app.py", 20), "python /usr/src/app…");
/// ```
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    if width <= 1 {
        return text.chars().take(width).collect();
    }
    let mut left = width - 1;
    let mut out = String::new();
    for c in text.chars() {
        match left.checked_sub(c.width().unwrap_or(0)) {
            Some(rest) => left = rest,
            None => break,
        }
        out.push(c);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_or_four_significant_digits() {
        let check = |bytes, three: &str, four: &str, binary: &str| {
            assert_eq!(human_size(bytes), three);
            assert_eq!(human_size4(bytes), four);
            assert_eq!(bytes_size(bytes), binary);
        };
        check(0, "0B", "0B", "0B");
        check(999, "999B", "999B", "999B");
        check(1000, "1kB", "1kB", "1000B");
        check(13_256, "13.3kB", "13.26kB", "12.95KiB");
        check(5_544_000, "5.54MB", "5.544MB", "5.287MiB");
        check(114_000_000, "114MB", "114MB", "108.7MiB");
        check(1_234_567_890, "1.23GB", "1.235GB", "1.15GiB");
        check(u64::MAX, "18.4EB", "18.45EB", "16EiB");
    }

    #[test]
    fn a_size_never_shows_an_exponent() {
        assert_eq!(human_size(999_999), "1MB");
        assert_eq!(human_size4(999_999), "1000kB");
        assert_eq!(human_size(999_499), "999kB");
        assert_eq!(bytes_size((1 << 20) - 4), "1024KiB");
    }

    #[test]
    fn memory_is_read_with_binary_units() {
        let check = |text: &str, bytes: Result<u64, &str>| {
            assert_eq!(ram_in_bytes(text).map_err(|e| e.to_string()), bytes.map_err(str::to_owned), "{text}");
        };
        check("32", Ok(32));
        check("32b", Ok(32));
        check("512m", Ok(512 << 20));
        check("1g", Ok(1 << 30));
        check("1.5GiB", Ok(3 << 29));
        check("64 MB", Ok(64 << 20));
        check("2T", Ok(2 << 40));
        check("", Err("invalid size: ''"));
        check("m", Err("invalid size: 'm'"));
        check("-1m", Err("invalid size: '-1m'"));
        check("1.2.3", Err("invalid size: '1.2.3'"));
        check("99999999p", Err("invalid size: '99999999p'"));
        check("1x", Err("invalid suffix: 'x'"));
        check("1kx", Err("invalid suffix: 'kx'"));
        check("1 µb", Err("invalid suffix: 'µb'"));
    }

    #[test]
    fn durations_round_as_docker_rounds() {
        let (hour, day) = (3600, 86_400);
        let check = |seconds, text: &str| assert_eq!(human_duration(seconds), text, "{seconds}");
        check(0, "Less than a second");
        check(1, "1 second");
        check(3, "3 seconds");
        check(59, "59 seconds");
        check(60, "About a minute");
        check(119, "About a minute");
        check(120, "2 minutes");
        check(59 * 60 + 59, "59 minutes");
        check(hour, "About an hour");
        check(89 * 60, "About an hour");
        check(90 * 60, "2 hours");
        check(47 * hour, "47 hours");
        check(48 * hour, "2 days");
        check(13 * day, "13 days");
        check(14 * day, "2 weeks");
        check(59 * day, "8 weeks");
        check(60 * day, "2 months");
        check(729 * day, "24 months");
        check(730 * day, "2 years");
        check(3 * 365 * day + 5, "3 years");
    }

    #[test]
    fn a_cut_text_ends_in_an_ellipsis_and_fits() {
        let check = |text: &str, width, expected: &str| assert_eq!(ellipsis(text, width), expected);
        check("short", 5, "short");
        check("longer", 5, "long…");
        check("日本語日本語", 6, "日本…");
        check("ab", 1, "a");
        check("ab", 0, "");
        check("", 0, "");
    }
}
