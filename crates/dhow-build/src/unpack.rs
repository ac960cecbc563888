//! Archives, as `ADD` and contexts unpack them.

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use dhow_layer::{ApplyOptions, Limits, Packing, Whiteouts, apply, open_archive};
use dhow_sys::beneath::Root;
use rustix::fs::FileType;

use crate::copy::{CopyError, CopyOptions, Destination};
use crate::error::StepError;
use crate::select::{Selected, Source};

/// The bytes of a tar header, and of its checksum in it.
const HEADER_BYTES: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const BUFFER_BYTES: usize = 256 * 1024;
/// Files that an archive may hold.
const ENTRIES_MAX: u64 = 4_000_000;
/// Bytes that its files may have together, holes included.
const UNPACKED_BYTES_MAX: u64 = 256 << 30;
/// How many times larger than itself it may become. Sources become four times larger, and nothing but one
/// letter over and over a thousand times.
const UNPACKED_RATIO_MAX: u64 = 250;
/// Up to here the ratio does no harm.
const UNPACKED_BYTES_FREE: u64 = 256 << 20;

fn read_error(source: &Selected) -> impl FnOnce(io::Error) -> StepError + '_ {
    let path = shown(source);
    move |source| StepError::Copy { instruction: "ADD", source: CopyError::Read { path, source } }
}

/// What a source is called: where it is, or, where that says nothing, its name.
fn shown(source: &Selected) -> PathBuf {
    let path = &source.entries[0].path;
    if path.file_name() == Some(&source.name) { path.clone() } else { PathBuf::from(&source.name) }
}

/// Whether a file is a tar archive, compressed or not. Its content says so, not its name.
pub(crate) fn is_archive(root: &Root, source: &Selected) -> Result<bool, StepError> {
    if source.entries[0].kind() != FileType::RegularFile {
        return Ok(false);
    }
    let file = root.open_file(&source.entries[0].path).map_err(read_error(source))?;
    is_tar(file).map_err(read_error(source))
}

/// Whether what comes is a tar, compressed or not. Something that only begins like a compressed file is none.
pub(crate) fn is_tar(packed: impl Read + 'static) -> io::Result<bool> {
    let mut head = Vec::new();
    let read = open_archive(packed)?.take(HEADER_BYTES as u64).read_to_end(&mut head);
    Ok(read.is_ok() && is_tar_header(&head))
}

/// Whether a stream that begins so is an archive. Of a compressed one too little is there to be sure, but
/// nothing else begins like one.
pub(crate) fn begins_archive(head: &[u8]) -> bool {
    Packing::detect(head) != Packing::Plain || head.get(..HEADER_BYTES).is_some_and(is_tar_header)
}

/// A header of any kind of tar, the oldest of which have no magic, adds up to its checksum.
fn is_tar_header(head: &[u8]) -> bool {
    let Some(field) = head.get(CHECKSUM).filter(|_| head.len() == HEADER_BYTES) else { return false };
    let text = String::from_utf8_lossy(field);
    let text = text.trim_matches(|c: char| c == ' ' || c == '\0');
    let byte = |(at, byte): (usize, &u8)| if CHECKSUM.contains(&at) { b' ' } else { *byte };
    let sum = |value: fn(u8) -> i64| head.iter().enumerate().map(|pair| value(byte(pair))).sum::<i64>();
    // Some old archivers added signed bytes.
    let sums = [sum(i64::from), sum(|byte| i64::from(byte.cast_signed()))];
    i64::from_str_radix(text, 8).is_ok_and(|said| sums.contains(&said))
}

/// Counts what is read.
struct Counted<'c, R> {
    inner: R,
    bytes: &'c Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.bytes.set(self.bytes.get() + count as u64);
        Ok(count)
    }
}

/// Ends a stream that grows out of all proportion to what it is made of.
struct Bounded<'c, R> {
    inner: R,
    packed_bytes: &'c Cell<u64>,
    bytes: u64,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.bytes += count as u64;
        let ratio = self.bytes / self.packed_bytes.get().max(1);
        if self.bytes > UNPACKED_BYTES_FREE && ratio > UNPACKED_RATIO_MAX {
            let why =
                format!("it unpacks to more than {UNPACKED_RATIO_MAX} times its size (UNPACKED_RATIO_MAX)");
            return Err(io::Error::other(why));
        }
        Ok(count)
    }
}

/// Unpacks an archive, compressed or not, into the folder `target`. Entries cannot reach out of it, and it
/// cannot become much larger than what it is made of.
pub(crate) fn unpack_into(
    packed: impl Read,
    target: &Path,
    options: ApplyOptions,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let packed_bytes = Cell::new(0);
    let stream = open_archive(Counted { inner: packed, bytes: &packed_bytes })?;
    let stream = Bounded { inner: stream, packed_bytes: &packed_bytes, bytes: 0 };
    let stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    // In an archive a name that begins with `.wh.` is a name.
    let limits = Limits { entries_max: ENTRIES_MAX, size_bytes_max: UNPACKED_BYTES_MAX };
    let options = ApplyOptions { whiteouts: Whiteouts::Literal, limits, ..options };
    apply(stream, target, &options)?;
    Ok(())
}

/// Unpacks an archive into the empty folder `aside` and copies what came out of it to `dest`. Nothing in the
/// archive can reach out of either.
pub(crate) fn unpack(
    from: &Root,
    archive: &Selected,
    aside: &Path,
    apply_options: ApplyOptions,
    root: &Root,
    dest: &str,
    options: &CopyOptions,
) -> Result<(), StepError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StepError::Unpack {
        archive: shown(archive),
        source,
    };
    let file = from.open_file(&archive.entries[0].path).map_err(read_error(archive))?;
    unpack_into(file, aside, apply_options).map_err(failed)?;
    let unpacked = Root::open(aside).map_err(|error| failed(error.into()))?;
    let everything = Source::whole(&unpacked);
    let found = everything.select(".", "archive").map_err(|error| failed(error.into()))?;
    let failed = |source| StepError::Copy { instruction: "ADD", source };
    // An archive is always unpacked *into* its destination.
    let destination = Destination::find(root, &format!("{}/", dest.trim_end_matches('/'))).map_err(failed)?;
    for source in &found {
        destination.copy(&unpacked, source, options).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_header_is_known_by_its_checksum() {
        let mut head = [0; HEADER_BYTES];
        head[0] = b'a';
        assert!(!is_tar_header(&head), "no checksum");
        head[CHECKSUM].copy_from_slice(b"000541\0 ");
        assert!(is_tar_header(&head));
        head[1] = b'b';
        assert!(!is_tar_header(&head), "a wrong checksum");
        assert!(!is_tar_header(&[0; HEADER_BYTES]), "the end of an archive is not its beginning");
        assert!(!is_tar_header(b"short"));
    }
}
