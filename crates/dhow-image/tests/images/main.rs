//! Images on their way from and to a real registry and an archive.

mod platforms;
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::SystemTime;

use dhow_image::{Images, PullEvent, PushEvent, Removed};
use dhow_oci::{Digest, Reference};
use dhow_snapshot::Snapshotter as _;
use dhow_store::Image;

use support::{Home, NOW, Registry, client, layer, open, pull};

fn sample() -> Vec<Vec<u8>> {
    let base = layer(&[("bin/", 0o755), ("bin/sh", 0o755), ("etc/", 0o755), ("etc/motd", 0o644)], 40_000);
    vec![base, layer(&[("app/", 0o755), ("app/main.py", 0o644)], 1)]
}

fn layer_paths(images: &Images, image: &Image) -> Vec<PathBuf> {
    let names = images.layer_snapshots(&image.record.diff_ids).expect("all layers");
    names.iter().map(|name| images.snapshots().layer_path(name).expect("a folder")).collect()
}

fn push(images: &Images, image: &Image, to: &Reference) -> (Digest, Vec<PushEvent>) {
    let lease = images.store().lease("test").expect("a lease");
    let events = Mutex::new(Vec::new());
    let tell = |event: &PushEvent| events.lock().expect("no panic").push(event.clone());
    let pushed = images.push(&client(), image, to, None, &lease, &tell).expect("it is pushed");
    (pushed.digest, events.into_inner().expect("no panic"))
}

#[test]
fn an_image_leaves_with_the_manifest_it_came_with() {
    let Some(registry) = Registry::start() else { return };
    let published = registry.push_image("me/app:1", &sample(), "amd64");
    let home = Home::new();
    let pulled = home.pull(&registry.name("me/app:1")).expect("it is pulled");
    assert_eq!((pulled.image.record.id, pulled.digest), (published.id, published.manifest.digest));
    let paths = layer_paths(&home.images, &pulled.image);
    assert!(paths[0].join("bin/sh").is_file() && paths[1].join("app/main.py").is_file());

    let (digest, events) = push(&home.images, &pulled.image, &registry.name("other/app:2"));
    assert_eq!(digest, published.manifest.digest);
    assert!(events.iter().all(|event| matches!(event, PushEvent::LayerMounted { .. })), "{events:?}");
    let (_, again) = push(&home.images, &pulled.image, &registry.name("other/app:2"));
    assert!(again.iter().all(|event| matches!(event, PushEvent::LayerExists { .. })), "{again:?}");

    let second = home.pull(&registry.name("me/app:1")).expect("it is pulled again");
    assert!(!second.is_new && pulled.is_new);
    home.assert_sound();
}

#[test]
fn an_archive_holds_what_was_pulled_and_others_read_it() {
    let Some(registry) = Registry::start() else { return };
    let published = registry.push_image("me/app:1", &sample(), "amd64");
    let (home, other) = (Home::new(), Home::new());
    let name = registry.name("me/app:1");
    home.pull(&name).expect("it is pulled");
    let archive = home.folder.path().join("app.tar");
    let save = |home: &Home| home.save(&[name.to_string()], &[]);
    let bytes = save(&home);
    std::fs::write(&archive, &bytes).expect("a file");

    let loaded = other.load(bytes.as_slice()).expect("it is loaded");
    assert_eq!((loaded[0].id, &loaded[0].names), (published.id, &vec![name.clone()]));
    let image = other.images.by_reference(&name).expect("a store").expect("an image");
    assert!(layer_paths(&other.images, &image)[1].join("app/main.py").is_file());
    assert_eq!(save(&other), bytes, "a second archive differs");
    let (digest, _) = push(&other.images, &image, &registry.name("me/loaded:1"));
    assert_eq!(digest, published.manifest.digest);
    other.assert_sound();
    skopeo_reads(&archive, published.id);
}

