//! Indexes with all that they list, and what is no image.

use std::time::SystemTime;

use dhow_image::{PushError, PushedImage, Removed};
use dhow_oci::{Descriptor, Digest, Index, Platform, Reference, media_type};

use crate::sample;
use crate::support::{Home, Published, Registry, client};

fn platform(text: &str) -> Platform {
    text.parse().expect("a platform")
}

/// Pushes the image that has one name to another name.
fn push(home: &Home, from: &Reference, to: &Reference, only: Option<&str>) -> Result<PushedImage, PushError> {
    home.images.tag(&from.to_string(), to, 1).expect("a tag");
    let image = home.images.by_reference(to).expect("a store").expect("an image");
    let lease = home.images.store().lease("test").expect("a lease");
    home.images.push(&client(), &image, to, only.map(platform).as_ref(), &lease, &|_| {})
}

struct Multi {
    amd64: Published,
    arm64: Published,
    index: Descriptor,
    name: Reference,
}

/// An index within an index: a registry's most complicated image.
fn multi(registry: &Registry) -> Multi {
    let amd64 = registry.push_image("me/multi:amd64", &sample(), "amd64");
    let arm64 = registry.push_image("me/multi:arm64", &sample()[..1], "arm64");
    let thing = registry.push_artifact("me/multi:thing", b"data");
    let inner = registry.push_index("me/multi:inner", &[(&amd64, "linux/amd64"), (&arm64, "linux/arm64")]);
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.into()),
        manifests: vec![inner, thing],
        annotations: Default::default(),
        other: Default::default(),
    };
    let index = registry.push_index_of("me/multi:1", &index);
    Multi { amd64, arm64, index, name: registry.name("me/multi:1") }
}

#[test]
fn an_index_that_is_here_whole_is_pushed_and_saved_with_its_digest() {
    let Some(registry) = Registry::start() else { return };
    let Multi { amd64, arm64, index, name } = multi(&registry);
    let home = Home::new();
    let pulled = home.pull_all(&name).expect("all of it is pulled");
    assert_eq!((pulled.image.record.id, pulled.digest), (amd64.id, index.digest));
    let copy = registry.name("copy/multi:1");
    let pushed = push(&home, &name, &copy, None).expect("it is pushed");
    assert_eq!((pushed.digest, pushed.instead_of), (index.digest, None));
    // Nothing is missing over there.
    let other = Home::new();
    other.pull_all(&copy).expect("all of the copy is pulled");

    let archive = home.save(&[copy.to_string()], &[]);
    let loaded = Home::new();
    let images = loaded.load(archive.as_slice()).expect("it is loaded");
    assert_eq!((images[0].id, &images[0].names[..]), (amd64.id, &[copy.clone()][..]));
    assert_eq!(loaded.save(&[copy.to_string()], &[]), archive, "a second archive differs");
    let pushed = push(&loaded, &copy, &registry.name("again/multi:1"), None).expect("it is pushed");
    assert_eq!(pushed.digest, index.digest);
    let one =
        push(&loaded, &copy, &registry.name("arm/multi:1"), Some("linux/arm64")).expect("one is pushed");
    assert_eq!(one.digest, arm64.manifest.digest);
    [home, other, loaded].iter().for_each(Home::assert_sound);
}

#[test]
fn of_an_index_with_one_image_here_that_image_is_pushed() {
    let Some(registry) = Registry::start() else { return };
    let Multi { amd64, index, name, .. } = multi(&registry);
    let home = Home::new();
    home.pull(&name).expect("amd64");
    let pushed = push(&home, &name, &registry.name("copy/multi:1"), None).expect("it is pushed");
    assert_eq!((pushed.digest, pushed.instead_of), (amd64.manifest.digest, Some(index.digest)));
    // The repository it came from has the rest, so that the index can be pushed.
    let pushed = push(&home, &name, &registry.name("me/multi:2"), None).expect("it is pushed");
    assert_eq!((pushed.digest, pushed.instead_of), (index.digest, None));
    let error =
        push(&home, &name, &registry.name("copy/multi:2"), Some("linux/arm64")).expect_err("no arm64");
    assert!(error.to_string().ends_with("does not provide the specified platform (linux/arm64)"), "{error}");

    // Of two out of three nothing is chosen by chance.
    home.pull_for(&name, "linux/arm64").expect("arm64");
    let error = push(&home, &name, &registry.name("third/multi:1"), None).expect_err("something is missing");
    assert!(matches!(error, PushError::Incomplete { .. }), "{error}");
    home.assert_sound();
}

