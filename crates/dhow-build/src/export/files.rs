//! The files of a result, as a folder or a tar.
//!
//! A folder that is not there yet is filled under a name beside it and then renamed: it is whole or not there.
//! One that is there is filled from a staging folder inside it, `.dhow-output-…`, whose entries are then renamed
//! into place. A build that is killed leaves that folder, which nobody takes for the result and the next build
//! removes; no file is ever seen half written. Links that are in the folder are never followed, so nothing is
//! written outside of it.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_image::Images;
use dhow_layer::{DiffOptions, TarTree};
use dhow_oci::{DiffId, Digest, Digester};
use dhow_snapshot::Snapshotter as _;
use dhow_sys::beneath::{Root, Time, proc_path};
use dhow_sys::node;
use rustix::fs::{FileType, Stat};

use crate::copy::{is_copied, modified};
use crate::error::{ExportError, while_doing};
use crate::execute::mount;
use crate::provenance::Subject;

/// Begins the names of staging folders.
const STAGING: &str = ".dhow-output-";
/// How much of a file is read at once.
const READ_BYTES: usize = 1 << 18;
/// The mode of folders until they are filled.
const STAGING_MODE: u32 = 0o700;

/// The files of one platform.
pub(super) struct Tree {
    /// The folder they are put into, relative to the destination.
    pub folder: PathBuf,
    /// The layers they are in, lowest first.
    pub layers: Vec<DiffId>,
    /// A file that is told about them, and not one of theirs: its name and content.
    pub beside: Option<(String, Vec<u8>)>,
}

impl Tree {
    /// Its regular files by their paths.
    pub(super) fn subjects(&self, images: &Images) -> Result<Vec<Subject>, ExportError> {
        let mut subjects = Vec::new();
        if let Some(root) = self.mount(images)? {
            gather(&root, Path::new(""), &mut subjects)?;
        }
        subjects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(subjects)
    }

    /// The file system, to look at; `None` if there are no layers.
    fn mount(&self, images: &Images) -> Result<Option<Root>, ExportError> {
        if self.layers.is_empty() {
            return Ok(None);
        }
        let names = images.layer_snapshots(&self.layers);
        let mut names = names.map_err(while_doing("cannot find the layers of the result"))?;
        names.reverse();
        let spec = images.snapshots().view(&names).map_err(while_doing("cannot look at the result"))?;
        Ok(Some(mount(&spec)?))
    }
}

fn gather(root: &Root, path: &Path, subjects: &mut Vec<Subject>) -> Result<(), ExportError> {
    let dir = root.open_dir(path).map_err(reading(path))?;
    for entry in node::read_dir(&dir).map_err(reading(path))? {
        let path = path.join(&entry.name);
        let reading = reading(&path);
        match FileType::from_raw_mode(root.stat(&path).map_err(&reading)?.st_mode) {
            FileType::Directory => gather(root, &path, subjects)?,
            FileType::RegularFile => {
                let file = root.open_file(&path).map_err(&reading)?;
                let digest = digest_of(file).map_err(&reading)?;
                subjects.push(Subject { name: path.to_string_lossy().into_owned(), digest });
            }
            _ => {}
        }
    }
    Ok(())
}

fn reading(path: &Path) -> impl Fn(io::Error) -> ExportError + '_ {
    move |source| ExportError::Read { path: Path::new("/").join(path), source }
}

fn digest_of(mut file: File) -> io::Result<Digest> {
    let mut digester = Digester::sha256();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digester.finish()),
            count => digester.update(&buffer[..count]),
        }
    }
}

pub(super) fn write_tar(
    images: &Images,
    trees: &[Tree],
    epoch: Option<i64>,
    output: &mut dyn Write,
) -> Result<(), ExportError> {
    let mut roots = Vec::new();
    for tree in trees {
        let root = match tree.mount(images)? {
            Some(root) => {
                Some(root.open_dir(Path::new("")).map_err(while_doing("cannot look at the result"))?)
            }
            None => None,
        };
        roots.push((tree, root));
    }
    let is_something = |(tree, root): &&(&Tree, Option<_>)| root.is_some() || tree.beside.is_some();
    let trees = roots.iter().filter(is_something).map(|(tree, root)| TarTree {
        folder: tree.folder.clone(),
        dir: root.as_ref().map(|root| PathBuf::from(proc_path(&root.as_fd()))),
        beside: tree.beside.clone(),
    });
    let options = DiffOptions { mtime_max: epoch, ..DiffOptions::default() };
    let written = dhow_layer::write_tar_of(&trees.collect::<Vec<_>>(), output, &options);
    written.map(drop).map_err(|source| ExportError::Tar { source })
}

