//! Go's constants: numbers, characters and strings as they are written in a template.

use serde_json::{Number, Value};

use crate::printf::quote;

const INVALID: &str = "invalid syntax";

/// An integer in any of Go's bases, or a floating point number.
pub(crate) fn number(text: &str) -> Result<Value, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let clean = underscores_are_between_digits(digits).then(|| digits.replace('_', ""));
    let number = clean.and_then(|clean| integer(sign, &clean).or_else(|| float(sign, &clean)));
    let overflow = text.len() > 1 && digits.bytes().all(|b| b.is_ascii_digit());
    let fault = if overflow { "integer overflow" } else { "illegal number syntax" };
    number.ok_or_else(|| format!("{fault}: {}", quote(text)))
}

fn integer(sign: &str, digits: &str) -> Option<Value> {
    let (prefix, rest) = digits.split_at_checked(2).unwrap_or((digits, ""));
    let (radix, digits) = match prefix {
        "0x" | "0X" => (16, rest),
        "0o" | "0O" => (8, rest),
        "0b" | "0B" => (2, rest),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    // The sign has been read; another one here would be a second.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Value::from)
}

fn float(sign: &str, digits: &str) -> Option<Value> {
    if !digits.contains(['.', 'e', 'E']) || digits.starts_with("0x") || digits.starts_with("0X") {
        return None;
    }
    let value: f64 = format!("{sign}{digits}").parse().ok()?;
    Number::from_f64(value).map(Value::Number)
}

fn underscores_are_between_digits(digits: &str) -> bool {
    let bytes = digits.as_bytes();
    bytes.iter().enumerate().filter(|(_, b)| **b == b'_').all(|(i, _)| {
        let before = i.checked_sub(1).is_some_and(|i| bytes[i].is_ascii_alphanumeric());
        let after = bytes.get(i + 1).is_some_and(u8::is_ascii_alphanumeric);
        before && after
    })
}

/// `'x'`, an integer: its code point.
pub(crate) fn character(text: &str) -> Result<Value, String> {
    let malformed = || format!("malformed character constant: {text}");
    let inner = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')).ok_or_else(malformed)?;
    let value = unescape(inner, '\'').map_err(|_| malformed())?;
    let mut chars = value.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(Value::from(u32::from(c))),
        (None, _) => Err(INVALID.into()),
        _ => Err(malformed()),
    }
}

/// `"…"` with escapes, or `` `…` `` as it stands.
pub(crate) fn string(text: &str) -> Result<String, String> {
    if let Some(raw) = text.strip_prefix('`').and_then(|t| t.strip_suffix('`')) {
        return Ok(raw.replace('\r', ""));
    }
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or(INVALID)?;
    unescape(inner, '"')
}

/// Resolves backslashes. `\x` and octal ones give bytes; what is not UTF-8 then becomes U+FFFD.
fn unescape(inner: &str, quote: char) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = escape(&rest[at + 1..], quote, &mut bytes).ok_or(INVALID)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn escape<'t>(text: &'t str, quote: char, bytes: &mut Vec<u8>) -> Option<&'t str> {
    let first = text.chars().next()?;
    let rest = &text[first.len_utf8()..];
    let simple = match first {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        c if c == quote => u8::try_from(c).ok()?,
        'x' => return coded(rest, 2, 16, bytes, false),
        'u' => return coded(rest, 4, 16, bytes, true),
        'U' => return coded(rest, 8, 16, bytes, true),
        '0'..='7' => return coded(text, 3, 8, bytes, false),
        _ => return None,
    };
    bytes.push(simple);
    Some(rest)
}

fn coded<'t>(text: &'t str, len: usize, radix: u32, bytes: &mut Vec<u8>, unicode: bool) -> Option<&'t str> {
    let (digits, rest) = text.split_at_checked(len)?;
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let code = u32::from_str_radix(digits, radix).ok()?;
    if unicode {
        let mut buffer = [0; 4];
        bytes.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut buffer).as_bytes());
    } else {
        bytes.push(u8::try_from(code).ok()?);
    }
    Some(rest)
}
