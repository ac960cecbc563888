//! Copying a selection of files into a root file system, as `COPY` does.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use dhow_sys::beneath::{Owner, Root, Time};
use dhow_sys::node;
use rustix::fs::{FileType, Stat};

use crate::chmod::Chmod;
use crate::resolve::resolve;
use crate::select::{Entry, Selected};

/// How copied files come out.
#[derive(Clone, Debug)]
pub(crate) struct CopyOptions {
    /// Owner of everything copied and made; `None` keeps the source's.
    pub owner: Option<Owner>,
    /// Change to the mode of everything copied.
    pub chmod: Option<Chmod>,
    /// The time that directories made on the way get.
    pub made_at: Time,
    /// Whether a directory that is there takes the attributes of the one copied over it, as with archives.
    pub merge_dirs: bool,
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
        let parents = target.parent().unwrap_or(Path::new(""));
        make_dirs(self.root, parents, options.owner, options.made_at)?;
        let parent_times = times_of(self.root, parents)?;
        let mut copier = Copier { from, to: self.root, options, links: HashMap::new(), dirs: Vec::new() };
        for entry in &source.entries {
            let path = target.join(&entry.relative);
            copier.copy(entry, if entry.relative.as_os_str().is_empty() { &target } else { &path })?;
        }
        copier.finish()?;
        self.root.set_times(parents, parent_times).map_err(writing(parents))
    }
}

impl Destination<'_> {
    /// Writes a file given in the Dockerfile.
    pub(crate) fn write(&self, name: &str, content: &str, options: &CopyOptions) -> Result<(), CopyError> {
        use std::io::Write as _;
        let target = if self.into { self.path.join(name) } else { self.path.clone() };
        let parents = target.parent().unwrap_or(Path::new(""));
        make_dirs(self.root, parents, options.owner, options.made_at)?;
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

/// Makes `path` and its missing parents, mode 0755, so that what was there already keeps its time.
pub(crate) fn make_dirs(
    root: &Root,
    path: &Path,
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
        root.chmod(dir, 0o755).map_err(writing(dir))?;
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

struct Copier<'a> {
    from: &'a Root,
    to: &'a Root,
    options: &'a CopyOptions,
    /// First copies of files that have several names, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    /// Directories made, whose times are set when all is in them.
    dirs: Vec<(PathBuf, Time)>,
}

impl Copier<'_> {
    fn copy(&mut self, entry: &Entry, target: &Path) -> Result<(), CopyError> {
        if entry.kind() == FileType::Directory {
            return self.directory(entry, target);
        }
        self.clear(target)?;
        if entry.stat.st_nlink > 1 {
            let inode = (entry.stat.st_dev, entry.stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return self.to.hardlink(first, target).map_err(writing(target));
            }
            self.links.insert(inode, target.to_owned());
        }
        match entry.kind() {
            FileType::RegularFile => self.file(entry, target)?,
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
        self.check_unchanged(entry)
    }

    /// The cache key was made of what the file was; a copy of something else must not be kept under it.
    fn check_unchanged(&self, entry: &Entry) -> Result<(), CopyError> {
        let now = self.from.try_stat(&entry.path).map_err(reading(&entry.path))?;
        let is_same = now.is_some_and(|now| is_same(&entry.stat, &now));
        if is_same { Ok(()) } else { Err(CopyError::Changed { path: entry.path.clone() }) }
    }

    /// A directory that is there keeps its mode and owner, but gets the time of the one copied over it.
    fn directory(&mut self, entry: &Entry, target: &Path) -> Result<(), CopyError> {
        match self.to.try_stat(target).map_err(writing(target))? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                // The source itself stands for its contents only.
                let takes_over = self.options.merge_dirs && !entry.relative.as_os_str().is_empty();
                if takes_over {
                    self.attributes(entry, target)?;
                }
                self.dirs.push((target.to_owned(), modified(&entry.stat)));
                return Ok(());
            }
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                // A link to a directory in the way is followed, as the kernel would.
                let real = resolve(self.to, target).map_err(writing(target))?;
                let leads_to_dir = self.to.try_stat(&real).map_err(writing(target))?;
                if leads_to_dir
                    .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
                {
                    return Ok(());
                }
                return Err(CopyError::NotADirectory { path: Path::new("/").join(target) });
            }
            Some(_) => return Err(CopyError::NotADirectory { path: Path::new("/").join(target) }),
            None => {}
        }
        self.to.mkdir(target, 0o755).map_err(writing(target))?;
        self.attributes(entry, target)?;
        self.dirs.push((target.to_owned(), modified(&entry.stat)));
        Ok(())
    }

    /// Removes what a file is to replace. A directory is not replaced by a file.
    fn clear(&self, target: &Path) -> Result<(), CopyError> {
        match self.to.try_stat(target).map_err(writing(target))? {
            None => Ok(()),
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let source = io::Error::from(rustix::io::Errno::ISDIR);
                Err(writing(target)(source))
            }
            Some(_) => self.to.unlink(target).map_err(writing(target)),
        }
    }

    fn file(&self, entry: &Entry, target: &Path) -> Result<(), CopyError> {
        let mut source = self.from.open_file(&entry.path).map_err(reading(&entry.path))?;
        let mut copy = self.to.create_file(target, 0o600).map_err(writing(target))?;
        copy_bytes(&mut source, &mut copy).map_err(writing(target)).map(drop)
    }

    fn attributes(&self, entry: &Entry, target: &Path) -> Result<(), CopyError> {
        let owner = self.options.owner.unwrap_or(Owner { uid: entry.stat.st_uid, gid: entry.stat.st_gid });
        self.to.chown(target, owner).map_err(writing(target))?;
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
        match self.to.set_xattr(target, name, &value) {
            // The file system of the store may know fewer kinds than that of the source, as with cp -a.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTSUP.raw_os_error()) => Ok(()),
            result => result.map_err(writing(target)),
        }
    }

    fn mode(&self, entry: &Entry) -> u32 {
        let mode = entry.stat.st_mode & 0o7777;
        let is_dir = entry.kind() == FileType::Directory;
        self.options.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, is_dir))
    }

    fn finish(self) -> Result<(), CopyError> {
        for (path, time) in self.dirs.iter().rev() {
            self.to.set_times(path, *time).map_err(writing(path))?;
        }
        Ok(())
    }
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

/// Copies within the kernel; `std::io::copy` uses copy_file_range, then sendfile, then a buffer.
fn copy_bytes(source: &mut File, copy: &mut File) -> io::Result<u64> {
    io::copy(source, copy)
}

#[cfg(test)]
mod tests;
