//! Images in a layout on this machine: an OCI image layout folder, as `skopeo copy` and `docker buildx` write it.

mod write;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use dhow_oci::{Descriptor, Digest, Document, ImageConfig, Index, Manifest, Platform};
use dhow_store::{Begun, Blob, CommitError, Expected, IngestError, Lease, ReadError, Sealed, SyncBefore};
use dhow_sys::beneath::Root;

use crate::Images;
use crate::archive::{DOCUMENT_BYTES_MAX, OCI_INDEX, REF_NAME, blob_path};
use crate::closure::INDEX_DEPTH_MAX;
use crate::images::CONFIG_BYTES_MAX;
use crate::install::{Install, InstallError, Stack};

pub use write::LayoutTarget;
pub(crate) use write::{LayoutFiles, docker_item, entries, index_of};

/// How long another process may take to write a blob of the layout.
const OTHER_PROCESS_WAIT: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// A layout, and the image wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its folder.
    pub folder: PathBuf,
    /// Which image; `None` if there is but one.
    pub selector: Option<Selector>,
}

/// How an image of a layout is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// By the name in its annotations.
    Tag(String),
    /// By the digest of its manifest or index.
    Digest(Digest),
}

/// Why an image of a layout was not read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file of the layout cannot be read.
    #[error("cannot read {} of the image layout", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of it is malformed, or not what its name says.
    #[error("{} of the image layout cannot be used: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It has no such image.
    #[error("the image layout {} has no image {wanted}; it has {known}", folder.display())]
    NotFound {
        /// The layout.
        folder: PathBuf,
        /// What was looked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// A blob of it could not be kept.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A blob of it could not be kept.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// What was kept cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// Its layers were not installed.
    #[error("cannot install the image")]
    Install(#[from] Box<InstallError>),
}

impl Layout {
    /// Reads `path[:tag|@digest]`.
    pub fn parse(text: &str) -> Result<Layout, String> {
        if let Some((folder, digest)) = text.rsplit_once('@') {
            let digest = digest.parse().map_err(|error| format!("{digest:?}: {error}"))?;
            return Ok(Layout { folder: folder.into(), selector: Some(Selector::Digest(digest)) });
        }
        match text.rsplit_once(':') {
            Some((folder, tag)) if !tag.contains('/') => {
                Ok(Layout { folder: folder.into(), selector: Some(Selector::Tag(tag.to_owned())) })
            }
            _ => Ok(Layout { folder: text.into(), selector: None }),
        }
    }
}

impl Images {
    /// Reads an image and unpacks its layers, all protected by `lease`. It gets no name and no record.
    pub fn read_layout(
        &self,
        layout: &Layout,
        platform: &Platform,
        lease: &Lease,
    ) -> Result<ImageConfig, LayoutError> {
        let reader = Reader { images: self, layout, lease };
        let manifest = reader.manifest(platform)?;
        let mut sealed = Vec::new();
        for part in manifest.layers.iter().chain([&manifest.config]) {
            sealed.extend(reader.ingest(part)?.1);
        }
        self.store().content().publish(sealed, SyncBefore::Files)?;
        let bytes = self.store().content().read_bounded(&manifest.config.digest, CONFIG_BYTES_MAX)?;
        let config: ImageConfig =
            serde_json::from_slice(&bytes).map_err(|error| reader.malformed(&manifest.config, error))?;
        if manifest.layers.len() != config.rootfs.diff_ids.len() {
            let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
            let why = format!("it lists {diff_ids} layers and its manifest {layers}");
            return Err(reader.malformed(&manifest.config, why));
        }
        let absent = |layer: &Descriptor, _| -> io::Result<Box<dyn Read + Send>> {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is not in the layout", layer.digest)))
        };
        let install = Install { images: self, lease, open: &absent, observer: &|_| {} };
        install.run(&Stack::new(&manifest.layers, &config.rootfs.diff_ids)).map_err(Box::new)?;
        Ok(config)
    }
}

struct Reader<'a> {
    images: &'a Images,
    layout: &'a Layout,
    lease: &'a Lease,
}

