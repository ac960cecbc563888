//! Manifest lists that a user puts together by hand, kept as records until they are pushed.

use std::collections::BTreeMap;
use std::io::{self, Read};

use dhow_oci::{
    Descriptor, Digest, Document, DocumentError, ImageConfig, Index, MANIFEST_BYTES_MAX, Manifest,
    ParseReferenceError, Platform, Reference, media_type,
};
use dhow_registry::{Client, RegistryError, VerifyingReader};
use dhow_store::{DatabaseError, PutRecordError, RecordStore, RemoveRecordError};
use serde::{Deserialize, Serialize};

use crate::images::CONFIG_BYTES_MAX;
use crate::package::each_once;
use crate::{Dialect, Images};

/// The kind of records of manifest lists.
const KIND: &str = "manifest-list";

/// A manifest list that is being put together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestList {
    /// Its manifests, in the order in which they were added.
    pub entries: Vec<ListEntry>,
}

/// One manifest of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// What it was added as.
    pub reference: String,
    /// The manifest and what it runs on.
    pub descriptor: Descriptor,
    /// The manifest itself, byte for byte.
    pub text: String,
}

/// What `annotate` changes of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformChange {
    /// The architecture.
    pub architecture: Option<String>,
    /// The operating system.
    pub os: Option<String>,
    /// Its features.
    pub os_features: Vec<String>,
    /// Its version.
    pub os_version: Option<String>,
    /// The variant of the architecture.
    pub variant: Option<String>,
}

