//! Compressing a layer so that equal input gives equal bytes, and saying how it was done.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use crate::compression::Compression;
use crate::gzip::{BLOCK_BYTES, Gzip};

/// The release of zlib-rs behind `flate2`; a test compares it with `Cargo.lock`.
const ZLIB_RS_VERSION: &str = "0.6.8";

const GZIP_LEVEL_DEFAULT: u32 = 6;
const GZIP_LEVEL_MAX: u32 = 9;
const ZSTD_LEVEL_DEFAULT: u32 = 3;
const ZSTD_LEVEL_MAX: u32 = 22;

/// How to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressOptions {
    /// The format.
    pub compression: Compression,
    /// 0 to 9 for gzip (default 6), 1 to 22 for zstd (default 3). Has no meaning without compression.
    pub level: Option<u32>,
    /// How many threads compress. It changes the speed, never the bytes.
    pub threads: NonZeroUsize,
}

/// Everything that decides which bytes a compressor makes of its input: library, version, level, block size.
///
/// No compressor promises the same bytes from one release to the next. What was compressed under one id may
/// be made again under the same id; under another one the stored bytes must be kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompressorId(String);

impl CompressorId {
    /// The id as text, one line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CompressorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CompressOptions {
    /// The format at its default level.
    pub fn new(compression: Compression, threads: NonZeroUsize) -> Self {
        Self { compression, level: None, threads }
    }

    /// The identity of the compressor these options select.
    pub fn id(&self) -> CompressorId {
        let level = self.effective_level();
        CompressorId(match self.compression {
            Compression::None => "none".into(),
            Compression::Gzip => format!("gzip zlib-rs={ZLIB_RS_VERSION} level={level} block={BLOCK_BYTES}"),
            Compression::Zstd => format!("zstd libzstd={} level={level}", zstd::zstd_safe::version_string()),
        })
    }

    fn effective_level(&self) -> u32 {
        self.level.unwrap_or(match self.compression {
            Compression::None => 0,
            Compression::Gzip => GZIP_LEVEL_DEFAULT,
            Compression::Zstd => ZSTD_LEVEL_DEFAULT,
        })
    }

