use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Descriptor, Platform, media_type};

/// The largest manifest or index that is read; registries set the same bound.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// One image: its configuration and layers (image-spec manifest.md; Docker's schema 2 has the same shape).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The type of this document; OCI documents may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The kind of artifact, when this is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifest this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text about the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Manifest {
    /// A manifest of `config` and `layers` in the given dialect.
    pub fn new(media_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(media_type.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }

    /// Whether this is an image that can be run, and not an artifact of some other kind.
    pub fn is_image(&self) -> bool {
        // Some early tools did not say what a configuration is.
        const GENERIC: &str = "application/octet-stream";
        let known = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG, GENERIC];
        self.artifact_type.is_none() && known.contains(&self.config.media_type.as_str())
    }
}

/// A list of manifests for several platforms (image-spec image-index.md; Docker's manifest list).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The type of this document; OCI documents may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The entries; order carries preference among equals.
    pub manifests: Vec<Descriptor>,
    /// Free text about the list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Index {
    /// The entry that suits `wanted` best; entries without a platform suit anybody, as a last resort.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|p| p.runs_on(wanted));
        let best = self
            .manifests
            .iter()
            .filter(fits)
            .rev()
            .max_by_key(|entry| entry.platform.as_ref().map_or(0, Platform::preference));
        best.or_else(|| self.manifests.iter().find(|entry| entry.platform.is_none()))
    }

    /// The platforms on offer, without attestations and the like, for an error message.
    pub fn platforms(&self) -> Vec<String> {
        let known = |platform: &&Platform| platform.os != "unknown";
        self.manifests
            .iter()
            .filter_map(|m| m.platform.as_ref())
            .filter(known)
            .map(Platform::to_string)
            .collect()
    }
}

/// What a registry answers when asked for a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several platforms.
    Index(Index),
}

/// Why bytes are neither a manifest nor an index.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Docker's withdrawn format.
    #[error("this is a Docker schema 1 manifest, which is no longer supported; rebuild or re-push the image")]
    Schema1,
    /// Some other kind of document.
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
    /// Larger than [`MANIFEST_BYTES_MAX`].
    #[error("manifest of {0} bytes is larger than the limit of {MANIFEST_BYTES_MAX}")]
    TooLarge(u64),
    /// Not the JSON of its type.
    #[error("manifest is not valid JSON of its type")]
    Json(#[from] serde_json::Error),
}

impl Document {
    /// Reads a document. `served_as` is the type the sender declared; the type written inside wins, as an
    /// honest document names itself and a wrong header is the commoner mistake.
    pub fn parse(served_as: Option<&str>, bytes: &[u8]) -> Result<Document, DocumentError> {
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(DocumentError::TooLarge(bytes.len() as u64));
        }
        let probe: Probe = serde_json::from_slice(bytes)?;
        let declared = probe.media_type.as_deref().or(served_as).unwrap_or("");
        if media_type::is_schema1(declared) || probe.schema_version == Some(1) {
            return Err(DocumentError::Schema1);
        }
        let listed = probe.manifests.is_some() && probe.config.is_none();
        if media_type::is_index(declared) || (!media_type::is_manifest(declared) && listed) {
            return Ok(Document::Index(serde_json::from_slice(bytes)?));
        }
        if media_type::is_manifest(declared) || probe.config.is_some() {
            return Ok(Document::Manifest(serde_json::from_slice(bytes)?));
        }
        Err(DocumentError::MediaType(declared.to_owned()))
    }
}

/// Just enough of a document to tell what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn entry(platform: &str) -> Descriptor {
        let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, platform.as_bytes());
        descriptor.platform = Some(platform.parse().expect("a platform"));
        descriptor
    }

    #[test]
    fn an_index_answers_with_the_best_variant() {
        let index = Index {
            schema_version: 2,
            media_type: None,
            manifests: ["linux/arm/v6", "linux/arm/v7", "linux/amd64"].map(entry).to_vec(),
            annotations: BTreeMap::new(),
            other: Map::new(),
        };
        let select = |platform: &str| index.select(&platform.parse().expect("a platform")).map(|d| d.digest);
        assert_eq!(select("linux/arm/v7"), Some(Digest::sha256_of(b"linux/arm/v7")));
        assert_eq!(select("linux/amd64"), Some(Digest::sha256_of(b"linux/amd64")));
        assert_eq!(select("linux/s390x"), None);
    }

    #[test]
    fn documents_are_told_apart() {
        let parse = |text: &str| Document::parse(None, text.as_bytes());
        assert!(matches!(parse(r#"{"schemaVersion":1,"fsLayers":[]}"#), Err(DocumentError::Schema1)));
        assert!(matches!(parse(r#"{"schemaVersion":2,"manifests":[]}"#), Ok(Document::Index(_))));
        assert!(matches!(parse("{}"), Err(DocumentError::MediaType(_))));
        assert!(matches!(parse("<html>"), Err(DocumentError::Json(_))));
    }

    #[test]
    fn unknown_fields_survive() {
        let text = r#"{"schemaVersion":2,"manifests":[],"x":{"y":1}}"#;
        let Ok(Document::Index(index)) = Document::parse(None, text.as_bytes()) else { panic!("an index") };
        assert_eq!(serde_json::to_string(&index).expect("JSON"), text);
    }
}
