//! What one process can notice of a store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use dhow_oci::{Descriptor, DiffId, Digest};
use dhow_store::{
    Begun, CommitError, Expected, FileHash, FileStat, GcOptions, GcReport, ImageName, ImageRecord, Ingest,
    IngestError, Lease, Named, NoSnapshots, OpenError, Problem, PutRecordError, RACY_WINDOW_NS, Ref,
    RemoveImageError, RemoveRecordError, RepoDigest, ResolveError, SnapshotSet, Store, SyncBefore,
};
use expect_test::{Expect, expect};

struct Home {
    dir: tempfile::TempDir,
    store: Store,
}

fn home() -> Home {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("a store");
    Home { dir, store }
}

impl Home {
    fn lease(&self) -> Lease {
        self.store.lease("test").expect("a lease")
    }

    fn gc(&self) -> GcReport {
        gc(&self.store, &NoSnapshots)
    }

    fn assert_sound(&self) {
        assert_eq!(self.store.fsck(None).expect("a check").problems, []);
    }
}

fn gc(store: &Store, snapshots: &dyn SnapshotSet) -> GcReport {
    let options = GcOptions { now: SystemTime::now(), partial_age_max: Duration::from_secs(3600) };
    store.gc(snapshots, &options).expect("a gc")
}

fn expected(bytes: &[u8]) -> Expected {
    Expected { digest: Digest::sha256_of(bytes), size_bytes: bytes.len() as u64 }
}

fn begin(store: &Store, lease: &Lease, bytes: &[u8]) -> Ingest {
    match store.content().ingest_expected(lease, expected(bytes), Duration::ZERO).expect("an ingest") {
        Begun::Ingest(ingest) => *ingest,
        Begun::Present(blob) => panic!("{} is there already", blob.digest),
    }
}

fn image(id: Digest) -> ImageRecord {
    ImageRecord {
        id,
        target: None,
        created: 0,
        size_bytes: 0,
        diff_ids: Vec::new(),
        snapshots: Vec::new(),
        blobs: BTreeSet::new(),
        labels: BTreeMap::new(),
    }
}

fn named(reference: &str) -> ImageName {
    ImageName { reference: reference.to_owned(), manifest: None, tagged_at: 1 }
}

fn check_error(error: impl std::fmt::Display, expected: Expect) {
    expected.assert_eq(&error.to_string());
}

#[test]
fn of_records_that_come_and_go_the_latest_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("a store");
    let lease = store.lease("test").expect("a lease");
    let records = store.records("diary");
    for day in 1..=5 {
        let page = store.content().put(&lease, format!("page {day}").as_bytes()).expect("a blob").digest;
        records.put_latest(&format!("day-{day}"), "{}", &[Ref::Blob(page)], 3).expect("a record");
    }
    let days: Vec<String> =
        records.latest(2).expect("records").into_iter().map(|record| record.key).collect();
    assert_eq!(days, ["day-5", "day-4"]);
    assert_eq!(records.list().expect("records").len(), 3);
    assert_eq!(records.refs("day-2").expect("references"), []);
}

#[test]
fn a_committed_blob_reads_back() {
    let home = home();
    let lease = home.lease();
    let mut ingest = home.store.content().ingest(&lease).expect("an ingest");
    ingest.write_all(b"hello ").expect("a write");
    ingest.write_all(b"blob").expect("a write");
    let blob = ingest.commit().expect("a commit");
    assert_eq!((blob.digest, blob.size_bytes), (Digest::sha256_of(b"hello blob"), 10));
    let mut text = String::new();
    home.store.content().open(&blob.digest).expect("a blob").read_to_string(&mut text).expect("a read");
    assert_eq!(text, "hello blob");
    let again = home.store.content().put(&lease, b"hello blob").expect("a second commit is success");
    assert_eq!(again, blob);
}

