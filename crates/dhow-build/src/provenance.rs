//! Provenance: what an image was made of and how, as a predicate of SLSA in the shape that BuildKit gives it.
//!
//! ```text
//! request ─┐
//! plan    ─┼─ predicate (materials, steps) ── statement about an image, or about files
//! sources ─┘
//! ```
//! All of it is known when the steps are done, but for the digests it speaks about and the layers of an image.
//! With `SOURCE_DATE_EPOCH` nothing in it depends on when and where the build ran.

mod document;
mod invocation;
mod materials;
mod steps;

use dhow_image::{Packed, Statement};
use dhow_oci::{Digest, Platform, Reference};
use serde_json::{Value, json};

use crate::output::{ProvenanceRequest, ProvenanceVersion};

pub(crate) use document::Predicate;
pub(crate) use invocation::{Invocation, locals};
pub(crate) use materials::{Material, purl};
pub(crate) use steps::{StepLayers, Steps};

/// The provenance of everything that one build makes.
pub(crate) struct Provenance<'a> {
    pub request: &'a ProvenanceRequest,
    /// In the order of the platforms.
    pub predicates: Vec<Predicate>,
}

/// What a statement is about.
pub(crate) struct Subject {
    pub name: String,
    pub digest: Digest,
}

impl Provenance<'_> {
    /// What is stated about an image. Its names are told with its platform; without a name it is `_`.
    pub(crate) fn of_image(&self, at: usize, names: &[Reference], image: &Packed) -> Statement {
        let digest = image.descriptor().digest;
        let named = names.iter().map(|name| purl("docker", name, Some(&image.platform)));
        let mut subjects: Vec<Subject> = named.map(|name| Subject { name, digest }).collect();
        if subjects.is_empty() {
            subjects.push(Subject { name: "_".to_owned(), digest });
        }
        let predicate = &self.predicates[at];
        self.statement(predicate, &subjects, predicate.layers.described(image.layers()))
    }

    /// What is stated about files.
    pub(crate) fn of_files(&self, at: usize, files: &[Subject]) -> Statement {
        self.statement(&self.predicates[at], files, None)
    }

    fn statement(&self, predicate: &Predicate, subjects: &[Subject], layers: Option<Value>) -> Statement {
        let (statement_type, predicate_type, predicate) = match self.request.version {
            ProvenanceVersion::V1 => {
                ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1", predicate.v1(layers))
            }
            ProvenanceVersion::V02 => (
                "https://in-toto.io/Statement/v0.1",
                "https://slsa.dev/provenance/v0.2",
                predicate.v02(layers),
            ),
        };
        let subjects = subjects
            .iter()
            .map(|subject| json!({ "name": subject.name, "digest": { "sha256": subject.digest.hex() } }));
        let statement = json!({
            "_type": statement_type,
            "predicateType": predicate_type,
            "subject": subjects.collect::<Vec<_>>(),
            "predicate": predicate,
        });
        let bytes = serde_json::to_vec(&statement).expect("a statement has only text for keys");
        Statement { predicate_type: predicate_type.to_owned(), bytes }
    }
}

/// The name of the file that a statement about files is in. Platforms that share a folder have one each.
pub(crate) fn file_name(request: &ProvenanceRequest, shared_by: Option<&Platform>) -> String {
    let Some(platform) = shared_by else { return request.filename.clone() };
    let platform = platform.to_string().replace('/', "_");
    match request.filename.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}.{platform}.{extension}"),
        None => format!("{}.{platform}", request.filename),
    }
}
