//! Writing a blob: begin, write, seal, publish.
//!
//! The bytes go to a locked file in `ingest/`. Sealing checks what was promised and puts the digest under the
//! lease; publishing syncs the file, renames it into `blobs/` and syncs that folder.
//!
//! Ten layers are sealed as they arrive and published at once. Their files are synced from several threads:
//! the file system then commits its journal about once for all of them, and unlike one `syncfs` this never
//! waits for what a busy neighbour has written. Who has just called [`Store::sync_filesystem`] anyway, because
//! unpacked layers need it, says so and pays nothing more. No blob is renamed before its bytes are on disk.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use dhow_oci::{Algorithm, Descriptor, Digest, Digester};

use crate::lock::{self, LockedFile};
use crate::{AcquireError, Blob, ContentStore, Lease, LeaseError, Ref, Store};

/// Names of files that are of no use to anybody but their owner start with this.
pub(crate) const ANONYMOUS_PREFIX: &str = "new-";

/// How often a file that another process is writing is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Threads that sync files at once.
const SYNC_THREADS_MAX: usize = 8;

/// Bytes hashed at once when a partial file is continued.
const REHASH_BUFFER_BYTES: usize = 1 << 20;

/// What the sender promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many there are. More are refused as they come.
    pub size_bytes: u64,
}

impl From<&Descriptor> for Expected {
    fn from(descriptor: &Descriptor) -> Expected {
        Expected { digest: descriptor.digest, size_bytes: descriptor.size }
    }
}

/// How a blob of known digest begins.
#[derive(Debug)]
pub enum Begun {
    /// It is there already, and the lease protects it.
    Present(Blob),
    /// It has to be written.
    Ingest(Box<Ingest>),
}

/// Why writing could not begin.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Another process is writing the same blob, for longer than the caller wanted to wait.
    #[error("blob {digest} is being written by another process")]
    Busy {
        /// The blob.
        digest: Digest,
    },
    /// The blob could not be put under the lease or looked for.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The disk failed us.
    #[error("cannot write {}", path.display())]
    Io {
        /// The temporary file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a blob was not published. Its bytes are discarded, and what was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The sender promised one digest and sent the bytes of another.
    #[error("content is {actual}, expected {expected}")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Box<Digest>,
        /// Where an earlier writer's bytes ended, 0 if there was none. If not 0 those may be what is wrong
        /// (the power may have gone while they were written), and a second attempt starts from nothing.
        resumed_at: u64,
    },
    /// Fewer bytes came than were promised.
    #[error("content has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// What was promised.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// The blob could not be put under the lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The disk failed us.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A blob being written. Dropping it discards the bytes, [`keep_partial`](Self::keep_partial) does not.
#[derive(Debug)]
pub struct Ingest {
    partial: Partial,
    lease: Lease,
    digester: Digester,
    expected: Option<Expected>,
    offset: u64,
    resumed_at: u64,
}

/// A blob that is complete and as promised, but not visible yet. Dropping it discards the bytes.
#[derive(Debug)]
pub struct Sealed {
    partial: Partial,
    /// Held until the blob is published.
    _lease: Lease,
    blob: Blob,
}

/// Who makes the bytes safe before blobs become visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncBefore {
    /// The store syncs each file.
    Files,
    /// The caller has called [`Store::sync_filesystem`] since the last blob was sealed.
    Filesystem,
}

/// A locked temporary file that is removed with its owner unless told otherwise.
#[derive(Debug)]
struct Partial {
    locked: LockedFile,
    keep: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.keep {
            // If it stays it is an abandoned ingest, which gc removes.
            let _ = self.locked.remove();
        }
    }
}