#[test]
fn reading_is_bounded_and_verified() {
    let home = home();
    let lease = home.lease();
    let content = home.store.content();
    let digest = content.put(&lease, b"twelve bytes").expect("a blob").digest;
    assert_eq!(content.read_bounded(&digest, 12).expect("it fits"), b"twelve bytes");
    check_error(
        content.read_bounded(&digest, 11).expect_err("too large"),
        expect![
            "blob sha256:d4ce2c527afe674c7a086bd74e256019e3d5dcdb31eeb6eaadef5ada8c4383b9 has 12 bytes, at most 11 are allowed here"
        ],
    );
    damage(&content.path(&digest));
    content.read_bounded(&digest, 12).expect_err("damaged");
    let problems = home.store.fsck(None).expect("a check").problems;
    assert!(matches!(problems[..], [Problem::Damaged { .. }]), "{problems:?}");
}

fn damage(path: &Path) {
    std::fs::remove_file(path).expect("a removal");
    std::fs::write(path, b"Twelve bytes").expect("a write");
}

#[test]
fn broken_promises_are_discarded() {
    let home = home();
    let lease = home.lease();
    let mut ingest = begin(&home.store, &lease, b"right");
    ingest.write_all(b"wrong").expect("a write");
    let error = ingest.commit().expect_err("another digest");
    assert!(matches!(error, CommitError::DigestMismatch { resumed_at: 0, .. }), "{error}");

    let mut ingest = begin(&home.store, &lease, b"right");
    ingest.write_all(b"rig").expect("a write");
    check_error(ingest.commit().expect_err("cut off"), expect!["content has 3 bytes, expected 5"]);

    let mut ingest = begin(&home.store, &lease, b"right");
    ingest.write_all(b"right").expect("a write");
    ingest.write_all(b"!").expect_err("an endless sender is stopped");
    drop(ingest);
    assert_eq!(home.store.content().find(&Digest::sha256_of(b"right")).expect("a look"), None);
    assert_eq!(files_in(&home, "ingest"), 0);
}

fn files_in(home: &Home, dir: &str) -> usize {
    std::fs::read_dir(home.dir.path().join(dir)).expect("a folder").count()
}

#[test]
fn a_kept_partial_is_continued() {
    let home = home();
    let lease = home.lease();
    let mut ingest = begin(&home.store, &lease, b"half and half");
    ingest.write_all(b"half a").expect("a write");
    ingest.keep_partial();
    assert_eq!(home.gc().ingests, 0, "a young partial survives gc");

    let mut ingest = begin(&home.store, &lease, b"half and half");
    assert_eq!(ingest.offset(), 6);
    ingest.write_all(b"nd half").expect("a write");
    ingest.commit().expect("a commit");
    home.assert_sound();
}

#[test]
fn a_restarted_ingest_forgets_what_was_there() {
    let home = home();
    let lease = home.lease();
    let mut ingest = begin(&home.store, &lease, b"whole");
    ingest.write_all(b"xx").expect("a write");
    ingest.keep_partial();
    let mut ingest = begin(&home.store, &lease, b"whole");
    ingest.restart().expect("a restart");
    ingest.write_all(b"whole").expect("a write");
    ingest.commit().expect("a commit");
}

#[test]
fn one_writer_per_blob_and_the_others_wait() {
    let home = home();
    let lease = home.lease();
    let mut first = begin(&home.store, &lease, b"shared");
    let content = home.store.content();
    let busy = content.ingest_expected(&lease, expected(b"shared"), Duration::ZERO).expect_err("taken");
    assert!(matches!(busy, IngestError::Busy { .. }), "{busy}");
    std::thread::scope(|scope| {
        let second =
            scope.spawn(|| content.ingest_expected(&lease, expected(b"shared"), Duration::from_secs(20)));
        first.write_all(b"shared").expect("a write");
        first.commit().expect("a commit");
        let begun = second.join().expect("no panic").expect("its turn");
        assert!(matches!(begun, Begun::Present(_)), "{begun:?}");
    });
}

#[test]
fn blobs_sealed_apart_are_published_together() {
    let home = home();
    let lease = home.lease();
    let content = home.store.content();
    let sealed: Vec<_> = (0..20u8)
        .map(|index| {
            let mut ingest = content.ingest(&lease).expect("an ingest");
            ingest.write_all(&[index; 100]).expect("a write");
            ingest.seal().expect("a promise kept")
        })
        .collect();
    assert_eq!(content.list().expect("a list"), [], "nothing shows before its bytes are safe");
    content.publish(sealed, SyncBefore::Files).expect("published");
    assert_eq!(content.list().expect("a list").len(), 20);
    home.assert_sound();
}

