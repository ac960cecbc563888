//! Images as files: one tar or one folder that is an OCI image layout and, if wanted, what `docker load` reads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dhow_oci::{Descriptor, Digest, Index, Reference, media_type};
use dhow_store::ContentStore;

use crate::archive::{
    DOCKER_MANIFEST, DOCUMENT_BYTES_MAX, DockerItem, IMAGE_NAME, OCI_INDEX, OCI_LAYOUT, OCI_LAYOUT_TEXT,
    REF_NAME, blob_path,
};
use crate::package::Package;
use crate::travel::WrittenManifest;
use crate::{Images, SaveError};

/// Where the files of a layout go.
trait Sink {
    /// Writes a file of `size` bytes.
    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> io::Result<()>;

    /// Whether a blob is there already.
    fn has(&self, _path: &str) -> bool {
        false
    }
}

/// A tar without times and owners: equal images give equal archives.
struct TarSink<W: Write>(tar::Builder<W>);

impl<W: Write> TarSink<W> {
    fn new(output: W) -> TarSink<W> {
        TarSink(tar::Builder::new(output))
    }

    fn finish(self) -> io::Result<()> {
        self.0.into_inner()?.flush()
    }
}

impl<W: Write> Sink for TarSink<W> {
    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        self.0.append_data(&mut header, path, content)
    }
}

/// A folder. Each file appears when it is complete, and `index.json`, which leads to all others, comes last.
struct FolderSink<'a>(&'a Path);

impl Sink for FolderSink<'_> {
    fn file(&mut self, path: &str, _: u64, content: &mut dyn Read) -> io::Result<()> {
        let target = self.0.join(path);
        let folder = target.parent().unwrap_or(self.0);
        fs::create_dir_all(folder)?;
        let temporary = folder.join(format!(".new-{}", std::process::id()));
        let written = File::create(&temporary).and_then(|mut file| io::copy(content, &mut file));
        let renamed = written.and_then(|_| fs::rename(&temporary, &target));
        // The error is told already, and the file may not even exist.
        renamed.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    fn has(&self, path: &str) -> bool {
        self.0.join(path).exists()
    }
}

/// What a layout holds.
pub(crate) struct LayoutFiles<'a> {
    /// Every blob once; documents bring their bytes along as they may be in no store.
    pub(crate) blobs: BTreeMap<Digest, Option<&'a [u8]>>,
    pub(crate) index: Index,
    /// What docker reads, if it is to read it.
    pub(crate) docker: Option<Vec<DockerItem>>,
}

impl LayoutFiles<'_> {
    fn write(&self, content: &ContentStore<'_>, sink: &mut dyn Sink) -> Result<(), SaveError> {
        for (digest, bytes) in &self.blobs {
            let path = blob_path(digest);
            if sink.has(&path) {
                continue;
            }
            match bytes {
                Some(bytes) => sink.file(&path, bytes.len() as u64, &mut &bytes[..])?,
                None => {
                    let mut blob = content.open(digest)?;
                    sink.file(&path, blob.size_bytes(), &mut blob)?;
                }
            }
        }
        let index = to_json(&self.index);
        if let Some(docker) = &self.docker {
            let docker = to_json(docker);
            sink.file(DOCKER_MANIFEST, docker.len() as u64, &mut &docker[..])?;
        }
        sink.file(OCI_LAYOUT, OCI_LAYOUT_TEXT.len() as u64, &mut OCI_LAYOUT_TEXT.as_bytes())?;
        Ok(sink.file(OCI_INDEX, index.len() as u64, &mut &index[..])?)
    }

    /// Writes it, after what a folder holds already.
    pub(crate) fn write_to(
        &mut self,
        content: &ContentStore<'_>,
        target: LayoutTarget<'_>,
    ) -> Result<(), SaveError> {
        match target {
            LayoutTarget::Archive(output) => {
                let mut sink = TarSink::new(output);
                self.write(content, &mut sink)?;
                Ok(sink.finish()?)
            }
            LayoutTarget::Folder(folder) => {
                fs::create_dir_all(folder)?;
                let own = std::mem::replace(&mut self.index, index_of(Vec::new()));
                self.index = joined(held(&folder.join(OCI_INDEX))?, own);
                self.write(content, &mut FolderSink(folder))
            }
        }
    }
}

