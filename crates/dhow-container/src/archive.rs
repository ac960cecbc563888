//! Files of containers as archives, out and in: what `cp` and the API's `archive` are made of.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use dhow_layer::{ApplyOptions, DiffOptions, Ownership, Whiteouts};
use dhow_sys::beneath::Root;
use dhow_sys::beneath::proc_path;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::containers::Containers;
use crate::error::ArchiveError;
use crate::record::Container;

/// How many links are followed until it is taken for a circle.
const LINKS_MAX: usize = 40;
const BUFFER_BYTES: usize = 256 * 1024;

/// What is at a path of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Kind and permissions, as `stat` has them.
    pub mode: u32,
    /// Last modification, in seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// Where a symbolic link leads in the end, as a path of the container; else empty.
    pub link_target: String,
}

impl PathStat {
    /// It is a directory.
    pub fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }

    /// It is a symbolic link.
    pub fn is_link(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Symlink
    }
}

/// How an archive is unpacked in a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArchiveIn {
    /// A directory does not take the place of something else, nor the other way round.
    pub keep_kinds: bool,
    /// All belongs to the container's user, if it has one.
    pub to_user: bool,
}

impl Containers {
    /// What is at a path of a container, a link not followed unless a slash comes after it.
    pub fn archive_stat(&self, text: &str, path: &str) -> Result<PathStat, ArchiveError> {
        let container = self.find(text)?;
        self.with_files(&container, |root| {
            let (dir, file) = locate(root, text, path)?;
            let stat = stat_at(&dir, &file).map_err(|error| missing(text, path, error))?;
            describe(root, path, &stat)
        })
    }

    /// Writes what is at a path of a container as an archive, in which it is called `name`, or as the path's last part.
    pub fn archive_out(
        &self,
        text: &str,
        path: &str,
        name: Option<&str>,
        output: impl Write + Send,
    ) -> Result<PathStat, ArchiveError> {
        let container = self.find(text)?;
        let stat = self.with_files(&container, |root| {
            let (dir, file) = locate(root, text, path)?;
            let stat = stat_at(&dir, &file).map_err(|error| missing(text, path, error))?;
            let described = describe(root, path, &stat)?;
            let name = name.map_or_else(|| base(path), str::to_owned);
            let options = DiffOptions::default();
            dhow_layer::write_tar_as(&dir, OsStr::new(&file), OsStr::new(&name), output, &options)?;
            Ok(described)
        })?;
        self.tell(&container, "archive-path", &[("path", path.to_owned())]);
        Ok(stat)
    }

    /// Unpacks an archive in a directory of a container.
    pub fn archive_in(
        &self,
        text: &str,
        path: &str,
        archive: impl Read + Send,
        how: ArchiveIn,
    ) -> Result<(), ArchiveError> {
        let container = self.find(text)?;
        self.with_files(&container, |root| {
            let folder = clean(path);
            let open = root.open_with(&folder, OFlags::PATH).map_err(|error| missing(text, path, error))?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&open).map_err(io::Error::from)?.st_mode);
            if kind != FileType::Directory {
                return Err(ArchiveError::NotDirectory(path.into()));
            }
            let user = if how.to_user { user_of(root, &container)? } else { None };
            let own = self.images.apply_options();
            let options = ApplyOptions {
                whiteouts: Whiteouts::Literal,
                owner: user.map_or(own.owner.clone(), |(uid, gid)| Ownership::Force(uid, gid)),
                prefix: folder.strip_prefix("/").unwrap_or(&folder).to_owned(),
                keep_kinds: how.keep_kinds,
                ..own
            };
            let archive = dhow_layer::open_archive(archive)?;
            let reader = BufReader::with_capacity(BUFFER_BYTES, archive);
            dhow_layer::apply(reader, Path::new(&proc_path(&root.as_fd())), &options)?;
            Ok(())
        })?;
        self.tell(&container, "extract-to-dir", &[("path", path.to_owned())]);
        Ok(())
    }
}

/// The container's user by number, if it is not root anyway.
fn user_of(root: &Root, container: &Container) -> Result<Option<(u32, u32)>, ArchiveError> {
    let user = container.record.config.user.as_str();
    match user {
        "" => Ok(None),
        user => {
            let identity =
                dhow_runtime::identity(root, user).map_err(|error| ArchiveError::User(error.to_string()))?;
            Ok(Some(identity))
        }
    }
}

/// The directory that holds what a path leads to, and its name there; of a directory with a slash after it, itself.
fn locate(root: &Root, text: &str, path: &str) -> Result<(OwnedFd, String), ArchiveError> {
    let cleaned = clean(path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let is_itself = path.ends_with('/') || path.ends_with("/.") || path == "." || path.is_empty();
    let file = cleaned.file_name().and_then(OsStr::to_str).filter(|_| !is_itself);
    let (dir, file) = match file {
        Some(file) => (cleaned.parent().unwrap_or(Path::new("/")), file),
        None => (cleaned.as_path(), "."),
    };
    let open = root.open_with(dir, flags).map_err(|error| missing(text, path, error))?;
    Ok((open, file.to_owned()))
}

fn stat_at(dir: &OwnedFd, file: &str) -> io::Result<Stat> {
    Ok(rustix::fs::statat(dir, file, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn describe(root: &Root, path: &str, stat: &Stat) -> Result<PathStat, ArchiveError> {
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let link_target = if is_link { follow(root, &clean(path))? } else { String::new() };
    Ok(PathStat {
        name: base(path),
        size: stat.st_size.cast_unsigned(),
        mode: stat.st_mode,
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        link_target,
    })
}

/// Where a link leads in the end; what is not there leads nowhere further.
fn follow(root: &Root, path: &Path) -> Result<String, ArchiveError> {
    let mut here = path.to_owned();
    for _ in 0..LINKS_MAX {
        let is_link = root
            .try_stat(&here)?
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if !is_link {
            break;
        }
        let target = root.read_link(&here)?;
        here = clean_path(&here.parent().unwrap_or(Path::new("/")).join(target));
    }
    Ok(here.to_string_lossy().into_owned())
}

/// A path of a container from its root, without `.` and with `..` taken as text.
fn clean(path: &str) -> PathBuf {
    clean_path(&Path::new("/").join(path))
}

fn clean_path(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// The last part of a path as docker names the top of an archive: `.` after `/.`, else the last name.
pub(crate) fn base(path: &str) -> String {
    if path == "." || path.ends_with("/.") {
        return ".".into();
    }
    clean(path).file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned())
}

fn missing(container: &str, path: &str, error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::NotFound => ArchiveError::NotFound { container: container.into(), path: path.into() },
        io::ErrorKind::NotADirectory => ArchiveError::NotDirectory(path.into()),
        _ => ArchiveError::Io(error),
    }
}

/// The directory that holds a local file, and its name there.
pub(crate) fn locate_local(path: &Path) -> io::Result<(OwnedFd, String)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |dir: &Path| rustix::fs::open(dir, flags, Mode::empty());
    let text = path.to_string_lossy();
    let is_itself = text.ends_with('/') || text.ends_with("/.") || text == ".";
    match path.file_name().and_then(OsStr::to_str).filter(|_| !is_itself) {
        Some(file) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok((open(parent.unwrap_or(Path::new(".")))?, file.to_owned()))
        }
        None => Ok((open(path)?, ".".into())),
    }
}