#[test]
fn a_lease_protects_while_it_lasts() {
    let home = home();
    let lease = home.lease();
    let digest = home.store.content().put(&lease, b"leased").expect("a blob").digest;
    assert_eq!(home.gc(), GcReport::default());
    drop(lease);
    let report = home.gc();
    assert_eq!(report.blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>(), [digest]);
    assert_eq!(files_in(&home, "ingest") + files_in(&home, "leases"), 0);
}

#[test]
fn an_image_keeps_its_blobs_until_it_is_removed() {
    let home = home();
    let (images, content) = (home.store.images(), home.store.content());
    let lease = home.lease();
    let [config, manifest, layer] =
        [b"config", b"manife", b"layer1"].map(|bytes| content.put(&lease, bytes).expect("a blob").digest);
    let mut record = image(config);
    record.target = Some(Descriptor::new("m", manifest, 6));
    record.blobs.insert(layer);
    record.diff_ids.push(DiffId::new(layer));
    record.labels.insert("a".to_owned(), "b".to_owned());
    images.put(&record, &[named("r/a:1")], &[]).expect("recorded");
    drop(lease);
    assert_eq!(home.gc().blobs, []);
    home.assert_sound();
    let found = images.by_name("r/a:1").expect("a look").expect("found");
    assert_eq!(found.record, record);

    let error = images.remove(&config, Named::Refuse).expect_err("it has a name");
    assert!(matches!(error, RemoveImageError::Named { .. }), "{error}");
    images.remove(&config, Named::Untag).expect("removed");
    assert_eq!(home.gc().blobs.len(), 3);
}

#[test]
fn an_image_without_its_blobs_is_refused() {
    let home = home();
    let error = home.store.images().put(&image(Digest::sha256_of(b"x")), &[], &[]).expect_err("no config");
    check_error(
        error,
        expect![
            "blob sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 of image sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 is not in the store"
        ],
    );
}

#[test]
fn records_of_one_image_are_joined() {
    let home = home();
    let (images, content) = (home.store.images(), home.store.content());
    let lease = home.lease();
    let [config, manifest, layer] =
        [b"config", b"manife", b"layer1"].map(|bytes| content.put(&lease, bytes).expect("a blob").digest);
    let mut pulled = image(config);
    pulled.target = Some(Descriptor::new("m", manifest, 6));
    pulled.blobs.insert(layer);
    images.put(&pulled, &[], &[]).expect("recorded");
    images.put(&image(config), &[], &[]).expect("built again, without knowing the manifest");
    drop(lease);
    assert_eq!(home.gc().blobs, [], "what the pull brought is kept");
}

#[test]
fn a_name_moves_and_says_from_where() {
    let home = home();
    let images = home.store.images();
    let lease = home.lease();
    let [old, new] =
        [b"old", b"new"].map(|bytes| home.store.content().put(&lease, bytes).expect("a blob").digest);
    assert_eq!(images.put(&image(old), &[named("r/a:1")], &[]).expect("recorded"), []);
    let moved = images.put(&image(new), &[named("r/a:1")], &[]).expect("recorded");
    assert_eq!(moved[0].from, old);
    assert_eq!(images.get(&old).expect("a look").expect("it stays").names, []);
    assert_eq!(images.untag("r/a:1").expect("untagged"), Some(new));
    assert_eq!(images.untag("r/a:1").expect("nothing"), None);
}

#[test]
fn an_id_is_found_by_a_unique_beginning() {
    let home = home();
    let images = home.store.images();
    let lease = home.lease();
    let mut ids = Vec::new();
    for index in 0..40u8 {
        let id = home.store.content().put(&lease, &[index]).expect("a blob").digest;
        images.put(&image(id), &[], &[]).expect("recorded");
        ids.push(id);
    }
    for id in ids {
        assert_eq!(images.resolve_id(&id.short()).expect("unique"), id);
        assert_eq!(images.resolve_id(&id.to_string()).expect("unique"), id);
    }
    for (text, ambiguous) in [("", false), ("%", false), ("0123456789abcdef", false), ("6", true)] {
        let error = images.resolve_id(text).expect_err(text);
        assert_eq!(matches!(error, ResolveError::Ambiguous { .. }), ambiguous, "{text}: {error}");
    }
}