/// Where a layout is written.
pub enum LayoutTarget<'a> {
    /// A tar.
    Archive(&'a mut dyn Write),
    /// A folder; images that are in it stay, unless they have one of the names.
    Folder(&'a Path),
}

impl Images {
    /// Writes a package as an image layout, under `names`. With `docker` it is an archive that docker reads
    /// as well, which knows one platform only.
    pub fn write_layout(
        &self,
        package: &Package,
        names: &[Reference],
        docker: bool,
        target: LayoutTarget<'_>,
    ) -> Result<(), SaveError> {
        let item = || docker_item(&package.images[0].manifest, names);
        let mut layout = LayoutFiles {
            blobs: package.blobs(),
            index: index_of(entries(&package.root, names)),
            docker: docker.then(|| vec![item()]),
        };
        layout.write_to(&self.store().content(), target)
    }
}

/// The index of a layout that is there already.
fn held(path: &PathBuf) -> Result<Option<Index>, SaveError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let malformed = |source| SaveError::Layout { path: path.clone(), source };
    serde_json::from_slice(&bytes).map(Some).map_err(malformed)
}

/// The entries of `new` after those of `held` that they do not replace.
fn joined(held: Option<Index>, new: Index) -> Index {
    let Some(held) = held else { return new };
    let name = |entry: &Descriptor| {
        let annotations = &entry.annotations;
        annotations.get(IMAGE_NAME).or_else(|| annotations.get(REF_NAME)).cloned()
    };
    let is_replaced = |entry: &Descriptor| {
        new.manifests.iter().any(|new| match name(entry) {
            Some(held) => Some(held) == name(new),
            None => new.digest == entry.digest,
        })
    };
    let kept = held.manifests.into_iter().filter(|entry| !is_replaced(entry));
    let manifests = kept.chain(new.manifests.clone()).collect();
    Index { manifests, annotations: held.annotations, other: held.other, ..new }
}

/// An entry for each name, or one without.
pub(crate) fn entries(root: &Descriptor, names: &[Reference]) -> Vec<Descriptor> {
    let named = |name: &Reference| {
        let mut entry = root.clone();
        let tag = name.tag().unwrap_or_default().to_owned();
        entry.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
        entry.annotations.insert(REF_NAME.to_owned(), tag);
        entry
    };
    if names.is_empty() { vec![root.clone()] } else { names.iter().map(named).collect() }
}

pub(crate) fn index_of(manifests: Vec<Descriptor>) -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests,
        annotations: BTreeMap::new(),
        other: serde_json::Map::new(),
    }
}

pub(crate) fn docker_item(manifest: &WrittenManifest, names: &[Reference]) -> DockerItem {
    let names: Vec<String> = names.iter().map(Reference::familiar).collect();
    DockerItem {
        config: blob_path(&manifest.manifest.config.digest),
        repo_tags: Some(names).filter(|names| !names.is_empty()),
        layers: manifest.manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("an index has only text for keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(names: &[(&str, &[u8])]) -> Index {
        let entry = |(name, bytes): &(&str, &[u8])| {
            let root = Descriptor::of(media_type::OCI_MANIFEST, bytes);
            let names: Vec<Reference> = name.parse().into_iter().collect();
            entries(&root, &names)
        };
        index_of(names.iter().flat_map(entry).collect())
    }

    fn shown(index: &Index) -> Vec<String> {
        let shown = |entry: &Descriptor| {
            let name = entry.annotations.get(IMAGE_NAME).cloned().unwrap_or_default();
            format!("{name} {}", entry.digest.short())
        };
        index.manifests.iter().map(shown).collect()
    }

    #[test]
    fn a_layout_that_is_added_to_keeps_images_of_other_names() {
        let held = layout(&[("a:1", b"old"), ("b:1", b"b"), ("", b"nameless")]);
        let new = layout(&[("a:1", b"new"), ("", b"nameless")]);
        let short = |bytes: &[u8]| Digest::sha256_of(bytes).short();
        let expected = [
            format!("docker.io/library/b:1 {}", short(b"b")),
            format!("docker.io/library/a:1 {}", short(b"new")),
            format!(" {}", short(b"nameless")),
        ];
        assert_eq!(shown(&joined(Some(held), new)), expected);
    }
}