pub(super) fn write_folder(
    images: &Images,
    trees: &[Tree],
    epoch: Option<i64>,
    dest: &Path,
    delete: bool,
) -> Result<(), ExportError> {
    let failed = writing(dest);
    let is_new = match fs::symlink_metadata(dest) {
        Ok(_) if dest.is_dir() => false,
        Ok(_) => return Err(failed(io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed(error)),
    };
    let dest = std::path::absolute(dest).map_err(failed)?;
    let failed = writing(&dest);
    let parent = if is_new { dest.parent().unwrap_or(Path::new("/")) } else { &dest };
    fs::create_dir_all(parent).map_err(&failed)?;
    let staging = Staging::new(parent).map_err(&failed)?;
    for tree in trees {
        fill(images, tree, epoch, &staging.path)?;
    }
    if is_new {
        return fs::rename(&staging.path, &dest).map_err(failed);
    }
    let place = Merge { dest: Root::open(&dest).map_err(&failed)?, name: staging.name.clone(), delete };
    place.merge(Path::new(""))
}

fn writing(path: &Path) -> impl Fn(io::Error) -> ExportError + '_ {
    move |source| ExportError::Write { path: path.to_owned(), source }
}

/// A folder that is filled and then gone; locked, so that the next build knows it from one that was left.
struct Staging {
    path: PathBuf,
    name: OsString,
    _lock: File,
}

impl Staging {
    fn new(parent: &Path) -> io::Result<Staging> {
        sweep(parent);
        let name = OsString::from(format!("{STAGING}{}", std::process::id()));
        let path = parent.join(&name);
        fs::create_dir(&path)?;
        let lock = File::open(&path)?;
        lock.lock()?;
        Ok(Staging { path, name, _lock: lock })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a rename it is not there any more; what cannot be removed is removed by the next build.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what killed builds left.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_staging = entry.file_name().as_bytes().starts_with(STAGING.as_bytes());
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_staging && is_dir && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok()) {
            // It stays if it cannot be removed, as it did before.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Copies a result into a staging folder.
fn fill(images: &Images, tree: &Tree, epoch: Option<i64>, staging: &Path) -> Result<(), ExportError> {
    let to = Root::open(staging).map_err(writing(staging))?;
    to.mkdirs(&tree.folder, 0o755).map_err(writing(&tree.folder))?;
    if let Some((name, bytes)) = &tree.beside {
        let path = tree.folder.join(name);
        let written = to.create_file(&path, 0o644).and_then(|mut file| file.write_all(bytes));
        written.map_err(writing(&path))?;
        if let Some(seconds) = epoch {
            to.set_times(&path, Time { seconds, nanoseconds: 0 }).map_err(writing(&path))?;
        }
    }
    let Some(from) = tree.mount(images)? else { return Ok(()) };
    let mut copy = Copy { from, to, folder: &tree.folder, epoch, links: HashMap::new() };
    copy.directory(Path::new(""))
}

struct Copy<'a> {
    from: Root,
    to: Root,
    folder: &'a Path,
    epoch: Option<i64>,
    /// The first copies of files with several names, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    fn directory(&mut self, path: &Path) -> Result<(), ExportError> {
        let reading = |source| ExportError::Read { path: Path::new("/").join(path), source };
        let dir = self.from.open_dir(path).map_err(reading)?;
        for entry in node::read_dir(&dir).map_err(reading)? {
            let path = path.join(&entry.name);
            let stat = self.from.stat(&path).map_err(reading)?;
            self.entry(&path, &stat)?;
        }
        Ok(())
    }

