use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use dhow_oci::{Descriptor, Digest, Reference, media_type};
use dhow_store::{DatabaseError, Image, Lease, LeaseError, ReadError, Ref};

use crate::form::{Dialect, LayerForm};
use crate::layout::{self, LayoutFiles, TarSink};
use crate::package::each_once;
use crate::travel::WrittenManifest;
use crate::{FindError, Images, ReadImageError, TravelError};

/// An image to save and the names that are saved with it.
#[derive(Clone, Debug)]
pub struct SaveItem {
    /// The image.
    pub image: Image,
    /// Its names in the archive.
    pub names: Vec<Reference>,
}

/// Why images were not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A layer cannot leave.
    #[error(transparent)]
    Travel(#[from] TravelError),
    /// A configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ReadImageError),
    /// A blob cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The images could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The archive or folder cannot be written.
    #[error("cannot write the archive")]
    Write(#[from] io::Error),
    /// The folder has an index that is none.
    #[error("{} is malformed", path.display())]
    Layout {
        /// The index.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl Images {
    /// The items to save for what a user asked for: an image by name with that name, by the name of a
    /// repository with all its names there, by ID with none.
    pub fn save_items(&self, texts: &[String]) -> Result<Vec<SaveItem>, SaveError> {
        let mut items: Vec<SaveItem> = Vec::new();
        for text in texts {
            for asked in self.asked(text)? {
                match items.iter_mut().find(|item| item.image.record.id == asked.image.record.id) {
                    Some(item) => item.names.extend(asked.names),
                    None => items.push(asked),
                }
            }
        }
        for item in &mut items {
            item.names.sort();
            item.names.dedup();
        }
        Ok(items)
    }

    fn asked(&self, text: &str) -> Result<Vec<SaveItem>, SaveError> {
        let reference = text.parse::<Reference>().ok();
        let wanted = |name: &Reference, asked: &Reference| match (asked.tag(), asked.digest()) {
            (None, None) => name.name() == asked.name(),
            _ => name == asked,
        };
        let named = |image: Image| {
            let names = image.names.iter().filter_map(|name| name.reference.parse::<Reference>().ok());
            let names = names.filter(|name| reference.as_ref().is_some_and(|asked| wanted(name, asked)));
            SaveItem { names: names.collect(), image }
        };
        let all = self.store().images().list()?.into_iter().map(named);
        let found: Vec<SaveItem> = all.filter(|item| !item.names.is_empty()).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        Ok(vec![SaveItem { image: self.find(text)?, names: Vec::new() }])
    }

    /// Writes images as one tar that is both an OCI image layout and a docker archive. Equal images give
    /// equal bytes, and an image that came with a manifest is saved with the same one.
    pub fn save(&self, items: &[SaveItem], lease: &Lease, output: impl Write) -> Result<(), SaveError> {
        let protect: Vec<Ref> = items.iter().map(|item| Ref::Image(item.image.record.id)).collect();
        lease.add_all(&protect)?;
        let pack = |item| self.packed(item, lease);
        let manifests: Vec<WrittenManifest> = items.iter().map(pack).collect::<Result<_, SaveError>>()?;
        let pairs = || items.iter().zip(&manifests);
        let entries = pairs().flat_map(|(item, manifest)| {
            let root = Descriptor { annotations: BTreeMap::new(), ..manifest.descriptor.clone() };
            layout::entries(&root, &item.names)
        });
        let docker = pairs().map(|(item, manifest)| layout::docker_item(manifest, &item.names));
        let layout = LayoutFiles {
            blobs: blobs(&manifests),
            index: layout::index_of(entries.collect()),
            docker: Some(docker.collect()),
        };
        let mut sink = TarSink::new(output);
        layout.write(&self.store().content(), &mut sink)?;
        Ok(sink.finish()?)
    }

    fn packed(&self, item: &SaveItem, lease: &Lease) -> Result<WrittenManifest, SaveError> {
        let here = |layer: &Descriptor| matches!(self.store().content().find(&layer.digest), Ok(Some(_)));
        if let Some(original) = self.original_manifest(&item.image)
            && original.manifest.layers.iter().all(here)
        {
            return Ok(original);
        }
        let stack = &item.image.record.diff_ids;
        let form = LayerForm::default();
        let travelling = |position: usize| self.travelling(stack, position, &form, lease);
        let layers = each_once(0..stack.len(), |position| stack[*position], travelling)?;
        let layers = stack.iter().map(|diff_id| layers[diff_id].clone()).collect();
        let size = self.config_bytes(&item.image.record.id)?.len() as u64;
        let config = Descriptor::new(media_type::OCI_CONFIG, item.image.record.id, size);
        Ok(WrittenManifest::new(Dialect::Oci, config, layers, BTreeMap::new()))
    }
}

/// Every blob once, sorted; manifests bring their bytes along as they may be in no store yet.
fn blobs(manifests: &[WrittenManifest]) -> BTreeMap<Digest, Option<&[u8]>> {
    let mut blobs = BTreeMap::new();
    for manifest in manifests {
        let content = manifest.manifest.layers.iter().chain([&manifest.manifest.config]);
        blobs.extend(content.map(|descriptor| (descriptor.digest, None)));
        blobs.insert(manifest.descriptor.digest, Some(manifest.bytes.as_slice()));
    }
    blobs
}
