//! What a shim leaves on disk for others to read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::RunDir;

/// The most that is read of a record.
const RECORD_BYTES_MAX: u64 = 1 << 20;
/// Room for a record to come. One block on most disks.
const RESERVED_BYTES: u64 = 4096;
/// How often the lock is tried: others hold it for the instant in which they test it.
const LOCK_TRIES: u32 = 50;
const LOCK_RETRY_DELAY_MS: u64 = 2;

/// The container's init, in `init.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InitRecord {
    /// Seen from the host.
    pub pid: i32,
    /// In clock ticks since boot: with the pid a name that no other process has had.
    pub start_time: u64,
    /// When it was started, RFC 3339 with nanoseconds.
    pub started_at: String,
    /// The cgroup, as in the configuration.
    pub cgroup: Option<String>,
}

/// Takes the lock in the folder, which whoever starts the shim has made, for as long as the file is open. `None`: another shim holds it.
pub(super) fn lock(run_dir: &RunDir) -> io::Result<Option<File>> {
    let file = File::options().write(true).create(true).truncate(false).open(run_dir.lock())?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(LOCK_RETRY_DELAY_MS)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Whether a shim lives.
pub(crate) fn lock_is_held(run_dir: &RunDir) -> io::Result<bool> {
    let Some(file) = open_lock(run_dir)? else { return Ok(false) };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Waits until no shim lives.
pub(crate) fn wait_for_lock(run_dir: &RunDir) -> io::Result<()> {
    let Some(file) = open_lock(run_dir)? else { return Ok(()) };
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockShared) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

fn open_lock(run_dir: &RunDir) -> io::Result<Option<File>> {
    match File::open(run_dir.lock()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Takes room on the disk for a record that has to be written later, however full the disk is then.
pub(super) fn reserve(path: &Path) -> io::Result<()> {
    let file = File::create(temporary(path))?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED_BYTES) {
        // Then it has to be hoped for.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}

/// Puts a record in place in one step, in the room that was reserved for it if any was. [`sync`] makes it
/// outlast a power failure.
pub(crate) fn write_json(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let (temporary, json) = (temporary(path), serde_json::to_vec(record)?);
    let mut file = File::options().write(true).create(true).truncate(false).open(&temporary)?;
    file.write_all(&json)?;
    file.set_len(json.len() as u64)?;
    fs::rename(&temporary, path)
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// Makes a record outlast a power failure.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Reads a record. `None`: there is none.
pub(crate) fn read_json<R: DeserializeOwned>(path: &Path) -> io::Result<Option<R>> {
    let mut json = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?.take(RECORD_BYTES_MAX).read_to_end(&mut json)?,
    };
    Ok(Some(serde_json::from_slice(&json)?))
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_fits_into_the_room_reserved_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exit.json");
        reserve(&path).unwrap();
        assert_eq!(read_json::<String>(&path).unwrap(), None, "only room so far");
        for record in ["long and longer", "short"] {
            write_json(&path, &record).unwrap();
            assert_eq!(read_json::<String>(&path).unwrap().as_deref(), Some(record));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the room became the record");
    }
}
