//! PAX extended headers: records of the form `<length> <key>=<value>\n`.

use dhow_sys::beneath::Time;

/// The prefix of records that hold extended attributes, as star, GNU tar and Docker write them.
pub(crate) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Records of one header, in order. A value that is not understood stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Reads records; `None` if they are malformed.
    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Records> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[length..];
        }
        Some(Records(records))
    }

    /// The last value of `key`; an empty one takes earlier ones back.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let (_, value) = self.0.iter().rev().find(|(name, _)| name == key)?;
        Some(value.as_slice()).filter(|value| !value.is_empty())
    }

    /// All records in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// The extended attributes, sorted by name, the last of equal names.
    pub(crate) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut xattrs = std::collections::BTreeMap::new();
        for (key, value) in self.iter() {
            if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                xattrs.insert(name.to_vec(), value.to_vec());
            }
        }
        xattrs.into_iter().collect()
    }
}

/// Appends a record. Its length counts its own digits.
pub(crate) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A decimal number without sign.
pub(crate) fn parse_number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?
        .parse()
        .ok()
}

/// A time in seconds, possibly negative, possibly with a fraction.
pub(crate) fn parse_time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 =
        Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        // -1.25 is three quarters of a second after -2.
        return Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Some(Time { seconds, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for size in [0, 1, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 980, 985, 990] {
            let mut out = Vec::new();
            push_record(&mut out, b"key", &vec![b'v'; size]);
            push_record(&mut out, b"next", b"=\n");
            let records = Records::parse(&out).unwrap_or_else(|| panic!("value of {size} bytes"));
            assert_eq!(records.get(b"key").map_or(0, <[u8]>::len), size);
            assert_eq!(records.get(b"next"), Some(&b"=\n"[..]));
        }
    }

    #[test]
    fn malformed_records_are_noticed() {
        for bytes in [&b"5 a=b"[..], b"x a=b\n", b"3 a=b\n", b"99 a=b\n", b"6 abc\n", b"0 a=b\n", b"\n"] {
            assert_eq!(Records::parse(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn times_may_be_negative_and_fractional() {
        let time = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        for (text, expected) in [
            ("0", time(0, 0)),
            ("1350244992.023960108", time(1_350_244_992, 23_960_108)),
            ("-1.25", time(-2, 750_000_000)),
            ("-0.5", time(-1, 500_000_000)),
            ("1.1234567899", time(1, 123_456_789)),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), expected, "{text}");
        }
    }
}
