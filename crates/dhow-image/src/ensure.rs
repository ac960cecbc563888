use dhow_oci::{ImageConfig, Platform, Reference};
use dhow_registry::{Client, RegistryError};
use dhow_store::{DatabaseError, Image, Lease, LeaseError, PutImageError, Ref};

use crate::pull::Use;
use crate::{
    FindError, Images, PullError, PullEvent, PullObserver, PullRequest, ReadImageError, VariantError,
};

/// When an image that is here is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnsurePolicy {
    /// Always.
    Missing,
    /// If its registry has no newer one, or cannot be asked (`--pull`).
    Newer,
}

/// Why an image is not here after all.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// It could not be pulled.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The image that is here cannot be read.
    #[error(transparent)]
    Read(#[from] ReadImageError),
    /// It is here as it travels, and could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] VariantError),
    /// It could not be recorded.
    #[error(transparent)]
    Put(#[from] PutImageError),
    /// It could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why a text does not lead to an image that can be run.
#[derive(Debug, thiserror::Error)]
pub enum FindToRunError {
    /// It leads to none, or to one for other platforms.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The image is not whole.
    #[error(transparent)]
    Ensure(#[from] EnsureError),
}

impl Images {
    /// Sees to it that an image is here, protected by `lease`, and pulls it if need be. An image of another
    /// platform does not count. `now` is the time, in seconds since 1970.
    #[allow(clippy::too_many_arguments, reason = "each is one thing the caller decides")]
    pub fn ensure<'c>(
        &self,
        client: &dyn Fn() -> &'c Client,
        reference: &Reference,
        platform: &Platform,
        policy: EnsurePolicy,
        lease: &Lease,
        now: i64,
        observer: &PullObserver<'_>,
    ) -> Result<Image, EnsureError> {
        let here = self.suitable(reference, platform, lease, observer)?;
        if policy == EnsurePolicy::Missing
            && let Some(image) = here
        {
            return Ok(image);
        }
        observer(&PullEvent::Started);
        // A name that means something for this machine goes on meaning it when another platform is asked for.
        let takes_name = platform.runs_on(&Platform::host()) || !self.is_ours(reference)?;
        let request = PullRequest { reference, platform, all_platforms: false };
        let pulled = self.pull_for(client(), &request, Use::Run { takes_name }, lease, now, observer);
        match (pulled, here) {
            (Ok(pulled), _) => Ok(pulled.image),
            (Err(PullError::Registry(error)), Some(image)) if error.is_passing() => {
                observer(&PullEvent::Warning(stale(reference, &error)));
                Ok(image)
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// The configuration of an image, from here or else from its registry. Nothing is pulled.
    pub fn config_of<'c>(
        &self,
        client: &dyn Fn() -> &'c Client,
        reference: &Reference,
        platform: &Platform,
        lease: &Lease,
    ) -> Result<ImageConfig, EnsureError> {
        match self.suitable(reference, platform, lease, &|_| {})? {
            Some(image) => Ok(self.config(&image.record.id)?),
            None => Ok(self.fetch_config(client(), reference, platform, lease)?),
        }
    }

    /// Finds an image to run as [`find`](Self::find) does, for a certain platform if one is given, which is unpacked
    /// now if need be. Nothing is pulled. `lease` protects it.
    pub fn find_to_run(
        &self,
        text: &str,
        platform: Option<&Platform>,
        lease: &Lease,
    ) -> Result<Image, FindToRunError> {
        let found = self.find(text)?.record.id;
        lease.add(Ref::Image(found)).map_err(EnsureError::from)?;
        // Looked at again under the lease: from here on it stays.
        let image = self.find(&found.to_string())?;
        let Some(wanted) = platform else { return Ok(image) };
        if self.config(&found).map_err(EnsureError::from)?.platform().runs_on(wanted) {
            return Ok(image);
        }
        let suitable = match text.parse::<Reference>() {
            Ok(reference) => self.suitable(&reference.or_latest(), wanted, lease, &|_| {})?,
            Err(_) => None,
        };
        suitable.ok_or_else(|| {
            FindError::Platform { text: text.to_owned(), wanted: Box::new(wanted.clone()) }.into()
        })
    }

    /// Whether a reference means an image here that runs on this machine.
    fn is_ours(&self, reference: &Reference) -> Result<bool, EnsureError> {
        let Some(image) = self.by_reference(reference)? else { return Ok(false) };
        Ok(self.config(&image.record.id)?.platform().runs_on(&Platform::host()))
    }

    /// The image that a reference means here for `platform`: the one that has the name, or another that came
    /// by the same index, unpacked now if need be.
    fn suitable(
        &self,
        reference: &Reference,
        platform: &Platform,
        lease: &Lease,
        observer: &PullObserver<'_>,
    ) -> Result<Option<Image>, EnsureError> {
        let Some(image) = self.by_reference(reference)? else { return Ok(None) };
        let repository = reference.name();
        let mut ids = vec![image.record.id];
        for known in image.repo_digests.iter().filter(|known| known.repository == repository) {
            ids.extend(self.store().images().by_repo_digest(known)?);
        }
        for id in ids {
            lease.add(Ref::Image(id))?;
            // It may have gone before the lease was on it. If it is still there, it stays.
            let Some(image) = self.store().images().get(&id)? else { continue };
            if self.config(&id)?.platform().runs_on(platform) {
                return Ok(Some(image));
            }
        }
        let Some(record) = self.unpack_variant(&image, reference, platform, lease, observer)? else {
            return Ok(None);
        };
        self.store().images().put(&record, &[], &image.repo_digests)?;
        Ok(self.store().images().get(&record.id)?)
    }
}

fn stale(reference: &Reference, error: &RegistryError) -> String {
    format!("cannot look for a newer {}, the image that is here is used: {error}", reference.familiar())
}