/// Why a manifest list was not made, changed or pushed. The words are Docker's where it has any.
#[derive(Debug, thiserror::Error)]
pub enum ManifestListError {
    /// A registry did not do its part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A manifest cannot be used.
    #[error("{reference} cannot be part of a manifest list")]
    Document {
        /// The manifest.
        reference: String,
        /// Why.
        source: Box<DocumentError>,
    },
    /// An index cannot be part of a list.
    #[error("cannot use manifest lists to create a manifest list: {0}")]
    Nested(String),
    /// A configuration cannot be read.
    #[error("cannot read the configuration of {reference}")]
    Config {
        /// The image.
        reference: String,
        /// Why.
        source: io::Error,
    },
    /// A configuration is not one.
    #[error("the configuration of {reference} is malformed")]
    MalformedConfig {
        /// The image.
        reference: String,
        /// Why.
        source: serde_json::Error,
    },
    /// There is a list of this name.
    #[error("refusing to amend an existing manifest list with no --amend flag")]
    Exists,
    /// There is none.
    #[error("no such manifest: {0}")]
    NotFound(String),
    /// The list does not have this manifest.
    #[error("manifest for image {image} does not exist in {list}")]
    NoEntry {
        /// What was looked for.
        image: String,
        /// The list.
        list: String,
    },
    /// A manifest does not say what it runs on.
    #[error("manifest {0} must have an OS and Architecture to be pushed to a registry")]
    NoPlatform(String),
    /// What is recorded cannot be read.
    #[error("the manifest list {name} is damaged")]
    Damaged {
        /// The list.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A name of a part is none any more.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// It could not be recorded.
    #[error(transparent)]
    Put(#[from] PutRecordError),
    /// It could not be removed.
    #[error(transparent)]
    Remove(#[from] RemoveRecordError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Images {
    fn lists(&self) -> RecordStore<'_> {
        self.store().records(KIND)
    }

    /// The manifest list of this name, if there is one here.
    pub fn manifest_list(&self, name: &Reference) -> Result<Option<ManifestList>, ManifestListError> {
        let name = name.clone().or_latest().to_string();
        let Some(record) = self.lists().get(&name)? else { return Ok(None) };
        let list = serde_json::from_str(&record.body);
        list.map(Some).map_err(|source| ManifestListError::Damaged { name, source })
    }

    fn held_list(&self, name: &Reference) -> Result<ManifestList, ManifestListError> {
        let missing = || ManifestListError::NotFound(name.clone().or_latest().familiar());
        self.manifest_list(name)?.ok_or_else(missing)
    }

    fn keep_list(&self, name: &Reference, list: &ManifestList) -> Result<(), ManifestListError> {
        let body = serde_json::to_string(list).expect("a list has only text for keys");
        Ok(self.lists().put(&name.clone().or_latest().to_string(), None, &body, &[])?)
    }

    /// Makes a list of manifests that registries have, or with `amend` adds them to one that is here.
    pub fn create_manifest_list(
        &self,
        client: &Client,
        name: &Reference,
        manifests: &[Reference],
        amend: bool,
    ) -> Result<(), ManifestListError> {
        let mut list = match self.manifest_list(name)? {
            Some(_) if !amend => return Err(ManifestListError::Exists),
            held => held.unwrap_or_default(),
        };
        for reference in manifests {
            let entry = fetch_entry(client, &reference.clone().or_latest())?;
            list.entries.retain(|held| held.reference != entry.reference);
            list.entries.push(entry);
        }
        self.keep_list(name, &list)
    }

    /// Says what a manifest of a list runs on.
    pub fn annotate_manifest_list(
        &self,
        name: &Reference,
        manifest: &Reference,
        change: &PlatformChange,
    ) -> Result<(), ManifestListError> {
        let mut list = self.held_list(name)?;
        let wanted = manifest.clone().or_latest().to_string();
        let entry = list.entries.iter_mut().find(|entry| entry.reference == wanted);
        let entry = entry.ok_or_else(|| ManifestListError::NoEntry {
            image: manifest.familiar(),
            list: name.clone().or_latest().familiar(),
        })?;
        let nothing = Platform { architecture: String::new(), os: String::new(), ..Platform::host() };
        let platform = entry.descriptor.platform.get_or_insert(Platform { variant: None, ..nothing });
        let PlatformChange { architecture, os, os_features, os_version, variant } = change.clone();
        platform.architecture = architecture.unwrap_or_else(|| platform.architecture.clone());
        platform.os = os.unwrap_or_else(|| platform.os.clone());
        platform.os_version = os_version.or_else(|| platform.os_version.clone());
        platform.variant = variant.or_else(|| platform.variant.clone());
        for feature in os_features {
            if !platform.os_features.contains(&feature) {
                platform.os_features.push(feature);
            }
        }
        self.keep_list(name, &list)
    }

    /// Pushes a list, after all that its manifests are made of. What the repository does not have is taken from
    /// where the manifests come from. With `purge` the list is forgotten then.
    pub fn push_manifest_list(
        &self,
        client: &Client,
        name: &Reference,
        purge: bool,
        pushed: &dyn Fn(&str),
    ) -> Result<Digest, ManifestListError> {
        let (target, list) = (name.clone().or_latest(), self.held_list(name)?);
        for entry in &list.entries {
            let says = |platform: &Platform| !platform.os.is_empty() && !platform.architecture.is_empty();
            if !entry.descriptor.platform.as_ref().is_some_and(says) {
                return Err(ManifestListError::NoPlatform(entry.reference.clone()));
            }
        }
        for entry in &list.entries {
            push_entry(client, &target, entry)?;
            pushed(&target.with_digest(entry.descriptor.digest).to_string());
        }
        let bytes = list.index_bytes();
        let digest = client.push_manifest(&target, list.dialect().index(), &bytes)?;
        if purge {
            self.remove_manifest_list(name)?;
        }
        Ok(digest)
    }

    /// Forgets a list.
    pub fn remove_manifest_list(&self, name: &Reference) -> Result<(), ManifestListError> {
        self.held_list(name)?;
        self.lists().remove(&name.clone().or_latest().to_string())?;
        Ok(())
    }
}

impl ManifestList {
    /// The list speaks OCI as soon as one of its manifests does.
    fn dialect(&self) -> Dialect {
        let is_oci = |entry: &ListEntry| entry.descriptor.media_type == media_type::OCI_MANIFEST;
        if self.entries.iter().any(is_oci) { Dialect::Oci } else { Dialect::Docker }
    }

    /// The list as it is pushed.
    pub fn index_bytes(&self) -> Vec<u8> {
        let index = Index {
            schema_version: 2,
            media_type: Some(self.dialect().index().to_owned()),
            manifests: self.entries.iter().map(|entry| entry.descriptor.clone()).collect(),
            annotations: BTreeMap::new(),
            other: serde_json::Map::new(),
        };
        serde_json::to_vec_pretty(&index).expect("an index has only text for keys")
    }
}

impl ListEntry {
    fn manifest(&self) -> Result<Manifest, ManifestListError> {
        let media_type = Some(self.descriptor.media_type.as_str());
        match Document::parse(media_type, self.text.as_bytes()) {
            Ok(Document::Manifest(manifest)) => Ok(*manifest),
            Ok(Document::Index(_)) => Err(ManifestListError::Nested(self.reference.clone())),
            Err(source) => {
                let reference = self.reference.clone();
                Err(ManifestListError::Document { reference, source: Box::new(source) })
            }
        }
    }
}

/// Asks a registry for a manifest, and for what it runs on.
pub fn fetch_entry(client: &Client, reference: &Reference) -> Result<ListEntry, ManifestListError> {
    let resolved = client.resolve(reference)?;
    assert!(resolved.bytes.len() as u64 <= MANIFEST_BYTES_MAX, "the client reads no more");
    let text = String::from_utf8_lossy(&resolved.bytes).into_owned();
    let mut entry = ListEntry { reference: reference.to_string(), descriptor: resolved.descriptor, text };
    let manifest = entry.manifest()?;
    if manifest.is_image() {
        let config = fetch_config(client, reference, &manifest.config)?;
        entry.descriptor.platform = Some(config.platform());
    }
    Ok(entry)
}

fn fetch_config(
    client: &Client,
    reference: &Reference,
    config: &Descriptor,
) -> Result<ImageConfig, ManifestListError> {
    let shown = || reference.familiar();
    let reader = client.fetch_blob(reference, config, 0)?;
    let mut bytes = Vec::new();
    let read = VerifyingReader::new(reader, config).take(CONFIG_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|source| ManifestListError::Config { reference: shown(), source })?;
    serde_json::from_slice(&bytes)
        .map_err(|source| ManifestListError::MalformedConfig { reference: shown(), source })
}

/// Sees to it that the repository has a manifest and all that it names.
fn push_entry(client: &Client, target: &Reference, entry: &ListEntry) -> Result<(), ManifestListError> {
    let source: Reference = entry.reference.parse()?;
    let manifest = entry.manifest()?;
    let is_elsewhere = source.name() != target.name();
    let parts = manifest.layers.iter().chain([&manifest.config]);
    let parts = parts.filter(|part| is_elsewhere && !media_type::is_foreign(&part.media_type));
    let from = Some(source.repository()).filter(|_| source.registry() == target.registry());
    let send = |part: &Descriptor| {
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(client.fetch_blob(&source, part, 0).map_err(io::Error::other)?))
        };
        client.push_blob(target, part, from, &open).map(drop).map_err(ManifestListError::from)
    };
    each_once(parts, |part| part.digest, send)?;
    let by_digest = target.with_digest(entry.descriptor.digest);
    client.push_manifest(&by_digest, &entry.descriptor.media_type, entry.text.as_bytes())?;
    Ok(())
}
