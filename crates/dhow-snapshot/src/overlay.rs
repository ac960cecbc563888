//! Snapshots as folders under one directory, stacked by overlayfs. The disk is the only record:
//!
//! ```text
//! lock                        shared while something appears, exclusive while leftovers are looked for
//! empty/                      lies under a view of a single snapshot
//! <name>/fs                   a committed snapshot
//! active-<key>/fs             an active one: the changes
//!              work           overlayfs's scratch space          (not for a bare layer)
//!              parents        names, topmost first, one a line   (not for a bare layer)
//!              lock           held by the process that prepared it
//! new-<pid>-<n>               an active one being made
//! trash-<pid>-<n>             something being removed
//! ```
//!
//! Everything appears and disappears by one rename. A commit empties an active folder of all but `fs`, syncs
//! and renames it, so a name that is there is complete.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_sys::beneath::Root;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{SnapshotError, io_error};
use crate::implied::copy_attributes;
use crate::lock::{is_locked, lock};
use crate::mount::MountSpec;
use crate::name::{SnapshotKey, SnapshotName};
use crate::snapshotter::{ActiveInfo, Collected, CommittedInfo, Listing, Prepared, Snapshotter, Sync, Usage};

/// The largest file of parents read: 500 names and then some.
const PARENTS_BYTES_MAX: u64 = 256 * 1024;

/// Distinguishes temporary names within a process.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// The snapshotter for kernels with overlayfs. Any number of processes may use one directory.
#[derive(Clone, Debug)]
pub struct OverlaySnapshotter {
    dir: PathBuf,
    userxattr: bool,
}

/// An active snapshot that stays.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

