//! Eight processes on one store, which are killed again and again.
//!
//! Each pulls, removes, reads and collects garbage at random and asserts what it was promised. The test runs
//! itself as the worker: with `DHOW_STORE_WORKER` set, `many_processes_and_kills_leave_a_whole_store` is one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use dhow_oci::{Descriptor, Digest};
use dhow_store::{
    Begun, Expected, GcOptions, ImageName, ImageRecord, Lease, Named, PutRecordError, Ref, RemoveImageError,
    SnapshotSet, Store,
};

const PROCESSES: usize = 8;
const DURATION: Duration = Duration::from_secs(4);
const BETWEEN_KILLS: Duration = Duration::from_millis(25);
const BLOBS: u64 = 12;
const IMAGES: u64 = 6;

#[test]
fn many_processes_and_kills_leave_a_whole_store() {
    if let Ok(worker) = std::env::var("DHOW_STORE_WORKER") {
        let (seed, root) = worker.split_once(' ').expect("a seed and a root");
        work(Path::new(root), seed.parse().expect("a number"));
    }
    // In memory where possible: a process that is killed loses nothing it has written, and more happens there.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let root = dir.path().join("store");
    let mut random = Random(u64::from(std::process::id()) << 20 | 1);
    println!("seed {}", random.0);

    let mut kills = 0;
    let mut workers: Vec<Worker> = (0..PROCESSES).map(|_| spawn(&root, random.next())).collect();
    let start = Instant::now();
    while start.elapsed() < DURATION {
        sleep(BETWEEN_KILLS);
        let victim = &mut workers[random.below(PROCESSES as u64) as usize];
        kill(victim);
        kills += 1;
        *victim = spawn(&root, random.next());
    }
    workers.iter_mut().for_each(kill);

    let store = Store::open(&root).expect("a store");
    let snapshots = Folders { dir: root.join("snapshots") };
    let report = store.fsck(Some(&snapshots)).expect("a check");
    println!("{kills} kills, {} blobs, {} refs", report.blobs, report.refs);
    assert_eq!(report.problems, []);
    assert!(report.refs > 0 || report.blobs > 0, "the workers did nothing");
    collect(&store, &root);
    assert_eq!(store.fsck(Some(&snapshots)).expect("a check").problems, []);
    assert_eq!(fs::read_dir(root.join("leases")).expect("a folder").count(), 0, "dead leases are swept");
    empty(&store, &root);
}

/// When all images and records are gone, nothing is left behind by all that dying.
fn empty(store: &Store, root: &Path) {
    let records = store.records("container");
    for record in records.list().expect("a list") {
        records.remove(&record.key).expect("removed");
    }
    for image in store.images().list().expect("a list") {
        store.images().remove(&image.record.id, Named::Untag).expect("removed");
    }
    collect(store, root);
    assert_eq!(store.content().list().expect("a list"), []);
    assert_eq!(Folders { dir: root.join("snapshots") }.list().expect("a list"), [] as [&str; 0]);
}

/// A process that does not outlive the test, not even a failed one.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        // An error means that it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(root: &Path, seed: u64) -> Worker {
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "many_processes_and_kills_leave_a_whole_store", "--nocapture"])
        .env("DHOW_STORE_WORKER", format!("{seed} {}", root.display()))
        .stdout(Stdio::null())
        .spawn()
        .expect("a worker");
    Worker(child)
}

fn kill(worker: &mut Worker) {
    worker.0.kill().expect("a signal");
    let status: ExitStatus = worker.0.wait().expect("an exit status");
    assert_eq!(status.signal(), Some(9), "a worker failed by itself: {status}");
}

/// Works until it is killed.
fn work(root: &Path, seed: u64) -> ! {
    let store = Store::open(root).expect("a store");
    let mut random = Random(seed | 1);
    loop {
        match random.below(16) {
            0..=5 => pull(&store, root, &mut random),
            6..=7 => remove(&store, &mut random),
            8..=9 => run(&store, &mut random),
            10..=12 => read(&store, &mut random),
            13..=14 => collect(&store, root),
            _ => drop(store.lease("idle").expect("a lease")),
        }
    }
}

