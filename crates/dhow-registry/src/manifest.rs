use dhow_oci::{Descriptor, Digest, Digester, Document, MANIFEST_BYTES_MAX, Reference, media_type};

use crate::auth::Scope;
use crate::client::Ask;
use crate::error::{Subject, Words};
use crate::transport::Reply;
use crate::{Action, Client, Endpoint, RegistryError};

/// What a reference stands for.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Type, digest and size of the document.
    pub descriptor: Descriptor,
    /// The document itself: a manifest or an index.
    pub bytes: Vec<u8>,
    /// Who served it.
    pub endpoint: Endpoint,
}

impl Client {
    /// Fetches the manifest or index that a reference stands for; without tag and digest that is `latest`.
    ///
    /// The bytes are those of the digest asked for, or of the digest the registry announced.
    pub fn resolve(&self, reference: &Reference) -> Result<Resolved, RegistryError> {
        let reference = reference.clone().or_latest();
        self.first_of(reference.registry(), |endpoint| self.resolve_at(endpoint, &reference))
    }

    /// The descriptor that a reference stands for, by HEAD where the registry answers it fully.
    pub fn head(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let reference = reference.clone().or_latest();
        self.first_of(reference.registry(), |endpoint| self.head_at(endpoint, &reference))
    }

    /// Fetches a manifest that another document describes.
    pub fn fetch_manifest(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let reference = repository.with_digest(descriptor.digest);
        let subject = Subject::of(Action::Pull, &reference);
        let bytes = self.first_of(reference.registry(), |endpoint| {
            let (_, bytes) = self.manifest_at(endpoint, &reference, Some(&descriptor.media_type))?;
            check_digest(&subject, descriptor.digest, &bytes)?;
            Ok(bytes)
        })?;
        if bytes.len() as u64 != descriptor.size {
            let (expected, actual) = (descriptor.size, bytes.len() as u64);
            return Err(RegistryError::SizeMismatch { subject: subject.text, expected, actual });
        }
        Ok(bytes)
    }

    /// Puts a manifest under the tag of a reference, or under its digest.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let subject = Subject::of(Action::Push, reference);
        let digest = match reference.digest() {
            Some(digest) => digest_like(digest, bytes),
            None => Digest::sha256_of(bytes),
        };
        let endpoint = self.config().endpoint(reference.registry());
        let repository = endpoint.repository(reference.repository());
        let name = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let target = format!("/v2/{repository}/manifests/{name}");
        let mut ask = Ask::new("PUT", target, Scope::push(&repository)).header("content-type", media_type);
        ask.bytes = Some(bytes);
        let mut reply = self.ask(&endpoint, &ask, &subject)?;
        if !(200..300).contains(&reply.status) {
            return Err(subject.refused(reply));
        }
        reply.drain();
        match announced(&reply) {
            // A registry that keeps other bytes than it was given breaks every digest that points there.
            Some(actual) if actual.algorithm() == digest.algorithm() && actual != digest => {
                let (expected, actual) = (digest.into(), actual.into());
                Err(RegistryError::DigestMismatch { subject: subject.text, expected, actual })
            }
            _ => Ok(digest),
        }
    }

    fn resolve_at(&self, endpoint: &Endpoint, reference: &Reference) -> Result<Resolved, RegistryError> {
        let subject = Subject::of(Action::Pull, reference);
        let (reply, bytes) = self.manifest_at(endpoint, reference, None)?;
        let expected = reference.digest().or_else(|| announced(&reply));
        let digest = match expected {
            Some(expected) => check_digest(&subject, expected, &bytes).map(|()| expected)?,
            None => Digest::sha256_of(&bytes),
        };
        let served_as = content_type(&reply);
        let document = Document::parse(served_as.as_deref(), &bytes)
            .map_err(|source| RegistryError::BadManifest { reference: subject.text.clone(), source })?;
        let media_type = media_type_of(&document, served_as);
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        Ok(Resolved { descriptor, bytes, endpoint: endpoint.clone() })
    }

    fn head_at(&self, endpoint: &Endpoint, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let subject = Subject::of(Action::Pull, reference);
        let reply = self.ask(endpoint, &manifest_ask("HEAD", endpoint, reference, None), &subject)?;
        let size = reply.content_length().filter(|size| *size > 0);
        match (reply.status, content_type(&reply), announced(&reply), size) {
            (200, Some(media_type), Some(digest), Some(size)) => {
                Ok(Descriptor::new(media_type, digest, size))
            }
            // An answer to HEAD has no words, and some registries do not do HEAD at all.
            _ => Ok(self.resolve_at(endpoint, reference)?.descriptor),
        }
    }

    /// The bytes of a manifest, bounded but not yet verified, and the head of the answer they came with.
    fn manifest_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        media_type: Option<&str>,
    ) -> Result<(Reply, Vec<u8>), RegistryError> {
        let subject = Subject::of(Action::Pull, reference);
        let ask = manifest_ask("GET", endpoint, reference, media_type);
        let retry = &self.config().retry;
        for failures in 1.. {
            let mut reply = self.ask(endpoint, &ask, &subject)?;
            if reply.status != 200 {
                return Err(manifest_refused(&subject, reply));
            }
            match reply.small(MANIFEST_BYTES_MAX) {
                Ok(Some(bytes)) => return Ok((reply, bytes)),
                Ok(None) => {
                    let (what, limit) = ("manifest", MANIFEST_BYTES_MAX);
                    return Err(RegistryError::TooLarge { subject: subject.text, what, limit });
                }
                Err(failure) => match retry.pause(failures, None).filter(|_| failure.is_passing()) {
                    Some(pause) => std::thread::sleep(pause),
                    None => return Err(subject.failed(failure)),
                },
            }
        }
        unreachable!("a pause is refused after the last attempt")
    }
}

