use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use dhow_oci::{Descriptor, Digest, Digester, Document, media_type};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::uploads::too_slow;
use super::{Registry, blob_key, catalog_key, manifest_key, tag_key};
use crate::error::{ApiError, Code};
use crate::storage::StorageError;

/// Questions to the storage that one request asks at once.
pub(super) const AT_ONCE: usize = 16;

/// How a manifest is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(String),
    Digest(Digest),
}

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

impl Registry {
    pub(crate) async fn manifest(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> Result<Manifest, ApiError> {
        let unknown = || manifest_unknown(reference);
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => self.tag(repository, tag).await?.ok_or_else(unknown)?,
        };
        let bytes = self.manifest_bytes(repository, digest).await?.ok_or_else(unknown)?;
        Ok(Manifest { digest, media_type: own_media_type(&bytes).to_owned(), bytes })
    }

    pub(super) async fn manifest_bytes(
        &self,
        repository: &str,
        digest: Digest,
    ) -> Result<Option<Bytes>, StorageError> {
        self.storage.get(&manifest_key(repository, digest)).await
    }

    /// Receives a manifest, which must not be larger than the limit.
    pub(crate) async fn receive_manifest(&self, body: Body) -> Result<Bytes, ApiError> {
        let limit = self.limits.manifest_bytes_max;
        let body = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX)).collect();
        // It is small: there is no reason to take it in instalments.
        let patience: Duration = self.limits.patience;
        match tokio::time::timeout(patience, body).await.map_err(|_| too_slow())? {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let message = format!("the manifest is larger than the limit of {limit} bytes");
                let error = ApiError::new(Code::SizeInvalid, message);
                Err(error.status(hyper::StatusCode::PAYLOAD_TOO_LARGE))
            }
            Err(error) => {
                Err(ApiError::new(Code::ManifestInvalid, format!("the request broke off: {error}")))
            }
        }
    }

    /// Takes a manifest. Returns its digest and what it is about, if that is another manifest.
    pub(crate) async fn put_manifest(
        &self,
        repository: &str,
        reference: &Reference,
        declared: Option<&str>,
        bytes: Bytes,
    ) -> Result<(Digest, Option<Digest>), ApiError> {
        let document = understand(declared, &bytes)?;
        let digest = match reference {
            Reference::Tag(_) => Digest::sha256_of(&bytes),
            Reference::Digest(wanted) => {
                let mut digester = Digester::new(wanted.algorithm());
                digester.update(&bytes);
                let actual = digester.finish();
                if actual != *wanted {
                    return Err(ApiError::new(Code::DigestInvalid, format!("the manifest is {actual}")));
                }
                actual
            }
        };
        self.check_references(repository, &document).await?;
        self.storage.put(&manifest_key(repository, digest), bytes.clone()).await?;
        // A collector may not have seen it, and what it relies on may be gone since we looked.
        self.fence(&references(&document).iter().map(|reference| reference.digest).collect::<Vec<_>>())
            .await?;
        self.check_references(repository, &document).await?;
        let subject = subject(&document);
        if let Some(subject) = subject {
            self.add_referrer(repository, subject, &document, digest, &bytes).await?;
        }
        self.storage.put(&catalog_key(repository), Bytes::new()).await?;
        if let Reference::Tag(tag) = reference {
            self.storage.put(&tag_key(repository, tag), format!("{digest}\n").into()).await?;
        }
        Ok((digest, subject))
    }

    async fn check_references(&self, repository: &str, document: &Document) -> Result<(), ApiError> {
        let is_index = matches!(document, Document::Index(_));
        let wanted: Vec<(Digest, u64)> =
            references(document).iter().map(|reference| (reference.digest, reference.size)).collect();
        let checks = wanted.into_iter().map(|(digest, size)| async move {
            let is_here = self.has(repository, is_index, digest, size).await?;
            Ok::<_, StorageError>((!is_here).then_some(digest))
        });
        let missing: Vec<_> = futures_util::stream::iter(checks).buffered(AT_ONCE).try_collect().await?;
        let missing: Vec<_> = missing.into_iter().flatten().map(|digest| digest.to_string()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("the manifest needs what is not in this repository: {}", missing.join(", "));
        Err(ApiError::new(Code::ManifestBlobUnknown, message))
    }

    async fn has(
        &self,
        repository: &str,
        is_index: bool,
        digest: Digest,
        bytes: u64,
    ) -> Result<bool, StorageError> {
        // An index lists manifests, and in build caches blobs too.
        if is_index && self.storage.written(&manifest_key(repository, digest)).await?.is_some() {
            return Ok(true);
        }
        let (record, size) = tokio::try_join!(self.record(repository, digest), self.storage.size(digest))?;
        Ok(record && size == Some(bytes))
    }

    async fn record(&self, repository: &str, digest: Digest) -> Result<bool, StorageError> {
        Ok(self.storage.written(&blob_key(repository, digest)).await?.is_some())
    }

    /// Removes a tag, or a manifest with all its tags.
    pub(crate) async fn delete_manifest(
        &self,
        repository: &str,
        reference: &Reference,
    ) -> Result<(), ApiError> {
        let digest = match reference {
            Reference::Tag(tag) => {
                return match self.storage.delete(&tag_key(repository, tag)).await? {
                    true => Ok(()),
                    false => Err(manifest_unknown(reference)),
                };
            }
            Reference::Digest(digest) => *digest,
        };
        let Some(bytes) = self.manifest_bytes(repository, digest).await? else {
            return Err(manifest_unknown(reference));
        };
        for tag in self.tags_of(repository, digest).await? {
            self.storage.delete(&tag_key(repository, &tag)).await?;
        }
        self.storage.delete(&manifest_key(repository, digest)).await?;
        if let Some(subject) = Document::parse(None, &bytes).ok().as_ref().and_then(subject) {
            self.remove_referrer(repository, subject, digest).await?;
        }
        Ok(())
    }
}

