use std::ops::Range;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dhow_oci::Digest;

use super::{Registry, blob_key};
use crate::error::{ApiError, Code};
use crate::storage::{ByteStream, StorageError};

/// A blob's record that is older is written again when somebody asks for the blob. Far below any time of grace.
const RECORD_AGE_MAX: Duration = Duration::from_secs(600);

impl Registry {
    /// The size of a repository's blob.
    pub(crate) async fn blob_size(
        &self,
        repository: &str,
        digest: Digest,
    ) -> Result<Option<u64>, StorageError> {
        let key = blob_key(repository, digest);
        let Some(written) = self.storage.written(&key).await? else { return Ok(None) };
        // A time in the future is new enough.
        let is_old = SystemTime::now().duration_since(written).is_ok_and(|age| age > RECORD_AGE_MAX);
        if is_old {
            return self.renew(repository, digest).await;
        }
        self.storage.size(digest).await
    }

    /// Makes the record of a blob new.
    async fn renew(&self, repository: &str, digest: Digest) -> Result<Option<u64>, StorageError> {
        self.storage.put(&blob_key(repository, digest), Bytes::new()).await?;
        self.fence(&[digest]).await?;
        // If it went meanwhile, the record alone says nothing, and gc takes it. It is not ours to remove: somebody else may
        // just have sent the blob again.
        self.storage.size(digest).await
    }

    /// A part of a repository's blob.
    pub(crate) async fn read_blob(
        &self,
        repository: &str,
        digest: Digest,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>, StorageError> {
        if self.storage.written(&blob_key(repository, digest)).await?.is_none() {
            return Ok(None);
        }
        self.storage.read(digest, range).await
    }

    /// Gives `repository` a blob that `from` has. Returns whether it could.
    pub(crate) async fn mount(
        &self,
        repository: &str,
        digest: Digest,
        from: &str,
    ) -> Result<bool, StorageError> {
        if self.blob_size(from, digest).await?.is_none() {
            return Ok(false);
        }
        Ok(self.renew(repository, digest).await?.is_some())
    }

    /// Takes a blob from a repository. Its content stays until nobody has it.
    pub(crate) async fn delete_blob(&self, repository: &str, digest: Digest) -> Result<(), ApiError> {
        match self.storage.delete(&blob_key(repository, digest)).await? {
            true => Ok(()),
            false => Err(blob_unknown(digest)),
        }
    }
}

pub(crate) fn blob_unknown(digest: Digest) -> ApiError {
    ApiError::new(Code::BlobUnknown, format!("blob {digest} is not in this repository"))
}