#[test]
fn a_name_goes_on_meaning_this_machines_image_and_removal_takes_all_platforms() {
    let Some(registry) = Registry::start() else { return };
    let Multi { amd64, arm64, name, .. } = multi(&registry);
    let home = Home::new();
    home.pull(&name).expect("amd64");
    assert_eq!(home.pull_for(&name, "linux/arm64").expect("arm64").image.record.id, arm64.id);
    let by_name =
        |only: Option<&Platform>| home.images.find_for(&name.to_string(), only).map(|image| image.record.id);
    assert_eq!(by_name(None).expect("a name"), amd64.id);
    assert_eq!(by_name(Some(&platform("linux/arm64"))).expect("arm64 by name"), arm64.id);
    assert!(by_name(Some(&platform("linux/s390x"))).is_err());
    let remove_only = |only: &str| {
        home.images.remove_platform(&name.to_string(), &platform(only), false, SystemTime::now(), &|_| true)
    };
    let removed = remove_only("linux/amd64").expect("amd64 goes");
    assert_eq!(removed, [Removed::Deleted(amd64.manifest.digest)]);
    assert_eq!(by_name(None).expect("a name"), arm64.id);
    home.assert_sound();
    home.pull(&name).expect("amd64 again");
    home.images.remove(&name.to_string(), false, SystemTime::now(), &|_| true).expect("all goes");
    assert!(home.images.store().images().list().expect("a store").is_empty());
    assert!(home.images.store().content().list().expect("blobs").is_empty());
}

#[test]
fn an_artifact_is_carried_and_not_run() {
    let Some(registry) = Registry::start() else { return };
    let thing = registry.push_artifact("me/thing:1", b"data");
    let (home, name) = (Home::new(), registry.name("me/thing:1"));
    let pulled = home.pull(&name).expect("it is pulled");
    assert_eq!((pulled.image.record.id, pulled.digest), (thing.digest, thing.digest));
    let error = home.images.config(&thing.digest).expect_err("no configuration").to_string();
    assert!(error.contains("is an OCI artifact"), "{error}");
    let archive = home.save(&[name.to_string()], &[]);
    let other = Home::new();
    let loaded = other.load(archive.as_slice()).expect("it is loaded");
    assert_eq!((loaded[0].id, &loaded[0].names[..]), (thing.digest, &[name.clone()][..]));
    let pushed = push(&other, &name, &registry.name("copy/thing:1"), None).expect("it is pushed");
    assert_eq!(pushed.digest, thing.digest);
    [home, other].iter().for_each(Home::assert_sound);
}

#[test]
fn an_archive_may_hold_several_platforms_and_some_may_be_chosen() {
    let Some(registry) = Registry::start() else { return };
    let Multi { amd64, arm64, index, name } = multi(&registry);
    let home = Home::new();
    home.pull_all(&name).expect("all of it is pulled");
    let both = [platform("linux/amd64"), platform("linux/arm64")];
    let text = [name.to_string()];
    let manifest = |bytes: &[u8]| -> Digest {
        let home = Home::new();
        let loaded = home.load(bytes).expect("it is loaded");
        let image = home.images.store().images().get(&loaded[0].id).expect("a store").expect("an image");
        home.assert_sound();
        image.record.target.expect("it came by something").digest
    };
    assert_eq!(manifest(&home.save(&text, &both)), index.digest);
    assert_eq!(manifest(&home.save(&text, &both[1..])), arm64.manifest.digest);
    let archive = home.save(&text, &both);
    let arm = Home::new();
    assert_eq!(arm.load_for(archive.as_slice(), &both[1..]).expect("arm64")[0].id, arm64.id);
    let error = Home::new().load_for(archive.as_slice(), &[platform("linux/s390x")]).expect_err("no s390x");
    assert!(error.to_string().ends_with("does not provide the specified platform (linux/s390x)"), "{error}");
    assert_ne!(amd64.id, arm64.id);
}
