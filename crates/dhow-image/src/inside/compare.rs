//! What two images have that the other has not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use dhow_oci::{Digest, ImageConfig};
use dhow_sys::beneath::Root;
use serde_json::Value;

use super::story::changes;
use super::{FileKind, FileMeta, FileNode, Inside, InsideError, InsideLayer};
use crate::Images;

const READ_BYTES: usize = 128 * 1024;

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name, such as `Cmd`, `Env.PATH` or `Labels.version`.
    pub name: String,
    /// What the first image has, as text or JSON.
    pub before: Option<String>,
    /// What the second has.
    pub after: Option<String>,
}

/// An entry that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathDifference {
    /// Its path.
    pub path: PathBuf,
    /// What the first image has.
    pub before: Option<FileMeta>,
    /// What the second has.
    pub after: Option<FileMeta>,
    /// Whether a file has other content or other extended attributes.
    pub content_changed: bool,
    /// Entries below, where a whole directory was added or removed.
    pub entries_below: usize,
    /// Bytes of the files at this path and, for a whole directory, below it.
    pub bytes_before: u64,
    /// The same for the second image.
    pub bytes_after: u64,
}

impl PathDifference {
    /// In a few words what differs: `added`, `removed`, `content, mode 0644 -> 0755`.
    pub fn words(&self) -> String {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => changes(before, after, self.content_changed),
            (None, _) => "added".to_owned(),
            (_, None) => "removed".to_owned(),
        }
    }

    /// How much larger the second image is for it.
    pub fn growth(&self) -> i64 {
        self.bytes_after.cast_signed() - self.bytes_before.cast_signed()
    }
}

/// What differs between two images. Times of files do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Of their configurations.
    pub config: Vec<Difference>,
    /// Of their files, by path.
    pub files: Vec<PathDifference>,
}

impl Images {
    /// What differs between two images. A directory that only one has is one entry, unless each entry in
    /// it is wanted.
    pub fn compare(&self, a: &Digest, b: &Digest, each: bool) -> Result<Comparison, InsideError> {
        let config = config_differences(&self.config(a)?, &self.config(b)?);
        let mut files =
            Files { a: self.look_inside(a, None)?, b: self.look_inside(b, None)?, each, found: Vec::new() };
        let (a, b) = (std::mem::take(&mut files.a.root), std::mem::take(&mut files.b.root));
        files.children(&mut PathBuf::from("/"), Some(&a), Some(&b))?;
        Ok(Comparison { config, files: files.found })
    }
}

struct Files {
    a: Inside,
    b: Inside,
    each: bool,
    found: Vec<PathDifference>,
}

impl Files {
    fn children(
        &mut self,
        path: &mut PathBuf,
        a: Option<&FileNode>,
        b: Option<&FileNode>,
    ) -> Result<(), InsideError> {
        let names: BTreeSet<_> = [a, b].into_iter().flatten().flat_map(|node| node.children.keys()).collect();
        for name in names {
            path.push(name);
            let [a, b] = [a, b].map(|node| node.and_then(|node| node.children.get(name)));
            self.entry(path, a, b)?;
            path.pop();
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &mut PathBuf,
        a: Option<&FileNode>,
        b: Option<&FileNode>,
    ) -> Result<(), InsideError> {
        let (before, after) = (a.and_then(current), b.and_then(current));
        let content_changed = match (before, after) {
            (None, None) => return Ok(()),
            (Some(before), Some(after)) => {
                !same_content(&self.a.layers, path, before, &self.b.layers, after)?
            }
            _ => false,
        };
        let is_directory =
            |file: Option<(usize, &FileMeta)>| file.is_some_and(|(_, file)| file.kind == FileKind::Directory);
        let whole = !(self.each || is_directory(before) && is_directory(after));
        let (below_a, below_b) = if whole { (below(a), below(b)) } else { Default::default() };
        let differs = match (before, after) {
            (Some((_, before)), Some((_, after))) => {
                content_changed
                    || before.kind != after.kind
                    || before.target != after.target
                    || !before.same_access(after)
            }
            _ => true,
        };
        if differs {
            let bytes = |file: Option<(usize, &FileMeta)>| file.map_or(0, |(_, file)| file.own_bytes);
            self.found.push(PathDifference {
                path: path.clone(),
                before: before.map(|(_, file)| file.clone()),
                after: after.map(|(_, file)| file.clone()),
                content_changed,
                entries_below: below_a.0 + below_b.0,
                bytes_before: bytes(before) + below_a.1,
                bytes_after: bytes(after) + below_b.1,
            });
        }
        match whole {
            true => Ok(()),
            false => self.children(path, a, b),
        }
    }
}

/// An entry as the whole image has it, and the layer it is from.
fn current(node: &FileNode) -> Option<(usize, &FileMeta)> {
    let last = node.changes.last()?;
    last.file.as_ref().map(|file| (last.layer, file))
}

/// Entries below one that are there, and the bytes of files among them.
fn below(node: Option<&FileNode>) -> (usize, u64) {
    let (mut entries, mut bytes) = (0, 0);
    if let Some(node) = node {
        node.walk(&mut |_, entry| {
            if let Some(file) = entry.current() {
                (entries, bytes) = (entries + 1, bytes + file.own_bytes);
            }
        });
    }
    (entries, bytes)
}

/// Whether two entries at one path are alike in what they hold. Only files hold something.
pub(super) fn same_content(
    layers_a: &[InsideLayer],
    path: &Path,
    (a, before): (usize, &FileMeta),
    layers_b: &[InsideLayer],
    (b, after): (usize, &FileMeta),
) -> Result<bool, InsideError> {
    let (a, b) = (&layers_a[a].folder, &layers_b[b].folder);
    if a == b || before.kind != FileKind::File || after.kind != FileKind::File {
        return Ok(true);
    }
    if before.size_bytes != after.size_bytes {
        return Ok(false);
    }
    let path = path.strip_prefix("/").unwrap_or(path);
    let (a, b) = (StoredFile::open(a, path)?, StoredFile::open(b, path)?);
    Ok(a.xattrs()? == b.xattrs()? && StoredFile::same_bytes(a, b)?)
}

struct StoredFile<'a> {
    folder: &'a Path,
    path: &'a Path,
    root: Root,
    file: File,
}

