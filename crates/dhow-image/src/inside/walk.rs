//! Reads layers' folders, lowest first, into one tree of entries.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use dhow_sys::node;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{FileKind, FileMeta, FileNode, InsideError, InsideLayer, names};

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The entries of a stack of layers; of a path only what leads to it and what is below it.
pub(super) fn read(layers: &[InsideLayer], scope: Option<&Path>) -> Result<FileNode, InsideError> {
    let scope: Vec<&OsStr> = scope.map(names).into_iter().flatten().collect();
    let mut root = FileNode::default();
    for (layer, InsideLayer { folder, .. }) in layers.iter().enumerate() {
        let mut walk = Walk { layer, path: folder.clone(), seen: HashSet::new() };
        let dir = rustix::fs::openat(CWD, folder, OPEN, Mode::empty()).map_err(|error| walk.error(error))?;
        walk.directory(&mut root, &dir, &scope)?;
    }
    Ok(root)
}

/// The walk through one layer.
struct Walk {
    layer: usize,
    /// Where it is.
    path: PathBuf,
    /// Files with several names, by inode, of which one was met.
    seen: HashSet<u64>,
}

impl Walk {
    /// What the open directory has, or of it only the first name of `scope`.
    fn directory(&mut self, node: &mut FileNode, dir: &OwnedFd, scope: &[&OsStr]) -> Result<(), InsideError> {
        if node::is_opaque(dir).map_err(|error| self.read_error(error))? {
            node.remove_children(self.layer);
        }
        if let Some((name, below)) = scope.split_first() {
            return self.child(node, dir, name, below);
        }
        for entry in node::read_dir(dir).map_err(|error| self.read_error(error))? {
            self.child(node, dir, &entry.name, &[])?;
        }
        Ok(())
    }

    fn child(
        &mut self,
        parent: &mut FileNode,
        dir: &OwnedFd,
        name: &OsStr,
        scope: &[&OsStr],
    ) -> Result<(), InsideError> {
        self.path.push(name);
        let result = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.entry(parent, dir, name, &stat, scope),
            // Only a name of the scope can be missing.
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error(error)),
        };
        self.path.pop();
        result
    }

    fn entry(
        &mut self,
        parent: &mut FileNode,
        dir: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
        scope: &[&OsStr],
    ) -> Result<(), InsideError> {
        if node::is_whiteout(stat) {
            if let Some(child) = parent.children.get_mut(name) {
                child.remove(self.layer);
            }
            return Ok(());
        }
        let meta = self.meta(dir, name, stat)?;
        let node = parent.children.entry(name.to_os_string()).or_default();
        let is_directory = meta.kind == FileKind::Directory;
        match node.current() {
            // It is here for the sake of what is in it.
            Some(before) if is_directory && before.kind == meta.kind && before.same_access(&meta) => {}
            before => {
                if before.is_some_and(|before| before.kind == FileKind::Directory && !is_directory) {
                    node.remove_children(self.layer);
                }
                node.push(self.layer, Some(meta));
            }
        }
        if !is_directory {
            return Ok(());
        }
        let opened = rustix::fs::openat(dir, name, OPEN, Mode::empty()).map_err(|error| self.error(error))?;
        self.directory(node, &opened, scope)
    }

    fn meta(&mut self, dir: &OwnedFd, name: &OsStr, stat: &Stat) -> Result<FileMeta, InsideError> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => FileKind::Directory,
            FileType::RegularFile => FileKind::File,
            FileType::Symlink => FileKind::Symlink,
            _ => FileKind::Special,
        };
        let target = match kind {
            FileKind::Symlink => {
                let text =
                    rustix::fs::readlinkat(dir, name, Vec::new()).map_err(|error| self.error(error))?;
                Some(PathBuf::from(OsString::from_vec(text.into_bytes())))
            }
            _ => None,
        };
        let size_bytes = if kind == FileKind::File { stat.st_size.cast_unsigned() } else { 0 };
        let is_further_name = kind == FileKind::File && stat.st_nlink > 1 && !self.seen.insert(stat.st_ino);
        Ok(FileMeta {
            kind,
            size_bytes,
            own_bytes: if is_further_name { 0 } else { size_bytes },
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtime,
            target,
        })
    }

    fn error(&self, error: Errno) -> InsideError {
        self.read_error(error.into())
    }

    fn read_error(&self, source: std::io::Error) -> InsideError {
        InsideError::Read { path: self.path.clone(), source }
    }
}