fn pull(store: &Store, root: &Path, random: &mut Random) {
    let lease = store.lease("pull").expect("a lease");
    let number = random.below(IMAGES);
    let config = store.content().put(&lease, format!("config {number}").as_bytes()).expect("a config").digest;
    let layers = [number, number + 1, number + 2].map(|layer| fetch(store, &lease, layer % BLOBS));
    let snapshots = layers.map(|layer| unpack(&lease, root, &layer, random));
    let record = ImageRecord {
        id: config,
        target: Some(Descriptor::new("manifest", layers[0], 1)),
        created: 0,
        size_bytes: 0,
        diff_ids: Vec::new(),
        snapshots: snapshots.to_vec(),
        blobs: BTreeSet::from(layers),
        labels: BTreeMap::new(),
    };
    let name = ImageName { reference: format!("r/{}:1", random.below(3)), manifest: None, tagged_at: 0 };
    store.images().put(&record, &[name], &[]).expect("what the lease protects is there");
}

/// 1 to 200 kB that only depend on the number.
fn content(number: u64) -> Vec<u8> {
    let mut random = Random(number * 2 + 1);
    let bytes = 1000 + random.below(200_000);
    (0..bytes / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

fn fetch(store: &Store, lease: &Lease, number: u64) -> Digest {
    let bytes = content(number);
    let expected = Expected { digest: Digest::sha256_of(&bytes), size_bytes: bytes.len() as u64 };
    let wait = Duration::from_secs(30);
    let mut ingest = match store.content().ingest_expected(lease, expected, wait).expect("its turn") {
        Begun::Present(blob) => return blob.digest,
        Begun::Ingest(ingest) => ingest,
    };
    let rest = &bytes[usize::try_from(ingest.offset()).expect("a small blob")..];
    for piece in rest.chunks(16 << 10) {
        ingest.write_all(piece).expect("a write");
    }
    ingest.commit().expect("no power was cut, so what a dead writer left is right").digest
}

/// Unpacks the way a snapshotter does: lease, look, write out of sight, rename.
fn unpack(lease: &Lease, root: &Path, layer: &Digest, random: &mut Random) -> String {
    let name = layer.short();
    lease.add(Ref::Snapshot(name.clone())).expect("leased");
    let folder = root.join("snapshots").join(&name);
    if !folder.exists() {
        let scratch = root.join("scratch").join(random.next().to_string());
        fs::create_dir_all(&scratch).expect("a folder");
        fs::create_dir_all(root.join("snapshots")).expect("a folder");
        // Another process may have been quicker.
        let _ = fs::rename(&scratch, &folder);
    }
    assert!(folder.exists(), "snapshot {name} is leased and was there");
    name
}

fn remove(store: &Store, random: &mut Random) {
    let id = Digest::sha256_of(format!("config {}", random.below(IMAGES)).as_bytes());
    match store.images().remove(&id, Named::Untag) {
        Ok(_) | Err(RemoveImageError::NotFound { .. } | RemoveImageError::InUse { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
}

fn run(store: &Store, random: &mut Random) {
    let containers = store.records("container");
    let key = random.below(8).to_string();
    let id = Digest::sha256_of(format!("config {}", random.below(IMAGES)).as_bytes());
    if random.below(2) == 0 {
        containers.remove(&key).expect("removed");
        return;
    }
    match containers.put(&key, Some(&format!("name{key}")), "{}", &[Ref::Image(id)]) {
        Ok(()) | Err(PutRecordError::Missing { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
}

fn read(store: &Store, random: &mut Random) {
    let lease = store.lease("read").expect("a lease");
    let bytes = content(random.below(BLOBS));
    let digest = Digest::sha256_of(&bytes);
    if store.content().acquire(&lease, &digest).expect("a look").is_some() {
        let found =
            store.content().read_bounded(&digest, bytes.len() as u64).expect("acquired is there to stay");
        assert!(found == bytes, "a blob is what it is named");
    }
}

fn collect(store: &Store, root: &Path) {
    let snapshots = Folders { dir: root.join("snapshots") };
    let options = GcOptions { now: SystemTime::now(), partial_age_max: Duration::from_secs(3600) };
    store.gc(&snapshots, &options).expect("a gc");
}

/// The least that can be called snapshots: folders in a folder.
struct Folders {
    dir: PathBuf,
}

impl SnapshotSet for Folders {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::create_dir_all(&self.dir)?;
        fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn condemn(&self, name: &str) -> io::Result<()> {
        fs::remove_dir(self.dir.join(name))
    }

    fn sweep(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Random(u64);

impl Random {
    /// xorshift64
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
