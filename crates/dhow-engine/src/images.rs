//! Operations on images.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use dhow_image::{
    EnsureError, EnsurePolicy, PullEvent, PullObserver, PullRequest, PushObserver, SaveRequest,
};
use dhow_oci::{Digest, ImageConfig, Platform, Reference};
use dhow_registry::{CredentialsError, RegistryError, Secret};
use dhow_snapshot::SnapshotKey;
use dhow_store::{DatabaseError, FsckError, FsckReport, Image, Lease, LeaseError};

pub use dhow_image::{
    FindError, LayoutTarget, LoadError, LoadSource, Loaded, PullError, Pulled, PushError, PushEvent,
    PushedImage, ReadImageError, RemoveError, Removed, SaveError, TagImageError, Variant,
};
pub use dhow_registry::{SearchResult, server_key};

use crate::Engine;
use crate::image_filter::{FilterError, ImageFilter, Matcher};

/// An image with what its configuration says.
#[derive(Clone, Debug)]
pub struct ImageDetails {
    /// What the store knows.
    pub image: Image,
    /// The configuration; an artifact has none.
    pub config: Option<ImageConfig>,
    /// The folders of its layers, lowest first.
    pub layer_folders: Vec<std::path::PathBuf>,
}

/// An image in a list.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// What the store knows.
    pub image: Image,
    /// How many containers there are of it.
    pub containers: usize,
}

/// An instruction of an image's making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image, where it is known: it is for the last instruction only.
    pub image: Option<Digest>,
    /// When, in RFC 3339.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of the files in its layer; 0 if it made none.
    pub size_bytes: u64,
    /// A remark.
    pub comment: String,
}

/// Which images `prune` removes.
#[derive(Clone, Debug, Default)]
pub struct PruneImages {
    /// Those with names as well, if no container uses them.
    pub all: bool,
    /// Only those that this lets through.
    pub filter: ImageFilter,
}

/// What `prune` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunedImages {
    /// Names and images, in order.
    pub removed: Vec<Removed>,
    /// The room it took.
    pub bytes: u64,
}