pub(crate) fn begin(store: &Store, lease: &Lease) -> Result<Ingest, IngestError> {
    let dir = store.ingest_dir();
    let locked = lock::create_unique(&dir, ANONYMOUS_PREFIX)
        .map_err(|source| IngestError::Io { path: dir, source })?;
    Ok(Ingest {
        partial: Partial { locked, keep: false },
        lease: lease.clone(),
        digester: Digester::sha256(),
        expected: None,
        offset: 0,
        resumed_at: 0,
    })
}

pub(crate) fn begin_expected(
    store: &Store,
    lease: &Lease,
    expected: Expected,
    wait: Duration,
) -> Result<Begun, IngestError> {
    let digest = expected.digest;
    let content = ContentStore::new(store);
    lease.add(Ref::Blob(digest)).map_err(AcquireError::from)?;
    let find = || content.find(&digest).map_err(|source| AcquireError::Io { digest, source });
    let path = store.ingest_dir().join(format!("{}-{}", digest.algorithm().name(), digest.hex()));
    let mut waited = Duration::ZERO;
    loop {
        if let Some(blob) = find()? {
            return Ok(Begun::Present(blob));
        }
        match LockedFile::create(&path) {
            Ok(Some(locked)) => {
                let partial = Partial { locked, keep: false };
                // The one we waited for may have published between our look and our lock.
                return match find()? {
                    Some(blob) => Ok(Begun::Present(blob)),
                    None => resume(partial, lease, expected).map(Box::new).map(Begun::Ingest),
                };
            }
            Ok(None) if waited >= wait => return Err(IngestError::Busy { digest }),
            Ok(None) => thread::sleep(POLL),
            Err(source) => return Err(IngestError::Io { path, source }),
        }
        waited += POLL;
    }
}

/// Continues after the bytes that are there.
fn resume(partial: Partial, lease: &Lease, expected: Expected) -> Result<Ingest, IngestError> {
    let path = partial.locked.path.clone();
    let mut ingest = Ingest {
        partial,
        lease: lease.clone(),
        digester: Digester::new(expected.digest.algorithm()),
        expected: Some(expected),
        offset: 0,
        resumed_at: 0,
    };
    ingest.rehash().map_err(|source| IngestError::Io { path, source })?;
    Ok(ingest)
}

impl Ingest {
    /// How many bytes are there: where a download continues.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes that are there, from the first: for a reader of the whole blob that continues one begun before.
    pub fn written(&self) -> io::Result<io::Take<File>> {
        Ok(File::open(&self.partial.locked.path)?.take(self.offset))
    }

    /// Starts again from nothing, for a sender that cannot continue in the middle.
    pub fn restart(&mut self) -> io::Result<()> {
        let algorithm = self.expected.map_or(Algorithm::Sha256, |expected| expected.digest.algorithm());
        self.digester = Digester::new(algorithm);
        self.offset = 0;
        self.resumed_at = 0;
        let mut file = self.file();
        file.set_len(0)?;
        file.rewind()
    }

    /// Gives up for now and leaves the bytes to whoever asks for the same blob next.
    ///
    /// The bytes of a blob whose digest was not known at the beginning have no name to be found by: they go.
    pub fn keep_partial(mut self) {
        self.partial.keep = self.expected.is_some();
    }

    /// Checks what was promised. The blob becomes visible with [`ContentStore::publish`].
    pub fn seal(self) -> Result<Sealed, CommitError> {
        let digest = self.digester.finish();
        if let Some(expected) = self.expected {
            check(expected, digest, self.offset, self.resumed_at)?;
        } else {
            self.lease.add(Ref::Blob(digest))?;
        }
        let path = &self.partial.locked.path;
        self.partial
            .locked
            .file
            .set_permissions(fs::Permissions::from_mode(0o444))
            .map_err(|source| CommitError::Io { path: path.clone(), source })?;
        let blob = Blob { digest, size_bytes: self.offset };
        Ok(Sealed { partial: self.partial, _lease: self.lease, blob })
    }

