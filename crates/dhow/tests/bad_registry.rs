//! Registries that are absent, refuse, break off, lie or attack. Each gets one error, and the store stays as it was.

use std::fs;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dhow_oci::{Digest, media_type};
use serde_json::json;

use crate::rig::{Answer, Asked, CTRL_C, Double, Image, Rig, Tar, free_port, manifest};

/// Pulls from a double that answers so, and returns what was complained about.
#[track_caller]
fn complaint(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Option<String> {
    let rig = Rig::start()?;
    let double = Double::start(answer);
    Some(refused(&rig, &double, "bad/image:1"))
}

/// What a pull that cannot succeed complains about: one error, without the address that differs each time.
#[track_caller]
fn refused(rig: &Rig, double: &Double, name: &str) -> String {
    let said = rig.unchanged(|| rig.fails(&format!("docker pull {}/{name}", double.address), 1));
    assert_eq!(said.matches("Error: ").count(), 1, "one error:\n{said}");
    assert!(said.contains(name.split(':').next().unwrap_or(name)), "it names the image:\n{said}");
    said.replace(&double.address, "HOST")
}

#[track_caller]
fn check(said: Option<String>, parts: &[&str]) {
    let Some(said) = said else { return };
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
}

fn good() -> Image {
    Image::of(&Tar::default().file("hello", b"hello").end())
}

#[test]
fn a_registry_that_refuses_is_quoted() {
    let answers = |status, code, message| complaint(move |_| Answer::refusal(status, code, message));
    check(answers(401, "UNAUTHORIZED", "who are you"), &["who are you"]);
    check(answers(403, "DENIED", "not for you"), &["denied", "not for you"]);
    check(answers(404, "MANIFEST_UNKNOWN", "manifest unknown"), &["manifest for HOST/bad/image:1 not found"]);
}

#[test]
fn a_registry_that_is_overwhelmed_is_asked_again_and_then_quoted() {
    let Some(rig) = Rig::start() else { return };
    for (status, code, said) in
        [(429, "TOOMANYREQUESTS", "too many requests"), (500, "UNKNOWN", "answered 500")]
    {
        let double = Double::start(move |_| Answer::refusal(status, code, "try again next year"));
        check(Some(refused(&rig, &double, "bad/image:1")), &[said, "try again next year"]);
        let attempts = double.asked().len();
        assert!((2..=20).contains(&attempts), "{attempts} attempts");
    }
}

#[test]
fn a_registry_that_recovers_is_not_given_up() {
    let Some(rig) = Rig::start() else { return };
    let (image, failures) = (good(), AtomicUsize::new(0));
    let double = Double::start(move |asked| match failures.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::refusal(503, "UNAVAILABLE", "starting"),
        1 => Answer::refusal(429, "TOOMANYREQUESTS", "slow down").header("retry-after", "1"),
        _ => image.answer(asked),
    });
    rig.ok(&format!("docker pull -q {}/a/b", double.address));
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let Some(rig) = Rig::start() else { return };
    let address = format!("127.0.0.1:{}", free_port());
    let pull = format!("docker pull {address}/bad/image");
    let said = rig.unchanged(|| rig.fails(&pull, 1));
    check(Some(said), &[&address, "connection refused"]);
    let said = rig.unchanged(|| rig.fails("docker pull registry.invalid/bad/image", 1));
    check(Some(said), &["registry.invalid", "bad/image"]);
}

#[test]
fn an_unknown_image_is_named_by_pull_run_and_build() {
    let Some(rig) = Rig::start() else { return };
    let not_found = "manifest for nosuch:latest not found";
    check(Some(rig.unchanged(|| rig.fails("docker pull nosuch", 1))), &[not_found]);
    let said = rig.unchanged(|| rig.fails("docker run nosuch", 125));
    check(Some(said), &["Unable to find image 'nosuch:latest' locally", not_found]);
    let said = rig.unchanged(|| rig.fails("docker run --pull never alpine", 125));
    check(Some(said), &["No such image: alpine:latest"]);
    let app = rig.context("app", &[("Dockerfile", "# syntax\nFROM nosuch\nRUN true\n")]);
    check(Some(rig.unchanged(|| app.fails("docker build .", 1))), &["Dockerfile:2", "nosuch"]);
}

#[test]
fn a_blob_with_another_digest_is_refused() {
    let (image, layer) = (good(), Tar::default().file("hello", b"jello").end());
    let said = complaint(move |asked| match image.answer(asked) {
        _ if is_layer(&image, asked) => Answer::new(200, layer.clone()),
        answer => answer,
    });
    let Some(said) = said else { return };
    let (expected, actual) = (Digest::sha256_of(&tar_of("hello")), Digest::sha256_of(&tar_of("jello")));
    check(Some(said), &[&expected.to_string(), &actual.to_string()]);
}

fn tar_of(content: &str) -> Vec<u8> {
    Tar::default().file("hello", content.as_bytes()).end()
}

