//! Opening and creating files that cannot leave a root directory (openat2).
//!
//! Paths come from strangers: archives, build contexts, images. No path is ever joined to the root as
//! text. The kernel resolves the *parent directory* of every path with `RESOLVE_IN_ROOT`, so symbolic
//! links on the way, absolute ones included, stay inside (as they would after a chroot), and the last
//! component is then used with the `*at` calls, none of which follows a link. `..` beyond the root stays
//! at the root, as in a chroot; callers that want to refuse it do so before they come here.
//!
//! The descriptor of the last parent is remembered, so an archive that lists a directory's files in a
//! row costs one `openat2` per directory and one `openat` per file.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// The longest path accepted, as everywhere in Linux.
pub const PATH_BYTES_MAX: usize = 4096;
/// The largest extended attribute value the kernel stores.
pub const XATTR_BYTES_MAX: usize = 65_536;
/// How many directories [`Root::remove_tree`] holds open at once. Deeper trees are removed all the same.
pub const REMOVE_DEPTH_MAX: usize = 128;

/// How often a resolution is tried again when a rename elsewhere disturbs it (`EAGAIN`).
const OPENAT2_TRIES: usize = 32;

/// Who owns a file: user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A point in time as the file system stores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// A directory tree that no operation of this type leaves.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    last_parent: Mutex<Option<(PathBuf, Arc<OwnedFd>)>>,
}

/// A directory entry ready for the `*at` calls: an open parent and a single name in it.
struct Place<'a> {
    parent: Parent<'a>,
    name: &'a OsStr,
}

enum Parent<'a> {
    Root(BorrowedFd<'a>),
    Below(Arc<OwnedFd>),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Parent::Root(fd) => *fd,
            Parent::Below(fd) => (**fd).as_fd(),
        }
    }
}

