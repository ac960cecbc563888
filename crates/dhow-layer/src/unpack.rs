//! From compressed bytes to a folder in one pass.
//!
//! One thread reads, decompresses and hashes; another applies. They meet in a ring of buffers, so a layer
//! takes about as long as the slower of the two and no more memory than the ring. The input may be a
//! download: it is read once, in order, to its last byte. A caller that also wants to keep the compressed
//! bytes passes a reader that tees them into its store.

use std::io::{self, Read};
use std::path::Path;
use std::thread;

use dhow_oci::{DiffId, Digester};

use crate::applied::{Applied, ApplyError, ApplyOptions};
use crate::apply::apply;
use crate::compression::{Compression, Decompressor};
use crate::ring::{RingWriter, ring};

/// How a compressed layer is unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpackOptions {
    /// What becomes of the entries.
    pub apply: ApplyOptions,
    /// The longest uncompressed stream accepted: a small file can decompress to a full disk.
    pub uncompressed_bytes_max: u64,
}

impl Default for UnpackOptions {
    /// One tebibyte.
    fn default() -> Self {
        Self { apply: ApplyOptions::default(), uncompressed_bytes_max: 1 << 40 }
    }
}

/// A layer that was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the uncompressed stream. The caller compares it with the image's config.
    pub diff_id: DiffId,
    /// What the input was compressed with.
    pub compression: Compression,
    /// Length of the input.
    pub compressed_bytes: u64,
    /// Length of the tar stream.
    pub uncompressed_bytes: u64,
    /// What was made of it.
    pub applied: Applied,
}

/// Why a layer was not unpacked. The folder is left half written, for the caller to remove.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The input failed or does not decompress.
    #[error("cannot read layer")]
    Read(#[source] io::Error),
    /// The layer decompresses to more than allowed.
    #[error("layer decompresses to more than {max} bytes")]
    TooLarge {
        /// The limit.
        max: u64,
    },
    /// The tar stream was not applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The system has no more threads.
    #[error("cannot start a thread to unpack with")]
    Thread(#[source] io::Error),
}

/// Decompresses `compressed` and applies it to the empty folder `target`.
pub fn unpack(
    compressed: impl Read,
    target: &Path,
    options: &UnpackOptions,
) -> Result<Unpacked, UnpackError> {
    let mut input = Counted { inner: compressed, bytes: 0 };
    let (writer, reader) = ring();
    let (decompressed, applied) = thread::scope(|scope| {
        let applier = thread::Builder::new()
            .name("unpack".into())
            .spawn_scoped(scope, || apply(reader, target, &options.apply))
            .map_err(UnpackError::Thread)?;
        let decompressed = decompress(&mut input, writer, options.uncompressed_bytes_max);
        let applied = applier.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, UnpackError>((decompressed, applied))
    })?;
    // Whichever failed first, the other sees only that its partner is gone.
    let (diff_id, compression, uncompressed_bytes) = match (decompressed, &applied) {
        (Err(Stopped::ApplierGone(error)), Ok(_)) => return Err(UnpackError::Read(error)),
        (Err(Stopped::ApplierGone(_)), Err(_)) => return Err(applied.map(drop).unwrap_err().into()),
        (Err(Stopped::Input(error)), _) => return Err(error),
        (Ok(decompressed), _) => decompressed,
    };
    let applied = applied?;
    Ok(Unpacked { diff_id, compression, compressed_bytes: input.bytes, uncompressed_bytes, applied })
}

enum Stopped {
    /// The input is at fault.
    Input(UnpackError),
    /// The other side stopped taking data; it knows why.
    ApplierGone(io::Error),
}

fn decompress(
    input: impl Read,
    mut out: RingWriter,
    bytes_max: u64,
) -> Result<(DiffId, Compression, u64), Stopped> {
    let failed = |error| Stopped::Input(UnpackError::Read(error));
    let mut input = Decompressor::new(input).map_err(failed)?;
    let compression = input.compression();
    let mut digester = Digester::sha256();
    let mut total = 0_u64;
    loop {
        out.make_room().map_err(Stopped::ApplierGone)?;
        let data = out.fill_from(&mut input).map_err(failed)?;
        if data.is_empty() {
            break;
        }
        digester.update(data);
        total += data.len() as u64;
        if total > bytes_max {
            return Err(Stopped::Input(UnpackError::TooLarge { max: bytes_max }));
        }
    }
    out.finish().map_err(Stopped::ApplierGone)?;
    Ok((DiffId::new(digester.finish()), compression, total))
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(out)?;
        self.bytes += length as u64;
        Ok(length)
    }
}
