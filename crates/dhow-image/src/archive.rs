//! The files of an archive of images. One tar is both an OCI image layout and what `docker load` has always
//! read; both lead to the same blobs.

use dhow_oci::Digest;
use serde::{Deserialize, Serialize};

/// The largest document that lists or describes images.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

pub(crate) const OCI_LAYOUT: &str = "oci-layout";
pub(crate) const OCI_LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
pub(crate) const OCI_INDEX: &str = "index.json";
pub(crate) const DOCKER_MANIFEST: &str = "manifest.json";
/// What the first dockers wrote instead.
pub(crate) const DOCKER_REPOSITORIES: &str = "repositories";
/// The annotation under which containerd and docker keep the full name of an image in `index.json`.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation of image-spec, which many fill with the tag alone.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where a blob is.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// One image in docker's `manifest.json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerItem {
    /// The path of the configuration.
    pub(crate) config: String,
    /// The image's names, as people write them; `null` if it has none.
    pub(crate) repo_tags: Option<Vec<String>>,
    /// The paths of the layers, lowest first.
    pub(crate) layers: Vec<String>,
}
