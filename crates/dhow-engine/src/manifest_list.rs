//! Manifest lists that a user puts together.

use dhow_oci::{Digest, Reference};
use dhow_registry::{Client, Security};

pub use dhow_image::{ListEntry, ManifestList, ManifestListError, PlatformChange};

use crate::Engine;

impl Engine {
    /// A client, or with `insecure` one that takes the registry of `name` as it is: plain HTTP, any certificate.
    fn client_for(&self, name: &Reference, insecure: bool) -> Client {
        let mut config = self.settings.registry.clone();
        if insecure {
            config.registries.entry(name.registry().to_owned()).or_default().security = Some(Security::Any);
        }
        Client::new(config, self.keychain())
    }

    /// Makes a list of manifests that registries have, or with `amend` adds them to one that is here.
    pub fn create_manifest_list(
        &self,
        name: &Reference,
        manifests: &[Reference],
        amend: bool,
        insecure: bool,
    ) -> Result<(), ManifestListError> {
        let client = self.client_for(manifests.first().unwrap_or(name), insecure);
        self.images.create_manifest_list(&client, name, manifests, amend)
    }

    /// Says what a manifest of a list runs on.
    pub fn annotate_manifest_list(
        &self,
        name: &Reference,
        manifest: &Reference,
        change: &PlatformChange,
    ) -> Result<(), ManifestListError> {
        self.images.annotate_manifest_list(name, manifest, change)
    }

    /// The manifest list of this name, if there is one here.
    pub fn manifest_list(&self, name: &Reference) -> Result<Option<ManifestList>, ManifestListError> {
        self.images.manifest_list(name)
    }

    /// A manifest that a registry has, with what it runs on.
    pub fn remote_manifest(&self, name: &Reference, insecure: bool) -> Result<ListEntry, ManifestListError> {
        dhow_image::fetch_entry(&self.client_for(name, insecure), &name.clone().or_latest())
    }

    /// A manifest or index that a registry has, byte for byte.
    pub fn remote_document(&self, name: &Reference, insecure: bool) -> Result<Vec<u8>, ManifestListError> {
        Ok(self.client_for(name, insecure).resolve(name)?.bytes)
    }

    /// Pushes a list; with `purge` it is forgotten then.
    pub fn push_manifest_list(
        &self,
        name: &Reference,
        purge: bool,
        insecure: bool,
        pushed: &dyn Fn(&str),
    ) -> Result<Digest, ManifestListError> {
        self.images.push_manifest_list(&self.client_for(name, insecure), name, purge, pushed)
    }

    /// Forgets a list.
    pub fn remove_manifest_list(&self, name: &Reference) -> Result<(), ManifestListError> {
        self.images.remove_manifest_list(name)
    }
}