macro_rules! operation_error {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($source:ty),)* }) => {
        $(#[$doc])*
        #[derive(Debug, thiserror::Error)]
        pub enum $name {
            $($(#[$variant_doc])* #[error(transparent)] $variant(#[from] $source),)*
        }
    };
}

operation_error! {
    /// Why an image was not pulled.
    PullImageError {
        /// The registry did not give it, or it could not be installed.
        Pull(PullError),
        /// It could not be protected from gc.
        Lease(LeaseError),
        /// The registry did not list its tags.
        Registry(RegistryError),
    }
}

operation_error! {
    /// Why an image is not described.
    InspectImageError {
        /// It cannot be found.
        Find(FindError),
        /// It cannot be read.
        Read(ReadImageError),
        /// The database failed.
        Database(DatabaseError),
    }
}

operation_error! {
    /// Why images are not listed.
    ListImagesError {
        /// The filter makes no sense.
        Filter(FilterError),
        /// The database failed.
        Database(DatabaseError),
    }
}

operation_error! {
    /// Why images were not pruned.
    PruneImagesError {
        /// They could not be listed.
        List(ListImagesError),
        /// One could not be removed.
        Remove(RemoveError),
        /// What they had could not be freed.
        Gc(dhow_store::GcError),
    }
}

operation_error! {
    /// Why images were not written to an archive.
    SaveImagesError {
        /// They could not be written.
        Save(SaveError),
        /// They could not be protected from gc.
        Lease(LeaseError),
    }
}

operation_error! {
    /// Why images were not read from an archive.
    LoadImagesError {
        /// The archive is at fault, or the store.
        Load(LoadError),
        /// They could not be protected from gc.
        Lease(LeaseError),
    }
}

operation_error! {
    /// Why credentials are not kept.
    LoginError {
        /// The registry does not accept them.
        Registry(RegistryError),
        /// They cannot be read or written.
        Credentials(CredentialsError),
    }
}

/// Why an image was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushImageError {
    /// There is no image of this name.
    #[error("An image does not exist locally with the tag: {0}")]
    NoSuchTag(String),
    /// A digest is not a place to push to.
    #[error("cannot push a digest reference")]
    Digest,
    /// The registry did not take it.
    #[error(transparent)]
    Push(#[from] PushError),
    /// It could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// A sign-in that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// What to tell the user.
    pub status: String,
    /// Whether the credentials are kept by a helper rather than legibly in a file.
    pub in_helper: bool,
}

/// Leaves out images that are found through the index of one with a name.
fn hide_other_platforms(images: &mut Vec<Image>) {
    let target = |image: &Image| image.record.target.as_ref().map(|target| target.digest);
    let named = images.iter().filter(|image| !image.names.is_empty());
    let indexes: BTreeSet<Digest> = named.filter_map(target).collect();
    images.retain(|image| !image.names.is_empty() || target(image).is_none_or(|own| !indexes.contains(&own)));
}

impl Engine {
    /// Pulls an image, for this machine's platform unless another is wanted, or with all its platforms.
    pub fn pull_image(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        all_platforms: bool,
        observer: &PullObserver<'_>,
    ) -> Result<Pulled, PullImageError> {
        let lease = self.lease("pull", reference)?;
        let host = Platform::host();
        let platform = platform.unwrap_or(&host);
        let request = PullRequest { reference, platform, all_platforms };
        let pulled = self.images.pull(self.registry(), &request, &lease, self.now(), observer)?;
        self.tell_reference("pull", reference, pulled.image.record.labels.clone());
        Ok(pulled)
    }

    /// Sees to it that an image is here and pulls it if it is not; the lease protects it.
    pub fn ensure_image(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        policy: EnsurePolicy,
        lease: &Lease,
        observer: &PullObserver<'_>,
    ) -> Result<Image, EnsureError> {
        let host = Platform::host();
        let platform = platform.unwrap_or(&host);
        let is_pulled = AtomicBool::new(false);
        let observe = |event: &PullEvent| {
            is_pulled.fetch_or(matches!(event, PullEvent::Started), Ordering::Relaxed);
            observer(event);
        };
        let client = || self.registry();
        let image = self.images.ensure(&client, reference, platform, policy, lease, self.now(), &observe)?;
        if is_pulled.into_inner() {
            self.tell_reference("pull", reference, image.record.labels.clone());
        }
        Ok(image)
    }

    /// The tags that a repository has in its registry.
    pub fn remote_tags(&self, repository: &Reference) -> Result<Vec<String>, PullImageError> {
        Ok(self.registry().tags(repository)?)
    }

    /// Pushes the image that has this name to where the name says, or its manifest for one platform.
    pub fn push_image(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        observer: &PushObserver<'_>,
    ) -> Result<PushedImage, PushImageError> {
        if reference.digest().is_some() {
            return Err(PushImageError::Digest);
        }
        let reference = reference.clone().or_latest();
        let lease = self.lease("push", &reference)?;
        let Some(image) = self.images.by_reference(&reference)? else {
            return Err(PushImageError::NoSuchTag(reference.familiar()));
        };
        let pushed = self.images.push(self.registry(), &image, &reference, platform, &lease, observer)?;
        self.tell_reference("push", &reference, image.record.labels);
        Ok(pushed)
    }

    /// The tags that a repository has here.
    pub fn local_tags(&self, repository: &Reference) -> Result<Vec<Reference>, DatabaseError> {
        let images = self.store().images().list()?;
        let names = images.iter().flat_map(|image| &image.names);
        let parsed = names.filter_map(|name| name.reference.parse::<Reference>().ok());
        let mut tags: Vec<Reference> = parsed.filter(|name| name.name() == repository.name()).collect();
        tags.sort();
        Ok(tags)
    }

    /// The images that a filter lets through, newest first.
    pub fn list_images(&self, filter: &ImageFilter) -> Result<Vec<ImageSummary>, ListImagesError> {
        let mut images = self.store().images().list()?;
        if !filter.other_platforms {
            hide_other_platforms(&mut images);
        }
        let matcher = Matcher::new(filter, |text| self.images.find(text))?;
        let mut kept: Vec<Image> = images.into_iter().filter_map(|image| matcher.apply(image)).collect();
        kept.sort_by(|a, b| b.record.created.cmp(&a.record.created).then(a.record.id.cmp(&b.record.id)));
        let used = self.images_in_use()?;
        let summary = |image: Image| {
            let containers = used.iter().filter(|id| **id == image.record.id).count();
            ImageSummary { image, containers }
        };
        Ok(kept.into_iter().map(summary).collect())
    }

    /// An image, by name or the beginning of its ID.
    pub fn find_image(&self, text: &str) -> Result<Image, FindError> {
        self.images.find(text)
    }

    /// Everything about an image, or about what it is on a certain platform.
    pub fn inspect_image(
        &self,
        text: &str,
        platform: Option<&Platform>,
    ) -> Result<ImageDetails, InspectImageError> {
        use dhow_snapshot::Snapshotter as _;
        let image = self.images.find_for(text, platform)?;
        let config = match self.images.config(&image.record.id) {
            Ok(config) => Some(config),
            Err(ReadImageError::Artifact { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let names = image.record.snapshots.iter().filter_map(|name| name.parse().ok());
        let layer_folders = names.filter_map(|name| self.images.snapshots().layer_path(&name)).collect();
        Ok(ImageDetails { image, config, layer_folders })
    }

    /// How an image was made, last instruction first.
    pub fn image_history(
        &self,
        text: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<HistoryEntry>, InspectImageError> {
        let image = self.images.find_for(text, platform)?;
        let config = self.images.config(&image.record.id)?;
        let mut diff_ids = image.record.diff_ids.iter();
        let mut entries = Vec::with_capacity(config.history.len());
        for history in config.history {
            let layer = match if history.empty_layer { None } else { diff_ids.next() } {
                Some(diff_id) => self.store().layers().by_diff_id(diff_id)?.pop(),
                None => None,
            };
            entries.push(HistoryEntry {
                image: None,
                created: history.created,
                created_by: history.created_by,
                size_bytes: layer.map_or(0, |layer| layer.size_bytes),
                comment: history.comment,
            });
        }
        entries.reverse();
        if let Some(last) = entries.first_mut() {
            last.image = Some(image.record.id);
        }
        Ok(entries)
    }

    /// Gives an image one more name.
    pub fn tag_image(&self, text: &str, name: &Reference) -> Result<(), TagImageError> {
        let image = self.images.tag(text, name, self.now())?;
        let name = name.clone().or_latest().familiar();
        self.tell_image("tag", &image.record.id.to_string(), &name, image.record.labels);
        Ok(())
    }

    /// Takes a name from an image, and removes the image with its last name. With `platforms` only these go.
    pub fn remove_image(
        &self,
        text: &str,
        force: bool,
        platforms: &[Platform],
    ) -> Result<Vec<Removed>, RemoveError> {
        let (now, keep) = ((self.settings.clock)().into(), |key: &SnapshotKey| self.is_container(key));
        let image = self.images.find(text)?;
        let mut removed = Vec::new();
        if platforms.is_empty() {
            removed = self.images.remove(text, force, now, &keep)?;
        }
        for platform in platforms {
            removed.extend(self.images.remove_platform(text, platform, force, now, &keep)?);
        }
        self.tell_removed(&image, &removed);
        Ok(removed)
    }

    /// Removes images that nobody names, or nobody uses.
    pub fn prune_images(&self, prune: &PruneImages) -> Result<PrunedImages, PruneImagesError> {
        let filter =
            ImageFilter { dangling: if prune.all { None } else { Some(true) }, ..prune.filter.clone() };
        let mut pruned = PrunedImages::default();
        for ImageSummary { image, containers } in self.list_images(&filter)? {
            if containers > 0 {
                continue;
            }
            match self.images.discard(&image) {
                Ok(removed) => {
                    self.tell_removed(&image, &removed);
                    pruned.removed.extend(removed);
                }
                // A container was made of it just now.
                Err(RemoveError::InUse { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let freed = self.images.gc((self.settings.clock)().into(), &|key| self.is_container(key))?;
        pruned.bytes = freed.bytes;
        let reclaimed = [("reclaimed".to_owned(), freed.bytes.to_string())];
        self.tell_image("prune", "", "", reclaimed.into());
        Ok(pruned)
    }

    /// Writes images to an archive or a folder that docker, podman and skopeo read, all their platforms or only
    /// some. `docker` adds what dockers before 25 read.
    pub fn save_images(
        &self,
        texts: &[String],
        platforms: &[Platform],
        docker: bool,
        target: LayoutTarget<'_>,
    ) -> Result<(), SaveImagesError> {
        let items = self.images.save_items(texts)?;
        let lease = self.store().lease("save")?;
        let request = SaveRequest { items: &items, platforms, docker };
        self.images.save(&request, &lease, target)?;
        for item in items {
            self.tell_id("save", &item.image.record.id.to_string(), item.image.record.labels);
        }
        Ok(())
    }

    /// Installs the images of an archive or a folder, all their platforms or only some.
    pub fn load_images(
        &self,
        source: LoadSource<'_>,
        platforms: &[Platform],
        observer: &PullObserver<'_>,
    ) -> Result<Vec<Loaded>, LoadImagesError> {
        let lease = self.store().lease("load")?;
        let loaded = self.images.load(source, platforms, &lease, self.now(), observer)?;
        for image in &loaded {
            self.tell_id("load", &image.id.to_string(), Default::default());
        }
        Ok(loaded)
    }

    /// Signs in to a registry and keeps the credentials.
    pub fn login(&self, registry: &str, username: &str, password: Secret) -> Result<SignedIn, LoginError> {
        let outcome = self.registry().login(registry, username, &password)?;
        let in_helper = self.keychain().store(registry, &outcome.credential)?;
        Ok(SignedIn { status: outcome.status, in_helper })
    }

    /// Asks a registry whether it would let somebody in. Nothing is kept.
    pub fn check_login(
        &self,
        registry: &str,
        username: &str,
        password: &Secret,
    ) -> Result<String, RegistryError> {
        Ok(self.registry().login(registry, username, password)?.status)
    }

    /// Signs in with the user name and password that are kept for a registry; `None` if there are none.
    pub fn login_again(&self, registry: &str) -> Result<Option<SignedIn>, LoginError> {
        match self.keychain().get(registry)? {
            Some(dhow_registry::Credential::Basic { username, password }) => {
                self.login(registry, &username, password).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Forgets the credentials for a registry. Returns whether there were any.
    pub fn logout(&self, registry: &str) -> Result<bool, CredentialsError> {
        self.keychain().erase(registry)
    }

    /// Searches a registry for repositories.
    pub fn search(&self, term: &str, limit: u32) -> Result<Vec<SearchResult>, RegistryError> {
        self.registry().search(term, limit)
    }

    /// Checks that everything recorded is there and undamaged.
    pub fn check(&self) -> Result<FsckReport, FsckError> {
        self.images.fsck()
    }

    /// Tells of names and images that went. Layers are not worth a word.
    fn tell_removed(&self, image: &Image, removed: &[Removed]) {
        let id = image.record.id.to_string();
        for removed in removed {
            match removed {
                Removed::Untagged(_) => self.tell_id("untag", &id, image.record.labels.clone()),
                Removed::Deleted(digest) if *digest == image.record.id => {
                    self.tell_id("delete", &id, image.record.labels.clone());
                }
                Removed::Deleted(_) => {}
            }
        }
    }

    fn lease(&self, purpose: &str, reference: &Reference) -> Result<Lease, LeaseError> {
        self.store().lease(&format!("{purpose} {reference}"))
    }

    /// The images of all containers, once for each.
    fn images_in_use(&self) -> Result<Vec<Digest>, DatabaseError> {
        let records = self.store().records("container");
        let mut used = Vec::new();
        for record in records.list()? {
            for target in records.refs(&record.key)? {
                if let dhow_store::Ref::Image(id) = target {
                    used.push(id);
                }
            }
        }
        Ok(used)
    }

    /// Whether an active snapshot belongs to a container. If in doubt it does.
    pub(crate) fn is_container(&self, key: &SnapshotKey) -> bool {
        self.store().records("container").get(key.as_str()).map_or(true, |record| record.is_some())
    }
}
