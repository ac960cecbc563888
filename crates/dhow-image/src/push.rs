use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use dhow_oci::{Descriptor, DiffId, Digest, Platform, Reference, media_type};
use dhow_registry::{Client, Pushed, RegistryError};
use dhow_store::{DatabaseError, Image, Lease, LeaseError, PutBlobError, PutImageError, Ref, RepoDigest};

use crate::closure::{Closure, Leaf, is_document};
use crate::form::{Dialect, LayerForm};
use crate::package::{Package, Packed, each_once};
use crate::tee::PROGRESS_BYTES;
use crate::travel::WrittenManifest;
use crate::{FindError, Images, ReadImageError, TravelError};

/// What happens while an image leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// A layer is being compressed or looked for.
    LayerStarted {
        /// The layer.
        diff_id: DiffId,
    },
    /// More of a layer was sent. After a broken connection it may begin anew.
    LayerProgress {
        /// The layer.
        diff_id: DiffId,
        /// Bytes so far, as it travels.
        bytes: u64,
        /// All bytes.
        size_bytes: u64,
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
    /// It is not here for the platform that was asked for.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Several platforms of its index are here, but not all of them. The words are Docker's.
    #[error(
        "You're trying to push a manifest list/index which references multiple platform specific manifests, but not \
         all of them are available locally or available to the remote repository. {missing} is missing"
    )]
    Incomplete {
        /// The first manifest or blob that is neither here nor there.
        missing: Box<Digest>,
    },
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
    /// The index that was not pushed, as only one of its images is here.
    pub instead_of: Option<Digest>,
}

/// One push.
struct Push<'a> {
    images: &'a Images,
    client: &'a Client,
    target: &'a Reference,
    lease: &'a Lease,
    observer: &'a PushObserver<'a>,
}

/// What is to be pushed of an index.
enum Choice<'c> {
    /// The index, with all that is here of it: the repository has the rest.
    Whole,
    /// One image.
    One(&'c Leaf),
}

impl Images {
    /// Sends an image to where `target` says, which has a tag. Layers go first, all at once, then the
    /// configuration, and the manifest last: a name never leads to something incomplete.
    ///
    /// An image that came with a manifest or an index leaves with the same one, byte for byte, if all of it is
    /// still here as it came or the registry has it. Of an index of which only one image is here, that image
    /// is pushed. With `platform` it is the manifest of that platform in any case.
    pub fn push(
        &self,
        client: &Client,
        image: &Image,
        target: &Reference,
        platform: Option<&Platform>,
        lease: &Lease,
        observer: &PushObserver<'_>,
    ) -> Result<PushedImage, PushError> {
        lease.add(Ref::Image(image.record.id))?;
        let push = Push { images: self, client, target, lease, observer };
        let name = target.to_string();
        let Some(root) = self.root_of(image, Some(&name)) else { return push.single(image, platform) };
        let closure = self.leased_closure(&root, lease)?;
        if !closure.is_index() && closure.leaves.iter().all(|leaf| leaf.is_image()) {
            return push.single(image, platform);
        }
        match push.choose(&closure, platform)? {
            Choice::Whole => push.closure(image, &closure),
            Choice::One(leaf) => {
                let pushed = push.leaf(image, leaf, target)?;
                let instead_of = platform.is_none().then_some(root.digest).filter(|_| closure.is_index());
                Ok(PushedImage { instead_of, ..pushed })
            }
        }
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
        for attestation in &package.attestations {
            for (statement, bytes) in &attestation.statements {
                push.bytes(statement, bytes)?;
            }
            let Packed { config, manifest, .. } = &attestation.packed;
            push.bytes(&manifest.manifest.config, config)?;
            let by_digest = target.with_digest(manifest.descriptor.digest);
            client.push_manifest(&by_digest, &manifest.descriptor.media_type, &manifest.bytes)?;
        }
        let root = package.index.as_ref().map(|(descriptor, bytes)| (descriptor, bytes));
        let first = &package.images[0].manifest;
        let (descriptor, bytes) = root.unwrap_or((&first.descriptor, &first.bytes));
        let digest = client.push_manifest(target, &descriptor.media_type, bytes)?;
        let sent = package.images.iter().flat_map(|image| &image.manifest.manifest.layers);
        let sent: Vec<Digest> = sent.map(|layer| layer.digest).collect();
        self.store().layers().put_sources(&sent, target.registry(), target.repository())?;
        Ok(PushedImage { digest, size_bytes: bytes.len() as u64, instead_of: None })
    }
}

