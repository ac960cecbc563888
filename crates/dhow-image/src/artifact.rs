//! OCI artifacts: manifests whose configuration is not that of an image. They are kept and carried like images,
//! under the digest of their manifest, and nothing of them is unpacked.

use std::collections::BTreeMap;

use dhow_oci::Descriptor;
use dhow_store::ImageRecord;

use crate::closure::Leaf;

/// The annotation that says when something was made.
const CREATED: &str = "org.opencontainers.image.created";

/// The record of an artifact that came by `target`.
pub(crate) fn record(leaf: &Leaf, target: &Descriptor) -> ImageRecord {
    let manifest = &leaf.written.manifest;
    let created = manifest.annotations.get(CREATED).and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let parts: Vec<_> = leaf.parts().filter(|part| !leaf.missing.contains(part)).collect();
    ImageRecord {
        id: leaf.written.descriptor.digest,
        target: Some(target.clone()),
        created: created.map_or(0, |time| time.as_second()),
        size_bytes: parts.iter().map(|part| part.size).sum(),
        diff_ids: Vec::new(),
        snapshots: Vec::new(),
        blobs: parts.iter().map(|part| part.digest).collect(),
        labels: BTreeMap::new(),
    }
}
