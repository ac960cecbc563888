//! The files of an archive, each a blob from then on.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use dhow_layer::open_archive;
use dhow_oci::Digest;
use dhow_store::{Begun, Blob, Expected, Lease, Sealed, SyncBefore};
use dhow_sys::beneath::Root;

use super::{FILES_MAX, LINKS_MAX, LoadError};
use crate::Images;

/// How long another process may take to write a blob of the archive.
const OTHER_PROCESS_WAIT: Duration = Duration::from_secs(60 * 60);
/// How deep the folders of an archive may nest; `blobs/sha256` is two.
const DEPTH_MAX: usize = 8;

/// The files of an archive.
#[derive(Default)]
pub(super) struct Files {
    blobs: BTreeMap<PathBuf, Blob>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Files {
    pub(super) fn find(&self, path: &str) -> Option<Blob> {
        let mut path = plain(Path::new(path));
        for _ in 0..LINKS_MAX {
            if let Some(blob) = self.blobs.get(&path) {
                return Some(*blob);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    fn count(&self) -> usize {
        self.blobs.len() + self.links.len()
    }
}

impl Images {
    pub(super) fn read_archive(&self, input: impl Read, lease: &Lease) -> Result<Files, LoadError> {
        let mut files = Files::default();
        let mut sealed = Vec::new();
        let mut archive = tar::Archive::new(open_archive(input)?);
        for (number, entry) in archive.entries()?.enumerate() {
            let mut entry = entry?;
            if number >= FILES_MAX {
                return Err(LoadError::TooMany);
            }
            let path = plain(&entry.path()?);
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let size_bytes = entry.size();
                    let (blob, new) = self.ingest_file(&path, size_bytes, &mut entry, lease)?;
                    files.blobs.insert(path, blob);
                    sealed.extend(new);
                }
                kind @ (tar::EntryType::Symlink | tar::EntryType::Link) => {
                    if let Some(target) = entry.link_name()? {
                        let base = path.parent().filter(|_| kind.is_symlink()).unwrap_or(Path::new(""));
                        files.links.insert(path.clone(), plain(&base.join(target)));
                    }
                }
                // Folders say nothing, and nothing else belongs there.
                _ => {}
            }
        }
        self.store().content().publish(sealed, SyncBefore::Files)?;
        Ok(files)
    }

    /// Reads a folder with the files that an archive has. Links cannot lead out of it.
    pub(super) fn read_folder(&self, folder: &Path, lease: &Lease) -> Result<Files, LoadError> {
        let root = Root::open(folder)?;
        let mut found = (Files::default(), Vec::new());
        self.read_below(&root, folder, Path::new(""), DEPTH_MAX, lease, &mut found)?;
        let (files, sealed) = found;
        self.store().content().publish(sealed, SyncBefore::Files)?;
        Ok(files)
    }

    fn read_below(
        &self,
        root: &Root,
        folder: &Path,
        below: &Path,
        depth: usize,
        lease: &Lease,
        found: &mut (Files, Vec<Sealed>),
    ) -> Result<(), LoadError> {
        for entry in fs::read_dir(folder.join(below))? {
            let entry = entry?;
            let (path, kind) = (below.join(entry.file_name()), entry.file_type()?);
            if found.0.count() >= FILES_MAX || depth == 0 {
                return Err(LoadError::TooMany);
            }
            if kind.is_dir() {
                self.read_below(root, folder, &path, depth - 1, lease, found)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path())?;
                found.0.links.insert(path, plain(&below.join(target)));
            } else if kind.is_file() {
                let mut file = root.open_file(&path)?;
                let size_bytes = file.metadata()?.len();
                let (blob, new) = self.ingest_file(&path, size_bytes, &mut file, lease)?;
                found.0.blobs.insert(path, blob);
                found.1.extend(new);
            }
        }
        Ok(())
    }

    /// Stores a file. One whose path is its digest has to be what its path says.
    fn ingest_file(
        &self,
        path: &Path,
        size_bytes: u64,
        file: &mut dyn Read,
        lease: &Lease,
    ) -> Result<(Blob, Option<Sealed>), LoadError> {
        let content = self.store().content();
        let mut ingest = match digest_in(path) {
            None => content.ingest(lease)?,
            Some(digest) => {
                let expected = Expected { digest, size_bytes };
                match content.ingest_expected(lease, expected, OTHER_PROCESS_WAIT)? {
                    Begun::Present(blob) => return Ok((blob, None)),
                    Begun::Ingest(ingest) => *ingest,
                }
            }
        };
        if ingest.offset() > 0 {
            ingest.restart()?;
        }
        io::copy(file, &mut ingest)?;
        let path = || path.display().to_string();
        let sealed =
            ingest.seal().map_err(|source| LoadError::Blob { path: path(), source: Box::new(source) })?;
        Ok((sealed.blob(), Some(sealed)))
    }
}

/// The digest that a path in an image layout stands for.
fn digest_in(path: &Path) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs").ok()?.to_str()?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// A path without `.` and `..`, which is only ever used as a key.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}
