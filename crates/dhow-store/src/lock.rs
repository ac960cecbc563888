//! Files that are locked while their owner lives.
//!
//! The lock is `flock`: it belongs to the open file, the kernel drops it when the last process that has it
//! open is gone, and descriptors are close-on-exec, so no child carries it on.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How often a file may be replaced under us before we call it taken.
const RACES_MAX: usize = 100;

/// A file we hold the lock of, under the name we opened it by.
#[derive(Debug)]
pub(crate) struct LockedFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

/// What became of an attempt to lock an existing file.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The owner is dead, the file is ours now.
    Ours(LockedFile),
    /// The owner lives.
    Taken,
    /// There is no such file.
    Gone,
}

impl LockedFile {
    /// Locks the file at `path`, which is made if need be; `None` if somebody else has it.
    pub(crate) fn create(path: &Path) -> io::Result<Option<LockedFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        match lock(path, &options)? {
            Claim::Ours(locked) => Ok(Some(locked)),
            Claim::Taken | Claim::Gone => Ok(None),
        }
    }

    /// Locks the file at `path` if it exists and its owner is dead.
    pub(crate) fn claim(path: &Path) -> io::Result<Claim> {
        lock(path, OpenOptions::new().read(true).write(true))
    }

    /// The last part of the file's name.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Removes the file while its lock is held, so that nobody is left waiting with a nameless one.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Makes and locks a file in `dir` under a name nobody else picks: `prefix` and 128 random bits.
pub(crate) fn create_unique(dir: &Path, prefix: &str) -> io::Result<LockedFile> {
    for _ in 0..RACES_MAX {
        // Only gc, which tries the lock of every file, can be quicker than we are.
        if let Some(locked) = LockedFile::create(&dir.join(format!("{prefix}{:032x}", random()?)))? {
            return Ok(locked);
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn random() -> io::Result<u128> {
    let mut bytes = [0u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    assert_eq!(filled, bytes.len(), "getrandom gives up to 256 bytes in one piece");
    Ok(u128::from_ne_bytes(bytes))
}

fn lock(path: &Path, options: &OpenOptions) -> io::Result<Claim> {
    for _ in 0..RACES_MAX {
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Claim::Gone),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Claim::Taken),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Between open and lock the last owner may have renamed or removed it: what we locked must still be
        // what the name means.
        if names(path, &file)? {
            return Ok(Claim::Ours(LockedFile { file, path: path.to_owned() }));
        }
    }
    Ok(Claim::Taken)
}

fn names(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