impl<'a> StoredFile<'a> {
    fn open(folder: &'a Path, path: &'a Path) -> Result<Self, InsideError> {
        let opened = Root::open(folder).and_then(|root| Ok((root.open_file_itself(path)?, root)));
        let (file, root) = opened.map_err(|source| InsideError::Read { path: folder.join(path), source })?;
        Ok(Self { folder, path, root, file })
    }

    fn error(&self, source: std::io::Error) -> InsideError {
        InsideError::Read { path: self.folder.join(self.path), source }
    }

    /// Extended attributes, without those of overlayfs itself.
    fn xattrs(&self) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>, InsideError> {
        use std::os::unix::ffi::OsStrExt as _;
        let names = self.root.xattr_names(self.path).map_err(|error| self.error(error))?;
        let kept = names.into_iter().filter(|name| !dhow_sys::node::is_overlay_xattr(name));
        let with_value = |name: Vec<u8>| {
            let value = self.root.xattr(self.path, std::ffi::OsStr::from_bytes(&name));
            Ok((name, value.map_err(|error| self.error(error))?))
        };
        kept.map(with_value).collect()
    }

    fn same_bytes(mut a: Self, mut b: Self) -> Result<bool, InsideError> {
        let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
        loop {
            from_a.clear();
            from_b.clear();
            a.fill(&mut from_a)?;
            b.fill(&mut from_b)?;
            if from_a != from_b {
                return Ok(false);
            }
            if from_a.is_empty() {
                return Ok(true);
            }
        }
    }

    fn fill(&mut self, buffer: &mut Vec<u8>) -> Result<(), InsideError> {
        let read = (&self.file).take(READ_BYTES as u64).read_to_end(buffer);
        read.map(drop).map_err(|error| self.error(error))
    }
}

fn config_differences(a: &ImageConfig, b: &ImageConfig) -> Vec<Difference> {
    let (before, after) = (facts(a), facts(b));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let difference = |name: &String| Difference {
        name: name.clone(),
        before: before.get(name).cloned(),
        after: after.get(name).cloned(),
    };
    differing.map(difference).collect()
}

/// What a configuration says, each variable and each label on its own. The time and the history of the
/// image's making are no part of what it does.
fn facts(config: &ImageConfig) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    facts.insert("Platform".to_owned(), config.platform().to_string());
    if !config.author.is_empty() {
        facts.insert("Author".to_owned(), config.author.clone());
    }
    let Ok(Value::Object(settings)) = serde_json::to_value(&config.config) else { return facts };
    for (name, value) in settings {
        match value {
            // Docker's bookkeeping, not a setting.
            _ if name == "ArgsEscaped" => {}
            Value::Object(entries) if !entries.is_empty() => {
                facts.extend(entries.into_iter().map(|(key, value)| (format!("{name}.{key}"), text(value))));
            }
            Value::Array(variables) if name == "Env" => {
                for variable in variables.iter().filter_map(Value::as_str) {
                    let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
                    facts.insert(format!("{name}.{key}"), value.to_owned());
                }
            }
            value => _ = facts.insert(name, text(value)),
        }
    }
    facts
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        value => value.to_string(),
    }
}