fn skopeo_reads(archive: &Path, id: Digest) {
    for transport in ["docker-archive", "oci-archive"] {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--config", "--raw"]).arg(format!("{transport}:{}", archive.display()));
        let Ok(output) = skopeo.output() else {
            eprintln!("skipped: skopeo is not installed");
            return;
        };
        assert!(output.status.success(), "{transport}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(Digest::sha256_of(&output.stdout), id, "{transport}");
    }
}

#[test]
fn what_skopeo_saves_can_be_loaded() {
    let Some(registry) = Registry::start() else { return };
    let published = registry.push_image("me/app:1", &sample(), "amd64");
    for transport in ["docker-archive", "oci-archive"] {
        let home = Home::new();
        let archive = home.folder.path().join("app.tar");
        let source = format!("docker://{}", registry.name("me/app:1"));
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--src-tls-verify=false", &source]);
        let Ok(output) = skopeo.arg(format!("{transport}:{}:me/app:1", archive.display())).output() else {
            eprintln!("skipped: skopeo is not installed");
            return;
        };
        assert!(output.status.success(), "{transport}: {}", String::from_utf8_lossy(&output.stderr));
        let file = std::fs::File::open(&archive).expect("an archive");
        let loaded = home.load(file).expect(transport);
        let image = home.images.find("me/app:1").expect("the image of the archive");
        assert_eq!(image.record.id, loaded[0].id);
        assert_eq!(image.record.diff_ids.len(), published.layers.len());
        assert!(layer_paths(&home.images, &image)[0].join("etc/motd").is_file());
        home.assert_sound();
    }
}

#[test]
fn an_index_gives_each_machine_its_image() {
    let Some(registry) = Registry::start() else { return };
    let intel = registry.push_image("me/app:amd64", &sample(), "amd64");
    let arm = registry.push_image("me/app:arm64", &sample()[..1], "arm64");
    let index = registry.push_index("me/app:1", &[(&intel, "linux/amd64"), (&arm, "linux/arm64")]);
    let (home, name) = (Home::new(), registry.name("me/app:1"));
    let pulled = home.pull(&name).expect("amd64");
    assert_eq!((pulled.image.record.id, pulled.digest), (intel.id, index.digest));
    assert_eq!(home.pull_for(&name, "linux/arm64").expect("arm64").image.record.id, arm.id);
    let error = home.pull_for(&name, "linux/s390x").expect_err("no s390x").to_string();
    let expected = format!(
        "no matching manifest for linux/s390x in the manifest list entries of {name}, which offers linux/amd64, linux/arm64"
    );
    assert_eq!(error, expected);
    home.assert_sound();
}

#[test]
fn bytes_that_are_not_those_promised_leave_no_image() {
    let Some(registry) = Registry::start() else { return };
    let published = registry.push_image("me/app:1", &sample(), "amd64");
    let (home, name) = (Home::new(), registry.name("me/app:1"));
    let path = registry.blob_path(&published.layers[0].digest);
    let honest = std::fs::read(&path).expect("a blob");
    let mut forged = honest.clone();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    std::fs::write(&path, &forged).expect("a blob");
    let error = home.pull(&name).expect_err("a forged layer");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    assert!(
        text.starts_with(&format!("cannot install {name}: layer {}: ", published.layers[0].digest)),
        "{text}"
    );
    assert!(text.contains(&format!("expected {}", published.layers[0].digest)), "{text}");
    assert!(home.images.store().images().list().expect("a store").is_empty());
    assert!(home.images.snapshots().list().expect("snapshots").active.is_empty());
    home.assert_sound();
    std::fs::write(&path, &honest).expect("a blob");
    home.pull(&name).expect("an honest layer");
    home.assert_sound();
}

#[test]
fn a_download_that_was_cut_short_is_continued_and_a_damaged_one_begun_anew() {
    let Some(registry) = Registry::start() else { return };
    let published = registry.push_image("me/app:1", &sample(), "amd64");
    let layer = &published.layers[0];
    for damaged in [false, true] {
        let home = Home::new();
        let mut part = sample()[0][..100_000].to_vec();
        part[50_000] ^= u8::from(damaged);
        let ingest = home.folder.path().join("ingest").join(format!("sha256-{}", layer.digest.hex()));
        std::fs::write(&ingest, &part).expect("a partial download");
        let pulled = home.pull(&registry.name("me/app:1")).expect("it is continued");
        assert_eq!(pulled.image.record.id, published.id);
        assert!(!ingest.exists());
        home.assert_sound();
    }
}

#[test]
fn eight_pulls_of_one_image_at_once_fetch_each_layer_once() {
    let Some(registry) = Registry::start() else { return };
    let published = registry.push_image("me/app:1", &sample(), "amd64");
    let (home, name) = (Home::new(), registry.name("me/app:1"));
    let fetched = Mutex::new(0_u64);
    let count = |event: &PullEvent| {
        if let PullEvent::LayerProgress { digest, bytes } = event {
            let layer = published.layers.iter().find(|layer| layer.digest == *digest).expect("a layer");
            *fetched.lock().expect("no panic") += u64::from(*bytes == layer.size);
        }
    };
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let images = open(home.folder.path());
                let pulled = pull(&images, &name, "linux/amd64", &count).expect("it is pulled");
                assert_eq!(pulled.image.record.id, published.id);
            });
        }
    });
    assert_eq!(*fetched.lock().expect("no panic"), published.layers.len() as u64);
    let listing = home.images.snapshots().list().expect("snapshots");
    assert_eq!((listing.active.len(), listing.committed.len()), (0, 2));
    home.assert_sound();
}

