//! Where a path of an image comes from.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use dhow_oci::Digest;

use super::compare::same_content;
use super::{FileKind, FileMeta, FileNode, Inside, InsideError, InsideLayer};
use crate::Images;

/// As many links are followed as the kernel would.
const LINKS_MAX: usize = 40;

/// Why there is no story of a path.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    /// No layer has it.
    #[error("no layer of the image has {}{}", path.display(), nearest(.exists))]
    NoSuchPath {
        /// The path, its links followed.
        path: PathBuf,
        /// What of it there is, if more than `/`.
        exists: Option<PathBuf>,
    },
    /// Links lead to links without end.
    #[error("too many levels of symbolic links at {}", .0.display())]
    Loop(PathBuf),
    /// The image cannot be read.
    #[error(transparent)]
    Inside(#[from] InsideError),
}

fn nearest(exists: &Option<PathBuf>) -> String {
    exists.as_ref().map(|path| format!("; there is {}", path.display())).unwrap_or_default()
}

/// A symbolic link on the way to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The link.
    pub link: PathBuf,
    /// What it says.
    pub target: PathBuf,
}

/// What one layer did to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathEvent {
    /// The layer, counted from 0.
    pub layer: usize,
    /// How it was before, if it was there.
    pub before: Option<FileMeta>,
    /// How it is since; `None` if the layer removed it.
    pub after: Option<FileMeta>,
    /// Whether a file has other content, or another extended attribute, than before.
    pub content_changed: bool,
}

/// What one layer did below a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BelowLayer {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Entries it added or changed.
    pub written: usize,
    /// Entries it removed.
    pub removed: usize,
    /// Bytes of files it holds there.
    pub bytes: u64,
}

/// Where a path of an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStory {
    /// The path, with the links on the way to it followed, but not itself if it is one.
    pub path: PathBuf,
    /// These links.
    pub followed: Vec<Followed>,
    /// The image's layers, lowest first.
    pub layers: Vec<InsideLayer>,
    /// What they did to the path, lowest first.
    pub events: Vec<PathEvent>,
    /// What they did below it, if it is a directory.
    pub below: Vec<BelowLayer>,
}

impl Images {
    /// Which layer brought a path into an image, and which later ones changed it.
    pub fn path_story(&self, id: &Digest, path: &Path) -> Result<PathStory, StoryError> {
        let mut path = clean(path);
        let mut followed = Vec::new();
        loop {
            let inside = self.look_inside(id, Some(&path))?;
            let Some((link, target)) = link_on_the_way(&inside.root, &path) else {
                return story(inside, path, followed);
            };
            if followed.len() == LINKS_MAX {
                return Err(StoryError::Loop(link));
            }
            let rest = path.strip_prefix(&link).expect("a link is a part of the path").to_path_buf();
            path = clean(&link.parent().unwrap_or(Path::new("/")).join(&target).join(rest));
            followed.push(Followed { link, target });
        }
    }
}

/// The first component of a path, but for the last, that is a symbolic link, and where it leads.
fn link_on_the_way(root: &FileNode, path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    above.into_iter().find_map(|part| {
        let target = root.get(part)?.current()?.target.clone()?;
        Some((part.to_path_buf(), target))
    })
}

fn story(inside: Inside, path: PathBuf, followed: Vec<Followed>) -> Result<PathStory, StoryError> {
    let node = inside.root.get(&path);
    let Some(node) = node.filter(|node| !node.changes.is_empty() || path == Path::new("/")) else {
        let is_there = |part: &&Path| inside.root.get(part).is_some_and(|node| node.current().is_some());
        let exists = path.ancestors().skip(1).find(is_there).map(Path::to_path_buf);
        return Err(StoryError::NoSuchPath { path, exists });
    };
    let mut events = Vec::with_capacity(node.changes.len());
    let mut before: Option<(usize, &FileMeta)> = None;
    for change in &node.changes {
        let after = change.file.as_ref().map(|file| (change.layer, file));
        let content_changed = match (before, after) {
            (Some(before), Some(after)) => {
                !same_content(&inside.layers, &path, before, &inside.layers, after)?
            }
            _ => false,
        };
        events.push(PathEvent {
            layer: change.layer,
            before: before.map(|(_, file)| file.clone()),
            after: change.file.clone(),
            content_changed,
        });
        before = after;
    }
    let below = below(node);
    Ok(PathStory { path, followed, layers: inside.layers, events, below })
}

fn below(node: &FileNode) -> Vec<BelowLayer> {
    let mut layers: BTreeMap<usize, BelowLayer> = BTreeMap::new();
    node.walk(&mut |_, entry| {
        for change in &entry.changes {
            let below = layers.entry(change.layer).or_default();
            below.layer = change.layer;
            match &change.file {
                Some(file) => {
                    (below.written, below.bytes) = (below.written + 1, below.bytes + file.own_bytes)
                }
                None => below.removed += 1,
            }
        }
    });
    layers.into_values().collect()
}

/// An absolute path without `.` and `..`, which end at the root as they do for the kernel.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => _ = cleaned.pop(),
            _ => {}
        }
    }
    cleaned
}

impl PathEvent {
    /// In a few words what the layer did: `added`, `mode 0644 -> 0755`, `content, owner 0:0 -> 5:5`.
    pub fn words(&self) -> String {
        match (&self.before, &self.after) {
            (_, None) => "removed".to_owned(),
            (None, Some(_)) => "added".to_owned(),
            (Some(before), Some(after)) => changes(before, after, self.content_changed),
        }
    }
}

/// What is different about an entry.
pub(super) fn changes(before: &FileMeta, after: &FileMeta, content: bool) -> String {
    if before.kind != after.kind {
        return format!("{} replaced by {}", before.kind.words(), after.kind.words());
    }
    let mut changes = Vec::new();
    if content {
        changes.push("content".to_owned());
    }
    if before.target != after.target {
        let target = |file: &FileMeta| file.target.as_deref().map(|path| path.display().to_string());
        let (before, after) = (target(before).unwrap_or_default(), target(after).unwrap_or_default());
        changes.push(format!("target {before} -> {after}"));
    }
    if before.mode != after.mode {
        changes.push(format!("mode {:04o} -> {:04o}", before.mode, after.mode));
    }
    if (before.uid, before.gid) != (after.uid, after.gid) {
        changes.push(format!("owner {}:{} -> {}:{}", before.uid, before.gid, after.uid, after.gid));
    }
    match changes.is_empty() {
        true => "written again, the same".to_owned(),
        false => changes.join(", "),
    }
}

impl FileKind {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            FileKind::Directory => "directory",
            FileKind::File => "file",
            FileKind::Symlink => "link",
            FileKind::Special => "device",
        }
    }
}