    /// Checks what was promised and publishes the blob. One that exists already is success.
    pub fn commit(self) -> Result<Blob, CommitError> {
        let store = self.lease.store().clone();
        let sealed = self.seal()?;
        let blob = sealed.blob;
        publish(&store, vec![sealed], SyncBefore::Files)?;
        Ok(blob)
    }

    /// Writes all of `bytes`, with an error that names the file.
    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        self.write_all(bytes)
            .map_err(|source| CommitError::Io { path: self.partial.locked.path.clone(), source })
    }

    fn file(&self) -> &File {
        &self.partial.locked.file
    }

    /// Reads what an earlier writer left, up to the expected size.
    fn rehash(&mut self) -> io::Result<()> {
        let size_bytes = self.file().metadata()?.len();
        if self.expected.is_some_and(|expected| size_bytes > expected.size_bytes) {
            return self.restart();
        }
        let mut buffer = vec![0; REHASH_BUFFER_BYTES.min(usize::try_from(size_bytes).unwrap_or(usize::MAX))];
        while self.offset < size_bytes {
            let count = self.file().read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.digester.update(&buffer[..count]);
            self.offset += count as u64;
        }
        self.resumed_at = self.offset;
        Ok(())
    }
}

fn check(expected: Expected, actual: Digest, size_bytes: u64, resumed_at: u64) -> Result<(), CommitError> {
    // Sizes go first: a download that was cut off is told apart from one that was tampered with.
    if size_bytes != expected.size_bytes {
        return Err(CommitError::SizeMismatch { expected: expected.size_bytes, actual: size_bytes });
    }
    if actual != expected.digest {
        return Err(CommitError::DigestMismatch {
            expected: expected.digest,
            actual: Box::new(actual),
            resumed_at,
        });
    }
    Ok(())
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(expected) = self.expected
            && bytes.len() as u64 > expected.size_bytes - self.offset
        {
            let message =
                format!("blob {} is longer than the promised {} bytes", expected.digest, expected.size_bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let locked = &self.partial.locked;
        let count = self.lease.store().disk().write(&locked.file, &locked.path, bytes)?;
        self.digester.update(&bytes[..count]);
        self.offset += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sealed {
    /// What will be published.
    pub fn blob(&self) -> Blob {
        self.blob
    }
}

pub(crate) fn publish(
    store: &Store,
    sealed: Vec<Sealed>,
    sync: SyncBefore,
) -> Result<Vec<Blob>, CommitError> {
    if sync == SyncBefore::Files {
        sync_files(store, &sealed)?;
    }
    let mut blobs = Vec::with_capacity(sealed.len());
    for mut one in sealed {
        let from = &one.partial.locked.path;
        let to = store.blob_path(&one.blob.digest);
        // Replacing a blob that exists is harmless: the bytes are the same.
        store.disk().rename(from, &to).map_err(|source| CommitError::Io { path: to, source })?;
        // The name we wrote under may be another writer's from here on.
        one.partial.keep = true;
        blobs.push(one.blob);
    }
    store
        .sync_blob_names(blobs.iter().map(|blob| &blob.digest))
        .map_err(|(path, source)| CommitError::Io { path, source })?;
    Ok(blobs)
}

fn sync_files(store: &Store, sealed: &[Sealed]) -> Result<(), CommitError> {
    let sync_some = |some: &[Sealed]| some.iter().try_for_each(|one| sync_file(store, &one.partial.locked));
    if sealed.len() <= 1 {
        return sync_some(sealed);
    }
    thread::scope(|scope| {
        let shares = sealed.chunks(sealed.len().div_ceil(SYNC_THREADS_MAX));
        let threads: Vec<_> = shares.map(|share| scope.spawn(|| sync_some(share))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("syncing does not panic"))
    })
}

fn sync_file(store: &Store, locked: &LockedFile) -> Result<(), CommitError> {
    let path = &locked.path;
    store
        .disk()
        .sync_file(&locked.file, path)
        .map_err(|source| CommitError::Io { path: path.clone(), source })
}
