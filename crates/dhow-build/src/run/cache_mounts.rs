//! Folders of `RUN --mount=type=cache`, kept in the store from build to build.
//!
//! ```text
//! <root>/cache-mounts/<name>/fs      what programs see; a file if it began with one
//!                           /lock    flock: shared by those who share it, exclusive while it is made, emptied,
//!                                    removed, or used by one who shares it with nobody
//!                           /new     being made
//!                           /old     being removed
//! ```
//! A name is the digest of namespace, id and what the cache starts with, and a number: `sharing=private` gives
//! each step at work its own, the first that is free. A record of kind `cache-mount` under the same name says
//! what it is, and its uses are counted. Who has locked a file looks whether its name still means that file, since
//! the cache may have been removed meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use dhow_dockerfile::Sharing;
use dhow_oci::Digest;
use dhow_store::Store;
use dhow_sys::beneath::{Owner, Root};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::RunError;
use crate::error::{StepError, while_doing};
use crate::mount::CacheMount;
use crate::stop::Stop;

/// The kind of their records.
pub(super) const KIND: &str = "cache-mount";
/// The kind of the records of their sizes.
pub(super) const SIZES: &str = "cache-mount-size";
pub(super) const FOLDER: &str = "cache-mounts";
const ROOT_MODE: u32 = 0o755;
const NOTING: &str = "cannot record a cache mount";
/// How long to wait for a lock until looking whether the build is to end.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What is recorded of a cache. When it was used is in the store's notes of uses.
#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    /// The step that used it last, and where it saw it.
    pub description: String,
}

/// The caches of one build.
pub(crate) struct CacheMounts<'a> {
    pub store: &'a Store,
    pub stop: &'a Stop,
    pub clock: fn() -> jiff::Timestamp,
    /// Where there is but one id, everything belongs to root.
    pub has_one_id: bool,
    /// What this build has emptied already.
    pub emptied: Mutex<HashSet<String>>,
}

/// A cache that a step needs, and what it starts with.
pub(super) struct Wanted<'a> {
    pub cache: &'a CacheMount,
    /// The step, and where it sees the cache.
    pub description: String,
    /// The content it starts with, if it starts with any.
    pub seed: Option<Digest>,
    /// Puts that there.
    pub fill: &'a dyn Fn(&Root, &Path) -> Result<(), StepError>,
}

/// A cache that is ours to use for as long as this lives.
pub(super) struct Taken {
    pub folder: PathBuf,
    _lock: File,
}

/// The folder, below the store's, of a cache that starts with nothing and that nobody else is at work with.
pub(crate) fn cache_name(cache: &CacheMount) -> PathBuf {
    Path::new(FOLDER).join(format!("{}-0", key(cache, None)))
}

fn key(cache: &CacheMount, seed: Option<Digest>) -> String {
    let seed = seed.map(|seed| seed.to_string()).unwrap_or_default();
    Digest::sha256_of(format!("{}\0{seed}", cache.id).as_bytes()).hex()
}

