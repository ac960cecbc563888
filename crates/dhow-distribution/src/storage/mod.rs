//! What a registry keeps, and how: small *records* by key, large *content* by digest, and uploads on their way to become
//! content.
//!
//! Two implementations share one contract and its tests: [`Folder`] and [`Bucket`].

mod bucket;
mod folder;
#[cfg(test)]
mod suite;

use std::error::Error;
use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use dhow_oci::Digest;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

pub use bucket::{Bucket, BucketOptions};
pub use folder::Folder;

/// Bytes as they come.
pub type ByteStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// What stores a registry.
///
/// Every answer is about what is durable: when a call that changes something has returned, a power cut does not undo
/// it. A change is seen by all processes that share the storage, whole or not at all, and at once. A process may be
/// killed inside any call; what it leaves is invisible, and [`sweep`](Self::sweep) removes it.
///
/// Keys are words of letters, digits and `._-`, joined by slashes, none of them empty or beginning with a dot.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// A record.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StorageError>;
    /// When a record was last written.
    async fn written(&self, key: &str) -> Result<Option<SystemTime>, StorageError>;
    /// Writes a record, in place of what was there.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StorageError>;
    /// Writes a record if there is none. Returns whether it did; of several at once, one does.
    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, StorageError>;
    /// Removes a record. Returns whether there was one, as far as can be told.
    async fn delete(&self, key: &str) -> Result<bool, StorageError>;
    /// The first `limit` records below `prefix`, which ends with a slash, and behind the key `after`, in the order of
    /// their bytes.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize)
    -> Result<Vec<Entry>, StorageError>;

    /// The size of some content.
    async fn size(&self, digest: Digest) -> Result<Option<u64>, StorageError>;
    /// A part of some content, which must have it.
    async fn read(&self, digest: Digest, range: Range<u64>) -> Result<Option<ByteStream>, StorageError>;
    /// All content, in no particular order.
    async fn contents(&self) -> Result<Vec<Content>, StorageError>;
    /// Removes some content. Removing what is gone is success.
    async fn remove(&self, digest: Digest) -> Result<(), StorageError>;

    /// Begins an upload under a new name.
    async fn begin(&self, upload: &str, note: &Note) -> Result<(), StorageError>;
    /// Goes on with an upload. While one process writes, another is told [`StorageError::Busy`], here or at its next
    /// [`save`](Upload::save).
    async fn resume(&self, upload: &str) -> Result<Option<Box<dyn Upload>>, StorageError>;
    /// All uploads, and when each was last saved.
    async fn uploads(&self) -> Result<Vec<(String, SystemTime)>, StorageError>;

    /// Removes what processes that were killed before `before` left behind. Returns how many things.
    async fn sweep(&self, before: SystemTime) -> Result<u64, StorageError>;
}

/// Content that arrives.
///
/// Write and save in turns; what was not saved is lost with the process. Then `seal`, `publish` under the digest the
/// caller has checked, and `discard`, which forgets the upload and leaves the content.
#[async_trait]
pub trait Upload: Send + Sync {
    /// As it was saved last.
    fn note(&self) -> &Note;
    /// Adds bytes.
    async fn write(&mut self, pieces: Vec<Bytes>) -> Result<(), StorageError>;
    /// Makes all that was written durable, with `note` beside it.
    async fn save(&mut self, note: &Note) -> Result<(), StorageError>;
    /// Ends writing. It is to become `digest`.
    async fn seal(&mut self, digest: Digest) -> Result<(), StorageError>;
    /// All that was written; only after [`seal`](Self::seal).
    async fn read(&self) -> Result<ByteStream, StorageError>;
    /// Makes it the content named `digest`; only after [`seal`](Self::seal). If there is such content already, that
    /// stays and it is success. May be repeated.
    async fn publish(&mut self, digest: Digest) -> Result<(), StorageError>;
    /// Forgets the upload.
    async fn discard(self: Box<Self>) -> Result<(), StorageError>;
}

/// What the registry has to know of an upload when it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Where the content is to go.
    pub repository: String,
    /// How much there is.
    pub bytes: u64,
    /// The state of the SHA-256 of these bytes, in base64.
    pub sha256: String,
}

/// A record in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// When it was written.
    pub written: SystemTime,
}

/// Content in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its name.
    pub digest: Digest,
    /// When it was published.
    pub written: SystemTime,
}

/// Why the storage did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Somebody else writes this upload.
    #[error("upload {0} is being written by another request")]
    Busy(String),
    /// The disk or the store failed us.
    #[error("cannot {act} {what}")]
    Failed {
        /// What was tried.
        act: &'static str,
        /// With what.
        what: String,
        /// What it said.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StorageError {
    pub(crate) fn failed(
        act: &'static str,
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> StorageError {
        StorageError::Failed { act, what: what.into(), source: source.into() }
    }
}

/// The words of a content's key: `sha256/ab/abcd…`.
fn content_key(digest: Digest) -> String {
    let hex = digest.hex();
    format!("{}/{}/{hex}", digest.algorithm().name(), &hex[..2])
}

/// Reads [`content_key`] back.
fn content_of(key: &str) -> Option<Digest> {
    let mut words = key.split('/');
    let (algorithm, fan, hex) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !hex.starts_with(fan) {
        return None;
    }
    format!("{algorithm}:{hex}").parse().ok()
}
