//! How an archive that somebody hands us is compressed. Layers are pickier: see [`Compression`](crate::Compression).

use std::io::{self, BufReader, Read};

use crate::gunzip::Gunzip;

/// Enough to tell every kind of compression.
const MAGIC_BYTES: u64 = 6;
const BUFFER_BYTES: usize = 256 << 10;

/// How an archive is compressed, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all, as far as can be told.
    Plain,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

impl Packing {
    /// What begins so.
    pub fn detect(beginning: &[u8]) -> Packing {
        match beginning {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [b'B', b'Z', b'h', ..] => Packing::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }
}

/// The uncompressed content of an archive.
pub fn open_archive<'r>(mut packed: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut beginning = Vec::new();
    packed.by_ref().take(MAGIC_BYTES).read_to_end(&mut beginning)?;
    let packing = Packing::detect(&beginning);
    let packed = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(beginning).chain(packed));
    Ok(match packing {
        Packing::Plain => Box::new(packed),
        Packing::Gzip => Box::new(Gunzip::new(packed)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new(packed, true)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_the_usual_programs_pack_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = folder.path().join("file");
        std::fs::write(&file, &text).unwrap();
        let packings = [
            ("gzip", Packing::Gzip),
            ("bzip2", Packing::Bzip2),
            ("xz", Packing::Xz),
            ("zstd", Packing::Zstd),
        ];
        for (program, packing) in packings {
            let run = Command::new(program).arg("-c").arg(&file).stderr(Stdio::null()).output();
            let Ok(output) = run else {
                eprintln!("skipped: {program} is not installed");
                continue;
            };
            assert_eq!(Packing::detect(&output.stdout), packing, "{program}");
            let read = |bytes: &[u8]| {
                let mut read = Vec::new();
                open_archive(bytes).and_then(|mut stream| stream.read_to_end(&mut read)).map(|_| read)
            };
            assert!(read(&output.stdout).is_ok_and(|read| read == text), "{program}");
            let half = &output.stdout[..output.stdout.len() / 2];
            assert!(read(half).is_err(), "{program}: half an archive passed for a whole one");
        }
        let mut plain = Vec::new();
        open_archive(&text[..]).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(plain, text);
    }
}
