//! Which compression a layer came in, told by its first bytes and never by its name or media type.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use crate::gunzip::Gunzip;

/// The longest beginning that [`Compression::detect`] needs to see.
const MAGIC_BYTES: usize = 6;
/// How much compressed data is read at a time.
const INPUT_BYTES: usize = 128 * 1024;

/// How a layer's tar stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A bare tar stream.
    None,
    /// gzip, which every registry and engine understands.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Tells the compression by the first bytes. What is not known to be compressed is `None`; bzip2 and xz,
    /// which no image may use, are named in the error.
    pub fn detect(beginning: &[u8]) -> Result<Compression, DetectError> {
        match beginning {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
            // A zstd stream may begin with a skippable frame; zstd:chunked ones do.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
            [b'B', b'Z', b'h', ..] => Err(DetectError::Unsupported("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(DetectError::Unsupported("xz")),
            _ => Ok(Compression::None),
        }
    }

    /// The name in media types and options.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The layer is compressed in a way that image layers are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// A known compression that image-spec does not allow for layers.
    #[error("layer is compressed with {0}, which is not supported for layers")]
    Unsupported(&'static str),
}

/// A reader of the uncompressed stream.
///
/// It reads its input to the very end, past the last byte that decompression needs, so that a digest taken
/// underneath covers everything that was sent.
pub struct Decompressor<'a> {
    compression: Compression,
    inner: Box<dyn Read + 'a>,
}

impl<'a> Decompressor<'a> {
    /// Looks at the first bytes of `input` and starts to decompress accordingly.
    pub fn new<R: Read + 'a>(input: R) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(INPUT_BYTES, input);
        let beginning = beginning(&mut input)?;
        let compression = Compression::detect(&beginning)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let input = io::Cursor::new(beginning).chain(input);
        let inner: Box<dyn Read + 'a> = match compression {
            Compression::None => Box::new(input),
            Compression::Gzip => Box::new(Gunzip::new(input)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        };
        Ok(Self { compression, inner })
    }

    /// What was found.
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read(out)
    }
}

/// The first bytes, taken out of the input. `fill_buf` alone will not do: a network may deliver fewer.
fn beginning(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(MAGIC_BYTES);
    input.take(MAGIC_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// Delivers one byte at a time, as a bad network may.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let length = out.len().min(1);
            self.0.read(&mut out[..length])
        }
    }

    fn decompressed(bytes: &[u8]) -> Result<String, String> {
        let read = |reader: &mut dyn Read| {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        };
        let fast = Decompressor::new(bytes).and_then(|mut reader| read(&mut reader));
        let slow = Decompressor::new(Dribble(bytes)).and_then(|mut reader| read(&mut reader));
        let (fast, slow) = (fast.map_err(|e| e.to_string()), slow.map_err(|e| e.to_string()));
        assert_eq!(fast, slow, "the pace of the input changed the result");
        fast
    }

    #[test]
    fn every_member_of_a_gzip_counts_and_padding_does_not() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(decompressed(&members), Ok("one two".into()));
        let padded = [members.clone(), vec![0; 3000]].concat();
        assert_eq!(decompressed(&padded), Ok("one two".into()));
        let trailing = [members, b"garbage".to_vec()].concat();
        assert_eq!(decompressed(&trailing), Err("data after the end of the gzip stream".into()));
    }

    #[test]
    fn a_stream_cut_short_is_an_error() {
        let whole = gzip(&[7; 10_000]);
        for length in [3, 12, whole.len() - 1] {
            assert!(decompressed(&whole[..length]).is_err(), "{length} bytes were enough");
        }
        let whole = zstd::encode_all(&[7_u8; 10_000][..], 3).unwrap();
        assert!(decompressed(&whole[..whole.len() - 1]).is_err());
    }

    #[test]
    fn zstd_frames_follow_one_another_and_may_be_skippable() {
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0][..], b"xx"].concat();
        let frames = [
            skippable,
            zstd::encode_all(&b"one "[..], 3).unwrap(),
            zstd::encode_all(&b"two"[..], 3).unwrap(),
        ];
        assert_eq!(decompressed(&frames.concat()), Ok("one two".into()));
    }

    #[test]
    fn other_compressions_are_refused_by_name() {
        let error = decompressed(b"BZh91AY&SY").unwrap_err();
        assert_eq!(error, "layer is compressed with bzip2, which is not supported for layers");
        assert!(decompressed(b"\xfd7zXZ\0\0\x04").unwrap_err().contains(" xz,"));
        assert_eq!(decompressed(b""), Ok(String::new()));
    }
}
