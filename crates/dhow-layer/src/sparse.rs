//! Where the data of a file with holes goes.
//!
//! GNU tar has four ways to say it: blocks after its own header (type `S`), and PAX records in the versions
//! 0.0, 0.1 and 1.0, the last of which puts the table in front of the data.

use crate::header::number;
use crate::pax::{Records, parse_number};

/// The most extents one file may have.
pub(crate) const EXTENTS_MAX: usize = 1 << 18;

/// Offset and length of one stretch of data.
pub(crate) type Extent = (u64, u64);

/// How a PAX header says where the data goes.
pub(crate) enum PaxSparse {
    /// Versions 0.0 and 0.1: the table is in the header.
    Table(Vec<Extent>),
    /// Version 1.0: the table comes before the data.
    BeforeData,
}

/// Reads the sparse records of a PAX header; `Ok(None)` if there are none, an error if they are malformed.
pub(crate) fn pax_sparse(records: &Records) -> Result<Option<PaxSparse>, ()> {
    match (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")) {
        (Some(b"1"), Some(b"0")) => return Ok(Some(PaxSparse::BeforeData)),
        (None, None) | (Some(b"0"), _) => {}
        _ => return Err(()),
    }
    if let Some(map) = records.get(b"GNU.sparse.map") {
        let numbers = numbers(map.split(|byte| *byte == b','))?;
        return pairs(&numbers).map(PaxSparse::Table).map(Some);
    }
    if records.get(b"GNU.sparse.numblocks").is_none() {
        return Ok(None);
    }
    let fields =
        records.iter().filter(|(key, _)| matches!(*key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes"));
    let numbers = numbers(fields.map(|(_, value)| value))?;
    pairs(&numbers).map(PaxSparse::Table).map(Some)
}

/// The name and the size with holes, where the sparse records carry them.
pub(crate) fn pax_real(records: &Records) -> (Option<&[u8]>, Option<u64>) {
    let size = records.get(b"GNU.sparse.realsize").or_else(|| records.get(b"GNU.sparse.size"));
    (records.get(b"GNU.sparse.name"), size.and_then(parse_number))
}

/// The extents in one of GNU's own sparse blocks: 12 bytes offset, 12 bytes length, until an empty one.
pub(crate) fn gnu_extents(fields: &[u8], extents: &mut Vec<Extent>) -> Result<(), ()> {
    for field in fields.chunks_exact(24).take_while(|field| field[0] != 0) {
        let unsigned = |bytes| number(bytes).and_then(|value| u64::try_from(value).ok()).ok_or(());
        push(extents, (unsigned(&field[..12])?, unsigned(&field[12..])?))?;
    }
    Ok(())
}

/// Adds one extent, within the limit.
pub(crate) fn push(extents: &mut Vec<Extent>, extent: Extent) -> Result<(), ()> {
    if extents.len() == EXTENTS_MAX {
        return Err(());
    }
    extents.push(extent);
    Ok(())
}

/// True if the extents are in order, apart, within `real_size`, and hold `stored_size` bytes in all.
pub(crate) fn is_sound(extents: &[Extent], real_size: u64, stored_size: u64) -> bool {
    let mut end = 0_u64;
    let mut stored = 0_u64;
    for (offset, length) in extents {
        let Some(next) = offset.checked_add(*length).filter(|_| *offset >= end) else { return false };
        end = next;
        stored += length;
    }
    end <= real_size && stored == stored_size
}

fn numbers<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u64>, ()> {
    texts.take(EXTENTS_MAX * 2 + 1).map(|text| parse_number(text).ok_or(())).collect()
}

fn pairs(numbers: &[u64]) -> Result<Vec<Extent>, ()> {
    match numbers.len().is_multiple_of(2) && numbers.len() <= EXTENTS_MAX * 2 {
        true => Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()),
        false => Err(()),
    }
}