    fn check_level(&self) -> io::Result<u32> {
        let level = self.effective_level();
        let allowed = match self.compression {
            Compression::None => 0..=u32::MAX,
            Compression::Gzip => 0..=GZIP_LEVEL_MAX,
            Compression::Zstd => 1..=ZSTD_LEVEL_MAX,
        };
        if allowed.contains(&level) {
            return Ok(level);
        }
        let (name, low, high) = (self.compression, allowed.start(), allowed.end());
        let text = format!("compression level {level} is not one of {name}'s {low} to {high}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

/// A writer that compresses. [`finish`](Self::finish) must be called; dropping it leaves a truncated stream.
pub struct Compressor<W: Write>(Inner<W>);

enum Inner<W: Write> {
    None(W),
    Gzip(Gzip<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// Starts to compress into `output`.
    pub fn new(output: W, options: &CompressOptions) -> io::Result<Self> {
        let level = options.check_level()?;
        Ok(Self(match options.compression {
            Compression::None => Inner::None(output),
            Compression::Gzip => Inner::Gzip(Gzip::new(output, level, options.threads)?),
            Compression::Zstd => Inner::Zstd(zstd_encoder(output, level, options.threads)?),
        }))
    }

    /// Completes the stream and gives the output back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::None(output) => Ok(output),
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::Zstd(zstd) => zstd.finish(),
        }
    }
}

fn zstd_encoder<W: Write>(
    output: W,
    level: u32,
    threads: NonZeroUsize,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let level = i32::try_from(level).map_err(io::Error::other)?;
    let mut encoder = zstd::stream::write::Encoder::new(output, level)?;
    // Always at least one worker: none at all is another algorithm with other bytes.
    encoder.multithread(u32::try_from(threads.get()).unwrap_or(u32::MAX))?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::None(output) => output.write(data),
            Inner::Gzip(gzip) => gzip.write(data),
            Inner::Zstd(zstd) => zstd.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::None(output) => output.flush(),
            Inner::Gzip(gzip) => gzip.flush(),
            // A flush would end a zstd block early and so change the bytes; finish() writes everything.
            Inner::Zstd(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use dhow_oci::Digest;
    use expect_test::{Expect, expect};

    use super::*;
    use crate::compression::Decompressor;

    /// Text-like bytes, the same on every machine, a bit more than three blocks.
    fn sample() -> Vec<u8> {
        let mut state = 1_u32;
        let mut words = Vec::new();
        while words.len() < 3 * BLOCK_BYTES + 12_345 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            words.extend_from_slice(format!("word{} ", (state >> 20) % 700).as_bytes());
        }
        words
    }

    fn compressed(data: &[u8], compression: Compression, level: Option<u32>, threads: usize) -> Vec<u8> {
        let threads = NonZeroUsize::new(threads).unwrap();
        let mut out = Compressor::new(Vec::new(), &CompressOptions { compression, level, threads }).unwrap();
        for piece in data.chunks(70_001) {
            out.write_all(piece).unwrap();
            out.flush().unwrap();
        }
        out.finish().unwrap()
    }

    fn check_golden(compression: Compression, level: Option<u32>, golden: Expect) {
        let data = sample();
        let one = compressed(&data, compression, level, 1);
        assert_eq!(one, compressed(&data, compression, level, 3), "the thread count shows in the bytes");
        let mut back = Vec::new();
        Decompressor::new(&one[..]).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == data, "what came out is not what went in");
        let options = CompressOptions { compression, level, threads: NonZeroUsize::MIN };
        golden.assert_eq(&format!("{}: {} bytes, {}", options.id(), one.len(), Digest::sha256_of(&one)));
    }

    #[test]
    fn compressed_bytes_are_golden() {
        check_golden(
            Compression::Gzip,
            None,
            expect![
                "gzip zlib-rs=0.6.8 level=6 block=1048576: 723428 bytes, sha256:155632d98cc5901d0678323771cdd72e605c8613382d03e0261c2c0ce0e48065"
            ],
        );
        check_golden(
            Compression::Gzip,
            Some(1),
            expect![
                "gzip zlib-rs=0.6.8 level=1 block=1048576: 1110240 bytes, sha256:34567f0d9dc6417820cc35edbda8441c4a0ec1bf0ff5aa8c27c2877441bb5461"
            ],
        );
        check_golden(
            Compression::Gzip,
            Some(9),
            expect![
                "gzip zlib-rs=0.6.8 level=9 block=1048576: 685395 bytes, sha256:1cc6b18f74894bb83cde0557839a672c361b3d4580c8272e95233379d6a5b7de"
            ],
        );
        check_golden(
            Compression::Zstd,
            None,
            expect![
                "zstd libzstd=1.5.7 level=3: 768076 bytes, sha256:a6707a1ca0c244a8a1862619e80172276a19d222b501f5ca29df0704e31ca19e"
            ],
        );
    }

    #[test]
    fn the_recorded_version_is_the_one_built_in() {
        let lock = include_str!("../../../Cargo.lock").replace("\r\n", "\n");
        let line = format!("name = \"zlib-rs\"\nversion = \"{ZLIB_RS_VERSION}\"\n");
        assert!(lock.contains(&line), "zlib-rs changed: look at the golden bytes, then set ZLIB_RS_VERSION");
    }

    #[test]
    fn an_empty_stream_is_a_valid_gzip() {
        let bytes = compressed(b"", Compression::Gzip, None, 2);
        let mut back = Vec::new();
        Decompressor::new(&bytes[..]).unwrap().read_to_end(&mut back).unwrap();
        assert!(back.is_empty());
    }

    #[test]
    fn a_level_out_of_range_is_refused() {
        let options =
            CompressOptions { compression: Compression::Gzip, level: Some(11), threads: NonZeroUsize::MIN };
        let error = Compressor::new(Vec::new(), &options).err().unwrap().to_string();
        assert_eq!(error, "compression level 11 is not one of gzip's 0 to 9");
    }

    #[test]
    fn incompressible_data_survives() {
        let mut state = 7_u64;
        let noise: Vec<u8> = (0..BLOCK_BYTES + 10)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for level in [0, 1, 6] {
            let bytes = compressed(&noise, Compression::Gzip, Some(level), 2);
            let mut back = Vec::new();
            Decompressor::new(&bytes[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == noise, "level {level}");
        }
    }
}
