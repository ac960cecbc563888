//! Copying a selection of files into a root file system, as `COPY` does.

mod parallel;

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use dhow_sys::beneath::{Owner, Root, Time, list_xattrs, read_xattr, timestamps};
use dhow_sys::node;
use rustix::fs::{FileType, Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use crate::chmod::Chmod;
use crate::resolve::resolve;
use crate::select::{Entry, Selected};

/// Files up to this size are copied through a buffer.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// How copied files come out.
#[derive(Clone, Debug)]
pub(crate) struct CopyOptions {
    /// Owner of everything copied and made; `None` keeps the source's.
    pub owner: Option<Owner>,
    /// Change to the mode of everything copied.
    pub chmod: Option<Chmod>,
    /// The time that directories made on the way get.
    pub made_at: Time,
    /// Whether what is in the way of something of another kind is removed, as with archives.
    pub replace: bool,
}

/// Why files were not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file changed after its content was looked at for the cache.
    #[error("{} changed while the build was reading it", path.display())]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// A directory is to be copied where a file is.
    #[error("cannot copy a directory to {}, where there is a file", path.display())]
    NotADirectory {
        /// Where.
        path: PathBuf,
    },
    /// Reading a source failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing a copy failed.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file, in the image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> CopyError + '_ {
    move |source| CopyError::Read { path: path.to_owned(), source }
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> CopyError + '_ {
    move |source| CopyError::Write { path: Path::new("/").join(path), source }
}

/// Where copies go.
pub(crate) struct Destination<'a> {
    root: &'a Root,
    /// Without links, relative to the root.
    path: PathBuf,
    /// Whether sources are put into it under their own names.
    into: bool,
}

impl<'a> Destination<'a> {
    /// Finds the place that `path`, absolute in the image, means.
    pub(crate) fn find(root: &'a Root, path: &str) -> Result<Destination<'a>, CopyError> {
        let real = resolve(root, Path::new(path)).map_err(writing(Path::new(path)))?;
        let into = is_dir(root, &real)? || path.ends_with('/') || path.ends_with("/.");
        Ok(Destination { root, path: real, into })
    }

    /// Copies one source here.
    pub(crate) fn copy(
        &self,
        from: &Root,
        source: &Selected,
        options: &CopyOptions,
    ) -> Result<(), CopyError> {
        let target = match source.is_dir() {
            false if self.into => self.path.join(&source.name),
            _ => self.path.clone(),
        };
        let parents = match source.keeps_parents {
            true => &target,
            false => target.parent().unwrap_or(Path::new("")),
        };
        // A directory stands for its contents, and what they are put into is made as its parents are.
        let made = if source.is_dir() && self.is_free(&target)? { &target } else { parents };
        options.make_dirs(self.root, made)?;
        let parent_times = times_of(self.root, parents)?;
        copy_entries(from, self.root, &source.entries, &target, options)?;
        self.root.set_times(parents, parent_times).map_err(writing(parents))
    }
}

impl Destination<'_> {
    fn is_free(&self, path: &Path) -> Result<bool, CopyError> {
        match self.root.try_stat(path) {
            Ok(stat) => Ok(stat.is_none()),
            // A parent is a file, which is found when it is to be made.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(true),
            Err(error) => Err(writing(path)(error)),
        }
    }

    /// Writes a file given in the Dockerfile.
    pub(crate) fn write(&self, name: &str, content: &str, options: &CopyOptions) -> Result<(), CopyError> {
        let target = if self.into { self.path.join(name) } else { self.path.clone() };
        let parents = target.parent().unwrap_or(Path::new(""));
        options.make_dirs(self.root, parents)?;
        let parent_times = times_of(self.root, parents)?;
        if self.root.try_stat(&target).map_err(writing(&target))?.is_some() {
            self.root.unlink(&target).map_err(writing(&target))?;
        }
        let mut file = self.root.create_file(&target, 0o600).map_err(writing(&target))?;
        file.write_all(content.as_bytes()).map_err(writing(&target))?;
        let owner = options.owner.unwrap_or(Owner { uid: 0, gid: 0 });
        self.root.chown(&target, owner).map_err(writing(&target))?;
        let mode = options.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
        self.root.chmod(&target, mode).map_err(writing(&target))?;
        self.root.set_times(&target, options.made_at).map_err(writing(&target))?;
        self.root.set_times(parents, parent_times).map_err(writing(parents))
    }
}

/// Whether there is a directory at `path`, which has no links in it.
pub(crate) fn is_dir(root: &Root, path: &Path) -> Result<bool, CopyError> {
    match root.try_stat(path) {
        Ok(stat) => Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(writing(path)(error)),
    }
}

impl CopyOptions {
    /// Makes the directories on the way to copies. Symbolic modes change what a file has, and these have nothing yet.
    fn make_dirs(&self, root: &Root, path: &Path) -> Result<(), CopyError> {
        let mode = match self.chmod {
            Some(Chmod::Octal(mode)) => mode,
            _ => 0o755,
        };
        make_dirs(root, path, mode, self.owner, self.made_at)
    }
}