impl Reader<'_> {
    fn malformed(&self, part: &Descriptor, why: impl ToString) -> LayoutError {
        LayoutError::Malformed { path: self.path(&blob_path(&part.digest)), why: why.to_string() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.layout.folder.join(name)
    }

    /// Opens a file of the layout, whose links cannot lead out of it.
    fn open(&self, name: &str) -> Result<File, LayoutError> {
        let failed = |source| LayoutError::Read { path: self.path(name), source };
        Root::open(&self.layout.folder).and_then(|root| root.open_file(Path::new(name))).map_err(failed)
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, LayoutError> {
        let mut bytes = Vec::new();
        let read = self.open(name)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|source| LayoutError::Read { path: self.path(name), source })?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let why = format!("it is larger than {DOCUMENT_BYTES_MAX} bytes");
            return Err(LayoutError::Malformed { path: self.path(name), why });
        }
        Ok(bytes)
    }

    /// The manifest of the image wanted for a platform.
    fn manifest(&self, platform: &Platform) -> Result<Manifest, LayoutError> {
        let bytes = self.document(OCI_INDEX)?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| LayoutError::Malformed { path: self.path(OCI_INDEX), why: error.to_string() })?;
        let entry = self.entry(&index)?;
        self.follow(&entry, platform, INDEX_DEPTH_MAX)?
            .ok_or_else(|| self.not_found(&index, format!("for {platform}")))
    }

    fn entry(&self, index: &Index) -> Result<Descriptor, LayoutError> {
        let is_wanted = |entry: &&Descriptor| match &self.layout.selector {
            None => true,
            Some(Selector::Digest(digest)) => entry.digest == *digest,
            Some(Selector::Tag(tag)) => entry
                .annotations
                .get(REF_NAME)
                .is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, own)| own == tag)),
        };
        let mut wanted = index.manifests.iter().filter(is_wanted);
        match (wanted.next(), wanted.next(), &self.layout.selector) {
            (Some(entry), None, _) | (Some(entry), _, Some(_)) => Ok(entry.clone()),
            // A digest may also be that of one platform's manifest.
            (None, _, Some(Selector::Digest(digest))) if self.open(&blob_path(digest)).is_ok() => {
                let bytes = self.document(&blob_path(digest))?;
                Ok(Descriptor::new(String::new(), *digest, bytes.len() as u64))
            }
            (None, ..) => Err(self.not_found(index, self.wanted())),
            (Some(_), Some(_), None) => {
                Err(self.not_found(index, "that is the only one: say which, as in path:tag".to_owned()))
            }
        }
    }

    fn wanted(&self) -> String {
        match &self.layout.selector {
            None => "at all".to_owned(),
            Some(Selector::Tag(tag)) => tag.clone(),
            Some(Selector::Digest(digest)) => digest.to_string(),
        }
    }

    fn not_found(&self, index: &Index, wanted: String) -> LayoutError {
        let name = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
        let known: Vec<String> = index
            .manifests
            .iter()
            .map(|entry| name(entry).unwrap_or_else(|| entry.digest.to_string()))
            .collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        LayoutError::NotFound { folder: self.layout.folder.clone(), wanted, known }
    }

    fn follow(
        &self,
        entry: &Descriptor,
        platform: &Platform,
        depth: usize,
    ) -> Result<Option<Manifest>, LayoutError> {
        let name = blob_path(&entry.digest);
        let bytes = self.document(&name)?;
        if Digest::sha256_of(&bytes) != entry.digest {
            return Err(self.malformed(entry, "its content is not what its name says"));
        }
        let media_type = Some(entry.media_type.as_str()).filter(|text| !text.is_empty());
        let document = Document::parse(media_type, &bytes).map_err(|error| self.malformed(entry, error))?;
        match document {
            Document::Manifest(manifest) => Ok(Some(*manifest)),
            Document::Index(_) if depth == 0 => Err(self.malformed(entry, "indexes are nested too deep")),
            Document::Index(index) => match index.select(platform) {
                Some(entry) => self.follow(entry, platform, depth - 1),
                None => Ok(None),
            },
        }
    }

    /// Keeps a blob, which has to be what its name says.
    fn ingest(&self, part: &Descriptor) -> Result<(Blob, Option<Sealed>), LayoutError> {
        let name = blob_path(&part.digest);
        let content = self.images.store().content();
        let begun = content.ingest_expected(self.lease, Expected::from(part), OTHER_PROCESS_WAIT)?;
        let mut ingest = match begun {
            Begun::Present(blob) => return Ok((blob, None)),
            Begun::Ingest(ingest) => *ingest,
        };
        let failed = |source| LayoutError::Read { path: self.path(&name), source };
        if ingest.offset() > 0 {
            ingest.restart().map_err(failed)?;
        }
        io::copy(&mut self.open(&name)?, &mut ingest).map_err(failed)?;
        let sealed = ingest.seal().map_err(|error| self.malformed(part, error))?;
        Ok((sealed.blob(), Some(sealed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_may_name_the_image_wanted() {
        let digest = Digest::sha256_of(b"x");
        for (text, folder, selector) in [
            ("/a/b", "/a/b", None),
            ("a:v1", "a", Some(Selector::Tag("v1".to_owned()))),
            ("/a:b/c", "/a:b/c", None),
            (&format!("a@{digest}"), "a", Some(Selector::Digest(digest))),
        ] {
            assert_eq!(Layout::parse(text), Ok(Layout { folder: folder.into(), selector }), "{text}");
        }
        assert!(Layout::parse("a@b").is_err());
    }
}
