//! All that a digest stands for, as far as it is here: the indexes below it, their manifests, and what those
//! name. Nothing is judged by its media type but the documents: an artifact travels like an image.

use std::collections::BTreeSet;

use dhow_oci::{Descriptor, Digest, Document, ImageConfig, Platform, media_type};
use dhow_store::{Image, Lease, LeaseError, Ref};

use crate::Images;
use crate::images::CONFIG_BYTES_MAX;
use crate::travel::WrittenManifest;

/// How deep indexes may nest.
pub(crate) const INDEX_DEPTH_MAX: usize = 4;
/// Manifests and indexes below one digest.
pub(crate) const DOCUMENTS_MAX: usize = 2000;
/// The annotation of a manifest in an index that is about another one, such as an attestation.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// What is here of all that a root stands for.
pub(crate) struct Closure {
    pub(crate) root: Descriptor,
    /// The indexes, each before those it lists.
    pub(crate) indexes: Vec<(Descriptor, Vec<u8>)>,
    /// The manifests, in the order of the indexes.
    pub(crate) leaves: Vec<Leaf>,
    /// What indexes list and is no document, such as a blob of a kind of its own.
    pub(crate) blobs: Vec<Descriptor>,
    /// Documents and blobs that indexes list and that are not here.
    pub(crate) absent: Vec<Descriptor>,
}

/// A manifest.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) written: WrittenManifest,
    /// What it runs on; `None` for what does not run.
    pub(crate) platform: Option<Platform>,
    /// What it names and is not here. Layers that registries do not keep are not counted.
    pub(crate) missing: Vec<Descriptor>,
}

impl Leaf {
    /// Whether it is an image for some machine, rather than an artifact or an attestation.
    pub(crate) fn is_image(&self) -> bool {
        self.platform.is_some()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// The digests of what it names and of itself.
    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.parts().map(|part| part.digest).chain([self.written.descriptor.digest])
    }

    /// Its configuration and layers.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Descriptor> {
        self.written.manifest.layers.iter().chain([&self.written.manifest.config])
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.parts().map(|part| part.size).fold(self.written.descriptor.size, u64::saturating_add)
    }
}

impl Closure {
    /// Whether everything is here, so that the root can travel as it is.
    pub(crate) fn is_whole(&self) -> bool {
        self.absent.is_empty() && self.leaves.iter().all(Leaf::is_whole)
    }

    pub(crate) fn is_index(&self) -> bool {
        !self.indexes.is_empty()
    }

    /// The image that suits a platform best, whole or not.
    pub(crate) fn select(&self, wanted: &Platform) -> Option<&Leaf> {
        let fits = |leaf: &&Leaf| leaf.platform.as_ref().is_some_and(|platform| platform.runs_on(wanted));
        let preference = |leaf: &&Leaf| leaf.platform.as_ref().map_or(0, Platform::preference);
        // Of equals the first is meant, and `max` takes the last.
        self.leaves.iter().filter(fits).rev().max_by_key(preference)
    }

    /// The images that are whole.
    pub(crate) fn images(&self) -> impl Iterator<Item = &Leaf> {
        self.leaves.iter().filter(|leaf| leaf.is_image() && leaf.is_whole())
    }

    /// Everything that is here.
    pub(crate) fn digests(&self) -> BTreeSet<Digest> {
        let missing: BTreeSet<Digest> =
            self.leaves.iter().flat_map(|leaf| &leaf.missing).map(|part| part.digest).collect();
        let indexes = self.indexes.iter().map(|(index, _)| index.digest);
        let blobs = self.blobs.iter().map(|blob| blob.digest);
        let all = self.leaves.iter().flat_map(Leaf::digests).chain(indexes).chain(blobs);
        all.filter(|digest| !missing.contains(digest)).collect()
    }
}

impl Images {
    /// What is here below `root`.
    pub(crate) fn closure(&self, root: &Descriptor) -> Closure {
        let mut closure = Closure {
            root: root.clone(),
            indexes: Vec::new(),
            leaves: Vec::new(),
            blobs: Vec::new(),
            absent: Vec::new(),
        };
        self.descend(root, INDEX_DEPTH_MAX, &mut closure);
        closure
    }

