//! Applies a layer's tar stream to an empty folder.
//!
//! Entries arrive from strangers. Names are checked as text once ([`PathError`]) and from then on every path
//! is resolved by the kernel beneath the target (`dhow_sys::beneath`): symbolic links in the layer lead where
//! they would after a chroot, as in Docker, and never out. A hard link's target is resolved the same way.
//!
//! Whiteouts follow image-spec layer.md: they hide what *lower* layers hold and never what this one holds,
//! whichever comes first in the tar; an opaque marker counts even if it comes last. A directory that takes
//! the place of a whiteout, or of another kind of file, becomes opaque, for what lies below it is hidden.
//! Names that begin with `.wh..wh.` are bookkeeping of a file system of old and are skipped as in Docker.
//!
//! Parents that the tar does not list are made 0755 and reported, since in a stack of layers they should
//! look like the directory below them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use dhow_sys::beneath::{self, Owner, Root, Time};
use dhow_sys::node;
use rustix::fs::{FileType, Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use crate::applied::{Applied, ApplyError, ApplyOptions, Devices, Skipped, Whiteouts};
use crate::header::{Entry, EntryKind};
use crate::path::{PathError, layer_path};
use crate::reader::TarReader;
use crate::{OPAQUE_NAME, WHITEOUT_PREFIX};

/// How many skipped things are reported by name; the rest are counted.
const SKIPPED_REPORTED_MAX: usize = 100;
/// The prefix of aufs's own bookkeeping, of which only the opaque marker means anything.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const IMPLIED_MODE: u32 = 0o755;

/// Applies the uncompressed tar stream `tar` to the folder `target`, empty unless `options.whiteouts` is
/// [`Whiteouts::Literal`], and reads the stream to its end.
pub fn apply(tar: impl BufRead, target: &Path, options: &ApplyOptions) -> Result<Applied, ApplyError> {
    let root = Root::open(target).map_err(|source| ApplyError::Io { path: target.to_path_buf(), source })?;
    let mut applier = Applier {
        tar: TarReader::new(tar),
        root,
        options,
        listed_dirs: BTreeMap::new(),
        implied_dirs: BTreeSet::new(),
        applied: Applied::default(),
    };
    while let Some(entry) = applier.tar.next_entry()? {
        applier.entry(&entry)?;
    }
    applier.tar.drain()?;
    applier.finish()
}

struct Applier<'a, R> {
    tar: TarReader<R>,
    root: Root,
    options: &'a ApplyOptions,
    /// What listed directories look like in the end: set last, since filling a directory changes its time
    /// and a mode may forbid to fill it.
    listed_dirs: BTreeMap<PathBuf, DirAttributes>,
    implied_dirs: BTreeSet<PathBuf>,
    applied: Applied,
}

#[derive(Clone, Copy)]
struct DirAttributes {
    mode: u32,
    mtime: Time,
}