impl Root {
    /// Takes the directory `path` as root. Links in `path` itself are followed: it is the caller's own.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::from_fd(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    /// Takes an open directory (`O_PATH` is enough) as root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd, last_parent: Mutex::new(None) }
    }

    /// The same tree, for another thread to use without waiting for this one.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from_fd(self.fd.try_clone()?))
    }

    /// Opens what `path` leads to, links followed within the root.
    pub fn open_with(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.resolve(path, flags | OFlags::CLOEXEC)
    }

    /// Opens a regular file for reading, links followed within the root. Never blocks on a fifo.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        let file = File::from(self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// Opens the regular file at `path` itself for reading; a link there is an error. Never blocks on a fifo.
    pub fn open_file_itself(&self, path: &Path) -> io::Result<File> {
        let place = self.place(path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&place.parent, place.name, flags, Mode::empty())?))
    }

    /// Opens a directory for reading, links followed within the root.
    pub fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_with(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Creates a regular file for writing. Anything already there, even a dangling link, is an error.
    pub fn create_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        let place = self.place(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&place.parent, place.name, flags, Mode::from_raw_mode(mode))?))
    }

    /// Makes one directory; its parent must exist.
    pub fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let place = self.place(path)?;
        Ok(rustix::fs::mkdirat(&place.parent, place.name, Mode::from_raw_mode(mode))?)
    }

    /// Makes `path` and those of its parents that are missing; returns the ones made, topmost first.
    ///
    /// The common case, everything there already, is one system call or none.
    pub fn mkdirs(&self, path: &Path, mode: u32) -> io::Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        let mut here = Some(path);
        while let Some(dir) = here.filter(|dir| !is_root(dir)) {
            match self.dir(dir) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(dir.to_path_buf()),
                Err(error) => return Err(error),
            }
            here = dir.parent();
        }
        missing.reverse();
        for dir in &missing {
            self.mkdir(dir, mode)?;
        }
        Ok(missing)
    }

    /// Makes a symbolic link at `path` with the text `target`, which is not looked at.
    pub fn symlink(&self, target: &OsStr, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        Ok(rustix::fs::symlinkat(target, &place.parent, place.name)?)
    }

    /// Gives the file at `existing` the second name `path`. If `existing` is a symbolic link, the link
    /// itself gets the second name.
    pub fn hardlink(&self, existing: &Path, path: &Path) -> io::Result<()> {
        let from = self.place(existing)?;
        let to = self.place(path)?;
        Ok(rustix::fs::linkat(&from.parent, from.name, &to.parent, to.name, AtFlags::empty())?)
    }

    /// Makes a fifo, socket or device. `major` and `minor` count for devices only.
    pub fn mknod(&self, path: &Path, kind: FileType, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        let place = self.place(path)?;
        let device: Dev = rustix::fs::makedev(major, minor);
        Ok(rustix::fs::mknodat(&place.parent, place.name, kind, Mode::from_raw_mode(mode), device)?)
    }

    /// Renames within the root; `to` must not exist.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let result = self.rename_places(from, to, rustix::fs::RenameFlags::NOREPLACE);
        self.forget_parent();
        result
    }

    /// Renames within the root; what is at `to` is replaced at once, if it is not a directory with entries.
    pub fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let result = self.rename_places(from, to, rustix::fs::RenameFlags::empty());
        self.forget_parent();
        result
    }

    /// Removes one entry that is not a directory.
    pub fn unlink(&self, path: &Path) -> io::Result<()> {
        let result = self
            .place(path)
            .and_then(|place| Ok(rustix::fs::unlinkat(&place.parent, place.name, AtFlags::empty())?));
        self.forget_parent();
        result
    }

    /// Removes whatever is at `path`, directories with all they hold; links are removed, not followed.
    /// Nothing there is success.
    pub fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let result = match self.place(path) {
            Ok(place) => remove_tree_at(place.parent.as_fd(), place.name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        self.forget_parent();
        result
    }

    /// What is at `path`, a link not followed. `""` and `/` are the root itself.
    pub fn stat(&self, path: &Path) -> io::Result<Stat> {
        if is_root(path) {
            return Ok(rustix::fs::statat(&self.fd, "", AtFlags::EMPTY_PATH)?);
        }
        let place = self.place(path)?;
        Ok(rustix::fs::statat(&place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// As [`stat`](Self::stat), with nothing there as `None`.
    pub fn try_stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        match self.stat(path) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The text of the symbolic link at `path`.
    pub fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let place = self.place(path)?;
        let text = rustix::fs::readlinkat(&place.parent, place.name, Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(text.as_bytes())))
    }

    /// Sets the permission bits (and setuid, setgid, sticky) of what is not a symbolic link; on a link
    /// the kernel answers `EOPNOTSUPP`.
    pub fn chmod(&self, path: &Path, mode: u32) -> io::Result<()> {
        // The link in /proc names the inode found by the O_PATH open, so nothing can be swapped between.
        let fd = self.open_path(path)?;
        Ok(rustix::fs::chmodat(CWD, proc_path(&fd), Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?)
    }

    /// Sets the owner, of a symbolic link itself if it is one.
    pub fn chown(&self, path: &Path, owner: Owner) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        if is_root(path) {
            return Ok(rustix::fs::chownat(&self.fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?);
        }
        let place = self.place(path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(&place.parent, place.name, Some(uid), Some(gid), flags)?)
    }

    /// Sets the time of last modification (and of access) of what is at `path`, a link not followed.
    pub fn set_times(&self, path: &Path, time: Time) -> io::Result<()> {
        if is_root(path) {
            let fd = self.open_dir(path)?;
            return Ok(rustix::fs::futimens(&fd, &timestamps(time))?);
        }
        let place = self.place(path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(&place.parent, place.name, &timestamps(time), flags)?)
    }

    /// Sets an extended attribute, on a symbolic link itself if `path` is one.
    pub fn set_xattr(&self, path: &Path, name: &OsStr, value: &[u8]) -> io::Result<()> {
        let fd = self.open_path(path)?;
        Ok(rustix::fs::setxattr(proc_path(&fd), name, value, XattrFlags::empty())?)
    }

    /// Reads an extended attribute; `None` if it is not set or the file system has none.
    pub fn xattr(&self, path: &Path, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        let fd = self.open_path(path)?;
        read_xattr(|buffer| rustix::fs::getxattr(proc_path(&fd), name, buffer))
    }

    /// The names of the extended attributes, sorted.
    pub fn xattr_names(&self, path: &Path) -> io::Result<Vec<Vec<u8>>> {
        let fd = self.open_path(path)?;
        list_xattrs(|buffer| rustix::fs::listxattr(proc_path(&fd), buffer))
    }

    /// Opens `path` itself as `O_PATH`, a link not followed.
    pub fn open_path(&self, path: &Path) -> io::Result<OwnedFd> {
        if is_root(path) {
            return self.fd.try_clone();
        }
        let place = self.place(path)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&place.parent, place.name, flags, Mode::empty())?)
    }

    fn rename_places(&self, from: &Path, to: &Path, flags: rustix::fs::RenameFlags) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        Ok(rustix::fs::renameat_with(&from.parent, from.name, &to.parent, to.name, flags)?)
    }

    fn place<'a>(&'a self, path: &'a Path) -> io::Result<Place<'a>> {
        let name = match path.components().next_back() {
            Some(Component::Normal(name)) => name,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "path has no last name")),
        };
        // A parent of "a/b/." is "a": Path drops the dots, and so must we.
        Ok(Place { parent: self.dir(path.parent().unwrap_or(Path::new("")))?, name })
    }

    fn dir<'a>(&'a self, dir: &Path) -> io::Result<Parent<'a>> {
        if is_root(dir) {
            return Ok(Parent::Root(self.fd.as_fd()));
        }
        let mut last = self.last_parent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, fd)) = last.as_ref()
            && path.as_os_str() == dir.as_os_str()
        {
            return Ok(Parent::Below(Arc::clone(fd)));
        }
        let fd = Arc::new(self.resolve(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?);
        *last = Some((dir.to_path_buf(), Arc::clone(&fd)));
        Ok(Parent::Below(fd))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if is_root(path) { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..OPENAT2_TRIES {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                result => return Ok(result?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    fn forget_parent(&self) {
        *self.last_parent.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Access and modification time in the form the kernel takes, both the same.
pub fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// A path by which any system call reaches the file behind a descriptor, `O_PATH` ones included.
pub fn proc_path(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Calls `get` with ever larger buffers until the value fits. Not set, or not supported, is `None`.
pub fn read_xattr(get: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Option<Vec<u8>>> {
    match grow(get) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Calls `list` with ever larger buffers and splits the result into names, sorted. A file system
/// without extended attributes has none.
pub fn list_xattrs(list: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Vec<Vec<u8>>> {
    let bytes = match grow(list) {
        Ok(bytes) => bytes,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names: Vec<Vec<u8>> =
        bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort_unstable();
    Ok(names)
}

fn grow(fill: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0_u8; 256];
    match fill(&mut small) {
        Ok(length) => return Ok(small[..length.min(small.len())].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut large = vec![0_u8; XATTR_BYTES_MAX];
    let length = fill(&mut large)?;
    large.truncate(length);
    Ok(large)
}

fn is_root(path: &Path) -> bool {
    !path.components().any(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
}

/// Removes `name` and all below it. A tree deeper than [`REMOVE_DEPTH_MAX`] is folded: what lies deeper is
/// moved up next to its ancestors and removed from there, so depth costs no descriptors. Others may be
/// removing the same tree: what is gone is done.
fn remove_tree_at(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let Some(top) = unlink_or_open(parent, name)? else { return Ok(()) };
    let mut folded = 0;
    loop {
        let entries = or_gone(crate::node::read_dir(&top))?;
        if entries.is_empty() {
            return remove_empty(parent, name);
        }
        for entry in entries {
            empty_and_remove(&top, top.as_fd(), &entry.name, 1, &mut folded)?;
        }
    }
}

fn empty_and_remove(
    top: &OwnedFd,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    depth: usize,
    folded: &mut u64,
) -> io::Result<()> {
    if depth > REMOVE_DEPTH_MAX {
        return fold(top, parent, name, folded);
    }
    let Some(dir) = unlink_or_open(parent, name)? else { return Ok(()) };
    for entry in or_gone(crate::node::read_dir(&dir))? {
        empty_and_remove(top, dir.as_fd(), &entry.name, depth + 1, folded)?;
    }
    remove_empty(parent, name)
}

fn remove_empty(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    or_gone(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(io::Error::from))
}

/// Nothing, where somebody else was faster.
fn or_gone<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        result => result,
    }
}

/// Moves an entry from the depths to the top directory, under a name that is free there.
fn fold(top: &OwnedFd, parent: BorrowedFd<'_>, name: &OsStr, folded: &mut u64) -> io::Result<()> {
    loop {
        *folded += 1;
        let new = format!(".dhow-folded-{folded}");
        match rustix::fs::renameat_with(parent, name, top, new, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => continue,
            result => return or_gone(result.map_err(io::Error::from)),
        }
    }
}

/// Removes `name` if it is no directory, else opens it. `None` means it is gone.
fn unlink_or_open(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    or_gone(rustix::fs::openat(parent, name, flags, Mode::empty()).map(Some).map_err(io::Error::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> (PathBuf, Root) {
        let path = std::env::temp_dir().join(format!("dhow-beneath-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let root = Root::open(&path).unwrap();
        (path, root)
    }

    #[test]
    fn links_on_the_way_stay_inside() {
        let (path, root) = scratch("links");
        root.mkdirs(Path::new("etc/deep"), 0o755).unwrap();
        for (target, link) in [("/etc", "absolute"), ("../../../etc", "climbing"), ("etc", "plain")] {
            root.symlink(OsStr::new(target), Path::new(link)).unwrap();
            root.create_file(&Path::new(link).join(link), 0o600).unwrap();
            assert!(path.join("etc").join(link).is_file(), "{link} led outside");
        }
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn the_last_name_is_never_followed() {
        let (path, root) = scratch("last");
        root.symlink(OsStr::new("/nowhere"), Path::new("link")).unwrap();
        let error = root.create_file(Path::new("link"), 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        root.chown(Path::new("link"), Owner { uid: 7, gid: 8 }).unwrap();
        root.set_times(Path::new("link"), Time { seconds: 5, nanoseconds: 6 }).unwrap();
        let stat = root.stat(Path::new("link")).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec), (7, 8, 5, 6));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_removed_parent_is_not_remembered() {
        let (path, root) = scratch("cache");
        root.mkdir(Path::new("a"), 0o755).unwrap();
        root.create_file(Path::new("a/x"), 0o600).unwrap();
        root.remove_tree(Path::new("a")).unwrap();
        root.mkdir(Path::new("a"), 0o755).unwrap();
        root.create_file(Path::new("a/y"), 0o600).unwrap();
        assert!(path.join("a/y").is_file());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn trees_deeper_than_the_descriptor_budget_are_removed() {
        let (path, root) = scratch("deep");
        let mut dir = root.open_dir(Path::new("")).unwrap();
        for _ in 0..3 * REMOVE_DEPTH_MAX {
            rustix::fs::mkdirat(&dir, "a-long-enough-name", Mode::from_raw_mode(0o755)).unwrap();
            dir = rustix::fs::openat(&dir, "a-long-enough-name", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        root.remove_tree(Path::new("a-long-enough-name")).unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_tree_can_be_removed_by_many_at_once() {
        let (path, root) = scratch("many");
        for round in 0..10 {
            for folder in 0..20 {
                root.mkdirs(Path::new(&format!("tree/{folder}/deep")), 0o755).unwrap();
                root.create_file(Path::new(&format!("tree/{folder}/deep/file")), 0o600).unwrap();
            }
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let root = Root::open(&path).unwrap();
                        start.wait();
                        root.remove_tree(Path::new("tree")).unwrap();
                    });
                }
            });
            assert!(!path.join("tree").exists(), "round {round}");
            root.forget_parent();
        }
        std::fs::remove_dir_all(path).unwrap();
    }
}