    /// The same, with all of it protected by `lease`.
    pub(crate) fn leased_closure(&self, root: &Descriptor, lease: &Lease) -> Result<Closure, LeaseError> {
        let seen = self.closure(root);
        let named = seen.leaves.iter().flat_map(Leaf::digests).chain(seen.digests());
        let refs: Vec<Ref> = named.map(Ref::Blob).collect();
        lease.add_all(&refs)?;
        // What gc took before the lease was on it is found missing now.
        Ok(self.closure(root))
    }

    /// The manifest or index that an image came by; for one of its names, that which the name stood for.
    pub(crate) fn root_of(&self, image: &Image, name: Option<&str>) -> Option<Descriptor> {
        let named = image.names.iter().find(|held| Some(held.reference.as_str()) == name);
        let own = named.and_then(|name| name.manifest).and_then(|digest| self.describe(&digest));
        own.or_else(|| image.record.target.clone())
    }

    /// A document that is here.
    pub(crate) fn describe(&self, digest: &Digest) -> Option<Descriptor> {
        let (bytes, document) = self.document(&Descriptor::new("", *digest, 0))?;
        let media_type = match document {
            Document::Manifest(manifest) => {
                manifest.media_type.clone().unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned())
            }
            Document::Index(index) => {
                index.media_type.clone().unwrap_or_else(|| media_type::OCI_INDEX.to_owned())
            }
        };
        Some(Descriptor::new(media_type, *digest, bytes.len() as u64))
    }

    fn descend(&self, entry: &Descriptor, depth: usize, closure: &mut Closure) {
        let is_full = closure.indexes.len() + closure.leaves.len() >= DOCUMENTS_MAX;
        if !is_document(entry) && !entry.media_type.is_empty() {
            let list = if self.is_here(entry) { &mut closure.blobs } else { &mut closure.absent };
            return list.push(entry.clone());
        }
        match self.document(entry) {
            Some((bytes, Document::Manifest(manifest))) if !is_full => {
                let written = WrittenManifest { descriptor: entry.clone(), bytes, manifest: *manifest };
                closure.leaves.push(self.leaf(written));
            }
            Some((bytes, Document::Index(index))) if !is_full && depth > 0 => {
                closure.indexes.push((entry.clone(), bytes));
                index.manifests.iter().for_each(|entry| self.descend(entry, depth - 1, closure));
            }
            _ => closure.absent.push(entry.clone()),
        }
    }

    pub(crate) fn leaf(&self, written: WrittenManifest) -> Leaf {
        let manifest = &written.manifest;
        let parts = manifest.layers.iter().filter(|layer| !media_type::is_foreign(&layer.media_type));
        let missing: Vec<Descriptor> =
            parts.chain([&manifest.config]).filter(|part| !self.is_here(part)).cloned().collect();
        let platform = self.platform_of(&written);
        Leaf { written, platform, missing }
    }

    /// What the index says, or else the configuration.
    fn platform_of(&self, written: &WrittenManifest) -> Option<Platform> {
        if !written.manifest.is_image() || written.descriptor.annotations.contains_key(REFERENCE_TYPE) {
            return None;
        }
        match &written.descriptor.platform {
            Some(platform) if platform.os == "unknown" => None,
            Some(platform) => Some(platform.clone()),
            None => {
                let config = &written.manifest.config.digest;
                let bytes = self.store().content().read_bounded(config, CONFIG_BYTES_MAX).ok()?;
                Some(serde_json::from_slice::<ImageConfig>(&bytes).ok()?.platform())
            }
        }
    }

    /// An error of looking counts as absence: what cannot be looked at cannot be sent.
    fn is_here(&self, part: &Descriptor) -> bool {
        matches!(self.store().content().find(&part.digest), Ok(Some(_)))
    }
}

/// Whether a descriptor is that of a manifest or an index.
pub(crate) fn is_document(entry: &Descriptor) -> bool {
    media_type::is_index(&entry.media_type) || media_type::is_manifest(&entry.media_type)
}