impl OverlaySnapshotter {
    /// Opens the directory of snapshots, making it if it is missing. Its parent must exist.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        for dir in [dir, &dir.join("empty")] {
            match fs::DirBuilder::new().mode(0o700).create(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("make directory", dir)(error));
                }
                _ => {}
            }
        }
        Ok(Self { dir: dir.to_path_buf(), userxattr: false })
    }

    /// The same, for root of a user namespace, whose overlays keep their marks in `user.` attributes.
    pub fn with_userxattr(self, userxattr: bool) -> Self {
        Self { userxattr, ..self }
    }

    /// Takes a committed snapshot out of sight with a single rename: from now on it does not exist. Its room
    /// is freed by the next [`collect`](Snapshotter::collect).
    pub fn condemn(&self, name: &SnapshotName) -> Result<(), SnapshotError> {
        let _changing = self.changing()?;
        self.hide(&self.committed_dir(name)).map(drop)
    }

    /// Keeps [`collect`](Snapshotter::collect) away from an active snapshot that nobody prepares any more, for
    /// as long as the value lives.
    pub fn hold(&self, key: &SnapshotKey) -> Result<Held, SnapshotError> {
        let _changing = self.changing()?;
        let path = self.existing(key)?.join("lock");
        Ok(Held { _lock: lock(&path, false).map_err(io_error("lock", &path))? })
    }

    fn active_dir(&self, key: &SnapshotKey) -> PathBuf {
        self.dir.join(format!("active-{key}"))
    }

    fn committed_dir(&self, name: &SnapshotName) -> PathBuf {
        self.dir.join(name.as_str())
    }

    fn temporary(&self, kind: &str) -> PathBuf {
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{kind}-{}-{number}", std::process::id()))
    }

    /// Keeps [`collect`](Snapshotter::collect) out while something is between two names.
    fn changing(&self) -> Result<File, SnapshotError> {
        let path = self.dir.join("lock");
        lock(&path, false).map_err(io_error("lock", &path))
    }

    fn start(&self, key: &SnapshotKey, parents: Option<&[SnapshotName]>) -> Result<Prepared, SnapshotError> {
        let _changing = self.changing()?;
        let new = self.temporary("new");
        let made = self.fill_new(&new, parents).and_then(|lock| {
            let active = self.active_dir(key);
            match rename_new(&new, &active) {
                Ok(()) => Ok(Prepared { upper: active.join("fs"), _lock: lock }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Err(SnapshotError::KeyTaken { key: key.clone() })
                }
                Err(error) => Err(io_error("rename", &new)(error)),
            }
        });
        if made.is_err() {
            // Best effort: what stays is a leftover that collect() finds.
            let _ = fs::remove_dir_all(&new);
        }
        made
    }

    fn fill_new(&self, new: &Path, parents: Option<&[SnapshotName]>) -> Result<File, SnapshotError> {
        let make = |path: &Path, mode| {
            fs::DirBuilder::new().mode(mode).create(path).map_err(io_error("make directory", path))
        };
        let upper = new.join("fs");
        make(new, 0o700)?;
        make(&upper, 0o755)?;
        // Whatever umask says, the root of a file system can be entered by all.
        fs::set_permissions(&upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(io_error("set attributes of", &upper))?;
        if let Some(parents) = parents {
            make(&new.join("work"), 0o700)?;
            let lowers = self.lowers(parents)?;
            if let Some(top) = lowers.first() {
                inherit_root(top, &upper)?;
            }
            let text: String = parents.iter().map(|name| format!("{name}\n")).collect();
            let path = new.join("parents");
            fs::write(&path, text).map_err(io_error("write", &path))?;
        }
        let path = new.join("lock");
        lock(&path, true).map_err(io_error("lock", &path))
    }

    /// The folders of `parents`, each once: overlayfs refuses a folder that lies under itself, and the topmost
    /// says all that the same one says further down.
    fn lowers(&self, parents: &[SnapshotName]) -> Result<Vec<PathBuf>, SnapshotError> {
        let find = |name: &SnapshotName| {
            self.layer_path(name).ok_or_else(|| SnapshotError::NoSuchSnapshot { name: name.clone() })
        };
        let mut seen = HashSet::new();
        parents.iter().filter(|name| seen.insert(*name)).map(find).collect()
    }

    fn existing(&self, key: &SnapshotKey) -> Result<PathBuf, SnapshotError> {
        let active = self.active_dir(key);
        match active.join("fs").is_dir() {
            true => Ok(active),
            false => Err(SnapshotError::NoSuchKey { key: key.clone() }),
        }
    }

    fn parents(&self, active: &Path, key: &SnapshotKey) -> Result<Vec<SnapshotName>, SnapshotError> {
        let path = active.join("parents");
        let text = match read_bounded(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::NotMountable { key: key.clone() });
            }
            result => result.map_err(io_error("read", &path))?,
        };
        text.lines().map(|line| line.parse()).collect::<Result<_, _>>().map_err(
            |error: crate::ParseNameError| SnapshotError::Damaged { path, reason: error.to_string() },
        )
    }

    /// Drops everything but the contents, so that a rename makes it a committed snapshot.
    fn strip(&self, active: &Path) -> Result<(), SnapshotError> {
        let root = Root::open(active).map_err(io_error("open", active))?;
        for name in ["work", "parents", "lock"] {
            root.remove_tree(Path::new(name)).map_err(io_error("remove", &active.join(name)))?;
        }
        Ok(())
    }

    fn sync(&self, actives: &[PathBuf], sync: Sync) -> Result<(), SnapshotError> {
        match sync {
            Sync::FileSystem => sync_file_system(&self.dir).map_err(io_error("sync", &self.dir)),
            Sync::Files => {
                actives.iter().try_for_each(|active| sync_files(active).map_err(io_error("sync", active)))
            }
        }
    }

    fn publish(&self, active: &Path, name: &SnapshotName) -> Result<(), SnapshotError> {
        match rename_new(active, &self.committed_dir(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.discard(active),
            result => result.map_err(io_error("rename", active)),
        }
    }

    /// Takes a folder out of sight at once, then removes it.
    fn discard(&self, path: &Path) -> Result<(), SnapshotError> {
        self.hide(path)?.map_or(Ok(()), |trash| remove_folder(&trash))
    }

    /// Takes a folder out of sight; `None` if it is gone.
    fn hide(&self, path: &Path) -> Result<Option<PathBuf>, SnapshotError> {
        let trash = self.temporary("trash");
        match fs::rename(path, &trash) {
            Ok(()) => Ok(Some(trash)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("rename", path)(error)),
        }
    }

    fn entries(&self) -> Result<Vec<String>, SnapshotError> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                names.extend(entry?.file_name().into_string());
            }
            names.sort_unstable();
            Ok(names)
        };
        read().map_err(io_error("list", &self.dir))
    }

    /// Renames what is abandoned to trash, under the exclusive lock; returns the trash.
    fn find_abandoned(
        &self,
        keep: &dyn Fn(&SnapshotKey) -> bool,
        collected: &mut Collected,
    ) -> Result<Vec<PathBuf>, SnapshotError> {
        let path = self.dir.join("lock");
        let _alone = lock(&path, true).map_err(io_error("lock", &path))?;
        let mut trash = Vec::new();
        for entry in self.entries()? {
            let path = self.dir.join(&entry);
            if entry.starts_with("new-") || entry.starts_with("trash-") {
                collected.leftovers += 1;
                trash.push(path);
            } else if let Some(key) = entry.strip_prefix("active-").and_then(|key| key.parse().ok()) {
                // The lock first: its owner makes a record and then lets go, so who finds it free finds the record.
                if is_active_locked(&path)? || keep(&key) {
                    continue;
                }
                let name = self.temporary("trash");
                fs::rename(&path, &name).map_err(io_error("rename", &path))?;
                collected.active.push(key);
                trash.push(name);
            }
        }
        Ok(trash)
    }
}