fn manifest_ask<'a>(
    method: &'static str,
    endpoint: &Endpoint,
    reference: &Reference,
    media_type: Option<&str>,
) -> Ask<'a> {
    let repository = endpoint.repository(reference.repository());
    let tag = || reference.tag().unwrap_or(dhow_oci::DEFAULT_TAG).to_owned();
    let name = reference.digest().map_or_else(tag, |digest| digest.to_string());
    let target = format!("/v2/{repository}/manifests/{name}");
    let known = media_type::MANIFESTS_ACCEPTED;
    let is_new = |media_type: &&str| !known.contains(media_type) && is_header_text(media_type);
    let accept: Vec<&str> = known.into_iter().chain(media_type.filter(is_new)).collect();
    Ask::new(method, target, Scope::pull(&repository)).header("accept", accept.join(", "))
}

/// Media types come from documents that strangers wrote.
fn is_header_text(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn manifest_refused(subject: &Subject, reply: Reply) -> RegistryError {
    if reply.status != 404 {
        return subject.refused(reply);
    }
    let words = Words::read(reply);
    if words.code == "NAME_UNKNOWN" {
        return subject.worded(404, None, words);
    }
    let message = match words.code.is_empty() {
        true => "manifest unknown: manifest unknown".to_owned(),
        false => words.message,
    };
    RegistryError::ManifestNotFound { reference: subject.text.clone(), message }
}

/// The digest a registry says it serves. One that cannot be read is as good as none.
fn announced(reply: &Reply) -> Option<Digest> {
    reply.header("docker-content-digest")?.parse().ok()
}

fn content_type(reply: &Reply) -> Option<String> {
    let value = reply.header("content-type")?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// What a document says it is, what it was served as, or, as neither need be true or there, what it is.
fn media_type_of(document: &Document, served_as: Option<String>) -> String {
    let (declared, default) = match document {
        Document::Manifest(manifest) => (manifest.media_type.clone(), media_type::OCI_MANIFEST),
        Document::Index(index) => (index.media_type.clone(), media_type::OCI_INDEX),
    };
    let fits = |name: &String| media_type::is_index(name) || media_type::is_manifest(name);
    declared.or(served_as.filter(fits)).unwrap_or_else(|| default.to_owned())
}

/// The digest of `bytes` by the algorithm of `other`.
fn digest_like(other: Digest, bytes: &[u8]) -> Digest {
    let mut digester = Digester::new(other.algorithm());
    digester.update(bytes);
    digester.finish()
}

fn check_digest(subject: &Subject, expected: Digest, bytes: &[u8]) -> Result<(), RegistryError> {
    let actual = digest_like(expected, bytes);
    if actual == expected {
        return Ok(());
    }
    let (expected, actual) = (expected.into(), actual.into());
    Err(RegistryError::DigestMismatch { subject: subject.text.clone(), expected, actual })
}
