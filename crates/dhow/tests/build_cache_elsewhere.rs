//! Caches in registries, folders and images: what one machine built, another takes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::rig::Rig;

/// Two stages; the first makes a file that the second copies.
const DOCKERFILE: &str = "FROM alpine AS builder
WORKDIR /src
COPY lib lib
RUN cat lib/one lib/two > /made && head -c 65536 /dev/urandom > /ballast
FROM alpine
ARG VERSION=1
ENV NAME=app
COPY --from=builder /made /app/
COPY *.txt /data/
RUN echo \"$NAME $VERSION\" > /version && cat /proc/sys/kernel/random/uuid > /id
CMD [\"cat\", \"/id\"]
";

const FILES: &[(&str, &str)] =
    &[("Dockerfile", DOCKERFILE), ("lib/one", "1\n"), ("lib/two", "2\n"), ("a.txt", "a\n"), ("b.txt", "b\n")];

/// The store is empty again, as on another machine.
pub(crate) fn other_machine(rig: &Rig) {
    let store = rig.path("root");
    if store.exists() {
        let images = rig.run("dhow images -q").stdout;
        for image in images.lines() {
            rig.run(&format!("dhow rmi -f {image}"));
        }
        fs::remove_dir_all(store).expect("the store");
    }
}

/// Builds and returns what was told, with the ID that the last step wrote: it is new each time it runs.
#[track_caller]
pub(crate) fn build(rig: &Rig, flags: &str) -> (String, String) {
    let shell = rig.context("app", FILES);
    let told = shell.run(&format!("dhow build --progress=plain -t app {flags} ."));
    assert_eq!(told.status, 0, "{}", told.both());
    (told.both(), rig.ok("dhow run --rm app"))
}

pub(crate) fn cached(told: &str, from: &str) -> usize {
    told.lines().filter(|line| line.ends_with(&format!("CACHED from {from}"))).count()
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
}

pub(crate) fn blob(folder: &Path, digest: &Value) -> PathBuf {
    let digest = digest.as_str().expect("a digest");
    folder.join("blobs/sha256").join(digest.strip_prefix("sha256:").expect("a SHA-256"))
}

/// The manifest of a cache in a folder.
pub(crate) fn manifest(folder: &Path) -> Value {
    json(&blob(folder, &json(&folder.join("index.json"))["manifests"][0]["digest"]))
}

#[test]
fn a_folder_serves_another_machine() {
    let Some(rig) = Rig::start() else { return };
    let cache = rig.path("cache");
    let name = cache.display().to_string();
    let (_, id) = build(&rig, &format!("--cache-to type=local,dest={name},mode=max"));
    let manifest = manifest(&cache);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
    let layer = &manifest["layers"][0]["annotations"];
    assert!(layer["containerd.io/uncompressed"].is_string() && layer["buildkit/createdat"].is_string());
    assert!(cache.join("oci-layout").exists());

    other_machine(&rig);
    let (told, again) = build(&rig, &format!("--cache-from type=local,src={name}"));
    assert_eq!(again, id, "the very layers of the first machine");
    assert_eq!(cached(&told, &name), 6, "{told}");

    // What is not there runs.
    let line =
        format!("dhow build --progress=plain --build-arg VERSION=2 --cache-from type=local,src={name} .");
    let told = rig.at("app").run(&line).both();
    assert!(told.contains("not cached: ") && cached(&told, &name) > 0, "{told}");
}

#[test]
fn only_layers_that_somebody_looks_into_are_fetched() {
    let Some(rig) = Rig::start() else { return };
    let cache = rig.path("cache");
    build(&rig, &format!("--cache-to type=local,dest={},mode=max", cache.display()));
    // The ballast of the first stage is not there to be had. Nobody needs it.
    let largest = manifest(&cache)["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .filter(|layer| (60_000..200_000).contains(&layer["size"].as_u64().expect("a size")))
        .map(|layer| blob(&cache, &layer["digest"]))
        .collect::<Vec<_>>();
    assert_eq!(largest.len(), 1, "the ballast is one layer");
    fs::remove_file(&largest[0]).expect("the layer");
    other_machine(&rig);
    let (told, _) = build(&rig, &format!("--cache-from type=local,src={}", cache.display()));
    assert_eq!(cached(&told, &cache.display().to_string()), 6, "{told}");
    assert!(!told.contains("WARNING"), "{told}");
}

#[test]
fn a_registry_serves_another_machine_in_every_form() {
    let Some(rig) = Rig::start() else { return };
    for (tag, form) in
        [("manifest", ""), ("index", ",image-manifest=false"), ("docker", ",oci-mediatypes=false")]
    {
        other_machine(&rig);
        let place = format!("{}/cache/app:{tag}", rig.registry());
        let (_, id) = build(&rig, &format!("--cache-to type=registry,ref={place},mode=max{form}"));
        other_machine(&rig);
        let (told, again) = build(&rig, &format!("--cache-from {place}"));
        assert_eq!(again, id);
        assert_eq!(cached(&told, &place), 6, "{told}");
    }
}

#[test]
fn an_image_carries_its_own_cache() {
    let Some(rig) = Rig::start() else { return };
    let (_, id) = build(&rig, "--build-arg BUILDKIT_INLINE_CACHE=1");
    let place = format!("{}/cache/inline:latest", rig.registry());
    rig.ok(&format!("dhow tag app {place}"));
    rig.ok(&format!("dhow push {place}"));
    other_machine(&rig);
    // The layers of the first stage are not in the image, so only what the image has is found.
    let (told, again) = build(&rig, &format!("--cache-from {place}"));
    assert_eq!(again, id);
    assert_eq!(cached(&told, &place), 3, "{told}");
}

#[test]
fn a_small_cache_has_the_layers_of_the_image_alone() {
    let Some(rig) = Rig::start() else { return };
    let layers = |flags: &str, folder: &Path| {
        build(&rig, &format!("--cache-to type=local,dest={}{flags}", folder.display()));
        manifest(folder)["layers"].as_array().expect("layers").len()
    };
    let (small, large) = (rig.path("small"), rig.path("large"));
    assert_eq!(layers("", &small) + 3, layers(",mode=max", &large));
    other_machine(&rig);
    let (told, _) = build(&rig, &format!("--cache-from type=local,src={}", small.display()));
    assert_eq!(cached(&told, &small.display().to_string()), 3, "{told}");
}

#[test]
fn a_cache_that_lies_only_costs_its_help() {
    let Some(rig) = Rig::start() else { return };
    let cache = rig.path("cache");
    let from = format!("--cache-from type=local,src={}", cache.display());
    build(&rig, &format!("--cache-to type=local,dest={},mode=max", cache.display()));
    // Each layer has the bytes of another.
    for layer in manifest(&cache)["layers"].as_array().expect("layers") {
        let path = blob(&cache, &layer["digest"]);
        let mut bytes = fs::read(&path).expect("a layer");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("a layer");
    }
    other_machine(&rig);
    let (told, id) = build(&rig, &from);
    assert!(told.contains("is not used"), "{told}");
    assert!(!id.is_empty());

    // Nor does it matter that its records are none, or that there is no cache at all.
    let config = blob(&cache, &manifest(&cache)["config"]["digest"]);
    fs::write(&config, "{}").expect("a configuration");
    for from in [
        from.as_str(),
        "--cache-from type=local,src=nowhere",
        "--cache-from type=registry,ref=nobody/has/this",
        "--cache-from alpine",
    ] {
        other_machine(&rig);
        let (told, _) = build(&rig, from);
        assert!(told.contains("WARNING: the cache "), "{told}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_fails_the_build_unless_told_otherwise() {
    let Some(rig) = Rig::start() else { return };
    let shell = rig.context("app", FILES);
    shell.write("file", "");
    let to = "--cache-to type=local,dest=file/below";
    let error = shell.fails(&format!("dhow build -t app {to} ."), 1);
    assert!(error.contains("cannot export the cache to file/below"), "{error}");
    let told = shell.run(&format!("dhow build --progress=plain -t app {to},ignore-error=true ."));
    assert_eq!(told.status, 0);
    assert!(told.both().contains("WARNING: the cache file/below is not used"), "{}", told.both());
}

#[test]
fn other_kinds_of_caches_are_refused() {
    let Some(rig) = Rig::start() else { return };
    let shell = rig.context("app", FILES);
    for kind in ["gha", "s3,bucket=b", "azblob"] {
        let error = shell.fails(&format!("dhow build --cache-to type={kind} ."), 1);
        assert!(error.contains("are not supported; dhow knows registry, local and inline"), "{error}");
    }
}