impl CacheMounts<'_> {
    /// Takes all that a step needs, one after the other in an order that all steps follow, so that no two wait
    /// for each other. A cache that is mounted twice is taken once.
    pub(super) fn take_all(&self, wanted: &[Wanted<'_>]) -> Result<Vec<(PathBuf, Option<Taken>)>, StepError> {
        let mut by_key: BTreeMap<(String, bool), Vec<usize>> = BTreeMap::new();
        for (index, want) in wanted.iter().enumerate() {
            let is_private = want.cache.sharing == Sharing::Private;
            by_key.entry((key(want.cache, want.seed), is_private)).or_default().push(index);
        }
        let mut taken: Vec<(PathBuf, Option<Taken>)> = wanted.iter().map(|_| Default::default()).collect();
        for ((key, _), indices) in by_key {
            let strict = |index: &usize| wanted[*index].cache.sharing == Sharing::Locked;
            let first = indices.iter().copied().find(strict).unwrap_or(indices[0]);
            let cache = self.take(&key, &wanted[first])?;
            for index in &indices {
                taken[*index].0.clone_from(&cache.folder);
            }
            taken[first].1 = Some(cache);
        }
        Ok(taken)
    }

    fn take(&self, key: &str, wanted: &Wanted<'_>) -> Result<Taken, StepError> {
        let failed = |source| StepError::from(RunError::Cache { id: wanted.cache.id.clone(), source });
        let mut number = 0;
        loop {
            let name = format!("{key}-{number}");
            let dir = self.store.root().join(FOLDER).join(&name);
            fs::create_dir_all(&dir).map_err(failed)?;
            let to_be_emptied = wanted.cache.emptied && !self.is_emptied(&name);
            let is_made = dir.join("fs").exists() && !to_be_emptied;
            let is_exclusive = wanted.cache.sharing != Sharing::Shared || !is_made;
            let lock = match try_lock(&dir, is_exclusive).map_err(failed)? {
                Attempt::Ours(lock) => lock,
                Attempt::Gone => continue,
                Attempt::Taken if wanted.cache.sharing == Sharing::Private => {
                    number += 1;
                    continue;
                }
                Attempt::Taken => {
                    self.wait(wanted)?;
                    continue;
                }
            };
            if !dir.join("fs").exists() || (wanted.cache.emptied && !self.is_emptied(&name)) {
                if is_exclusive {
                    self.make(&dir, wanted, failed)?;
                    self.emptied
                        .lock()
                        .expect("no thread panics while it holds the lock")
                        .insert(name.clone());
                    self.note_made(&name, wanted)?;
                }
                if wanted.cache.sharing == Sharing::Shared {
                    // It is made and locked for ourselves; the next round shares it.
                    continue;
                }
            }
            self.note_used(&name, wanted)?;
            return Ok(Taken { folder: dir.join("fs"), _lock: lock });
        }
    }

    fn is_emptied(&self, name: &str) -> bool {
        self.emptied.lock().expect("no thread panics while it holds the lock").contains(name)
    }

    /// A moment, unless the build is to end.
    fn wait(&self, wanted: &Wanted<'_>) -> Result<(), StepError> {
        let is_over = poll(&mut [PollFd::new(self.stop, PollFlags::IN)], Some(&PATIENCE));
        match is_over {
            Ok(1..) => Err(RunError::GivenUp { id: wanted.cache.id.clone() }.into()),
            // Interrupted or not, the lock is tried again.
            _ => Ok(()),
        }
    }

    /// Makes the folder anew. It appears under its name when it is complete.
    fn make(
        &self,
        dir: &Path,
        wanted: &Wanted<'_>,
        failed: impl Fn(io::Error) -> StepError + Copy,
    ) -> Result<(), StepError> {
        let root = Root::open(dir).map_err(failed)?;
        let (new, old, current) = (Path::new("new"), Path::new("old"), Path::new("fs"));
        root.remove_tree(new).map_err(failed)?;
        root.remove_tree(old).map_err(failed)?;
        match wanted.seed {
            Some(_) => (wanted.fill)(&root, new)?,
            None => root.mkdir(new, ROOT_MODE).map_err(failed)?,
        }
        let access = wanted.cache.access;
        if wanted.seed.is_none() || access.mode.is_some() {
            // mkdir applied the umask of this process.
            root.chmod(new, access.mode.unwrap_or(ROOT_MODE)).map_err(failed)?;
        }
        if (access.uid.is_some() || access.gid.is_some()) && !self.has_one_id {
            let owner = Owner { uid: access.uid.unwrap_or(0), gid: access.gid.unwrap_or(0) };
            root.chown(new, owner).map_err(failed)?;
        }
        if root.try_stat(current).map_err(failed)?.is_some() {
            root.rename(current, old).map_err(failed)?;
        }
        root.rename(new, current).map_err(failed)?;
        root.remove_tree(old).map_err(failed)
    }

    /// Writes down that the cache begins anew.
    fn note_made(&self, name: &str, wanted: &Wanted<'_>) -> Result<(), StepError> {
        self.store.records(SIZES).remove_soon([name]).map_err(while_doing(NOTING))?;
        self.store.records(KIND).remove_soon([name]).map_err(while_doing(NOTING))?;
        self.put(name, wanted)
    }

    /// Writes down what the cache is and that it is used now.
    fn note_used(&self, name: &str, wanted: &Wanted<'_>) -> Result<(), StepError> {
        self.put(name, wanted)?;
        let now = (self.clock)().as_second();
        Ok(self.store.records(KIND).touch([name], now).map_err(while_doing(NOTING))?)
    }

    fn put(&self, name: &str, wanted: &Wanted<'_>) -> Result<(), StepError> {
        let body = Body { description: wanted.description.clone() };
        let body = serde_json::to_string(&body).expect("texts are JSON");
        Ok(self.store.records(KIND).put_soon(name, &body, &[]).map_err(while_doing(NOTING))?)
    }
}

pub(super) enum Attempt {
    Ours(File),
    /// Somebody else has it.
    Taken,
    /// There is no such folder, or there is another one by now.
    Gone,
}

pub(super) fn try_lock(dir: &Path, is_exclusive: bool) -> io::Result<Attempt> {
    let path = dir.join("lock");
    let opened = File::options().create(true).write(true).truncate(false).open(&path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Gone),
        opened => opened?,
    };
    match if is_exclusive { file.try_lock() } else { file.try_lock_shared() } {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Taken),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let ours = file.metadata()?;
    match fs::metadata(&path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(Attempt::Ours(file)),
        Ok(_) => Ok(Attempt::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Attempt::Gone),
        Err(error) => Err(error),
    }
}