impl<R: BufRead> Applier<'_, R> {
    fn entry(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        let path = layer_path(&entry.raw_path)
            .map_err(|reason| ApplyError::Path { path: entry.shown_path(), reason })?;
        self.count(entry)?;
        if self.options.keep_kinds && path.as_os_str().is_empty() {
            return Ok(());
        }
        let path = self.options.prefix.join(path);
        if self.options.whiteouts == Whiteouts::Literal {
            self.check_kind(&path, entry)?;
            return self.create(&path, entry);
        }
        let name = path.file_name().unwrap_or_default().as_bytes();
        let reserved = |part: &OsStr| part.as_bytes().starts_with(WHITEOUT_PREFIX.as_bytes());
        if name == OPAQUE_NAME.as_bytes() {
            return self.opaque(path.parent().unwrap_or(Path::new("")));
        }
        if path.iter().any(|part| part.as_bytes().starts_with(AUFS_PREFIX)) {
            self.skip(Skipped::Aufs { path });
            return Ok(());
        }
        if path.parent().is_some_and(|parent| parent.iter().any(reserved)) {
            return Err(ApplyError::Path { path, reason: PathError::Reserved });
        }
        match name.strip_prefix(WHITEOUT_PREFIX.as_bytes()) {
            Some(b"" | b"." | b"..") => Err(ApplyError::Path { path, reason: PathError::Reserved }),
            Some(hidden) => self.whiteout(&path.with_file_name(OsStr::from_bytes(hidden))),
            None => self.create(&path, entry),
        }
    }

    fn check_kind(&self, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        // A path that leads nowhere fails when it is made.
        let there = if self.options.keep_kinds { self.root.stat(path).ok() } else { None };
        let (old, new) = (there.as_ref().map(is_dir), entry.kind == EntryKind::Directory);
        let word = |is_dir: bool| if is_dir { "directory" } else { "non-directory" };
        match old {
            Some(old) if old != new => {
                Err(ApplyError::Kind { path: path.into(), there: word(old), new: word(new) })
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        let limits = self.options.limits;
        self.applied.entries += 1;
        self.applied.size_bytes = self.applied.size_bytes.saturating_add(entry.size);
        if self.applied.entries > limits.entries_max {
            return Err(ApplyError::TooMuch { what: "entries", max: limits.entries_max });
        }
        if self.applied.size_bytes > limits.size_bytes_max {
            return Err(ApplyError::TooMuch { what: "bytes", max: limits.size_bytes_max });
        }
        Ok(())
    }

    fn opaque(&mut self, dir: &Path) -> Result<(), ApplyError> {
        self.make_parents(dir)?;
        node::set_opaque(&self.root, dir, self.options.overlay).map_err(at(dir))
    }

    /// Marks a name as gone from lower layers.
    fn whiteout(&mut self, path: &Path) -> Result<(), ApplyError> {
        self.make_parents(path.parent().unwrap_or(Path::new("")))?;
        match self.root.try_stat(path).map_err(at(path))? {
            None => node::make_whiteout(&self.root, path).map_err(at(path)),
            // What this layer itself holds stays, and hides the lower file anyway, unless both are
            // directories and would be merged.
            Some(stat) if is_dir(&stat) => self.opaque(path),
            Some(_) => Ok(()),
        }
    }

    fn create(&mut self, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        if path.as_os_str().is_empty() {
            self.applied.lists_root = true;
            return match entry.kind {
                EntryKind::Directory => self.directory_attributes(path, entry),
                _ => Err(ApplyError::Root),
            };
        }
        self.make_parents(path.parent().unwrap_or(Path::new("")))?;
        match entry.kind {
            EntryKind::Directory => self.directory(path, entry),
            EntryKind::File => self.file(path, entry),
            EntryKind::HardLink => self.hard_link(path, entry),
            EntryKind::Symlink => self.symlink(path, entry),
            EntryKind::Fifo => self.special(path, entry, FileType::Fifo),
            EntryKind::CharDevice => self.device(path, entry, FileType::CharacterDevice),
            EntryKind::BlockDevice => self.device(path, entry, FileType::BlockDevice),
        }
    }

    fn directory(&mut self, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        match self.root.mkdir(path, IMPLIED_MODE) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !is_dir(&self.root.stat(path).map_err(at(path))?) {
                    self.replace_by_directory(path)?;
                }
            }
            Err(error) => return Err(at(path)(error)),
        }
        self.directory_attributes(path, entry)
    }

    /// A directory where this layer had something else: whatever lower layers hold there is hidden.
    fn replace_by_directory(&mut self, path: &Path) -> Result<(), ApplyError> {
        self.root.unlink(path).map_err(at(path))?;
        self.root.mkdir(path, IMPLIED_MODE).map_err(at(path))?;
        match self.options.whiteouts {
            Whiteouts::Convert => node::set_opaque(&self.root, path, self.options.overlay).map_err(at(path)),
            Whiteouts::Literal => Ok(()),
        }
    }

    fn directory_attributes(&mut self, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        self.implied_dirs.remove(path);
        self.chown(path, entry)?;
        self.path_xattrs(path, entry)?;
        let attributes = DirAttributes { mode: entry.mode, mtime: entry.mtime };
        self.listed_dirs.insert(path.to_path_buf(), attributes);
        Ok(())
    }

    fn file(&mut self, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        // Unreadable to others until its owner and mode are set.
        let mut file = self.replacing(path, |root| root.create_file(path, 0o600))?;
        self.write_data(&mut file, path, entry)?;
        if let Some(owner) = self.owner(path, entry)? {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(at_errno(path))?;
        }
        for (name, value) in &entry.xattrs {
            let set = |file: &File| {
                let name = OsStr::from_bytes(name);
                rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())
            };
            self.xattr(path, name, || set(&file))?;
        }
        // After the owner, whose change clears setuid and setgid.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(at_errno(path))?;
        rustix::fs::futimens(&file, &beneath::timestamps(entry.mtime)).map_err(at_errno(path))
    }

    fn write_data(&mut self, file: &mut File, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        let Some(extents) = &entry.extents else {
            return self.write_stretch(file, path, entry.size);
        };
        for (offset, length) in extents {
            file.seek(SeekFrom::Start(*offset)).map_err(at(path))?;
            self.write_stretch(file, path, *length)?;
        }
        file.set_len(entry.size).map_err(at(path))
    }

    fn write_stretch(&mut self, file: &mut File, path: &Path, mut length: u64) -> Result<(), ApplyError> {
        while length > 0 {
            let data = match self.tar.fill_buf() {
                Ok(data) => &data[..data.len().min(usize::try_from(length).unwrap_or(usize::MAX))],
                Err(error) => return Err(self.tar.data_error(error).into()),
            };
            file.write_all(data).map_err(at(path))?;
            let written = data.len();
            self.tar.consume(written);
            length -= written as u64;
        }
        Ok(())
    }

    fn hard_link(&mut self, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        let raw_target = PathBuf::from(OsStr::from_bytes(&entry.link));
        let target = layer_path(&entry.link).map_err(|reason| ApplyError::LinkPath {
            path: path.to_path_buf(),
            target: raw_target.clone(),
            reason,
        })?;
        let target = self.options.prefix.join(target);
        if target == path {
            // A file linked to itself: replacing it would lose it.
            return self.root.stat(path).map(drop).map_err(at(path));
        }
        let failed = |source| ApplyError::Link { path: path.to_path_buf(), target: raw_target, source };
        if self.root.stat(&target).is_ok_and(|stat| is_dir(&stat)) {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        match self.root.hardlink(&target, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(path)?;
                self.root.hardlink(&target, path).map_err(failed)
            }
            result => result.map_err(failed),
        }
    }

    fn symlink(&mut self, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        self.replacing(path, |root| root.symlink(OsStr::from_bytes(&entry.link), path))?;
        self.chown(path, entry)?;
        self.path_xattrs(path, entry)?;
        self.root.set_times(path, entry.mtime).map_err(at(path))
    }

    fn device(&mut self, path: &Path, entry: &Entry, kind: FileType) -> Result<(), ApplyError> {
        // The one device that is none: overlayfs reads it as a whiteout, here as under Docker.
        let is_whiteout = kind == FileType::CharacterDevice && entry.device == (0, 0);
        match (self.options.whiteouts, self.options.devices) {
            (Whiteouts::Convert, _) if is_whiteout => return self.whiteout(path),
            (_, Devices::Make) if !is_whiteout => {}
            _ => {
                self.skip(Skipped::Device { path: path.to_path_buf() });
                return Ok(());
            }
        }
        self.special(path, entry, kind)
    }

    fn special(&mut self, path: &Path, entry: &Entry, kind: FileType) -> Result<(), ApplyError> {
        let (major, minor) = entry.device;
        self.replacing(path, |root| root.mknod(path, kind, 0o600, major, minor))?;
        self.chown(path, entry)?;
        self.path_xattrs(path, entry)?;
        self.root.chmod(path, entry.mode).map_err(at(path))?;
        self.root.set_times(path, entry.mtime).map_err(at(path))
    }

    /// Creates something that is not a directory; if the place is taken, an earlier entry gives way.
    fn replacing<T>(
        &mut self,
        path: &Path,
        create: impl Fn(&Root) -> io::Result<T>,
    ) -> Result<T, ApplyError> {
        match create(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(path)?;
                create(&self.root).map_err(at(path))
            }
            result => result.map_err(at(path)),
        }
    }

    fn remove(&mut self, path: &Path) -> Result<(), ApplyError> {
        self.root.remove_tree(path).map_err(at(path))?;
        self.listed_dirs.retain(|dir, _| !dir.starts_with(path));
        self.implied_dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    /// Makes `dir` and its parents as far as they are missing.
    fn make_parents(&mut self, dir: &Path) -> Result<(), ApplyError> {
        match self.root.mkdirs(dir, IMPLIED_MODE) {
            Ok(made) => {
                self.implied_dirs.extend(made);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => self.replace_whiteouts(dir),
            // A symbolic link that leads nowhere: not found when followed, there when made.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(ApplyError::Parent { path: dir.to_path_buf() })
            }
            Err(error) => Err(at(dir)(error)),
        }
    }

    /// A parent is a whiteout of this layer: "remove it, then put this in its place", in two entries.
    fn replace_whiteouts(&mut self, dir: &Path) -> Result<(), ApplyError> {
        for parent in dir.ancestors().filter(|parent| !parent.as_os_str().is_empty()) {
            // Above the whiteout nothing is wrong, below it nothing can be looked at.
            let Ok(stat) = self.root.stat(parent) else { continue };
            if !node::is_whiteout(&stat) {
                break;
            }
            self.replace_by_directory(parent)?;
            self.implied_dirs.insert(parent.to_path_buf());
            let made = self.root.mkdirs(dir, IMPLIED_MODE).map_err(at(dir))?;
            self.implied_dirs.extend(made);
            return Ok(());
        }
        Err(ApplyError::Parent { path: dir.to_path_buf() })
    }

    fn owner(&self, path: &Path, entry: &Entry) -> Result<Option<Owner>, ApplyError> {
        let unmapped = |id| ApplyError::Unmapped { path: path.to_path_buf(), id };
        let narrow = |id: u64| u32::try_from(id).map_err(|_| unmapped(id));
        let owner = self.options.owner.to_disk(narrow(entry.uid)?, narrow(entry.gid)?);
        Ok(owner.map_err(|id| unmapped(id.into()))?.map(|(uid, gid)| Owner { uid, gid }))
    }

    fn chown(&self, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        match self.owner(path, entry)? {
            Some(owner) => self.root.chown(path, owner).map_err(at(path)),
            None => Ok(()),
        }
    }

    fn path_xattrs(&mut self, path: &Path, entry: &Entry) -> Result<(), ApplyError> {
        if entry.xattrs.is_empty() {
            return Ok(());
        }
        let fd = self.root.open_path(path).map_err(at(path))?;
        for (name, value) in &entry.xattrs {
            let set = || {
                let name = OsStr::from_bytes(name);
                rustix::fs::setxattr(beneath::proc_path(&fd.as_fd()), name, value, XattrFlags::empty())
            };
            self.xattr(path, name, set)?;
        }
        Ok(())
    }

    fn xattr(
        &mut self,
        path: &Path,
        name: &[u8],
        set: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), ApplyError> {
        let (path, shown) = (path.to_path_buf(), || name.escape_ascii().to_string());
        if node::is_overlay_xattr(name) {
            self.skip(Skipped::OverlayXattr { path, name: shown() });
            return Ok(());
        }
        match set() {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::PERM) => {
                self.skip(Skipped::Xattr { path, name: shown() });
                Ok(())
            }
            Err(error) => Err(ApplyError::Io { path, source: error.into() }),
        }
    }

    fn skip(&mut self, skipped: Skipped) {
        self.applied.skipped_count += 1;
        if self.applied.skipped.len() < SKIPPED_REPORTED_MAX {
            self.applied.skipped.push(skipped);
        }
    }

    /// Gives directories their final mode and time, the deepest first: setting a parent's mode may take away
    /// the right to reach its children.
    fn finish(mut self) -> Result<Applied, ApplyError> {
        for dir in &self.implied_dirs {
            // Any fixed time will do; the time of unpacking would make equal layers differ.
            let attributes = DirAttributes { mode: IMPLIED_MODE, mtime: Time::default() };
            self.listed_dirs.insert(dir.clone(), attributes);
        }
        for (dir, attributes) in self.listed_dirs.iter().rev() {
            self.root.chmod(dir, attributes.mode).map_err(at(dir))?;
            self.root.set_times(dir, attributes.mtime).map_err(at(dir))?;
        }
        self.applied.implied_dirs = self.implied_dirs.into_iter().collect();
        Ok(self.applied)
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

fn at(path: &Path) -> impl Fn(io::Error) -> ApplyError {
    move |source| ApplyError::Io { path: path.to_path_buf(), source }
}

fn at_errno(path: &Path) -> impl Fn(Errno) -> ApplyError {
    move |error| at(path)(error.into())
}