#[test]
fn a_record_holds_what_it_refers_to() {
    let home = home();
    let lease = home.lease();
    let (images, containers, volumes) =
        (home.store.images(), home.store.records("container"), home.store.records("volume"));
    let id = home.store.content().put(&lease, b"config").expect("a blob").digest;
    let volume = Ref::Record { kind: "volume".to_owned(), key: "data".to_owned() };
    let refs = [Ref::Image(id), volume, Ref::Snapshot("s".to_owned())];
    let error = containers.put("c1", Some("web"), "{}", &refs).expect_err("nothing is there");
    assert!(matches!(error, PutRecordError::Missing { .. }), "{error}");

    images.put(&image(id), &[], &[]).expect("recorded");
    volumes.put("data", Some("data"), "{}", &[]).expect("recorded");
    containers.put("c1", Some("web"), "{}", &refs).expect("recorded");
    let error = images.remove(&id, Named::Untag).expect_err("in use");
    assert!(matches!(error, RemoveImageError::InUse { .. }), "{error}");
    let error = volumes.remove("data").expect_err("in use");
    check_error(&error, expect!["volume data is in use by container web"]);
    assert!(matches!(error, RemoveRecordError::InUse { .. }));
    let snapshots = Shelf::with(&["s", "t"]);
    drop(lease);
    assert_eq!(gc(&home.store, &snapshots).snapshots, ["t"]);
    containers.remove("c1").expect("removed").expect("it was there");
    volumes.remove("data").expect("removed");
    assert_eq!(gc(&home.store, &snapshots).snapshots, ["s"]);
}

struct Shelf(Mutex<BTreeSet<String>>);

impl Shelf {
    fn with(names: &[&str]) -> Shelf {
        Shelf(Mutex::new(names.iter().map(|&name| name.to_owned()).collect()))
    }
}

impl SnapshotSet for Shelf {
    fn list(&self) -> std::io::Result<Vec<String>> {
        Ok(self.0.lock().expect("no panic").iter().cloned().collect())
    }

    fn condemn(&self, name: &str) -> std::io::Result<()> {
        self.0.lock().expect("no panic").remove(name);
        Ok(())
    }

    fn sweep(&self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_leased_image_survives_its_removal() {
    let home = home();
    let maker = home.lease();
    let config = home.store.content().put(&maker, b"config").expect("a blob").digest;
    let mut record = image(config);
    record.snapshots.push("s".to_owned());
    home.store.images().put(&record, &[], &[]).expect("recorded");
    drop(maker);
    let user = home.lease();
    user.add(Ref::Image(config)).expect("leased");
    home.store.images().remove(&config, Named::Untag).expect("a lease does not stop a removal");
    let snapshots = Shelf::with(&["s"]);
    assert_eq!(gc(&home.store, &snapshots), GcReport::default());
    drop(user);
    let report = gc(&home.store, &snapshots);
    assert_eq!((report.blobs.len(), report.snapshots.len()), (1, 1));
}

#[test]
fn a_taken_name_names_its_holder() {
    let home = home();
    let containers = home.store.records("container");
    containers.put("aa11", Some("web"), "1", &[]).expect("recorded");
    containers.put("ab22", None, "2", &[]).expect("recorded");
    let error = containers.put("cc33", Some("web"), "3", &[]).expect_err("taken");
    check_error(&error, expect!["the container name web is already in use by aa11"]);
    check_error(
        containers.rename("ab22", Some("web")).expect_err("taken"),
        expect!["the container name web is already in use by aa11"],
    );
    home.store.records("volume").put("x", Some("web"), "", &[]).expect("another kind has its own names");
    containers.rename("aa11", Some("old")).expect("renamed");
    containers.put("cc33", Some("web"), "3", &[]).expect("free now");
    let keys = |text| containers.resolve(text).map(|record| record.key).map_err(|error| error.to_string());
    assert_eq!(keys("aa"), Ok("aa11".to_owned()));
    assert_eq!(keys("old"), Ok("aa11".to_owned()));
    assert_eq!(keys("a"), Err("more than one container has an ID that starts with a".to_owned()));
    assert_eq!(keys("b"), Err("no such container: b".to_owned()));
    assert_eq!(containers.list().expect("a list").len(), 3);
}

#[test]
fn an_update_that_declines_changes_nothing() {
    let home = home();
    let containers = home.store.records("container");
    containers.put("a", None, "created", &[]).expect("recorded");
    let updated = containers.update("a", |record| Ok::<_, std::fmt::Error>(format!("{}!", record.body)));
    assert_eq!(updated.expect("updated").body, "created!");
    containers.update("a", |_| Err(std::fmt::Error)).expect_err("declined");
    assert_eq!(containers.get("a").expect("a look").expect("it is there").body, "created!");
}

#[test]
fn threads_update_one_record_without_losing_a_change() {
    let home = home();
    let counters = home.store.records("counter");
    counters.put("n", None, "0", &[]).expect("recorded");
    let add = |count: &str| count.parse::<u32>().map(|count| (count + 1).to_string());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    counters.update("n", |record| add(&record.body)).expect("updated");
                }
            });
        }
    });
    assert_eq!(counters.get("n").expect("a look").expect("it is there").body, "100");
}