impl Snapshotter for OverlaySnapshotter {
    fn prepare_layer(&self, key: &SnapshotKey) -> Result<Prepared, SnapshotError> {
        self.start(key, None)
    }

    fn prepare(&self, key: &SnapshotKey, parents: &[SnapshotName]) -> Result<Prepared, SnapshotError> {
        self.start(key, Some(parents))
    }

    fn mount_spec(&self, key: &SnapshotKey) -> Result<MountSpec, SnapshotError> {
        let active = self.existing(key)?;
        let mut lowers = self.lowers(&self.parents(&active, key)?)?;
        if lowers.is_empty() {
            lowers.push(self.dir.join("empty"));
        }
        let (upper, work) = (Some(active.join("fs")), Some(active.join("work")));
        Ok(MountSpec { lowers, upper, work, userxattr: self.userxattr })
    }

    fn view(&self, parents: &[SnapshotName]) -> Result<MountSpec, SnapshotError> {
        let mut lowers = self.lowers(parents)?;
        if lowers.len() < 2 {
            // Overlayfs wants two, and only overlayfs hides whiteouts.
            lowers.push(self.dir.join("empty"));
        }
        Ok(MountSpec { lowers, upper: None, work: None, userxattr: self.userxattr })
    }

    fn commit_all(&self, commits: &[(SnapshotKey, SnapshotName)], sync: Sync) -> Result<(), SnapshotError> {
        let actives: Vec<PathBuf> =
            commits.iter().map(|(key, _)| self.existing(key)).collect::<Result<_, _>>()?;
        let _changing = self.changing()?;
        actives.iter().try_for_each(|active| self.strip(active))?;
        self.sync(&actives, sync)?;
        for (active, (_, name)) in actives.iter().zip(commits) {
            self.publish(active, name)?;
        }
        sync_directory(&self.dir).map_err(io_error("sync", &self.dir))
    }

    fn remove(&self, key: &SnapshotKey) -> Result<(), SnapshotError> {
        let _changing = self.changing()?;
        self.discard(&self.active_dir(key))
    }