impl Push<'_> {
    /// Pushes an image without an index.
    fn single(&self, image: &Image, platform: Option<&Platform>) -> Result<PushedImage, PushError> {
        if let Some(wanted) = platform
            && !self.images.config(&image.record.id)?.platform().runs_on(wanted)
        {
            return Err(self.not_provided(wanted));
        }
        let manifest = match self.original(image)? {
            Some(manifest) => manifest,
            None => self.anew(image)?,
        };
        self.finish(image, &manifest)
    }

    fn not_provided(&self, wanted: &Platform) -> PushError {
        FindError::Platform { text: self.target.familiar(), wanted: Box::new(wanted.clone()) }.into()
    }

    fn choose<'c>(&self, closure: &'c Closure, platform: Option<&Platform>) -> Result<Choice<'c>, PushError> {
        if let Some(wanted) = platform {
            let leaf = closure.select(wanted).filter(|leaf| leaf.is_whole());
            return leaf.map(Choice::One).ok_or_else(|| self.not_provided(wanted));
        }
        let Some(missing) = self.missing(closure)? else { return Ok(Choice::Whole) };
        let mut images = closure.images();
        match (images.next(), images.next()) {
            (Some(only), None) => Ok(Choice::One(only)),
            _ => Err(PushError::Incomplete { missing: Box::new(missing) }),
        }
    }

    /// The first thing below a root that is neither here nor in the repository.
    fn missing(&self, closure: &Closure) -> Result<Option<Digest>, PushError> {
        let documents = closure.absent.iter().filter(|entry| is_document(entry));
        let parted = closure.leaves.iter().filter(|leaf| !leaf.is_whole());
        for manifest in documents.chain(parted.map(|leaf| &leaf.written.descriptor)) {
            // A repository takes no manifest without what it names, so that this will do.
            match self.client.head(&self.target.with_digest(manifest.digest)) {
                Ok(_) => {}
                Err(error) if error.is_absence() => return Ok(Some(manifest.digest)),
                Err(error) => return Err(error.into()),
            }
        }
        for blob in closure.absent.iter().filter(|entry| !is_document(entry)) {
            if !self.client.blob_exists(self.target, blob.digest)? {
                return Ok(Some(blob.digest));
            }
        }
        Ok(None)
    }

    /// Sends all that is here below an index, and the index last.
    fn closure(&self, image: &Image, closure: &Closure) -> Result<PushedImage, PushError> {
        let whole = || closure.leaves.iter().filter(|leaf| leaf.is_whole());
        self.blobs(whole().flat_map(|leaf| &leaf.written.manifest.layers).chain(&closure.blobs))?;
        whole().try_for_each(|leaf| self.config(leaf))?;
        for leaf in whole().filter(|leaf| leaf.written.descriptor.digest != closure.root.digest) {
            self.manifest(&leaf.written.descriptor, &leaf.written.bytes)?;
        }
        for (index, bytes) in closure.indexes.iter().skip(1).rev() {
            self.manifest(index, bytes)?;
        }
        let (root, bytes) = match closure.indexes.first() {
            Some((root, bytes)) => (root, bytes),
            None => {
                let written = &closure.leaves[0].written;
                (&written.descriptor, &written.bytes)
            }
        };
        let digest = self.client.push_manifest(self.target, &root.media_type, bytes)?;
        let sent: Vec<Digest> = whole().flat_map(Leaf::parts).map(|part| part.digest).collect();
        self.note(image, &sent, digest)?;
        Ok(PushedImage { digest, size_bytes: bytes.len() as u64, instead_of: None })
    }

    /// Sends one manifest with what it names.
    fn leaf(&self, image: &Image, leaf: &Leaf, target: &Reference) -> Result<PushedImage, PushError> {
        self.blobs(leaf.written.manifest.layers.iter())?;
        self.config(leaf)?;
        let written = &leaf.written;
        let digest = self.client.push_manifest(target, &written.descriptor.media_type, &written.bytes)?;
        let sent: Vec<Digest> = leaf.parts().map(|part| part.digest).collect();
        self.note(image, &sent, digest)?;
        Ok(PushedImage { digest, size_bytes: written.bytes.len() as u64, instead_of: None })
    }

    fn manifest(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), PushError> {
        let by_digest = self.target.with_digest(descriptor.digest);
        self.client.push_manifest(&by_digest, &descriptor.media_type, bytes)?;
        Ok(())
    }

    /// Sends blobs as they are, each once. Those that registries do not keep stay where they are.
    fn blobs<'p>(&self, blobs: impl Iterator<Item = &'p Descriptor>) -> Result<(), PushError> {
        let kept = blobs.filter(|blob| !media_type::is_foreign(&blob.media_type));
        let shown = |part: &Descriptor| {
            let known = self.images.store().layers().blob(&part.digest)?;
            Ok::<_, DatabaseError>(known.map_or(DiffId::new(part.digest), |layer| layer.diff_id))
        };
        let send = |part: &Descriptor| {
            let diff_id = shown(part)?;
            (self.observer)(&PushEvent::LayerStarted { diff_id });
            self.send(diff_id, part)
        };
        each_once(kept, |part| part.digest, send).map(drop)
    }

    /// Sends a configuration, of which nobody is told.
    fn config(&self, leaf: &Leaf) -> Result<(), PushError> {
        let config = &leaf.written.manifest.config;
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(self.images.store().content().open(&config.digest).map_err(io::Error::other)?))
        };
        self.client.push_blob(self.target, config, None, &open)?;
        Ok(())
    }

    /// Remembers where an image is now.
    fn note(&self, image: &Image, sent: &[Digest], digest: Digest) -> Result<(), PushError> {
        let store = self.images.store();
        store.layers().put_sources(sent, self.target.registry(), self.target.repository())?;
        let repo_digest = RepoDigest { repository: self.target.name(), digest };
        store.images().put(&image.record, &[], &[repo_digest])?;
        Ok(())
    }

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
        let open = || -> io::Result<Box<dyn Read + Send + '_>> {
            let content = self.images.store().content();
            let file = content.open(&descriptor.digest).map_err(io::Error::other)?;
            Ok(Box::new(Watched::new(file, diff_id, descriptor.size, self.observer)))
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
        Ok(PushedImage { digest, size_bytes: manifest.bytes.len() as u64, instead_of: None })
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

/// A layer being read, with somebody told how far it is.
struct Watched<'a, R> {
    inner: R,
    diff_id: DiffId,
    size_bytes: u64,
    bytes: u64,
    told: u64,
    observer: &'a PushObserver<'a>,
}

impl<'a, R> Watched<'a, R> {
    fn new(inner: R, diff_id: DiffId, size_bytes: u64, observer: &'a PushObserver<'a>) -> Self {
        Watched { inner, diff_id, size_bytes, bytes: 0, told: 0, observer }
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if self.bytes - self.told >= PROGRESS_BYTES || (self.bytes == self.size_bytes && count > 0) {
            self.told = self.bytes;
            let (diff_id, bytes, size_bytes) = (self.diff_id, self.bytes, self.size_bytes);
            (self.observer)(&PushEvent::LayerProgress { diff_id, bytes, size_bytes });
        }
        Ok(count)
    }
}