#[test]
fn a_repository_digest_may_stand_for_several_images() {
    let home = home();
    let images = home.store.images();
    let lease = home.lease();
    let shared = RepoDigest { repository: "r/a".to_owned(), digest: Digest::sha256_of(b"index") };
    for bytes in [b"arm64", b"amd64"] {
        let id = home.store.content().put(&lease, bytes).expect("a blob").digest;
        images.put(&image(id), &[], std::slice::from_ref(&shared)).expect("recorded");
    }
    let both = images.by_repo_digest(&shared).expect("a look");
    assert_eq!(both.len(), 2);
    images.remove_repo_digest(&both[0], &shared).expect("forgotten");
    assert_eq!(images.by_repo_digest(&shared).expect("a look"), [both[1]]);
    assert_eq!(images.list().expect("a list").len(), 2);
}

#[test]
fn a_file_hash_holds_while_the_file_is_as_it_was() {
    let home = home();
    let hashes = home.store.file_hashes();
    let now = 1_000_000_000_000;
    let stat = FileStat { dev: u64::MAX, ino: 7, size: 3, mtime_ns: -1, ctime_ns: now - RACY_WINDOW_NS };
    let young = FileStat { ino: 8, ctime_ns: now - RACY_WINDOW_NS + 1, ..stat };
    let files = [stat, young].map(|stat| FileHash { stat, sha256: [9; 32] });
    hashes.put(&files, now).expect("remembered");
    let touched = FileStat { mtime_ns: 5, ..stat };
    let found = hashes.find(&[touched, stat, young]).expect("a look");
    assert_eq!(found, [None, Some([9; 32]), None]);
}

