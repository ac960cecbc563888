//! Floating point numbers as Go's `strconv.FormatFloat` writes them.

/// From this decimal exponent on, `%g` without a precision turns exponential.
const SHORTEST_THRESHOLD: usize = 6;

/// Formats `value` by one of the verbs `e E f F g G`; no precision asks for the shortest text that
/// reads back as the same number.
pub(crate) fn format(value: f64, verb: char, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    match (verb, precision) {
        ('f' | 'F', None) => format!("{value}"),
        ('f' | 'F', Some(precision)) => format!("{value:.precision$}"),
        ('e' | 'E', _) => exponential(value, verb, precision),
        _ => general(value, verb, precision),
    }
}

fn exponential(value: f64, verb: char, precision: Option<usize>) -> String {
    let (digits, exponent) = scientific(value, precision);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}{verb}{sign}{:02}", exponent.abs())
}

/// `%g`: exponential for very small and large numbers, plain otherwise, no trailing zeros.
fn general(value: f64, verb: char, precision: Option<usize>) -> String {
    let (digits, exponent) = scientific(value, precision.map(|p| p.max(1) - 1));
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    let significant = digits.bytes().filter(u8::is_ascii_digit).count();
    let threshold = i32::try_from(precision.map_or(SHORTEST_THRESHOLD, |p| p.max(1))).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= threshold {
        let e = if verb == 'G' { 'E' } else { 'e' };
        return exponential(value, e, Some(significant - 1));
    }
    let decimals = i32::try_from(significant).unwrap_or(i32::MAX).saturating_sub(1 + exponent).max(0);
    format!("{value:.*}", usize::try_from(decimals).unwrap_or_default())
}

/// Digits with a point after the first, and the decimal exponent.
fn scientific(value: f64, precision: Option<usize>) -> (String, i32) {
    let text = match precision {
        Some(precision) => format!("{value:.precision$e}"),
        None => format!("{value:e}"),
    };
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (digits.to_owned(), exponent.parse().unwrap_or_default())
}
