//! An image as `save` writes it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::tree::Tree;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// How many links may lead to a layer; docker writes a repeated one as a link.
const LINKS_MAX: usize = 4;

/// An image: its configuration and its files.
#[derive(Debug)]
pub struct Image {
    /// The whole document.
    pub(crate) config: Value,
    pub(crate) diff_ids: Vec<String>,
    pub(crate) tree: Tree,
}

impl Image {
    /// Reads the only image of an archive, as docker and dhow save them.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let archive = Archive::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest: Value = serde_json::from_slice(archive.file("manifest.json")?)?;
        let manifest = manifest.get(0).context("the archive holds no image")?;
        let name = manifest["Config"].as_str().context("the image has no configuration")?;
        let config: Value = serde_json::from_slice(archive.file(name)?)?;
        let diff_ids = config["rootfs"]["diff_ids"].as_array().into_iter().flatten();
        let diff_ids: Vec<String> = diff_ids.filter_map(|id| id.as_str().map(str::to_owned)).collect();
        let mut tree = Tree::default();
        let layers = manifest["Layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        if layers.len() != diff_ids.len() {
            bail!("{} layers, but {} diff ids", layers.len(), diff_ids.len());
        }
        for layer in layers {
            let bytes = archive.file(layer.as_str().context("a layer has a name")?)?;
            if bytes.starts_with(&GZIP_MAGIC) {
                tree.apply(flate2::read::GzDecoder::new(bytes))?;
            } else {
                tree.apply(bytes)?;
            }
        }
        Ok(Self { config, diff_ids, tree })
    }
}

/// Files and links of a tar, by path.
#[derive(Default)]
struct Archive {
    files: HashMap<PathBuf, Vec<u8>>,
    links: HashMap<PathBuf, PathBuf>,
}

impl Archive {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let mut read = Self::default();
        for entry in tar::Archive::new(File::open(path)?).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            match (entry.header().entry_type(), entry.link_name()?) {
                (kind, Some(target)) if kind.is_symlink() => {
                    let folder = path.parent().unwrap_or(Path::new(""));
                    read.links.insert(path.clone(), without_dots(&folder.join(target)));
                }
                (kind, Some(target)) if kind.is_hard_link() => {
                    read.links.insert(path, target.into_owned());
                }
                _ => {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    read.files.insert(path, bytes);
                }
            }
        }
        Ok(read)
    }

    fn file(&self, name: &str) -> anyhow::Result<&[u8]> {
        let mut path = Path::new(name);
        for _ in 0..LINKS_MAX {
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        let file = self.files.get(path).with_context(|| format!("the archive has no {name}"))?;
        Ok(file)
    }
}

fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}
