use std::ops::Range;

use crate::registry::Part;

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Part(Range<u64>),
    /// Nothing of it is there.
    Nothing,
}

/// Reads a `Range` header. One that is not understood, or wants several parts, is as good as none, as HTTP has it.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(range) = header.and_then(|header| header.strip_prefix("bytes=")) else { return Wanted::All };
    let Some((first, last)) = range.split_once('-') else { return Wanted::All };
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        return match number(last) {
            Some(0) => Wanted::Nothing,
            Some(_) if size == 0 => Wanted::Nothing,
            Some(length) => Wanted::Part(size.saturating_sub(length)..size),
            None => Wanted::All,
        };
    }
    let Some(first) = number(first) else { return Wanted::All };
    let end = match number(last) {
        Some(last) if last < first => return Wanted::All,
        Some(last) => last.saturating_add(1).min(size),
        None if last.is_empty() => size,
        None => return Wanted::All,
    };
    if first < size { Wanted::Part(first..end) } else { Wanted::Nothing }
}

/// Reads the `Content-Range` of a chunk: `0-99`, or as HTTP has it `bytes 0-99/*`.
pub(super) fn part(header: &str) -> Option<Part> {
    let range = header.strip_prefix("bytes ").unwrap_or(header);
    let range = range.split('/').next()?.trim();
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let bytes = last.checked_sub(first)?.checked_add(1)?;
    Some(Part { start: Some(first), bytes: Some(bytes) })
}

/// Without signs and spaces.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        for (header, expected) in [
            (None, Wanted::All),
            (Some("bytes=0-3"), Wanted::Part(0..4)),
            (Some("bytes=5-"), Wanted::Part(5..10)),
            (Some("bytes=5-99"), Wanted::Part(5..10)),
            (Some("bytes=-3"), Wanted::Part(7..10)),
            (Some("bytes=-99"), Wanted::Part(0..10)),
            (Some("bytes=10-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=5-3"), Wanted::All),
            (Some("bytes=0-1,3-4"), Wanted::All),
            (Some("bytes=+1-2"), Wanted::All),
            (Some("lines=0-1"), Wanted::All),
        ] {
            assert_eq!(wanted(header, 10), expected, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=-3"), 0), Wanted::Nothing);
    }

    #[test]
    fn chunks_say_where_they_belong() {
        let whole = Some(Part { start: Some(10), bytes: Some(5) });
        assert_eq!(part("10-14"), whole);
        assert_eq!(part("bytes 10-14/*"), whole);
        for text in ["", "10", "14-10", "a-b", "-5", "0-18446744073709551615"] {
            assert_eq!(part(text), None, "{text}");
        }
    }
}