/// Whether the image's only layer is asked for, the largest of its blobs.
fn is_layer(image: &Image, asked: &Asked) -> bool {
    let largest = image.blobs.iter().max_by_key(|(_, blob)| blob.len());
    largest.is_some_and(|(digest, _)| asked.path.ends_with(&digest.to_string()))
}

/// Of an image whose layer has 300 000 bytes.
fn large() -> Image {
    let noise: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Image::of(&Tar::default().file("noise", &noise).end())
}

#[test]
fn a_blob_that_breaks_off_is_continued_where_it_broke() {
    let Some(rig) = Rig::start() else { return };
    let (image, breaks) = (large(), AtomicUsize::new(0));
    let double = Double::start(move |asked| match image.answer(asked) {
        answer if is_layer(&image, asked) && breaks.fetch_add(1, Ordering::Relaxed) < 2 => {
            answer.cut_after(100_000)
        }
        answer => answer,
    });
    rig.ok(&format!("docker pull -q {}/a/b", double.address));
    rig.ok("docker system check");
    let continued = double.asked().iter().filter(|line| line.contains(" from ")).count();
    assert_eq!(continued, 2, "{:?}", double.asked());
}

#[test]
fn a_blob_that_keeps_breaking_off_fails_and_the_next_pull_goes_on_from_there() {
    let Some(rig) = Rig::start() else { return };
    let (image, breaks) = (large(), AtomicUsize::new(0));
    let double = Double::start(move |asked| match image.answer(asked) {
        answer if is_layer(&image, asked) => match breaks.fetch_add(1, Ordering::Relaxed) {
            0 => answer.cut_after(100_000),
            1..=20 => answer.cut_after(0),
            _ => answer,
        },
        answer => answer,
    });
    let pull = format!("docker pull -q {}/a/b", double.address);
    let images = rig.ok("docker images -a");
    check(Some(rig.fails(&pull, 1)), &["a/b", "sha256:"]);
    let attempts = double.asked().len();
    assert!(attempts <= 12, "{attempts} attempts");
    assert_eq!(rig.ok("docker images -a"), images);
    rig.ok("docker system check");
    while rig.run(&pull).status != 0 {
        assert!(double.asked().len() < 60, "it never succeeds");
    }
    rig.ok("docker system check");
    let last = double.asked().pop().unwrap_or_default();
    assert!(last.ends_with(" from 100000"), "{last}");
}

#[test]
fn ctrl_c_ends_a_pull_at_once_and_keeps_what_has_come() {
    let Some(rig) = Rig::start() else { return };
    let small = Tar::default().file("small", b"s").end();
    let noise: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let image = Image::layered(&[small.clone(), Tar::default().file("noise", &noise).end()]);
    let stalls = Arc::new(AtomicBool::new(true));
    let double = {
        let (image, stalls) = (image.clone(), Arc::clone(&stalls));
        Double::start(move |asked| match image.answer(asked) {
            answer if is_layer(&image, asked) && stalls.load(Ordering::SeqCst) => {
                answer.stalls_after(262_144)
            }
            answer => answer,
        })
    };
    let pull = format!("docker pull {}/a/b", double.address);
    let mut terminal = rig.terminal(&pull);
    let short = |blob: &[u8]| Digest::sha256_of(blob).short();
    terminal.shows(&format!("{}: Pull complete", short(&small)));
    // How much of what, how fast, and how long still.
    terminal.shows("kB/302kB");
    terminal.shows("B/s");
    terminal.type_in(CTRL_C);
    let (status, screen) = terminal.finish();
    assert_eq!(status, 130, "{screen}");
    assert_eq!(rig.ok(&format!("docker images -q {}/a/b", double.address)), "");
    rig.ok("docker system check");
    stalls.store(false, Ordering::SeqCst);
    let asked = double.asked().len();
    rig.ok(&pull);
    let asked = double.asked().split_off(asked);
    let of = |digest: &str| asked.iter().filter(|line| line.contains(digest)).collect::<Vec<_>>();
    assert!(asked.iter().any(|line| line.ends_with(" from 262144")), "{asked:?}");
    assert_eq!(of(&Digest::sha256_of(&small).to_string()), Vec::<&String>::new());
    rig.ok("docker system check");
}

#[test]
fn a_manifest_that_is_no_manifest_is_refused() {
    check(complaint(|_| Answer::new(200, "<html>welcome to the hotel's network</html>")), &["manifest"]);
    check(complaint(|_| manifest(b"{\"schemaVersion\":2".to_vec())), &["manifest"]);
    check(complaint(|_| manifest(b"[]".to_vec())), &["manifest"]);
    let v1 =
        json!({ "schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+json" });
    check(complaint(move |_| manifest(v1.to_string().into_bytes())), &["schema 1"]);
}

#[test]
fn a_manifest_without_end_meets_a_limit() {
    for length in [None, Some(100 << 20)] {
        let said =
            complaint(move |_| Answer::endless(length).header("content-type", media_type::OCI_MANIFEST));
        check(said, &["manifest", &dhow_oci::MANIFEST_BYTES_MAX.to_string()]);
    }
}