/// Makes `path` and its missing parents so that what was there already keeps its time.
pub(crate) fn make_dirs(
    root: &Root,
    path: &Path,
    mode: u32,
    owner: Option<Owner>,
    made_at: Time,
) -> Result<(), CopyError> {
    let existing =
        path.ancestors().find(|dir| matches!(root.try_stat(dir), Ok(Some(_)))).unwrap_or(Path::new(""));
    let existing_times = times_of(root, existing)?;
    let made = root.mkdirs(path, 0o755).map_err(writing(path))?;
    if made.is_empty() {
        return Ok(());
    }
    for dir in made.iter().rev() {
        if let Some(owner) = owner {
            root.chown(dir, owner).map_err(writing(dir))?;
        }
        // mkdir applied the umask of this process.
        root.chmod(dir, mode).map_err(writing(dir))?;
        root.set_times(dir, made_at).map_err(writing(dir))?;
    }
    root.set_times(existing, existing_times).map_err(writing(existing))
}

fn times_of(root: &Root, path: &Path) -> Result<Time, CopyError> {
    root.stat(path).map(|stat| modified(&stat)).map_err(writing(path))
}

/// Time of last modification.
pub(crate) fn modified(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

/// Copies entries one by one. Each thread has its own.
struct Copier<'a> {
    from: &'a Root,
    to: &'a Root,
    options: &'a CopyOptions,
}

/// Copies the files of one source, directories first: what is in them then goes on several threads.
fn copy_entries(
    from: &Root,
    to: &Root,
    entries: &[Entry],
    target: &Path,
    options: &CopyOptions,
) -> Result<(), CopyError> {
    let place = |entry: &Entry| match entry.relative.as_os_str().is_empty() {
        true => target.to_owned(),
        false => target.join(&entry.relative),
    };
    let copier = Copier { from, to, options };
    let mut dirs = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind() == FileType::Directory) {
        let path = place(entry);
        copier.directory(entry, &path)?;
        dirs.push((path, modified(&entry.stat)));
    }
    let files = entries.iter().filter(|entry| entry.kind() != FileType::Directory);
    let (linked, single): (Vec<&Entry>, Vec<&Entry>) = files.partition(|entry| entry.stat.st_nlink > 1);
    parallel::each(from, to, &single, &|from, to, entry| {
        Copier { from, to, options }.copy(entry, &place(entry))
    })?;
    // First copies of files that have several names, by device and inode.
    let mut firsts: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for entry in linked {
        let path = place(entry);
        match firsts.entry((entry.found.st_dev, entry.found.st_ino)) {
            Occupied(first) => {
                copier.clear(&path)?;
                to.hardlink(first.get(), &path).map_err(writing(&path))?;
            }
            Vacant(first) => {
                copier.copy(entry, &path)?;
                first.insert(path);
            }
        }
    }
    // Times are set when all is in them.
    dirs.iter().rev().try_for_each(|(path, time)| to.set_times(path, *time).map_err(writing(path)))
}

