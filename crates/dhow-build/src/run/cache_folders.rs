//! The folders that `RUN --mount=type=cache` keeps, as those see them who do not build: listed, measured, removed.
//!
//! A folder is measured by looking at all its files, so a size is remembered, with the number of uses until then. It
//! holds until the folder is used again.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dhow_store::{DatabaseError, Store, Use};
use dhow_sys::beneath::Root;
use dhow_sys::node::read_dir;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::cache_mounts::{Attempt, Body, FOLDER, KIND, SIZES, try_lock};
use crate::error::{StoreFailure, while_doing};

const READING: &str = "cannot read what is recorded of cache mounts";
const MEASURING: &str = "cannot measure a cache mount";
const REMOVING: &str = "cannot remove a cache mount";
/// `st_blocks` counts these, whatever the file system's own blocks are.
const BLOCK_BYTES: u64 = 512;

/// A folder that `RUN --mount=type=cache` keeps.
pub(crate) struct CacheFolder {
    /// Its name in the store.
    pub name: String,
    /// The step that used it last, and where it saw it.
    pub description: String,
    pub used: Use,
    /// Whether a step uses it now.
    pub is_in_use: bool,
    /// What it takes on the disk.
    pub size_bytes: u64,
}

/// What was measured.
#[derive(Serialize, Deserialize)]
struct Size {
    /// How often the folder had been used by then.
    uses: u64,
    bytes: u64,
}

/// All of them, by name.
pub(crate) fn cache_folders(store: &Store) -> Result<Vec<CacheFolder>, StoreFailure> {
    let records = store.records(KIND).list().map_err(while_doing(READING))?;
    let uses = store.records(KIND).uses().map_err(while_doing(READING))?;
    let mut folders = Vec::with_capacity(records.len());
    for record in records {
        // Written by a newer dhow perhaps; it takes room all the same.
        let body = serde_json::from_str::<Body>(&record.body).ok();
        let used = uses.get(&record.key).copied().unwrap_or_default();
        let dir = store.root().join(FOLDER).join(&record.key);
        let is_in_use = matches!(try_lock(&dir, true).map_err(while_doing(READING))?, Attempt::Taken);
        folders.push(CacheFolder {
            size_bytes: size(store, &record.key, &dir, used.count, is_in_use)?,
            description: body.map(|body| body.description).unwrap_or_default(),
            name: record.key,
            used,
            is_in_use,
        });
    }
    Ok(folders)
}

/// Removes one, unless a step uses it; returns whether it is gone.
pub(crate) fn remove_cache_folder(store: &Store, name: &str) -> Result<bool, StoreFailure> {
    let dir = store.root().join(FOLDER).join(name);
    let lock = match try_lock(&dir, true).map_err(while_doing(REMOVING))? {
        Attempt::Taken => return Ok(false),
        Attempt::Gone => None,
        Attempt::Ours(lock) => Some(lock),
    };
    if lock.is_some() {
        // The lock goes last: until then nobody can take it and make the cache anew.
        let root = Root::open(&dir).map_err(while_doing(REMOVING))?;
        for part in ["fs", "new", "old", "lock"] {
            root.remove_tree(Path::new(part)).map_err(while_doing(REMOVING))?;
        }
        match fs::remove_dir(&dir) {
            // Somebody began anew as soon as the lock was gone, and records it.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(true),
            result => result.map_err(while_doing(REMOVING))?,
        }
    }
    let forget = |kind| -> Result<(), DatabaseError> { store.records(kind).remove_soon([name]) };
    forget(SIZES).and_then(|()| forget(KIND)).map_err(while_doing(REMOVING))?;
    Ok(true)
}

/// The size of a folder that was used so often, measured only if it is not known.
fn size(store: &Store, name: &str, dir: &Path, uses: u64, is_in_use: bool) -> Result<u64, StoreFailure> {
    let known = store.records(SIZES).get(name).map_err(while_doing(READING))?;
    let known = known.and_then(|record| serde_json::from_str::<Size>(&record.body).ok());
    if let Some(known) = known.filter(|known| known.uses == uses && !is_in_use) {
        return Ok(known.bytes);
    }
    let bytes = measure(dir).map_err(while_doing(MEASURING))?;
    // Whoever takes it meanwhile counts a use, and so what is remembered here does not hold.
    if !is_in_use {
        let body = serde_json::to_string(&Size { uses, bytes }).expect("numbers are JSON");
        store.records(SIZES).put_soon(name, &body, &[]).map_err(while_doing(READING))?;
    }
    Ok(bytes)
}

/// What the files of a folder take on the disk. What goes away meanwhile takes nothing.
fn measure(dir: &Path) -> io::Result<u64> {
    let root = match Root::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut bytes = 0;
    // Of files with several names only.
    let mut seen = HashSet::new();
    let mut found = vec![PathBuf::from("fs")];
    while let Some(path) = found.pop() {
        let Some(stat) = root.try_stat(&path)? else { continue };
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        if is_dir || stat.st_nlink < 2 || seen.insert(stat.st_ino) {
            bytes += stat.st_blocks.cast_unsigned() * BLOCK_BYTES;
        }
        if !is_dir {
            continue;
        }
        match root.open_dir(&path) {
            Err(error) if is_gone(&error) => {}
            opened => found.extend(read_dir(&opened?)?.iter().map(|entry| path.join(&entry.name))),
        }
    }
    Ok(bytes)
}

/// A folder may have been removed since it was listed, or have become something else.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
