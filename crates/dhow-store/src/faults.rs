//! Bad days: the disk fails at its n-th operation, or the power goes there, for every n.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use dhow_oci::Digest;

use crate::disk::{Disk, RealDisk};
use crate::{
    Begun, CommitError, Expected, GcOptions, ImageRecord, Lease, NoSnapshots, Sealed, Store, SyncBefore,
};

/// A real folder on a disk that forgets: it knows which bytes and names have been synced.
///
/// The database is not on it: SQLite has its own tests of this kind, and commits with `FULL`.
#[derive(Debug, Default)]
struct ForgetfulDisk(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    operations: usize,
    fail_at: Option<usize>,
    fired: bool,
    /// How many bytes of each file written to are safe.
    synced_bytes: BTreeMap<PathBuf, u64>,
    /// Renames whose folder has not been synced.
    renames: Vec<(PathBuf, PathBuf)>,
}

impl ForgetfulDisk {
    fn failing_at(operation: usize) -> Arc<ForgetfulDisk> {
        let state = State { fail_at: Some(operation), ..State::default() };
        Arc::new(ForgetfulDisk(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    /// Counts an operation. From the chosen one on all fail, as on a disk that is gone.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let operation = state.operations;
        state.operations += 1;
        if state.fail_at.is_some_and(|fail_at| operation >= fail_at) {
            state.fired = true;
            return Err(io::Error::other(format!("operation {operation} fails")));
        }
        Ok(state)
    }

    /// Cuts the power: names that were not synced are as before, bytes that were not synced are gone.
    fn cut_power(&self) {
        let renames = std::mem::take(&mut self.state().renames);
        for (from, to) in renames.into_iter().rev() {
            let _ = fs::rename(&to, &from);
            let synced = self.state().synced_bytes.remove(&to);
            self.state().synced_bytes.extend(synced.map(|bytes| (from, bytes)));
        }
        self.each_unsynced(|file, synced, _| file.set_len(synced));
    }

    /// Cuts the power on a file system that saves names and sizes first: unsynced bytes read as zeros.
    fn cut_power_keeping_names(&self) {
        self.each_unsynced(|file, synced, size| file.set_len(synced).and_then(|()| file.set_len(size)));
    }

    fn each_unsynced(&self, lose: impl Fn(&File, u64, u64) -> io::Result<()>) {
        for (path, synced) in &self.state().synced_bytes {
            let Ok(file) = OpenOptions::new().write(true).open(path) else { continue };
            let size = file.metadata().expect("a size").len();
            if size > *synced {
                lose(&file, *synced, size).expect("a loss");
            }
        }
    }
}

impl Disk for ForgetfulDisk {
    fn write(&self, file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.step()?;
        state.synced_bytes.entry(path.to_owned()).or_insert(0);
        // Short writes are allowed, so they happen.
        RealDisk.write(file, path, &bytes[..bytes.len().div_ceil(2)])
    }

    fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        let bytes = file.metadata()?.len();
        self.step()?.synced_bytes.insert(path.to_owned(), bytes);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        RealDisk.rename(from, to)?;
        let synced = state.synced_bytes.remove(from).unwrap_or(0);
        state.synced_bytes.insert(to.to_owned(), synced);
        state.renames.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?.renames.retain(|(_, to)| to.parent() != Some(path));
        Ok(())
    }
}

/// Pulls two images of shared layers, and says which it was told are safe.
fn scenario(store: &Store) -> Vec<Digest> {
    let mut promised = Vec::new();
    for number in 0..2u8 {
        let Ok(lease) = store.lease("pull") else { break };
        if let Some(id) = pull(store, &lease, number) {
            promised.push(id);
        }
    }
    promised
}

fn pull(store: &Store, lease: &Lease, number: u8) -> Option<Digest> {
    let content = store.content();
    let mut sealed = Vec::new();
    let mut blobs = Vec::new();
    for layer in [number, number + 1] {
        // No zeros: those are what a lost byte reads as.
        let bytes = [layer + 1; 3000];
        blobs.push(Digest::sha256_of(&bytes));
        sealed.extend(fetch(store, lease, &bytes)?);
    }
    content.publish(sealed, SyncBefore::Files).ok()?;
    let id = content.put(lease, &[b'c', number]).ok()?.digest;
    let record = ImageRecord {
        id,
        target: None,
        created: 0,
        size_bytes: 0,
        diff_ids: Vec::new(),
        snapshots: Vec::new(),
        blobs: blobs.into_iter().collect(),
        labels: Default::default(),
    };
    store.images().put(&record, &[], &[]).ok().map(|_| id)
}

/// Writes a layer unless it is there. `None` if the disk fails.
fn fetch(store: &Store, lease: &Lease, bytes: &[u8]) -> Option<Option<Sealed>> {
    let expected = Expected { digest: Digest::sha256_of(bytes), size_bytes: bytes.len() as u64 };
    let mut ingest = match store.content().ingest_expected(lease, expected, Duration::ZERO).ok()? {
        Begun::Present(_) => return Some(None),
        Begun::Ingest(ingest) => ingest,
    };
    let rest = usize::try_from(ingest.offset()).expect("small");
    if ingest.write_all(&bytes[rest..]).is_err() {
        ingest.keep_partial();
        return None;
    }
    match ingest.seal() {
        Ok(sealed) => Some(Some(sealed)),
        // What was left behind is not what was written: once more from nothing.
        Err(CommitError::DigestMismatch { resumed_at: 1.., .. }) => fetch(store, lease, bytes),
        Err(_) => None,
    }
}

fn assert_whole(store: &Store, promised: &[Digest], operation: usize) {
    let problems = store.fsck(None).expect("a check").problems;
    assert_eq!(problems, [], "operation {operation}");
    for id in promised {
        assert!(store.images().get(id).expect("a look").is_some(), "operation {operation} lost {id}");
    }
}

/// Runs the scenario with a fault at every operation in turn and `crash` after it.
fn every_bad_day(crash: impl Fn(&ForgetfulDisk)) {
    const OPERATIONS_MAX: usize = 1000;
    for operation in 0..OPERATIONS_MAX {
        let dir = scratch();
        let disk = ForgetfulDisk::failing_at(operation);
        let store = Store::open_on(dir.path(), disk.clone()).expect("a store");
        let promised = scenario(&store);
        drop(store);
        crash(&disk);
        let store = Store::open(dir.path()).expect("a store");
        assert_whole(&store, &promised, operation);
        // The store is not only whole, it works: the same again, now to the end, and then away with the rest.
        assert_eq!(scenario(&store).len(), 2, "operation {operation}");
        let options = GcOptions { now: UNIX_EPOCH, partial_age_max: Duration::ZERO };
        store.gc(&NoSnapshots, &options).expect("a gc");
        assert_whole(&store, &promised, operation);
        assert_eq!(store.content().list().expect("a list").len(), 5, "operation {operation}");
        if !disk.state().fired {
            assert!(operation > 10, "the scenario uses the disk");
            return;
        }
    }
    panic!("no run without a fault");
}

/// In memory where possible: losing what is not synced is our disk's business here.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

#[test]
fn a_failing_disk_breaks_no_promise() {
    every_bad_day(|_| {});
}

#[test]
fn a_power_cut_breaks_no_promise() {
    every_bad_day(ForgetfulDisk::cut_power);
}

#[test]
fn a_power_cut_that_keeps_names_breaks_no_promise() {
    every_bad_day(ForgetfulDisk::cut_power_keeping_names);
}