    fn remove_committed(&self, name: &SnapshotName) -> Result<(), SnapshotError> {
        let _changing = self.changing()?;
        self.discard(&self.committed_dir(name))
    }

    fn layer_path(&self, name: &SnapshotName) -> Option<PathBuf> {
        Some(self.committed_dir(name).join("fs")).filter(|path| path.is_dir())
    }

    fn upper_path(&self, key: &SnapshotKey) -> Result<PathBuf, SnapshotError> {
        Ok(self.existing(key)?.join("fs"))
    }

    fn list(&self) -> Result<Listing, SnapshotError> {
        let mut listing = Listing::default();
        for entry in self.entries()? {
            if let Some(key) = entry.strip_prefix("active-").and_then(|key| key.parse().ok()) {
                let locked = is_active_locked(&self.dir.join(&entry))?;
                listing.active.push(ActiveInfo { key, locked });
            } else if let Ok(name) = entry.parse()
                && self.layer_path(&name).is_some()
            {
                listing.committed.push(CommittedInfo { name });
            }
        }
        Ok(listing)
    }

    fn usage(&self, name: &SnapshotName) -> Result<Usage, SnapshotError> {
        let path =
            self.layer_path(name).ok_or_else(|| SnapshotError::NoSuchSnapshot { name: name.clone() })?;
        usage(&path).map_err(io_error("measure", &path))
    }

    fn collect(&self, keep: &dyn Fn(&SnapshotKey) -> bool) -> Result<Collected, SnapshotError> {
        let mut collected = Collected::default();
        let trash = self.find_abandoned(keep, &mut collected)?;
        trash.iter().try_for_each(|path| remove_folder(path))?;
        Ok(collected)
    }
}

/// The root of the stack looks like the root of its topmost folder, so a new one takes after it.
fn inherit_root(from: &Path, to: &Path) -> Result<(), SnapshotError> {
    let root = |path: &Path| Root::open(path).map_err(io_error("open", path));
    copy_attributes(&root(from)?, &root(to)?, Path::new("")).map_err(io_error("set attributes of", to))
}

/// True if a living process holds the lock in this active folder. A folder without a lock file was being
/// committed by a process that died.
fn is_active_locked(active: &Path) -> Result<bool, SnapshotError> {
    let path = active.join("lock");
    is_locked(&path).map_err(io_error("lock", &path))
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems lack the flag; a plain rename refuses a folder that is not empty as well.
        Err(Errno::INVAL) => match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(io::ErrorKind::AlreadyExists.into())
            }
            result => result,
        },
        result => Ok(result?),
    }
}

fn remove_folder(path: &Path) -> Result<(), SnapshotError> {
    let (parent, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    Root::open(parent).and_then(|root| root.remove_tree(Path::new(name))).map_err(io_error("remove", path))
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    File::open(path)?.take(PARENTS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}

/// Syncs every regular file and then every directory below `path`, and `path` itself.
fn sync_files(path: &Path) -> io::Result<()> {
    walk(path, &mut |path, kind| match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            Ok(rustix::fs::fsync(rustix::fs::openat(CWD, path, flags, Mode::empty())?)?)
        }
        FileType::Directory => sync_directory(path),
        _ => Ok(()),
    })
}

fn usage(path: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    walk(path, &mut |path, _| {
        let metadata = fs::symlink_metadata(path)?;
        let first =
            metadata.is_dir() || metadata.nlink() < 2 || linked.insert((metadata.dev(), metadata.ino()));
        if first {
            usage.bytes += metadata.blocks() * 512;
            usage.inodes += 1;
        }
        Ok(())
    })?;
    Ok(usage)
}

/// Calls `act` for everything below `path`, contents before their directory, and at last for `path`.
fn walk(path: &Path, act: &mut impl FnMut(&Path, FileType) -> io::Result<()>) -> io::Result<()> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), act)?;
        }
    }
    act(path, kind)
}