pub(crate) fn manifest_unknown(reference: &Reference) -> ApiError {
    let what = match reference {
        Reference::Tag(tag) => format!("tag {tag}"),
        Reference::Digest(digest) => format!("manifest {digest}"),
    };
    ApiError::new(Code::ManifestUnknown, format!("{what} is not in this repository"))
}

/// Reads a manifest that arrives, and checks that it is what the client says.
fn understand(declared: Option<&str>, bytes: &[u8]) -> Result<Document, ApiError> {
    let invalid = |message: String| ApiError::new(Code::ManifestInvalid, message);
    // Parameters such as a charset say nothing about the type.
    let declared = declared.map(|text| text.split(';').next().unwrap_or_default().trim());
    let own = own_probe(bytes).and_then(|probe| probe.media_type);
    if let (Some(declared), Some(own)) = (declared, &own)
        && declared != own
    {
        return Err(invalid(format!("Content-Type is {declared}, and the manifest calls itself {own}")));
    }
    let stated = own.as_deref().or(declared).unwrap_or_default();
    let is_known = media_type::MANIFESTS_ACCEPTED.contains(&stated);
    if !is_known && !stated.is_empty() && !media_type::is_schema1(stated) {
        return Err(invalid(format!("manifests of type {stated} are not taken")));
    }
    let document = Document::parse(declared, bytes).map_err(|error| invalid(error.to_string()))?;
    // What it is must be told by its bytes alone: nothing else is kept.
    let kept = own_media_type(bytes);
    if stated.is_empty() || kept != stated {
        return Err(invalid(format!("a manifest of type {stated:?} must say so in its mediaType")));
    }
    Ok(document)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
}

fn own_probe(bytes: &[u8]) -> Option<Probe> {
    serde_json::from_slice(bytes).ok()
}

/// What a manifest is by its bytes. Only the types of OCI may leave it out.
fn own_media_type(bytes: &[u8]) -> &'static str {
    let Some(probe) = own_probe(bytes) else { return media_type::OCI_MANIFEST };
    let stated = probe.media_type.unwrap_or_default();
    let known = media_type::MANIFESTS_ACCEPTED.into_iter().find(|known| *known == stated);
    known.unwrap_or(if probe.manifests.is_some() { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST })
}

/// What a manifest cannot do without.
pub(super) fn references(document: &Document) -> Vec<&Descriptor> {
    match document {
        Document::Manifest(manifest) => {
            // Foreign layers are kept elsewhere.
            let own = manifest.layers.iter().filter(|layer| layer.urls.is_empty());
            std::iter::once(&manifest.config).chain(own).collect()
        }
        Document::Index(index) => index.manifests.iter().collect(),
    }
}

fn subject(document: &Document) -> Option<Digest> {
    match document {
        Document::Manifest(manifest) => manifest.subject.as_ref().map(|subject| subject.digest),
        Document::Index(index) => {
            let subject = index.other.get("subject")?.clone();
            serde_json::from_value::<Descriptor>(subject).ok().map(|subject| subject.digest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(declared: Option<&str>, text: &str, outcome: Result<&str, &str>) {
        match (understand(declared, text.as_bytes()), outcome) {
            (Ok(_), Ok(kept)) => assert_eq!(own_media_type(text.as_bytes()), kept, "{text}"),
            (Err(error), Err(part)) => {
                let text = format!("{error:?}");
                assert!(text.contains(part), "{text}");
            }
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn a_manifest_is_what_it_says_and_says_what_it_is() {
        let descriptor = r#"{"mediaType":"a/b","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        let oci = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[]}}"#);
        let docker = oci.replacen('{', &format!(r#"{{"mediaType":"{}","#, media_type::DOCKER_MANIFEST), 1);
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        check(Some(media_type::OCI_MANIFEST), &oci, Ok(media_type::OCI_MANIFEST));
        check(
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
            &oci,
            Ok(media_type::OCI_MANIFEST),
        );
        check(Some(media_type::DOCKER_MANIFEST), &docker, Ok(media_type::DOCKER_MANIFEST));
        check(None, &docker, Ok(media_type::DOCKER_MANIFEST));
        check(Some(media_type::OCI_INDEX), index, Ok(media_type::OCI_INDEX));
        check(Some(media_type::OCI_MANIFEST), &docker, Err("calls itself"));
        check(Some(media_type::DOCKER_MANIFEST), &oci, Err("must say so"));
        check(Some(media_type::OCI_INDEX), &oci, Err("not valid JSON of its type"));
        check(Some("text/html"), "<html>", Err("text/html are not taken"));
        check(Some(media_type::OCI_MANIFEST), "<html>", Err("not valid JSON"));
        check(Some(media_type::DOCKER_SCHEMA1), r#"{"schemaVersion":1,"fsLayers":[]}"#, Err("schema 1"));
        check(None, &oci, Err("must say so"));
    }
}
