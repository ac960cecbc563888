//! Attestations: statements about an image, listed beside it in its index as manifests that nobody runs.

use std::collections::BTreeMap;

use dhow_oci::{Descriptor, DiffId, Platform, media_type};
use serde_json::json;

use crate::AnnotationLevel;
use crate::package::{PackOptions, Package, Packed, index_of, notes};
use crate::travel::WrittenManifest;

/// The media type of a statement.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// Says on a statement's descriptor what it states.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Say in an index what an entry is, and which image it is about.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";
/// Keeps everybody from running it.
const UNKNOWN: &str = "unknown";

/// A statement about an image, as in-toto has it.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it states.
    pub predicate_type: String,
    /// Its JSON.
    pub bytes: Vec<u8>,
}

/// The statements about one image, packed.
#[derive(Clone, Debug)]
pub(crate) struct Attestation {
    /// The manifest that lists them, with its configuration.
    pub(crate) packed: Packed,
    pub(crate) statements: Vec<(Descriptor, Vec<u8>)>,
    /// As the index lists it.
    pub(crate) entry: Descriptor,
}

impl Package {
    /// The same with `statements` about each of its images, in one index.
    pub fn attested(self, statements: Vec<Statement>, options: &PackOptions) -> Package {
        assert_eq!(statements.len(), self.images.len(), "there is a statement about each image");
        let attestations: Vec<Attestation> = self
            .images
            .iter()
            .zip(statements)
            .map(|(image, statement)| attestation(image, statement, options))
            .collect();
        let mut index = index_of(&self.images, options);
        index.manifests.extend(attestations.iter().map(|attestation| attestation.entry.clone()));
        let bytes = serde_json::to_vec(&index).expect("an index has only text for keys");
        let descriptor = Descriptor::of(options.dialect.index(), &bytes);
        let annotations = notes(options, AnnotationLevel::IndexDescriptor, None);
        let root = Descriptor { annotations, ..descriptor.clone() };
        Package { images: self.images, attestations, index: Some((descriptor, bytes)), root }
    }
}

fn attestation(image: &Packed, statement: Statement, options: &PackOptions) -> Attestation {
    let mut layer = Descriptor::of(STATEMENT, &statement.bytes);
    layer.annotations.insert(PREDICATE_TYPE.to_owned(), statement.predicate_type);
    // It looks like the configuration of an image, for registries that look into it.
    let config = json!({
        "architecture": UNKNOWN,
        "os": UNKNOWN,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
    });
    let config = serde_json::to_vec(&config).expect("it has only text for keys");
    let described = Descriptor::of(media_type::OCI_CONFIG, &config);
    let manifest = WrittenManifest::new(options.dialect, described, vec![layer.clone()], BTreeMap::new());
    let platform = unknown();
    let entry = Descriptor {
        platform: Some(platform.clone()),
        annotations: BTreeMap::from([
            (REFERENCE_TYPE.to_owned(), ATTESTATION.to_owned()),
            (REFERENCE_DIGEST.to_owned(), image.descriptor().digest.to_string()),
        ]),
        ..manifest.descriptor.clone()
    };
    let diff_ids = vec![DiffId::new(layer.digest)];
    let packed = Packed { platform, diff_ids, config, manifest };
    Attestation { packed, statements: vec![(layer, statement.bytes)], entry }
}

fn unknown() -> Platform {
    Platform {
        architecture: UNKNOWN.to_owned(),
        os: UNKNOWN.to_owned(),
        os_version: None,
        os_features: Vec::new(),
        variant: None,
    }
}
