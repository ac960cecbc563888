//! Durations as Go writes them: `1h30m`, `1.5s`, `300ms`.
use std::time::Duration;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration that is not negative.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    if let Some(positive) = text.strip_prefix('-') {
        parse(positive)?;
        return Err(format!("duration {text:?} cannot be negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let (_, scale) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        let part = scaled(number, *scale).ok_or_else(invalid)?;
        nanos = nanos.checked_add(part).filter(|sum| i64::try_from(*sum).is_ok()).ok_or_else(invalid)?;
        rest = tail;
    }
    Ok(Duration::from_nanos(nanos))
}

/// `number`, a decimal with an optional fraction, times `scale`, cut to whole nanoseconds.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut part = 0u64;
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        part += u64::from(digit - b'0') * unit;
    }
    whole.checked_mul(scale)?.checked_add(part)
}

/// Writes a duration so that [`parse`] reads it back.
pub(crate) fn format(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let fits = |scale: u64| nanos >= scale && nanos.is_multiple_of(scale);
    let (unit, scale) = UNITS.iter().rev().find(|(_, scale)| fits(*scale)).unwrap_or(&UNITS[0]);
    format!("{}{unit}", nanos / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_and_written() {
        for (text, nanos) in [
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5ms", 500_000),
            ("0", 0),
            ("3us", 3000),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration.as_nanos(), nanos, "{text}");
            assert_eq!(parse(&format(duration)).unwrap(), duration, "{text}");
        }
        for bad in ["", "5", "s", ".", "1x", "-5s", "1..5s", "9999999999999h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
