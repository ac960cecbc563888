use std::collections::BTreeSet;
use std::time::SystemTime;

use dhow_oci::media_type::is_index;
use dhow_oci::{Digest, Platform, Reference, chain_ids};
use dhow_snapshot::SnapshotKey;
use dhow_store::{
    DatabaseError, GcError, Holders, Image, ImageName, LeaseError, Named, PutImageError, RemoveImageError,
    RepoDigest, TagError,
};

use crate::closure::{Closure, Leaf};
use crate::{FindError, Freed, Images, ReadImageError, VariantError};

/// What happened on the way to an image's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name or a digest in a repository, as people write it, no longer means the image.
    Untagged(String),
    /// The image, or a layer that only it had, is gone.
    Deleted(Digest),
}

/// Why an image was not removed. The words are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its last name cannot go, as a container uses it.
    #[error(
        "conflict: unable to remove repository reference \"{text}\" (must force) - container {container} is using its referenced image {image}"
    )]
    NameInUse {
        /// The name.
        text: String,
        /// The first container that uses the image.
        container: String,
        /// The image.
        image: String,
    },
    /// It cannot go, as a container uses it.
    #[error(
        "conflict: unable to delete {image} (cannot be forced) - image is being used by container {container}"
    )]
    InUse {
        /// The image.
        image: String,
        /// The first container that uses the image.
        container: String,
    },
    /// It was named by its ID and has several names.
    #[error(
        "conflict: unable to delete {image} (must be forced) - image is referenced in multiple repositories"
    )]
    ManyNames {
        /// The image.
        image: String,
    },
    /// The store did not let it go.
    #[error(transparent)]
    Store(#[from] RemoveImageError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] Box<ReadImageError>),
    /// Another of its platforms, which takes its place, could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] Box<VariantError>),
    /// Another of its platforms, which takes its place, could not be recorded.
    #[error(transparent)]
    Put(#[from] Box<PutImageError>),
    /// What is left could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// What it had could not be freed.
    #[error(transparent)]
    Gc(#[from] GcError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why an image got no further name.
#[derive(Debug, thiserror::Error)]
pub enum TagImageError {
    /// It cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The new name has a digest.
    #[error("refusing to create a tag with a digest reference")]
    Digest,
    /// The store did not do it.
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// What the text that names an image means.
enum Meaning {
    Name(String),
    Digest(RepoDigest),
    Id,
}

impl Images {
    /// Gives an image one more name. `now` is the time, in seconds since 1970.
    pub fn tag(&self, text: &str, name: &Reference, now: i64) -> Result<Image, TagImageError> {
        if name.digest().is_some() {
            return Err(TagImageError::Digest);
        }
        let image = self.find(text)?;
        let reference = name.clone().or_latest().to_string();
        // The new name stands for what the old one stands for, so that it is pushed as the same digest.
        let meant = meaning(text, &image);
        let manifest = match &meant {
            Meaning::Name(held) => {
                image.names.iter().find(|name| name.reference == *held).and_then(|name| name.manifest)
            }
            Meaning::Digest(held) => Some(held.digest),
            Meaning::Id => None,
        };
        let name = ImageName { reference, manifest, tagged_at: now };
        self.store().images().tag(&image.record.id, &name)?;
        Ok(image)
    }

    /// Takes a name from an image, and removes the image with its last one; an ID removes it with all its
    /// names. With `force` an image goes though it has several names, and a name goes though a container
    /// uses the image, which then stays. `now` and `keep` are for [`gc`](Self::gc).
    pub fn remove(
        &self,
        text: &str,
        force: bool,
        now: SystemTime,
        keep: &dyn Fn(&SnapshotKey) -> bool,
    ) -> Result<Vec<Removed>, RemoveError> {
        let image = self.find(text)?;
        match meaning(text, &image) {
            Meaning::Name(name) if image.names.len() > 1 => self.untag(&image, &name),
            Meaning::Digest(digest) if !image.names.is_empty() || image.repo_digests.len() > 1 => {
                self.forget_digest(&image, &digest)
            }
            Meaning::Id if !force && repositories(&image) > 1 => {
                Err(RemoveError::ManyNames { image: image.record.id.short() })
            }
            Meaning::Id => {
                self.delete(&image, now, keep).map_err(|(error, holders)| in_use(&image, error, holders))
            }
            meaning => match (self.delete(&image, now, keep), meaning) {
                (Err((_, Some(_))), Meaning::Name(name)) if force => self.untag(&image, &name),
                (Err((_, Some(_))), Meaning::Digest(digest)) if force => self.forget_digest(&image, &digest),
                (result, _) => result.map_err(|(error, holders)| name_in_use(text, &image, error, holders)),
            },
        }
    }

    /// Removes an image with its names if nobody uses it. One that is gone already is success. The room it
    /// takes is freed by the next gc.
    pub fn discard(&self, image: &Image) -> Result<Vec<Removed>, RemoveError> {
        match self.strike(image) {
            Ok(discarded) => {
                let mut removed = farewell(&discarded);
                removed.extend(self.strike_siblings(&discarded)?);
                Ok(removed)
            }
            Err((RemoveError::Store(RemoveImageError::NotFound { .. }), _)) => Ok(Vec::new()),
            Err((error, holders)) => Err(in_use(image, error, holders)),
        }
    }

    fn delete(
        &self,
        image: &Image,
        now: SystemTime,
        keep: &dyn Fn(&SnapshotKey) -> bool,
    ) -> Result<Vec<Removed>, (RemoveError, Option<Holders>)> {
        let image = self.strike(image)?;
        let mut removed = farewell(&image);
        removed.extend(self.strike_siblings(&image).map_err(|error| (error, None))?);
        let freed = self.gc(now, keep).map_err(|error| (error.into(), None))?;
        removed.extend(layers_gone(&image, &freed));
        Ok(removed)
    }

    /// Strikes the images of other platforms that came by the same index as one that is gone. They have no name
    /// of their own; those that somebody uses stay.
    fn strike_siblings(&self, image: &Image) -> Result<Vec<Removed>, RemoveError> {
        let mut removed = Vec::new();
        for sibling in self.siblings(image)? {
            match self.strike(&sibling) {
                Ok(gone) => removed.push(Removed::Deleted(gone.record.id)),
                Err((
                    RemoveError::Store(RemoveImageError::InUse { .. } | RemoveImageError::NotFound { .. }),
                    _,
                )) => {}
                Err((error, _)) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// The nameless images that came by the same index.
    pub fn siblings(&self, image: &Image) -> Result<Vec<Image>, DatabaseError> {
        let Some(target) = image.record.target.as_ref().filter(|target| is_index(&target.media_type)) else {
            return Ok(Vec::new());
        };
        let mut images = self.store().images().list()?;
        images.retain(|other| {
            other.record.id != image.record.id
                && other.names.is_empty()
                && other.record.target.as_ref().is_some_and(|other| other.digest == target.digest)
        });
        Ok(images)
    }

    /// Removes what is here of one platform of an image, and the image with its last one. `now` and `keep` are
    /// for [`gc`](Self::gc).
    pub fn remove_platform(
        &self,
        text: &str,
        platform: &Platform,
        force: bool,
        now: SystemTime,
        keep: &dyn Fn(&SnapshotKey) -> bool,
    ) -> Result<Vec<Removed>, RemoveError> {
        let image = self.find(text)?;
        let not_provided =
            || FindError::Platform { text: text.to_owned(), wanted: Box::new(platform.clone()) };
        let lease = self.store().lease(&format!("remove {platform} of {text}"))?;
        let Some(closure) = self.closure_named(&image, text).filter(Closure::is_index) else {
            let config = self.config(&image.record.id).map_err(Box::new)?;
            let fits = config.platform().runs_on(platform);
            return if fits { self.remove(text, force, now, keep) } else { Err(not_provided().into()) };
        };
        let leaf = closure.select(platform).filter(|leaf| leaf.is_whole()).ok_or_else(not_provided)?;
        let Some(other) = closure.images().find(|other| !is_same(other, leaf)) else {
            return self.remove(text, force, now, keep);
        };
        let id = leaf.written.manifest.config.digest;
        if id == image.record.id {
            // Its names go on standing for the index, and lead to what is left.
            let mut record = self.install_leaf(other, &closure.root, &lease, &|_| {}).map_err(Box::new)?;
            record.blobs.extend(image.record.blobs.iter().copied());
            let put = self.store().images().put(&record, &image.names, &image.repo_digests);
            put.map_err(Box::new)?;
        }
        if let Some(held) = self.store().images().get(&id)? {
            self.strike(&held).map_err(|(error, holders)| in_use(&held, error, holders))?;
        }
        let others = closure.leaves.iter().filter(|other| !is_same(other, leaf));
        let needed: BTreeSet<Digest> = others.flat_map(Leaf::digests).collect();
        let gone: BTreeSet<Digest> = leaf.digests().filter(|digest| !needed.contains(digest)).collect();
        self.store().images().forget_blobs(&closure.root.digest, &gone)?;
        drop(lease);
        self.gc(now, keep)?;
        Ok(vec![Removed::Deleted(leaf.written.descriptor.digest)])
    }

    /// Strikes an image from the records, or says who holds it.
    fn strike(&self, image: &Image) -> Result<Image, (RemoveError, Option<Holders>)> {
        self.store().images().remove(&image.record.id, Named::Untag).map_err(|error| match error {
            RemoveImageError::InUse { id, holders } => {
                let kept = holders.clone();
                (RemoveImageError::InUse { id, holders }.into(), Some(kept))
            }
            error => (error.into(), None),
        })
    }

    fn forget_digest(&self, image: &Image, digest: &RepoDigest) -> Result<Vec<Removed>, RemoveError> {
        self.store().images().remove_repo_digest(&image.record.id, digest)?;
        Ok(vec![Removed::Untagged(familiar_digest(digest))])
    }

    /// Takes one name away, and the repository's digests with its last name there.
    fn untag(&self, image: &Image, name: &str) -> Result<Vec<Removed>, RemoveError> {
        self.store().images().untag(name)?;
        let mut removed = vec![Removed::Untagged(familiar(name))];
        let repository = repository_of(name);
        let others = image.names.iter().filter(|other| other.reference != name);
        if others.clone().all(|other| repository_of(&other.reference) != repository) {
            for digest in
                image.repo_digests.iter().filter(|digest| Some(&digest.repository) == repository.as_ref())
            {
                self.store().images().remove_repo_digest(&image.record.id, digest)?;
                removed.push(Removed::Untagged(familiar_digest(digest)));
            }
        }
        Ok(removed)
    }
}

fn is_same(one: &Leaf, other: &Leaf) -> bool {
    one.written.descriptor.digest == other.written.descriptor.digest
}

fn meaning(text: &str, image: &Image) -> Meaning {
    let Ok(reference) = text.parse::<Reference>() else { return Meaning::Id };
    if let Some(digest) = reference.digest() {
        let repo_digest = RepoDigest { repository: reference.name(), digest };
        return if image.repo_digests.contains(&repo_digest) {
            Meaning::Digest(repo_digest)
        } else {
            Meaning::Id
        };
    }
    let name = reference.or_latest().to_string();
    match image.names.iter().any(|held| held.reference == name) {
        true => Meaning::Name(name),
        false => Meaning::Id,
    }
}

fn repositories(image: &Image) -> usize {
    let repositories: BTreeSet<_> = image.names.iter().map(|name| repository_of(&name.reference)).collect();
    repositories.len()
}

fn repository_of(reference: &str) -> Option<String> {
    reference.parse::<Reference>().ok().map(|reference| reference.name())
}

/// What is said of an image that was removed.
fn farewell(image: &Image) -> Vec<Removed> {
    let names = image.names.iter().map(|name| Removed::Untagged(familiar(&name.reference)));
    let digests = image.repo_digests.iter().map(|digest| Removed::Untagged(familiar_digest(digest)));
    names.chain(digests).chain([Removed::Deleted(image.record.id)]).collect()
}

/// A stored name as people write it.
fn familiar(reference: &str) -> String {
    reference.parse::<Reference>().map_or_else(|_| reference.to_owned(), |parsed| parsed.familiar())
}

fn familiar_digest(digest: &RepoDigest) -> String {
    format!("{}@{}", familiar(&digest.repository), digest.digest)
}

/// The layers that went with an image, by chain id as docker names them, topmost first.
fn layers_gone(image: &Image, freed: &Freed) -> Vec<Removed> {
    let chain = chain_ids(&image.record.diff_ids);
    let layers = image.record.snapshots.iter().zip(chain).rev();
    let gone = layers.filter(|(snapshot, _)| freed.snapshots.contains(snapshot));
    gone.map(|(_, chain_id)| Removed::Deleted(chain_id.digest())).collect()
}

fn first(holders: &Holders) -> String {
    holders.0.first().map(|holder| holder.key.chars().take(12).collect()).unwrap_or_default()
}

fn in_use(image: &Image, error: RemoveError, holders: Option<Holders>) -> RemoveError {
    match holders {
        Some(holders) => RemoveError::InUse { image: image.record.id.short(), container: first(&holders) },
        None => error,
    }
}

fn name_in_use(text: &str, image: &Image, error: RemoveError, holders: Option<Holders>) -> RemoveError {
    match holders {
        Some(holders) => {
            let (container, image) = (first(&holders), image.record.id.short());
            RemoveError::NameInUse { text: text.to_owned(), container, image }
        }
        None => error,
    }
}
