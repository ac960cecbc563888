//! The images of several platforms that one name stands for.

use dhow_oci::{Descriptor, Digest, ImageConfig, Platform, Reference};
use dhow_store::{DatabaseError, Image, ImageRecord, Lease};

use crate::closure::{Closure, Leaf};
use crate::images::created_at;
use crate::install::{Install, InstallError, Stack};
use crate::{FindError, Images, PullObserver, ReadImageError, SaveImageError};

/// One platform of an image.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Its manifest.
    pub manifest: Descriptor,
    /// What it runs on.
    pub platform: Platform,
    /// Its configuration.
    pub id: Digest,
    /// Bytes of it that are here as they travel.
    pub travelling_bytes: u64,
    /// Bytes of its files, if they are unpacked.
    pub unpacked_bytes: Option<u64>,
    /// Whether all of it is here.
    pub is_whole: bool,
}

/// Why an image whose bytes are here was not installed.
#[derive(Debug, thiserror::Error)]
pub enum VariantError {
    /// Its configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ReadImageError),
    /// Manifest and configuration contradict each other.
    #[error("image {id}: the manifest lists {layers} layers and the configuration {diff_ids}")]
    LayerCount {
        /// The image.
        id: Digest,
        /// Layers in the manifest.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
    },
    /// Its layers were not unpacked.
    #[error("cannot install image {id}")]
    Install {
        /// The image.
        id: Digest,
        /// Why.
        source: Box<InstallError>,
    },
    /// It could not be recorded.
    #[error(transparent)]
    Record(#[from] SaveImageError),
}

impl Images {
    /// What platforms an image is here for, or could be.
    pub fn variants(&self, image: &Image) -> Result<Vec<Variant>, DatabaseError> {
        let name = image.names.first().map(|name| name.reference.as_str());
        let Some(root) = self.root_of(image, name) else { return Ok(Vec::new()) };
        let closure = self.closure(&root);
        let unpacked = |leaf: &Leaf| {
            let held = self.store().images().get(&leaf.written.manifest.config.digest)?;
            Ok::<_, DatabaseError>(held.map(|image| image.record.size_bytes))
        };
        let mut variants = Vec::new();
        for leaf in closure.leaves.iter().filter(|leaf| leaf.is_image()) {
            let missing: u64 = leaf.missing.iter().map(|part| part.size).sum();
            let platform = leaf.platform.clone().expect("it is an image");
            variants.push(Variant {
                manifest: leaf.written.descriptor.clone(),
                platform,
                id: leaf.written.manifest.config.digest,
                travelling_bytes: leaf.size_bytes() - missing,
                unpacked_bytes: unpacked(leaf)?,
                is_whole: leaf.is_whole(),
            });
        }
        Ok(variants)
    }

    /// Finds an image as [`find`](Self::find) does, for a certain platform if one is given. It has the names
    /// of the one that was found, and need not be unpacked.
    pub fn find_for(&self, text: &str, platform: Option<&Platform>) -> Result<Image, FindError> {
        let image = self.find(text)?;
        let Some(wanted) = platform else { return Ok(image) };
        if self.config(&image.record.id).is_ok_and(|config| config.platform().runs_on(wanted)) {
            return Ok(image);
        }
        let not_provided = || FindError::Platform { text: text.to_owned(), wanted: Box::new(wanted.clone()) };
        let closure = self.closure_named(&image, text).ok_or_else(not_provided)?;
        let leaf = closure.select(wanted).filter(|leaf| leaf.is_whole()).ok_or_else(not_provided)?;
        let id = leaf.written.manifest.config.digest;
        let record = match self.store().images().get(&id)? {
            Some(held) => held.record,
            None => self.sketch(leaf, &closure.root).ok_or_else(not_provided)?,
        };
        Ok(Image { record, ..image })
    }

    /// What the name stands for by which an image was found.
    pub(crate) fn closure_named(&self, image: &Image, text: &str) -> Option<Closure> {
        let reference = text.parse::<Reference>().ok();
        let by_digest =
            reference.as_ref().and_then(Reference::digest).and_then(|digest| self.describe(&digest));
        let name = reference.map(|reference| reference.or_latest().to_string());
        let root = by_digest.or_else(|| self.root_of(image, name.as_deref()))?;
        Some(self.closure(&root))
    }

    /// What a record of an image would say that is here but not unpacked.
    fn sketch(&self, leaf: &Leaf, root: &Descriptor) -> Option<ImageRecord> {
        let id = leaf.written.manifest.config.digest;
        let config = self.config(&id).ok()?;
        Some(ImageRecord {
            id,
            target: Some(root.clone()),
            created: created_at(&config),
            size_bytes: leaf.written.manifest.layers.iter().map(|layer| layer.size).sum(),
            diff_ids: config.rootfs.diff_ids,
            snapshots: Vec::new(),
            blobs: leaf.digests().collect(),
            labels: config.config.labels,
        })
    }

    /// Unpacks an image whose bytes are here, and returns what is to be recorded of it. They are protected by
    /// `lease`.
    pub(crate) fn install_leaf(
        &self,
        leaf: &Leaf,
        root: &Descriptor,
        lease: &Lease,
        observer: &PullObserver<'_>,
    ) -> Result<ImageRecord, VariantError> {
        let (manifest, id) = (&leaf.written.manifest, leaf.written.manifest.config.digest);
        let config = self.config(&id)?;
        let mut record = self.install_kept(&config, id, &manifest.layers, lease, observer)?;
        record.target = Some(root.clone());
        record.blobs.extend(leaf.digests().filter(|digest| *digest != id));
        Ok(record)
    }

    /// The same for layers without a manifest.
    pub(crate) fn install_kept(
        &self,
        config: &ImageConfig,
        id: Digest,
        layers: &[Descriptor],
        lease: &Lease,
        observer: &PullObserver<'_>,
    ) -> Result<ImageRecord, VariantError> {
        let diff_ids = &config.rootfs.diff_ids;
        if layers.len() != diff_ids.len() {
            let (layers, diff_ids) = (layers.len(), diff_ids.len());
            return Err(VariantError::LayerCount { id, layers, diff_ids });
        }
        let absent = |layer: &Descriptor, _| -> std::io::Result<Box<dyn std::io::Read + Send>> {
            Err(std::io::Error::new(std::io::ErrorKind::NotFound, format!("{} is not here", layer.digest)))
        };
        let install = Install { images: self, lease, open: &absent, observer };
        let installed = install.run(&Stack::new(layers, diff_ids));
        installed.map_err(|source| VariantError::Install { id, source: Box::new(source) })?;
        Ok(self.record(id, config, lease)?)
    }

    /// The image that belongs to a platform below the index by which `image` came, unpacked now if it is here
    /// as it travels.
    pub(crate) fn unpack_variant(
        &self,
        image: &Image,
        reference: &Reference,
        platform: &Platform,
        lease: &Lease,
        observer: &PullObserver<'_>,
    ) -> Result<Option<ImageRecord>, VariantError> {
        let Some(closure) = self.closure_named(image, &reference.to_string()) else { return Ok(None) };
        match closure.select(platform).filter(|leaf| leaf.is_whole() && closure.is_index()) {
            Some(leaf) => self.install_leaf(leaf, &closure.root, lease, observer).map(Some),
            None => Ok(None),
        }
    }
}
