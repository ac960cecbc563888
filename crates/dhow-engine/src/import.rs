//! Images made of the files of a tar.

use std::io::Read;

use dhow_build::ChangeError;
use dhow_image::{ImportError, SaveImageError};
use dhow_oci::{Digest, History, ImageConfig, Platform, Reference};
use dhow_registry::{Download, DownloadError, DownloadRequest};
use dhow_store::LeaseError;

use crate::Engine;

/// An image to be made of an archive.
#[derive(Clone, Debug, Default)]
pub struct ImportImage {
    /// Its name.
    pub reference: Option<Reference>,
    /// What it runs on; this machine unless it says otherwise.
    pub platform: Option<Platform>,
    /// What is said about it.
    pub message: String,
    /// Dockerfile instructions that say how it is run.
    pub changes: Vec<String>,
}

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub enum ImportImageError {
    /// A change is not one.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The archive could not be fetched.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The archive could not be unpacked.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The image was not recorded.
    #[error(transparent)]
    Save(#[from] SaveImageError),
    /// It could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

impl Engine {
    /// Makes an image of the files in an archive, compressed or not.
    pub fn import_image(&self, input: impl Read, import: &ImportImage) -> Result<Digest, ImportImageError> {
        let now = (self.settings.clock)();
        let platform = import.platform.clone().unwrap_or_else(Platform::host);
        let mut config = ImageConfig::scratch(&platform);
        // A change that is none is told before anything is unpacked.
        import.changes.iter().try_for_each(|text| dhow_build::change(&mut config, text))?;
        let lease = self.store().lease("import")?;
        let layer = self.images.import(input, &lease)?;
        config.created = Some(now.to_string());
        config.rootfs.diff_ids = layer.iter().map(|layer| layer.diff_id).collect();
        config.history = vec![History {
            created: config.created.clone(),
            comment: import.message.clone(),
            empty_layer: layer.is_none(),
            ..History::default()
        }];
        let names: Vec<Reference> = import.reference.iter().map(|name| name.clone().or_latest()).collect();
        let id = self.images.create(&config, &names, &lease, now.as_second())?.id;
        let name = names.first().map_or_else(|| id.to_string(), Reference::familiar);
        self.tell_image("import", &id.to_string(), &name, config.config.labels);
        Ok(id)
    }

    /// The same for an archive on a web server.
    pub fn import_url(&self, url: &str, import: &ImportImage) -> Result<Digest, ImportImageError> {
        match self.registry().download(&DownloadRequest { url, ..DownloadRequest::default() })? {
            Download::Content(content) => self.import_image(content.reader, import),
            Download::NotModified => unreachable!("nothing was said about what is here"),
        }
    }
}
