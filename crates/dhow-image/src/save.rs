use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use dhow_oci::{Descriptor, Digest, Platform, Reference, media_type};
use dhow_store::{DatabaseError, Image, Lease, LeaseError, ReadError, Ref};

use crate::closure::{Closure, Leaf};
use crate::form::{Dialect, LayerForm};
use crate::layout::{self, LayoutFiles, LayoutTarget};
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

/// What to save, and how.
#[derive(Clone, Copy, Debug)]
pub struct SaveRequest<'a> {
    /// The images.
    pub items: &'a [SaveItem],
    /// Only those of these platforms; none means all that are here.
    pub platforms: &'a [Platform],
    /// Whether docker's older format is written beside the layout.
    pub docker: bool,
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

    /// Writes images as a layout. Equal images give equal bytes, and an image that came with a manifest or an
    /// index is saved with the same one: an index as long as more than one of its platforms is here.
    pub fn save(
        &self,
        request: &SaveRequest<'_>,
        lease: &Lease,
        target: LayoutTarget<'_>,
    ) -> Result<(), SaveError> {
        let protect: Vec<Ref> = request.items.iter().map(|item| Ref::Image(item.image.record.id)).collect();
        lease.add_all(&protect)?;
        let mut saved: Vec<Saved> = Vec::new();
        for item in request.items {
            saved.extend(self.saved(item, request.platforms, lease)?);
        }
        let entries = saved.iter().flat_map(|saved| layout::entries(&saved.root, &saved.names));
        let docker =
            saved.iter().filter_map(|saved| Some(layout::docker_item(saved.docker.as_ref()?, &saved.names)));
        let mut files = LayoutFiles {
            blobs: saved.iter().flat_map(Saved::blobs).collect(),
            index: layout::index_of(entries.collect()),
            docker: request.docker.then(|| docker.collect()),
        };
        files.write_to(&self.store().content(), target)
    }

    /// What is saved of an image: once for each manifest or index that its names stand for.
    fn saved(&self, item: &SaveItem, platforms: &[Platform], lease: &Lease) -> Result<Vec<Saved>, SaveError> {
        let mut roots: Vec<(Option<Descriptor>, Vec<Reference>)> = Vec::new();
        for name in &item.names {
            let root = self.root_of(&item.image, Some(&name.to_string()));
            match roots.iter_mut().find(|(known, _)| *known == root) {
                Some((_, names)) => names.push(name.clone()),
                None => roots.push((root, vec![name.clone()])),
            }
        }
        if roots.is_empty() {
            roots.push((item.image.record.target.clone(), Vec::new()));
        }
        let mut saved = Vec::new();
        for (root, names) in roots {
            let chosen = match &root {
                Some(root) => self.chosen(root, &names, platforms, lease)?,
                None => None,
            };
            let mut chosen = match chosen {
                Some(chosen) => chosen,
                None => Saved::written(self.packed(&item.image, &names, platforms, lease)?),
            };
            chosen.names = names;
            saved.push(chosen);
        }
        Ok(saved)
    }

    /// What is here of what a name stands for; `None` if it is to be packed first.
    fn chosen(
        &self,
        root: &Descriptor,
        names: &[Reference],
        platforms: &[Platform],
        lease: &Lease,
    ) -> Result<Option<Saved>, SaveError> {
        let closure = self.leased_closure(root, lease)?;
        if platforms.is_empty() && closure.is_whole() {
            return Ok(Some(Saved::of(&closure, closure.digests())));
        }
        let mut wanted: Vec<&Leaf> = Vec::new();
        for platform in platforms {
            match closure.select(platform).filter(|leaf| leaf.is_whole()) {
                Some(leaf) => wanted.push(leaf),
                None if closure.is_index() => return Err(not_provided(names, root, platform)),
                None => return Ok(None),
            }
        }
        if platforms.is_empty() {
            wanted = closure.images().collect();
        }
        Ok(match wanted[..] {
            [] => None,
            [leaf] => Some(Saved::of_leaf(leaf)),
            [..] => {
                let indexes = closure.indexes.iter().map(|(index, _)| index.digest);
                let digests = wanted.iter().flat_map(|leaf| leaf.digests()).chain(indexes).collect();
                Some(Saved::of(&closure, digests))
            }
        })
    }

    /// A manifest of the layers in the forms that are here, or are made now.
    fn packed(
        &self,
        image: &Image,
        names: &[Reference],
        platforms: &[Platform],
        lease: &Lease,
    ) -> Result<WrittenManifest, SaveError> {
        let config = self.config(&image.record.id)?;
        if let Some(wanted) = platforms.iter().find(|wanted| !config.platform().runs_on(wanted)) {
            let own = Descriptor::new(media_type::OCI_CONFIG, image.record.id, 0);
            return Err(not_provided(names, &own, wanted));
        }
        let stack = &image.record.diff_ids;
        let form = LayerForm::default();
        let travelling = |position: usize| self.travelling(stack, position, &form, lease);
        let layers = each_once(0..stack.len(), |position| stack[*position], travelling)?;
        let layers = stack.iter().map(|diff_id| layers[diff_id].clone()).collect();
        let size = self.config_bytes(&image.record.id)?.len() as u64;
        let config = Descriptor::new(media_type::OCI_CONFIG, image.record.id, size);
        Ok(WrittenManifest::new(Dialect::Oci, config, layers, BTreeMap::new()))
    }
}

