use std::fs::File;
use std::io::{self, Read, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use dhow_oci::Descriptor;
use dhow_store::Ingest;

use crate::install::OpenLayer;
use crate::{PullEvent, PullObserver};

/// Progress is told about so often.
pub(crate) const PROGRESS_BYTES: u64 = 32 << 10;
/// How much is read at a time where nobody looks at it.
const DRAIN_BUFFER_BYTES: usize = 64 << 10;

/// Reads a layer from its beginning: first what an earlier command left in the ingest, then, into the
/// ingest, what is still to come.
pub(crate) struct Tee<'a> {
    ingest: Ingest,
    left: io::Take<File>,
    coming: Option<Box<dyn Read + Send>>,
    open: &'a OpenLayer<'a>,
    descriptor: &'a Descriptor,
    observer: &'a PullObserver<'a>,
    told: u64,
    stop: &'a AtomicBool,
    failure: Option<TeeFailure>,
}

/// Which side of a tee failed.
pub(crate) enum TeeFailure {
    /// Bytes did not come.
    Source(io::Error),
    /// Bytes could not be kept.
    Store(io::Error),
}

impl<'a> Tee<'a> {
    pub(crate) fn new(
        ingest: Ingest,
        descriptor: &'a Descriptor,
        open: &'a OpenLayer<'a>,
        observer: &'a PullObserver<'a>,
        stop: &'a AtomicBool,
    ) -> Result<Tee<'a>, crate::LayerError> {
        let left = ingest.written().map_err(crate::LayerError::Source)?;
        let (coming, failure, told) = (None, None, 0);
        Ok(Tee { ingest, left, coming, open, descriptor, observer, told, stop, failure })
    }

    /// Fetches what the reader no longer wants to see.
    pub(crate) fn drain(&mut self) {
        let mut buffer = vec![0; DRAIN_BUFFER_BYTES];
        while self.failure.is_none() && matches!(self.read(&mut buffer), Ok(1..)) {}
    }

    pub(crate) fn into_parts(self) -> (Ingest, Option<TeeFailure>) {
        (self.ingest, self.failure)
    }

    fn fetch(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        let offset = self.ingest.offset();
        if offset >= self.descriptor.size {
            return Ok(0);
        }
        let coming = match &mut self.coming {
            Some(coming) => coming,
            None => self.coming.insert((self.open)(self.descriptor, offset)?),
        };
        coming.read(buffer)
    }

    fn tell(&mut self) {
        let bytes = self.ingest.offset();
        if bytes - self.told >= PROGRESS_BYTES || bytes == self.descriptor.size {
            self.told = bytes;
            (self.observer)(&PullEvent::LayerProgress { digest: self.descriptor.digest, bytes });
        }
    }

    /// Keeps the error for whoever asks what went wrong; the reader in between would wrap it.
    fn fail(&mut self, failure: TeeFailure) -> io::Error {
        self.failure = Some(failure);
        io::Error::other("the layer did not come whole")
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::Error::other("the layer did not come whole"));
        }
        match self.left.read(buffer) {
            Ok(0) => {}
            Ok(count) => return Ok(count),
            Err(error) => return Err(self.fail(TeeFailure::Store(error))),
        }
        let count = match self.fetch(buffer) {
            Ok(count) => count,
            Err(error) => return Err(self.fail(TeeFailure::Source(error))),
        };
        if let Err(error) = self.ingest.write_all(&buffer[..count]) {
            return Err(self.fail(TeeFailure::Store(error)));
        }
        self.tell();
        Ok(count)
    }
}
