//! Blobs: bytes named by their digest.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use dhow_oci::Digest;

use crate::ingest::{self, Begun, CommitError, Expected, Ingest, IngestError, Sealed, SyncBefore};
use crate::{Lease, LeaseError, Ref, Store};

/// The blobs of a store.
///
/// A blob arrives through an [`Ingest`] and never changes. Every way to one that is to be relied on takes a
/// [`Lease`], because any other process may be collecting garbage.
#[derive(Clone, Copy, Debug)]
pub struct ContentStore<'s> {
    store: &'s Store,
}

/// A blob that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// How many bytes it has.
    pub size_bytes: u64,
}

/// Why a blob could not be secured.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// It could not be put under the lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The disk failed us.
    #[error("cannot look at blob {digest}")]
    Io {
        /// The blob.
        digest: Digest,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a few bytes were not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutBlobError {
    /// The store could not be asked for them.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// Writing could not begin.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// They could not be written or published.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a blob was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store does not have it.
    #[error("blob {digest} is not in the store")]
    NotFound {
        /// The blob.
        digest: Digest,
    },
    /// It is larger than the caller is ready for.
    #[error("blob {digest} has {size_bytes} bytes, at most {max_bytes} are allowed here")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// How large it is.
        size_bytes: u64,
        /// How large it may be.
        max_bytes: u64,
    },
    /// The disk has changed it.
    #[error("blob {digest} is damaged: its bytes hash to {actual}")]
    Damaged {
        /// The blob.
        digest: Digest,
        /// What its bytes hash to.
        actual: Box<Digest>,
    },
    /// The disk failed us.
    #[error("cannot read blob {digest}")]
    Io {
        /// The blob.
        digest: Digest,
        /// What the system said.
        source: io::Error,
    },
}

impl<'s> ContentStore<'s> {
    pub(crate) fn new(store: &'s Store) -> ContentStore<'s> {
        ContentStore { store }
    }

    /// Protects `digest` with `lease` and then says whether the blob is there.
    ///
    /// `Some` holds until the lease ends; `None` means that it must be fetched or made.
    pub fn acquire(&self, lease: &Lease, digest: &Digest) -> Result<Option<Blob>, AcquireError> {
        lease.add(Ref::Blob(*digest))?;
        self.find(digest).map_err(|source| AcquireError::Io { digest: *digest, source })
    }

    /// Whether the blob is there at this moment. Good for a display; to rely on it, [`acquire`](Self::acquire).
    pub fn find(&self, digest: &Digest) -> io::Result<Option<Blob>> {
        match fs::symlink_metadata(self.path(digest)) {
            Ok(metadata) => Ok(Some(Blob { digest: *digest, size_bytes: metadata.len() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.store.blob_path(digest)
    }

    /// Starts writing a blob whose digest will be known at its end.
    pub fn ingest(&self, lease: &Lease) -> Result<Ingest, IngestError> {
        ingest::begin(self.store, lease)
    }

    /// Starts, or continues, writing a blob whose digest and size are known.
    ///
    /// If another process or thread is writing the same blob, waits up to `wait` for it; what a dead one left
    /// behind is continued from [`Ingest::offset`].
    pub fn ingest_expected(
        &self,
        lease: &Lease,
        expected: Expected,
        wait: Duration,
    ) -> Result<Begun, IngestError> {
        ingest::begin_expected(self.store, lease, expected, wait)
    }

    /// Stores a few bytes, such as a manifest or a config.
    pub fn put(&self, lease: &Lease, bytes: &[u8]) -> Result<Blob, PutBlobError> {
        let digest = Digest::sha256_of(bytes);
        if let Some(blob) = self.acquire(lease, &digest)? {
            return Ok(blob);
        }
        let mut ingest = self.ingest(lease)?;
        ingest.write_bytes(bytes)?;
        Ok(ingest.commit()?)
    }

    /// Publishes blobs that were [sealed](Ingest::seal) one by one: together they cost little more than one.
    pub fn publish(&self, sealed: Vec<Sealed>, sync: SyncBefore) -> Result<Vec<Blob>, CommitError> {
        ingest::publish(self.store, sealed, sync)
    }

    /// Opens a blob for reading. It stays readable even if gc removes it meanwhile.
    pub fn open(&self, digest: &Digest) -> Result<BlobReader, ReadError> {
        let io_failed = |source| ReadError::Io { digest: *digest, source };
        let file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ReadError::NotFound { digest: *digest });
            }
            Err(error) => return Err(io_failed(error)),
        };
        let size_bytes = file.metadata().map_err(io_failed)?.len();
        Ok(BlobReader { file, digest: *digest, size_bytes })
    }

    /// Reads a whole blob of at most `max_bytes` and checks it against its digest.
    pub fn read_bounded(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let reader = self.open(digest)?;
        let size_bytes = reader.size_bytes();
        if size_bytes > max_bytes {
            return Err(ReadError::TooLarge { digest: *digest, size_bytes, max_bytes });
        }
        let mut bytes = Vec::new();
        reader
            .take(size_bytes)
            .read_to_end(&mut bytes)
            .map_err(|source| ReadError::Io { digest: *digest, source })?;
        let actual = digest_of(digest, &bytes);
        if actual != *digest {
            return Err(ReadError::Damaged { digest: *digest, actual: Box::new(actual) });
        }
        Ok(bytes)
    }

    /// The digests of all blobs, sorted.
    pub fn list(&self) -> io::Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for algorithm in ALGORITHMS {
            for entry in fs::read_dir(self.store.blobs_dir(algorithm))? {
                // What is not named by a digest is not ours to judge.
                if let Some(hex) = entry?.file_name().to_str()
                    && let Ok(digest) = format!("{}:{hex}", algorithm.name()).parse()
                {
                    digests.push(digest);
                }
            }
        }
        digests.sort();
        Ok(digests)
    }
}

pub(crate) const ALGORITHMS: [dhow_oci::Algorithm; 2] =
    [dhow_oci::Algorithm::Sha256, dhow_oci::Algorithm::Sha512];

fn digest_of(like: &Digest, bytes: &[u8]) -> Digest {
    let mut digester = dhow_oci::Digester::new(like.algorithm());
    digester.update(bytes);
    digester.finish()
}

/// An open blob.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    digest: Digest,
    size_bytes: u64,
}

impl BlobReader {
    /// The blob's name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many bytes it has.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The file, for those who can copy or send it without reading.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl io::Seek for BlobReader {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}
