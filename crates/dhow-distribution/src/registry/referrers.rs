use bytes::Bytes;
use dhow_oci::{Descriptor, Digest, Document, media_type};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::manifests::AT_ONCE;
use super::{Registry, digest_words};
use crate::storage::StorageError;

/// What one answer lists at most; each entry may have annotations of its own.
const PAGE_MAX: usize = 500;

/// Manifests that are about another one.
#[derive(Debug)]
pub(crate) struct Referrers {
    pub(crate) descriptors: Vec<Descriptor>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<String>,
}

fn referrers_prefix(repository: &str, subject: Digest) -> String {
    format!("repositories/{repository}/_referrers/{}/", digest_words(subject))
}

impl Registry {
    pub(super) async fn add_referrer(
        &self,
        repository: &str,
        subject: Digest,
        document: &Document,
        digest: Digest,
        bytes: &Bytes,
    ) -> Result<(), StorageError> {
        let descriptor = describe(document, digest, bytes.len() as u64);
        let text = serde_json::to_vec(&descriptor).expect("descriptors are JSON");
        let key = referrers_prefix(repository, subject) + &digest_words(digest);
        self.storage.put(&key, text.into()).await
    }

    pub(super) async fn remove_referrer(
        &self,
        repository: &str,
        subject: Digest,
        digest: Digest,
    ) -> Result<(), StorageError> {
        let key = referrers_prefix(repository, subject) + &digest_words(digest);
        self.storage.delete(&key).await.map(drop)
    }

    /// The manifests that are about `subject`, of one type if that is asked for, behind `last`.
    pub(crate) async fn referrers(
        &self,
        repository: &str,
        subject: Digest,
        artifact_type: Option<&str>,
        last: Option<&str>,
    ) -> Result<Referrers, StorageError> {
        let prefix = referrers_prefix(repository, subject);
        // `last` is the end of a key of ours; anything else is only a place in the order of keys.
        let after = last.map(|last| format!("{prefix}{}", last.replace(':', "/")));
        let entries = self.storage.list(&prefix, after.as_deref(), PAGE_MAX).await?;
        let next = match entries.last() {
            Some(last) if entries.len() == PAGE_MAX => {
                last.key.strip_prefix(&prefix).map(|end| end.replace('/', ":"))
            }
            _ => None,
        };
        let reads = entries.into_iter().map(|entry| async move { self.storage.get(&entry.key).await });
        let texts: Vec<_> = futures_util::stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let descriptors = texts.into_iter().flatten().filter_map(|text| serde_json::from_slice(&text).ok());
        let is_wanted = |descriptor: &Descriptor| {
            artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
        };
        Ok(Referrers { descriptors: descriptors.filter(is_wanted).collect(), next })
    }
}

/// As distribution-spec wants it: the type of a manifest without one is that of its configuration.
fn describe(document: &Document, digest: Digest, bytes: u64) -> Descriptor {
    let (kind, artifact_type, annotations) = match document {
        Document::Manifest(manifest) => {
            let fallback = || Some(manifest.config.media_type.clone());
            let artifact_type =
                manifest.artifact_type.clone().filter(|text| !text.is_empty()).or_else(fallback);
            (
                manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST),
                artifact_type,
                &manifest.annotations,
            )
        }
        Document::Index(index) => {
            let artifact_type =
                index.other.get("artifactType").and_then(|value| value.as_str()).map(str::to_owned);
            (index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX), artifact_type, &index.annotations)
        }
    };
    let mut descriptor = Descriptor::new(kind, digest, bytes);
    (descriptor.artifact_type, descriptor.annotations) = (artifact_type, annotations.clone());
    descriptor
}