impl Copier<'_> {
    /// Copies what is not a directory.
    fn copy(&self, entry: &Entry, target: &Path) -> Result<(), CopyError> {
        if entry.kind() == FileType::RegularFile {
            return self.file(entry, target);
        }
        self.clear(target)?;
        match entry.kind() {
            FileType::Symlink => {
                let text = self.from.read_link(&entry.path).map_err(reading(&entry.path))?;
                self.to.symlink(text.as_os_str(), target).map_err(writing(target))?;
            }
            kind => {
                let device = entry.stat.st_rdev;
                let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
                self.to.mknod(target, kind, self.mode(entry), major, minor).map_err(writing(target))?;
            }
        }
        self.attributes(entry, target)?;
        self.to.set_times(target, modified(&entry.stat)).map_err(writing(target))?;
        let now = self.from.try_stat(&entry.path).map_err(reading(&entry.path))?;
        check_unchanged(entry, now.as_ref())
    }

    /// Copies a regular file by descriptors: small files are many, and every path costs.
    fn file(&self, entry: &Entry, target: &Path) -> Result<(), CopyError> {
        let mut source = self.from.open_file_itself(&entry.path).map_err(reading(&entry.path))?;
        let mut copy = self.create(target)?;
        copy_bytes(&mut source, &mut copy, entry.stat.st_size as u64).map_err(writing(target))?;
        let Owner { uid, gid } = self.owner(entry);
        let failed = |error: Errno| writing(target)(error.into());
        rustix::fs::fchown(&copy, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
        let names = list_xattrs(|buffer| rustix::fs::flistxattr(&source, buffer));
        for name in names.map_err(reading(&entry.path))?.iter().filter(|name| is_copied(name)) {
            let value = read_xattr(|buffer| rustix::fs::fgetxattr(&source, name.as_slice(), buffer));
            if let Some(value) = value.map_err(reading(&entry.path))? {
                let set = rustix::fs::fsetxattr(&copy, name.as_slice(), &value, XattrFlags::empty());
                may_be_unsupported(set.map_err(io::Error::from)).map_err(writing(target))?;
            }
        }
        // After the owner, whose change clears setuid and setgid.
        rustix::fs::fchmod(&copy, Mode::from_raw_mode(self.mode(entry))).map_err(failed)?;
        rustix::fs::futimens(&copy, &timestamps(modified(&entry.stat))).map_err(failed)?;
        let now = rustix::fs::fstat(&source).map_err(|error| reading(&entry.path)(error.into()))?;
        check_unchanged(entry, Some(&now))
    }

    /// A new file at `target`, in the place of whatever is there.
    fn create(&self, target: &Path) -> Result<File, CopyError> {
        match self.to.create_file(target, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear(target)?;
                self.to.create_file(target, 0o600).map_err(writing(target))
            }
            result => result.map_err(writing(target)),
        }
    }

    /// A directory that is there takes mode and owner of the one copied over it, but for the place that the
    /// contents of the source itself are put into.
    fn directory(&self, entry: &Entry, target: &Path) -> Result<(), CopyError> {
        let there = self.to.try_stat(target).map_err(writing(target))?;
        let is_there = there.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_there {
            match there {
                Some(_) if self.options.replace => self.to.unlink(target).map_err(writing(target))?,
                Some(_) => return Err(CopyError::NotADirectory { path: Path::new("/").join(target) }),
                None => {}
            }
            self.to.mkdir(target, 0o755).map_err(writing(target))?;
        }
        if entry.relative.as_os_str().is_empty() { Ok(()) } else { self.attributes(entry, target) }
    }

    /// Removes what a file is to replace. A directory is not replaced by a file, but for archives.
    fn clear(&self, target: &Path) -> Result<(), CopyError> {
        match self.to.try_stat(target).map_err(writing(target))? {
            None => Ok(()),
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                if self.options.replace {
                    return self.to.remove_tree(target).map_err(writing(target));
                }
                let source = io::Error::from(Errno::ISDIR);
                Err(writing(target)(source))
            }
            Some(_) => self.to.unlink(target).map_err(writing(target)),
        }
    }

    fn owner(&self, entry: &Entry) -> Owner {
        self.options.owner.unwrap_or(Owner { uid: entry.stat.st_uid, gid: entry.stat.st_gid })
    }

    fn attributes(&self, entry: &Entry, target: &Path) -> Result<(), CopyError> {
        self.to.chown(target, self.owner(entry)).map_err(writing(target))?;
        if entry.kind() != FileType::Symlink {
            self.to.chmod(target, self.mode(entry)).map_err(writing(target))?;
        }
        for name in self.from.xattr_names(&entry.path).map_err(reading(&entry.path))? {
            if is_copied(&name) {
                self.xattr(entry, target, &name)?;
            }
        }
        Ok(())
    }

    fn xattr(&self, entry: &Entry, target: &Path, name: &[u8]) -> Result<(), CopyError> {
        use std::os::unix::ffi::OsStrExt as _;
        let name = std::ffi::OsStr::from_bytes(name);
        let Some(value) = self.from.xattr(&entry.path, name).map_err(reading(&entry.path))? else {
            return Ok(());
        };
        may_be_unsupported(self.to.set_xattr(target, name, &value)).map_err(writing(target))
    }

    fn mode(&self, entry: &Entry) -> u32 {
        let mode = entry.stat.st_mode & 0o7777;
        let is_dir = entry.kind() == FileType::Directory;
        self.options.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, is_dir))
    }
}

/// The file system of the store may know fewer kinds of attributes than that of the source, as with cp -a.
fn may_be_unsupported(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(Errno::NOTSUP.raw_os_error()) => Ok(()),
        result => result,
    }
}

/// The cache key was made of what the file was; a copy of something else must not be kept under it.
fn check_unchanged(entry: &Entry, now: Option<&Stat>) -> Result<(), CopyError> {
    let is_same = now.is_some_and(|now| is_same(&entry.found, now));
    if is_same { Ok(()) } else { Err(CopyError::Changed { path: entry.path.clone() }) }
}

/// Attributes of the host's security modules and of the overlay do not belong to the file.
pub(crate) fn is_copied(name: &[u8]) -> bool {
    !node::is_overlay_xattr(name)
        && !name.starts_with(b"system.")
        && (!name.starts_with(b"security.") || name == b"security.capability")
}

fn is_same(before: &Stat, now: &Stat) -> bool {
    (before.st_ino, before.st_mode, before.st_size) == (now.st_ino, now.st_mode, now.st_size)
        && (before.st_mtime, before.st_mtime_nsec) == (now.st_mtime, now.st_mtime_nsec)
        && (before.st_ctime, before.st_ctime_nsec) == (now.st_ctime, now.st_ctime_nsec)
}

/// Copies within the kernel, which shares the blocks where the disk can: `std::io::copy` uses copy_file_range,
/// then sendfile, then a buffer. For a small file the attempts cost more than the copy.
fn copy_bytes(source: &mut File, copy: &mut File, size_bytes: u64) -> io::Result<()> {
    if size_bytes > SMALL_BYTES_MAX {
        return io::copy(source, copy).map(drop);
    }
    let mut buffer = [0; SMALL_BYTES_MAX as usize];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => copy.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