#[test]
fn a_newer_store_is_refused_by_name() {
    let home = home();
    let root = home.dir.path().to_owned();
    drop(home.store);
    rusqlite::Connection::open(root.join("db.sqlite"))
        .and_then(|connection| connection.execute_batch("PRAGMA user_version = 99"))
        .expect("a change");
    match Store::open(&root) {
        Err(OpenError::TooNew { found: 99, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let database = dir.path().join("db.sqlite");
    let text = "not a database, but somebody's only copy of a poem".repeat(100);
    std::fs::write(&database, &text).expect("a write");
    assert!(matches!(Store::open(dir.path()), Err(OpenError::Database { .. })));
    assert_eq!(std::fs::read_to_string(&database).expect("a read"), text);
}

#[test]
fn threads_may_make_one_store_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    std::thread::scope(|scope| {
        for index in 0..8 {
            let root = dir.path().join("new");
            scope.spawn(move || {
                let store = Store::open(&root).expect("a store");
                store.records("t").put(&index.to_string(), None, "", &[]).expect("recorded");
            });
        }
    });
    let store = Store::open(&dir.path().join("new")).expect("a store");
    assert_eq!(store.records("t").list().expect("a list").len(), 8);
}

#[test]
fn what_is_known_about_layers_is_found_from_both_sides() {
    use dhow_store::{LayerBlob, LayerRecord};
    let home = home();
    let layers = home.store.layers();
    let (diff_id, digest) = (DiffId::new(Digest::sha256_of(b"tar")), Digest::sha256_of(b"gz"));
    let layer = LayerRecord { snapshot: "s".to_owned(), diff_id, size_bytes: 5 };
    let blob = LayerBlob { digest, diff_id, media_type: "tar+gzip".to_owned(), size_bytes: 3 };
    layers.put(std::slice::from_ref(&layer)).expect("remembered");
    layers.put_blobs(std::slice::from_ref(&blob)).expect("remembered");
    layers.put_sources(&[digest], "docker.io", "library/b").expect("remembered");
    layers.put_sources(&[digest], "docker.io", "library/a").expect("remembered");
    assert_eq!(layers.by_diff_id(&diff_id).expect("a look"), std::slice::from_ref(&layer));
    assert_eq!(layers.by_snapshot("s").expect("a look"), Some(layer));
    assert_eq!(layers.blobs_of(&diff_id).expect("a look"), std::slice::from_ref(&blob));
    assert_eq!(layers.blob(&digest).expect("a look"), Some(blob));
    assert_eq!(layers.sources(&digest, "docker.io").expect("a look"), ["library/a", "library/b"]);
    assert_eq!(layers.sources(&digest, "quay.io").expect("a look"), [] as [&str; 0]);

    let (snapshots, lease) = (Shelf::with(&["s"]), home.lease());
    lease.add(Ref::Snapshot("s".to_owned())).expect("leased");
    gc(&home.store, &snapshots);
    assert_eq!(layers.sources(&digest, "docker.io").expect("a look").len(), 2, "the layer is here unpacked");
    drop(lease);
    gc(&home.store, &snapshots);
    assert_eq!(layers.by_snapshot("s").expect("a look"), None);
    assert_eq!(layers.blob(&digest).expect("a look"), None);
    assert_eq!(layers.sources(&digest, "docker.io").expect("a look"), [] as [&str; 0]);
}

#[test]
fn an_abandoned_partial_goes_when_it_is_old() {
    let home = home();
    let lease = home.lease();
    let mut ingest = begin(&home.store, &lease, b"half and half");
    ingest.write_all(b"half").expect("a write");
    let options = GcOptions { now: SystemTime::now(), partial_age_max: Duration::ZERO };
    let collect = || home.store.gc(&NoSnapshots, &options).expect("a gc");
    assert_eq!(collect().ingests, 0, "its writer lives");
    ingest.keep_partial();
    let report = collect();
    assert_eq!((report.ingests, report.ingest_bytes), (1, 4));
}

fn event(id: &str, time_ns: i64) -> dhow_store::Event {
    let attributes = [("name".to_owned(), id.to_owned())].into();
    dhow_store::Event { kind: "image".into(), action: "pull".into(), id: id.into(), attributes, time_ns }
}

#[test]
fn an_event_is_in_the_log_once_and_wakes_who_follows() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    store.events().append(&[event("a", 1), event("a", 1), event("b", 1)]).expect("two events");
    store.events().append(&[event("b", 1)]).expect("an event that is known");
    let ids = |events: Vec<dhow_store::Event>| events.into_iter().map(|event| event.id).collect::<Vec<_>>();
    let all: Vec<_> = store.events().after(0).expect("the log").into_iter().map(|(_, event)| event).collect();
    assert_eq!(ids(all), ["a", "b"]);
    let mut follower = store.events().follow(store.events().last().expect("a number")).expect("a follower");
    assert!(follower.next(Duration::ZERO).expect("nothing").is_empty());
    let other = Store::open(folder.path()).expect("another process");
    std::thread::scope(|scope| {
        scope.spawn(|| other.events().append(&[event("c", 2)]).expect("an event"));
        let found = follower.next(Duration::from_secs(60)).expect("it comes");
        assert_eq!(ids(found), ["c"]);
    });
}

#[test]
fn the_log_of_events_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let many: Vec<_> = (0..dhow_store::EVENTS_MAX + 10).map(|time| event("a", time)).collect();
    store.events().append(&many).expect("many events");
    let kept = store.events().after(0).expect("the log");
    assert_eq!(kept.len() as i64, dhow_store::EVENTS_MAX);
    assert_eq!(kept[0].1.time_ns, 10);
}