fn not_provided(names: &[Reference], root: &Descriptor, wanted: &Platform) -> SaveError {
    let text = names.first().map_or_else(|| root.digest.to_string(), Reference::familiar);
    FindError::Platform { text, wanted: Box::new(wanted.clone()) }.into()
}

/// One entry of a layout, with all that goes with it.
struct Saved {
    root: Descriptor,
    names: Vec<Reference>,
    digests: BTreeSet<Digest>,
    /// A manifest that may be in no store yet.
    written: Option<WrittenManifest>,
    /// The image that docker's older format knows.
    docker: Option<WrittenManifest>,
}

impl Saved {
    fn of(closure: &Closure, digests: BTreeSet<Digest>) -> Saved {
        let is_kept = |leaf: &&Leaf| leaf.is_image() && digests.contains(&leaf.written.descriptor.digest);
        let own = closure.select(&Platform::host()).filter(is_kept);
        let docker = own.or_else(|| closure.leaves.iter().find(is_kept)).map(|leaf| leaf.written.clone());
        let root = plain(&closure.root);
        Saved { root, names: Vec::new(), digests, written: None, docker }
    }

    fn of_leaf(leaf: &Leaf) -> Saved {
        let docker = leaf.is_image().then(|| leaf.written.clone());
        let root = plain(&leaf.written.descriptor);
        Saved { root, names: Vec::new(), digests: leaf.digests().collect(), written: None, docker }
    }

    fn written(manifest: WrittenManifest) -> Saved {
        let parts = manifest.manifest.layers.iter().chain([&manifest.manifest.config]);
        Saved {
            root: manifest.descriptor.clone(),
            names: Vec::new(),
            digests: parts.map(|part| part.digest).collect(),
            docker: Some(manifest.clone()),
            written: Some(manifest),
        }
    }

    fn blobs(&self) -> impl Iterator<Item = (Digest, Option<&[u8]>)> {
        let written = self.written.iter();
        let written = written.map(|manifest| (manifest.descriptor.digest, Some(manifest.bytes.as_slice())));
        self.digests.iter().map(|digest| (*digest, None)).chain(written)
    }
}

/// A descriptor as a layout lists it: notes were about its place in another index.
fn plain(descriptor: &Descriptor) -> Descriptor {
    Descriptor { annotations: BTreeMap::new(), platform: None, ..descriptor.clone() }
}