    /// Files become those of whoever builds; mode and time are kept.
    fn entry(&mut self, path: &Path, stat: &Stat) -> Result<(), ExportError> {
        let target = self.folder.join(path);
        let failed = |source| ExportError::Write { path: target.clone(), source };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = stat.st_mode & 0o7777;
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return self.to.hardlink(first, &target).map_err(failed);
            }
            self.links.insert(inode, target.clone());
        }
        match kind {
            FileType::Directory => {
                self.to.mkdir(&target, STAGING_MODE).map_err(failed)?;
                self.directory(path)?;
            }
            FileType::RegularFile => self.file(path, &target)?,
            FileType::Symlink => {
                let text = self.from.read_link(path).map_err(failed)?;
                self.to.symlink(text.as_os_str(), &target).map_err(failed)?;
            }
            // They mean nothing without the process behind them.
            FileType::Socket | FileType::Unknown => return Ok(()),
            kind => {
                let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                self.to.mknod(&target, kind, mode, major, minor).map_err(failed)?;
            }
        }
        if kind != FileType::Symlink {
            self.xattrs(path, &target)?;
            self.to.chmod(&target, mode).map_err(failed)?;
        }
        let time = modified(stat);
        let time = match self.epoch {
            Some(epoch) if time.seconds >= epoch => Time { seconds: epoch, nanoseconds: 0 },
            _ => time,
        };
        self.to.set_times(&target, time).map_err(failed)
    }

    fn file(&self, path: &Path, target: &Path) -> Result<(), ExportError> {
        let reading = |source| ExportError::Read { path: Path::new("/").join(path), source };
        let mut source = self.from.open_file(path).map_err(reading)?;
        let mut copy = self.to.create_file(target, 0o600).map_err(writing(target))?;
        io::copy(&mut source, &mut copy).map(drop).map_err(writing(target))
    }

    /// Attributes that this user or file system may not have are left out, as with `cp -a`.
    fn xattrs(&self, path: &Path, target: &Path) -> Result<(), ExportError> {
        let reading = |source| ExportError::Read { path: Path::new("/").join(path), source };
        for name in self.from.xattr_names(path).map_err(reading)? {
            let name = OsStr::from_bytes(&name);
            if !is_copied(name.as_bytes()) {
                continue;
            }
            if let Some(value) = self.from.xattr(path, name).map_err(reading)? {
                let _ = self.to.set_xattr(target, name, &value);
            }
        }
        Ok(())
    }
}

/// Moves a staged tree over what is there.
struct Merge {
    dest: Root,
    /// The staging folder, in the destination.
    name: OsString,
    /// Whether what is not part of the tree is removed.
    delete: bool,
}

impl Merge {
    fn merge(&self, dir: &Path) -> Result<(), ExportError> {
        let staged_dir = Path::new(&self.name).join(dir);
        let mut names = BTreeSet::new();
        for name in self.names(&staged_dir)? {
            self.place(&staged_dir.join(&name), &dir.join(&name))?;
            names.insert(name);
        }
        if self.delete {
            let is_ours =
                |name: &OsString| names.contains(name) || (dir.as_os_str().is_empty() && *name == self.name);
            for name in self.names(dir)?.into_iter().filter(|name| !is_ours(name)) {
                let path = dir.join(name);
                self.dest.remove_tree(&path).map_err(writing(&path))?;
            }
        }
        Ok(())
    }

    fn names(&self, dir: &Path) -> Result<Vec<OsString>, ExportError> {
        let dir = self.dest.open_dir(dir).map_err(writing(dir))?;
        let entries = node::read_dir(&dir).map_err(while_doing("cannot read a folder"))?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    }

    fn place(&self, staged: &Path, path: &Path) -> Result<(), ExportError> {
        let failed = writing(path);
        let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let new = self.dest.stat(staged).map_err(&failed)?;
        match self.dest.try_stat(path).map_err(&failed)? {
            Some(held) if is_dir(&held) && is_dir(&new) => {
                self.merge(path)?;
                self.dest.chmod(path, new.st_mode & 0o7777).map_err(&failed)?;
                return self.dest.set_times(path, modified(&new)).map_err(failed);
            }
            Some(held) if is_dir(&held) && self.delete => self.dest.remove_tree(path).map_err(&failed)?,
            // Nobody's folder is removed unless that was asked for.
            Some(held) if is_dir(&held) => return Err(failed(io::ErrorKind::IsADirectory.into())),
            // A folder cannot be renamed over a file or a link.
            Some(_) if is_dir(&new) => self.dest.unlink(path).map_err(&failed)?,
            _ => {}
        }
        self.dest.replace(staged, path).map_err(failed)
    }
}

#[cfg(test)]
mod tests;
