use std::collections::BTreeMap;
use std::io::{self, Write};

use dhow_oci::{Descriptor, Digest, Reference, media_type};
use dhow_store::{DatabaseError, Image, Lease, LeaseError, ReadError, Ref};

use crate::archive::{
    DOCKER_MANIFEST, DockerItem, IMAGE_NAME, OCI_INDEX, OCI_LAYOUT, OCI_LAYOUT_TEXT, REF_NAME,
};
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
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[from] io::Error),
}

/// An image that is ready to be written.
struct Packed<'a> {
    item: &'a SaveItem,
    manifest: WrittenManifest,
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
        let pack = |item| Ok(Packed { item, manifest: self.packed(item, lease)? });
        let packed: Vec<Packed<'_>> = items.iter().map(pack).collect::<Result<_, SaveError>>()?;
        let mut tar = tar::Builder::new(output);
        for (digest, source) in blobs(&packed) {
            self.append_blob(&mut tar, &digest, source)?;
        }
        append(&mut tar, OCI_INDEX, &to_json(&index(&packed)))?;
        append(&mut tar, DOCKER_MANIFEST, &to_json(&docker(&packed)))?;
        append(&mut tar, OCI_LAYOUT, OCI_LAYOUT_TEXT.as_bytes())?;
        tar.into_inner()?.flush()?;
        Ok(())
    }

    fn packed(&self, item: &SaveItem, lease: &Lease) -> Result<WrittenManifest, SaveError> {
        let here = |layer: &Descriptor| matches!(self.store().content().find(&layer.digest), Ok(Some(_)));
        if let Some(original) = self.original_manifest(&item.image)
            && original.manifest.layers.iter().all(here)
        {
            return Ok(original);
        }
        let positions = 0..item.image.record.diff_ids.len();
        let layers = positions.map(|position| self.travelling(&item.image, position, lease));
        let layers = layers.collect::<Result<_, _>>()?;
        let size = self.config_bytes(&item.image.record.id)?.len() as u64;
        let config = Descriptor::new(media_type::OCI_CONFIG, item.image.record.id, size);
        Ok(WrittenManifest::new(config, layers))
    }

    fn append_blob(
        &self,
        tar: &mut tar::Builder<impl Write>,
        digest: &Digest,
        source: Option<&[u8]>,
    ) -> Result<(), SaveError> {
        let path = blob_path(digest);
        if let Some(bytes) = source {
            return Ok(append(tar, &path, bytes)?);
        }
        let blob = self.store().content().open(digest)?;
        Ok(tar.append_data(&mut header(blob.size_bytes()), path, blob)?)
    }
}

/// Every blob once, sorted; manifests bring their bytes along as they may be in no store yet.
fn blobs<'a>(packed: &'a [Packed<'_>]) -> BTreeMap<Digest, Option<&'a [u8]>> {
    let mut blobs = BTreeMap::new();
    for Packed { manifest, .. } in packed {
        let content = manifest.manifest.layers.iter().chain([&manifest.manifest.config]);
        blobs.extend(content.map(|descriptor| (descriptor.digest, None)));
        blobs.insert(manifest.descriptor.digest, Some(manifest.bytes.as_slice()));
    }
    blobs
}

fn index(packed: &[Packed<'_>]) -> dhow_oci::Index {
    let entry = |packed: &Packed<'_>, name: Option<&Reference>| {
        let mut descriptor = packed.manifest.descriptor.clone();
        descriptor.annotations.clear();
        if let Some(name) = name {
            let tag = name.tag().unwrap_or_default().to_owned();
            descriptor.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
            descriptor.annotations.insert(REF_NAME.to_owned(), tag);
        }
        descriptor
    };
    let entries = packed.iter().flat_map(|packed| {
        let named: Vec<Descriptor> = packed.item.names.iter().map(|name| entry(packed, Some(name))).collect();
        if named.is_empty() { vec![entry(packed, None)] } else { named }
    });
    dhow_oci::Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: entries.collect(),
        annotations: BTreeMap::new(),
        other: serde_json::Map::new(),
    }
}

fn docker(packed: &[Packed<'_>]) -> Vec<DockerItem> {
    let item = |packed: &Packed<'_>| {
        let names: Vec<String> = packed.item.names.iter().map(Reference::familiar).collect();
        DockerItem {
            config: blob_path(&packed.manifest.manifest.config.digest),
            repo_tags: Some(names).filter(|names| !names.is_empty()),
            layers: packed.manifest.manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
        }
    };
    packed.iter().map(item).collect()
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("an index has only text for keys")
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64), path, bytes)
}

/// No time, no owner: equal images give equal archives.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}
