//! What an index lists beside the image that is installed: fetched when somebody wants all of it, kept as it
//! travels, and unpacked only when it is run.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use dhow_oci::{Descriptor, Digest, Document, MANIFEST_BYTES_MAX, Reference, media_type};
use dhow_registry::Client;
use dhow_store::{Begun, CommitError, Expected, Lease, PutBlobError, SyncBefore};

use crate::closure::{DOCUMENTS_MAX, INDEX_DEPTH_MAX, is_document};
use crate::package::each_once;
use crate::pull::OTHER_PROCESS_WAIT;
use crate::{Images, PullError, PullEvent, PullObserver};

/// How much is read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Fetches blobs and documents of one repository into the store, as they are.
pub(crate) struct Fetch<'a> {
    pub(crate) images: &'a Images,
    pub(crate) client: &'a Client,
    pub(crate) reference: &'a Reference,
    pub(crate) lease: &'a Lease,
    pub(crate) observer: &'a PullObserver<'a>,
}

impl Fetch<'_> {
    /// Fetches all that is listed below an index, and all that its manifests name.
    pub(crate) fn below(&self, index: &Descriptor, bytes: &[u8]) -> Result<(), PullError> {
        let mut blobs = Vec::new();
        self.documents(index, bytes, INDEX_DEPTH_MAX, &mut BTreeSet::new(), &mut blobs)?;
        self.blobs(&blobs)
    }

    /// Fetches what a manifest names.
    pub(crate) fn parts(&self, manifest: &dhow_oci::Manifest) -> Result<(), PullError> {
        let parts = manifest.layers.iter().chain([&manifest.config]);
        self.blobs(
            &parts.filter(|part| !media_type::is_foreign(&part.media_type)).cloned().collect::<Vec<_>>(),
        )
    }

    fn documents(
        &self,
        entry: &Descriptor,
        bytes: &[u8],
        depth: usize,
        seen: &mut BTreeSet<Digest>,
        blobs: &mut Vec<Descriptor>,
    ) -> Result<(), PullError> {
        let document = Document::parse(Some(&entry.media_type), bytes).map_err(|source| {
            let (reference, digest) = (self.reference.familiar(), entry.digest);
            PullError::Manifest { reference, digest, source: Box::new(source) }
        })?;
        let index = match document {
            Document::Manifest(manifest) => {
                let parts = manifest.layers.iter().chain([&manifest.config]);
                blobs.extend(parts.filter(|part| !media_type::is_foreign(&part.media_type)).cloned());
                return Ok(());
            }
            Document::Index(index) => index,
        };
        for child in &index.manifests {
            if !seen.insert(child.digest) {
                continue;
            }
            if depth == 0 || seen.len() > DOCUMENTS_MAX {
                return Err(PullError::Nested { reference: self.reference.familiar() });
            }
            if !is_document(child) {
                blobs.push(child.clone());
                continue;
            }
            let bytes = self.document(child)?;
            self.documents(child, &bytes, depth - 1, seen, blobs)?;
        }
        Ok(())
    }

    /// A manifest or index, from here or from the registry, in the store from then on.
    fn document(&self, entry: &Descriptor) -> Result<Vec<u8>, PullError> {
        let content = self.images.store().content();
        if content.acquire(self.lease, &entry.digest)?.is_some() {
            return Ok(content.read_bounded(&entry.digest, MANIFEST_BYTES_MAX)?);
        }
        let bytes = self.client.fetch_manifest(self.reference, entry)?;
        self.put(entry, &bytes)?;
        Ok(bytes)
    }

    /// Stores a document under the digest it is known by, whatever its algorithm.
    pub(crate) fn put(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), PullError> {
        self.try_put(descriptor, bytes).map_err(|source| self.not_stored(source))
    }

    fn try_put(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), PutBlobError> {
        let (content, expected) = (self.images.store().content(), Expected::from(descriptor));
        let Begun::Ingest(mut ingest) = content.ingest_expected(self.lease, expected, OTHER_PROCESS_WAIT)?
        else {
            return Ok(());
        };
        let failed = |source| CommitError::Io { path: content.path(&descriptor.digest), source };
        ingest.restart().and_then(|()| ingest.write_all(bytes)).map_err(failed)?;
        ingest.commit()?;
        Ok(())
    }

    fn not_stored(&self, source: PutBlobError) -> PullError {
        PullError::Blob { reference: self.reference.familiar(), source }
    }

    fn blobs(&self, blobs: &[Descriptor]) -> Result<(), PullError> {
        each_once(blobs.iter(), |blob| blob.digest, |blob| self.blob(blob)).map(drop)
    }

    fn blob(&self, blob: &Descriptor) -> Result<(), PullError> {
        match self.attempt(blob) {
            // Bytes that an earlier command left may be damaged; then there is a second attempt from nothing.
            Err(PullError::Blob {
                source: PutBlobError::Commit(CommitError::DigestMismatch { resumed_at: 1.., .. }),
                ..
            }) => self.attempt(blob),
            result => result,
        }
    }

    fn attempt(&self, blob: &Descriptor) -> Result<(), PullError> {
        let content = self.images.store().content();
        let begun = content.ingest_expected(self.lease, Expected::from(blob), OTHER_PROCESS_WAIT);
        let mut ingest = match begun.map_err(|error| self.not_stored(error.into()))? {
            Begun::Present(_) => {
                (self.observer)(&PullEvent::LayerExists { digest: blob.digest });
                return Ok(());
            }
            Begun::Ingest(ingest) => *ingest,
        };
        (self.observer)(&PullEvent::LayerStarted { digest: blob.digest, size_bytes: blob.size });
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut reader = None;
        while ingest.offset() < blob.size {
            let reader = match &mut reader {
                Some(reader) => reader,
                None => reader.insert(self.client.fetch_blob(self.reference, blob, ingest.offset())?),
            };
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    ingest.keep_partial();
                    return Err(PullError::interrupted(self.reference, error));
                }
            };
            let failed = |source| CommitError::Io { path: content.path(&blob.digest), source };
            ingest.write_all(&buffer[..count]).map_err(|error| self.not_stored(failed(error).into()))?;
            let bytes = ingest.offset();
            (self.observer)(&PullEvent::LayerProgress { digest: blob.digest, bytes });
        }
        let sealed = ingest.seal().map_err(|error| self.not_stored(error.into()))?;
        content.publish(vec![sealed], SyncBefore::Files).map_err(|error| self.not_stored(error.into()))?;
        (self.observer)(&PullEvent::LayerDone { digest: blob.digest });
        Ok(())
    }
}