#[test]
fn a_layer_that_omits_parents_takes_them_from_below_and_belongs_to_its_stack() {
    let Some(registry) = Registry::start() else { return };
    let base = layer(&[("srv/", 0o700), ("srv/data/", 0o1777)], 1);
    let other = layer(&[("srv/", 0o711)], 1);
    let top = layer(&[("srv/data/file", 0o644)], 1);
    // The top twice: the second time over itself.
    registry.push_image("me/app:1", &[base, top.clone(), top.clone()], "amd64");
    registry.push_image("me/app:2", &[other, top], "amd64");
    let home = Home::new();
    let mode = |path: &Path| std::fs::metadata(path).expect("a folder").permissions().mode() & 0o7777;
    let first = home.pull(&registry.name("me/app:1")).expect("the first");
    let second = home.pull(&registry.name("me/app:2")).expect("the second");
    let paths = layer_paths(&home.images, &first.image);
    assert_eq!((mode(&paths[1].join("srv")), mode(&paths[1].join("srv/data"))), (0o700, 0o1777));
    assert_eq!((mode(&paths[2].join("srv")), mode(&paths[2].join("srv/data"))), (0o700, 0o1777));
    assert_eq!(mode(&layer_paths(&home.images, &second.image)[1].join("srv")), 0o711);
    home.assert_sound();
}

#[test]
fn a_removed_image_leaves_nothing_behind() {
    let Some(registry) = Registry::start() else { return };
    registry.push_image("me/app:1", &sample(), "amd64");
    registry.push_image("me/base:1", &sample()[..1], "amd64");
    let home = Home::new();
    let app = home.pull(&registry.name("me/app:1")).expect("it is pulled").image;
    home.pull(&registry.name("me/base:1")).expect("it is pulled");
    home.images.tag(&app.record.id.to_string(), &"app:x".parse().expect("a name"), NOW).expect("a tag");
    let remove = |text: &str| home.images.remove(text, false, SystemTime::now(), &|_| true);
    assert_eq!(remove("app:x").expect("a name goes"), [Removed::Untagged("app:x".into())]);
    let removed = remove(&app.record.id.short()).expect("the image goes");
    let deleted = removed.iter().filter(|removed| matches!(removed, Removed::Deleted(_)));
    assert_eq!(deleted.count(), 2, "the image and the layer it shares with nobody: {removed:?}");
    home.assert_sound();
    remove(&registry.name("me/base:1").to_string()).expect("the other goes");
    assert!(home.images.store().content().list().expect("blobs").is_empty());
    assert!(home.images.snapshots().list().expect("snapshots").committed.is_empty());
    let snapshots = home.folder.path().join("snapshots");
    let left = std::fs::read_dir(&snapshots).expect("a folder").count();
    assert_eq!(left, 2, "more than the lock and the empty folder: {}", snapshots.display());
}

#[test]
fn a_layer_made_here_is_compressed_once() {
    let Some(registry) = Registry::start() else { return };
    let home = Home::new();
    let lease = home.images.store().lease("test").expect("a lease");
    let key = "made-here".parse().expect("a key");
    let prepared = home.images.snapshots().prepare(&key, &[]).expect("a snapshot");
    std::fs::write(prepared.path().join("file"), "text").expect("a file");
    let frozen = home.images.freeze(&key, &lease).expect("it freezes").expect("a layer");
    let mut config = dhow_oci::ImageConfig::scratch(&dhow_oci::Platform::host());
    config.rootfs.diff_ids = vec![frozen.diff_id];
    let names = [registry.name("me/made:1")];
    let created = home.images.create(&config, &names, &lease, NOW).expect("an image");
    let image = home.images.store().images().get(&created.id).expect("a store").expect("an image");
    let (first, events) = push(&home.images, &image, &names[0]);
    assert!(events.contains(&PushEvent::LayerPushed { diff_id: frozen.diff_id }), "{events:?}");
    drop(lease);
    home.images.gc(SystemTime::now(), &|_| true).expect("gc");
    let blob = &home.images.store().layers().blobs_of(&frozen.diff_id).expect("a store")[0];
    let path = home.images.store().content().path(&blob.digest);
    assert!(path.is_file(), "the compressed bytes did not survive gc");
    let image = home.images.find(&names[0].to_string()).expect("an image");
    let (second, _) = push(&home.images, &image, &registry.name("me/made:2"));
    assert_eq!(second, first);
    let elsewhere = Home::new().pull(&names[0]).expect("others can pull it");
    assert_eq!(elsewhere.image.record.id, created.id);
    home.assert_sound();
}
