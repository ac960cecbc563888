use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use dhow_oci::{Descriptor, DiffId, Digest, Reference, media_type};
use dhow_registry::{Client, Pushed, RegistryError};
use dhow_store::{DatabaseError, Image, Lease, LeaseError, PutBlobError, PutImageError, Ref, RepoDigest};

use crate::form::{Dialect, LayerForm};
use crate::package::{Package, each_once};
use crate::travel::WrittenManifest;
use crate::{Images, ReadImageError, TravelError};

/// What happens while an image leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// A layer is being compressed or looked for.
    LayerStarted {
        /// The layer.
        diff_id: DiffId,
    },
    /// The repository has the layer already.
    LayerExists {
        /// The layer.
        diff_id: DiffId,
    },
    /// The registry has taken the layer from another of its repositories.
    LayerMounted {
        /// The layer.
        diff_id: DiffId,
        /// The other repository.
        from: String,
    },
    /// The layer was sent.
    LayerPushed {
        /// The layer.
        diff_id: DiffId,
    },
}

/// Who is told what happens; several threads call it.
pub type PushObserver<'a> = dyn Fn(&PushEvent) + Sync + 'a;

/// Why an image was not pushed. Some of its layers may be in the registry now, under no name.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry did not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer cannot leave.
    #[error(transparent)]
    Travel(#[from] TravelError),
    /// Its configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ReadImageError),
    /// It could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Its new manifest could not be stored.
    #[error("cannot store the manifest")]
    Blob(#[from] PutBlobError),
    /// Where it is now could not be recorded.
    #[error(transparent)]
    Put(#[from] PutImageError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// An image that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushedImage {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The size of its manifest.
    pub size_bytes: u64,
}

/// One push.
struct Push<'a> {
    images: &'a Images,
    client: &'a Client,
    target: &'a Reference,
    lease: &'a Lease,
    observer: &'a PushObserver<'a>,
}

impl Images {
    /// Sends an image to where `target` says, which has a tag. Layers go first, all at once, then the
    /// configuration, and the manifest last: a name never leads to something incomplete.
    ///
    /// An image that came with a manifest leaves with the same one, byte for byte, if its layers are still
    /// here as they came or the registry has them.
    pub fn push(
        &self,
        client: &Client,
        image: &Image,
        target: &Reference,
        lease: &Lease,
        observer: &PushObserver<'_>,
    ) -> Result<PushedImage, PushError> {
        lease.add(Ref::Image(image.record.id))?;
        if let Some(package) = self.whole_package(image) {
            let pushed = self.push_package(client, &package, target, lease, observer)?;
            let repo_digest = RepoDigest { repository: target.name(), digest: pushed.digest };
            self.store().images().put(&image.record, &[], &[repo_digest])?;
            return Ok(pushed);
        }
        let push = Push { images: self, client, target, lease, observer };
        let manifest = match push.original(image)? {
            Some(manifest) => manifest,
            None => push.anew(image)?,
        };
        push.finish(image, &manifest)
    }
}

impl Images {
    /// Sends a package to where `target` says: under its tag, or, if it has none, by digest alone. Layers go
    /// first, then configurations and manifests, and what `target` will stand for last.
    pub fn push_package(
        &self,
        client: &Client,
        package: &Package,
        target: &Reference,
        lease: &Lease,
        observer: &PushObserver<'_>,
    ) -> Result<PushedImage, PushError> {
        let push = Push { images: self, client, target, lease, observer };
        let layers = package
            .images
            .iter()
            .flat_map(|image| image.diff_ids.iter().copied().zip(&image.manifest.manifest.layers));
        each_once(
            layers,
            |(_, layer)| layer.digest,
            |(diff_id, layer)| {
                (observer)(&PushEvent::LayerStarted { diff_id });
                push.send(diff_id, layer)
            },
        )?;
        for image in &package.images {
            push.bytes(&image.manifest.manifest.config, &image.config)?;
            if package.index.is_some() {
                let descriptor = &image.manifest.descriptor;
                let by_digest = target.with_digest(descriptor.digest);
                client.push_manifest(&by_digest, &descriptor.media_type, &image.manifest.bytes)?;
            }
        }
        let root = package.index.as_ref().map(|(descriptor, bytes)| (descriptor, bytes));
        let first = &package.images[0].manifest;
        let (descriptor, bytes) = root.unwrap_or((&first.descriptor, &first.bytes));
        let digest = client.push_manifest(target, &descriptor.media_type, bytes)?;
        let sent = package.images.iter().flat_map(|image| &image.manifest.manifest.layers);
        let sent: Vec<Digest> = sent.map(|layer| layer.digest).collect();
        self.store().layers().put_sources(&sent, target.registry(), target.repository())?;
        Ok(PushedImage { digest, size_bytes: bytes.len() as u64 })
    }
}

impl Push<'_> {
    fn bytes(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), PushError> {
        let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(bytes.to_vec()))) };
        self.client.push_blob(self.target, descriptor, None, &open)?;
        Ok(())
    }

    /// Sends the layers of the manifest the image came with; `None` if there is none or some of its bytes
    /// are nowhere to be had.
    fn original(&self, image: &Image) -> Result<Option<WrittenManifest>, PushError> {
        let Some(original) = self.images.original_manifest(image) else { return Ok(None) };
        let layers = &original.manifest.layers;
        if layers.len() != image.record.diff_ids.len() {
            return Ok(None);
        }
        let known: BTreeMap<DiffId, &Descriptor> =
            image.record.diff_ids.iter().copied().zip(layers).collect();
        let sent = self.each_layer(image, |position| {
            let diff_id = image.record.diff_ids[position];
            self.send(diff_id, known[&diff_id])
        });
        match sent {
            Ok(_) => Ok(Some(original)),
            // The registry does not have it, and we do not have it in this form.
            Err(PushError::Registry(RegistryError::Content { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends the layers in the forms that are here, or are made now, and writes a manifest of them.
    fn anew(&self, image: &Image) -> Result<WrittenManifest, PushError> {
        let form = LayerForm::default();
        let sent = self.each_layer(image, |position| {
            let diff_id = image.record.diff_ids[position];
            (self.observer)(&PushEvent::LayerStarted { diff_id });
            let descriptor = self.images.travelling(&image.record.diff_ids, position, &form, self.lease)?;
            self.send(diff_id, &descriptor)?;
            Ok(descriptor)
        })?;
        let layers = image.record.diff_ids.iter().map(|diff_id| sent[diff_id].clone()).collect();
        let config = self.images.config_bytes(&image.record.id)?;
        let config = Descriptor::new(media_type::OCI_CONFIG, image.record.id, config.len() as u64);
        Ok(WrittenManifest::new(Dialect::Oci, config, layers, BTreeMap::new()))
    }

    /// Calls `act` once per distinct layer, on several threads.
    fn each_layer<T: Send>(
        &self,
        image: &Image,
        act: impl Fn(usize) -> Result<T, PushError> + Sync,
    ) -> Result<BTreeMap<DiffId, T>, PushError> {
        let diff_ids = &image.record.diff_ids;
        each_once(0..diff_ids.len(), |position| diff_ids[*position], act)
    }

    /// Sees to it that the repository has a layer.
    fn send(&self, diff_id: DiffId, descriptor: &Descriptor) -> Result<(), PushError> {
        let (registry, repository) = (self.target.registry(), self.target.repository());
        let sources = self.images.store().layers().sources(&descriptor.digest, registry)?;
        let from = sources.into_iter().find(|source| source != repository);
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let content = self.images.store().content();
            Ok(Box::new(content.open(&descriptor.digest).map_err(io::Error::other)?))
        };
        let pushed = self.client.push_blob(self.target, descriptor, from.as_deref(), &open)?;
        (self.observer)(&match (pushed, from) {
            (Pushed::Existed, _) => PushEvent::LayerExists { diff_id },
            (Pushed::Mounted, Some(from)) => PushEvent::LayerMounted { diff_id, from },
            (Pushed::Mounted | Pushed::Uploaded, _) => PushEvent::LayerPushed { diff_id },
        });
        Ok(())
    }

    fn finish(&self, image: &Image, manifest: &WrittenManifest) -> Result<PushedImage, PushError> {
        let config = self.images.config_bytes(&image.record.id)?;
        self.bytes(&manifest.manifest.config, &config)?;
        let media_type = &manifest.descriptor.media_type;
        let digest = self.client.push_manifest(self.target, media_type, &manifest.bytes)?;
        self.remember(image, manifest, digest)?;
        Ok(PushedImage { digest, size_bytes: manifest.bytes.len() as u64 })
    }

    /// Keeps what was made for this push, so that the next one is of the same bytes, and where it went.
    fn remember(&self, image: &Image, manifest: &WrittenManifest, digest: Digest) -> Result<(), PushError> {
        let store = self.images.store();
        store.content().put(self.lease, &manifest.bytes)?;
        let layers: Vec<Digest> = manifest.manifest.layers.iter().map(|layer| layer.digest).collect();
        store.layers().put_sources(&layers, self.target.registry(), self.target.repository())?;
        let mut record = image.record.clone();
        let here = |digest: &Digest| matches!(store.content().find(digest), Ok(Some(_)));
        record.blobs.extend(layers.into_iter().filter(here));
        record.blobs.insert(manifest.descriptor.digest);
        record.target.get_or_insert_with(|| manifest.descriptor.clone());
        let repo_digest = RepoDigest { repository: self.target.name(), digest };
        store.images().put(&record, &[], &[repo_digest])?;
        Ok(())
    }
}