#[test]
fn an_index_without_our_platform_says_what_it_has() {
    let image = good();
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [{
            "mediaType": media_type::OCI_MANIFEST, "size": image.manifest.len(),
            "digest": Digest::sha256_of(&image.manifest), "platform": { "os": "linux", "architecture": "s390x" },
        }],
    });
    let said = complaint(move |_| manifest(index.to_string().into_bytes()));
    check(said, &["no matching manifest for linux/amd64", "linux/s390x"]);
}

#[test]
fn an_image_that_contradicts_itself_is_refused() {
    let layer = tar_of("hello");
    let wrong = Digest::sha256_of(b"something else").to_string();
    let image = Image::travelling(slice::from_ref(&layer), media_type::OCI_LAYER, slice::from_ref(&wrong));
    check(complaint(move |asked| image.answer(asked)), &[&wrong, &Digest::sha256_of(&layer).to_string()]);
    let image = Image::travelling(&[layer], media_type::OCI_LAYER, &[]);
    check(complaint(move |asked| image.answer(asked)), &["1 layers", "0"]);
    let image = Image::travelling(&[b"no gzip".to_vec()], media_type::OCI_LAYER_GZIP, &[wrong]);
    check(complaint(move |asked| image.answer(asked)), &["layer"]);
}

/// Layers that try to leave their folder. What cannot be meant well is refused; the rest lands inside.
#[test]
fn a_layer_does_not_escape() {
    let Some(rig) = Rig::start() else { return };
    let canary = rig.path("canary");
    fs::write(&canary, "alive").expect("a canary");
    let target = canary.to_str().expect("a path is text");
    let up = format!("{}{}", "../".repeat(12), &target[1..]);
    let tar = Tar::default;
    let through = |link: &str| tar().symlink("out", link).file("out/canary", b"dead").end();
    let folder = canary.parent().and_then(|folder| folder.to_str()).expect("a folder");
    let bad = Double::with(vec![
        ("dots", Image::of(&tar().file("../canary", b"dead").end())),
        ("more-dots", Image::of(&tar().file(&up, b"dead").end())),
        ("hard-dots", Image::of(&tar().hard_link("x", &up).end())),
        ("hard-absolute", Image::of(&tar().hard_link("x", target).end())),
        ("hard-through", Image::of(&tar().symlink("out", folder).hard_link("x", "out/canary").end())),
    ]);
    for name in ["dots", "more-dots", "hard-dots", "hard-absolute", "hard-through"] {
        check(Some(refused(&rig, &bad, name)), &["layer sha256:"]);
        assert_eq!(fs::read_to_string(&canary).expect("it lives"), "alive", "{name}");
    }
    let tame = Double::with(vec![
        ("absolute", Image::of(&tar().file(&target[..target.len().min(100)], b"dead").end())),
        ("through", Image::of(&through(folder))),
        ("through-dots", Image::of(&through(&"../".repeat(12)))),
        (
            "lower",
            Image::layered(&[tar().symlink("out", folder).end(), tar().file("out/canary", b"dead").end()]),
        ),
        (
            "whiteout",
            Image::layered(&[tar().symlink("out", folder).end(), tar().file("out/.wh.canary", b"").end()]),
        ),
        (
            "opaque",
            Image::layered(&[tar().symlink("out", folder).end(), tar().file("out/.wh..wh..opq", b"").end()]),
        ),
        ("device", Image::of(&tar().device("sda").file("after", b"").end())),
    ]);
    for name in ["absolute", "through", "through-dots", "lower", "whiteout", "opaque", "device"] {
        let finished = rig.run(&format!("docker pull -q {}/{name}", tame.address));
        assert!(finished.status <= 1, "{name}: {finished:?}");
        assert_eq!(fs::read_to_string(&canary).expect("it lives"), "alive", "{name}");
    }
    rig.ok("docker system check");
}

/// A container must get no device of the host, whatever its image brings along.
#[test]
fn a_device_in_a_layer_cannot_be_read() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    let tar = Tar::default().device("sda").end();
    fs::create_dir_all(rig.path("work/app")).expect("a folder");
    fs::write(rig.path("work/app/x.tar"), tar).expect("a tar");
    let app = rig.context("app", &[("Dockerfile", "FROM alpine\nADD x.tar /\n")]);
    if app.run("docker build -q -t app .").status == 0 {
        let said = rig.run("docker run --rm app head -c 1 /sda");
        assert_ne!(said.status, 0, "the disk can be read: {said:?}");
    }
}

#[test]
fn a_registry_that_dies_during_a_pull_is_waited_for_not_longer_than_bounded() {
    let Some(rig) = Rig::start() else { return };
    let image = large();
    let double = Double::start(move |asked| match image.answer(asked) {
        answer if is_layer(&image, asked) => answer.cut_after(0),
        answer => answer,
    });
    let pull = rig.run(&format!("docker pull -q {}/a/b", double.address));
    assert_eq!(pull.status, 1);
    assert!(pull.took < Duration::from_secs(30), "{:?}", pull.took);
}
