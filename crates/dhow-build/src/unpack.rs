//! `ADD` of a local archive.

use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use dhow_layer::{ApplyOptions, Whiteouts, apply};
use dhow_sys::beneath::Root;
use rustix::fs::FileType;

use crate::copy::{CopyError, CopyOptions, Destination};
use crate::error::StepError;
use crate::select::{Selected, Source};

/// The bytes of a tar header, and of its checksum in it.
const HEADER_BYTES: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const BUFFER_BYTES: usize = 256 * 1024;

/// How an archive is compressed.
enum Packing {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

fn packing(head: &[u8]) -> Packing {
    match head {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [b'B', b'Z', b'h', ..] => Packing::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        _ => Packing::Plain,
    }
}

fn read_error(source: &Selected) -> impl FnOnce(io::Error) -> StepError + '_ {
    let path = source.entries[0].path.clone();
    move |source| StepError::Copy { instruction: "ADD", source: CopyError::Read { path, source } }
}

/// Whether a file is a tar archive, compressed or not. Its content says so, not its name.
pub(crate) fn is_archive(root: &Root, source: &Selected) -> Result<bool, StepError> {
    if source.entries[0].kind() != FileType::RegularFile {
        return Ok(false);
    }
    let file = root.open_file(&source.entries[0].path).map_err(read_error(source))?;
    let mut head = Vec::new();
    match open(file) {
        // Something that only begins like a compressed file is an ordinary file.
        Ok(mut stream) => match stream.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut head) {
            Ok(_) => Ok(is_tar_header(&head)),
            Err(_) => Ok(false),
        },
        Err(error) => Err(read_error(source)(error)),
    }
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

/// The uncompressed content of a file.
fn open(mut file: std::fs::File) -> io::Result<Box<dyn Read>> {
    let mut head = [0; 8];
    let mut filled = 0;
    while filled < head.len() {
        match file.read(&mut head[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    let file = BufReader::with_capacity(BUFFER_BYTES, file);
    Ok(match packing(&head[..filled]) {
        Packing::Plain => Box::new(file),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new(file, true)),
        Packing::Zstd => Box::new(zstd::Decoder::with_buffer(file)?),
    })
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
    let path = archive.entries[0].path.clone();
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StepError::Unpack {
        archive: path.clone(),
        source,
    };
    let file = from.open_file(&path).map_err(read_error(archive))?;
    let stream = open(file).map_err(read_error(archive))?;
    let stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    // In an archive a name that begins with `.wh.` is a name.
    let apply_options = ApplyOptions { whiteouts: Whiteouts::Literal, ..apply_options };
    apply(stream, aside, &apply_options).map_err(|error| failed(error.into()))?;
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
