//! Caches elsewhere in all their forms: compressed in other ways, of several platforms, within images, and missed.

use std::path::Path;

use serde_json::Value;

use crate::build_cache_elsewhere::{blob, build, cached, json, manifest, other_machine};
use crate::rig::Rig;

/// Types and sizes of the layers in a cache, without the configuration.
fn layers(folder: &Path) -> Vec<(String, u64)> {
    let layers = manifest(folder)["layers"].as_array().expect("layers").clone();
    let described = layers.iter().map(|layer| {
        (layer["mediaType"].as_str().expect("a type").to_owned(), layer["size"].as_u64().expect("a size"))
    });
    described.collect()
}

#[test]
fn layers_of_a_cache_are_compressed_as_asked() {
    let Some(rig) = Rig::start() else { return };
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    for (name, flags, media_type) in [
        ("zstd", "compression=zstd,compression-level=3", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("plain", "compression=uncompressed", "application/vnd.oci.image.layer.v1.tar"),
        ("gzip", "compression=gzip,compression-level=9", gzip),
    ] {
        let folder = rig.path(name);
        let to = |flags: &str| format!("--cache-to type=local,dest={},mode=max,{flags}", folder.display());
        let (_, id) = build(&rig, &to(flags));
        let (own, base): (Vec<_>, Vec<_>) =
            layers(&folder).into_iter().partition(|layer| layer.0 == media_type);
        assert!(own.len() >= 6, "{name}: {own:?}");
        // The base image's layer came in gzip and leaves as it came.
        assert!(base.iter().all(|layer| layer.0 == gzip), "{name}: {base:?}");
        other_machine(&rig);
        let (told, again) = build(&rig, &format!("--cache-from type=local,src={}", folder.display()));
        assert_eq!((again, cached(&told, &folder.display().to_string())), (id, 6), "{told}");
        other_machine(&rig);
    }
}

#[test]
fn one_cache_serves_all_platforms_of_a_build() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile = "FROM --platform=$BUILDPLATFORM alpine AS cross
RUN echo tools > /tools
ARG TARGETARCH
RUN cat /proc/sys/kernel/random/uuid > /program && echo $TARGETARCH >> /program
FROM scratch
COPY --from=cross /program /
COPY a.txt /
";
    let shell = rig.context("app", &[("Dockerfile", dockerfile), ("a.txt", "a\n")]);
    let cache = rig.path("cache");
    let name = cache.display().to_string();
    let build = |flags: &str, out: &str| {
        let line =
            format!("dhow build --progress=plain --platform linux/amd64,linux/arm64 -o {out} {flags} .");
        let told = shell.run(&line);
        assert_eq!(told.status, 0, "{}", told.both());
        let program = |platform: &str| {
            std::fs::read_to_string(rig.path("work/app").join(out).join(platform).join("program"))
                .expect("a program")
        };
        (told.both(), program("linux_amd64"), program("linux_arm64"))
    };
    let (_, amd64, arm64) = build(&format!("--cache-to type=local,dest={name},mode=max"), "first");
    assert!(amd64.ends_with("amd64\n") && arm64.ends_with("arm64\n"), "{amd64}{arm64}");
    let document = manifest(&cache);
    assert_eq!(document["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");

    other_machine(&rig);
    let from = format!("--cache-from type=local,src={name}");
    let (told, amd64_again, arm64_again) = build(&from, "second");
    assert_eq!((amd64_again, arm64_again), (amd64, arm64.clone()), "{told}");
    assert!(!told.contains("not cached"), "{told}");

    // One platform alone takes from the same cache.
    other_machine(&rig);
    shell.ok(&format!("dhow build -o third --platform linux/arm64 {from} ."));
    let program = std::fs::read_to_string(rig.path("work/app/third/program")).expect("a program");
    assert_eq!(program, arm64);
}

#[test]
fn each_platform_of_an_image_carries_its_own_cache() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /program\nCOPY a.txt /\n";
    let files = [("Dockerfile", dockerfile), ("amd64", "x\n"), ("arm64", "y\n"), ("a.txt", "a\n")];
    let shell = rig.context("app", &files);
    let place = format!("{}/cache/platforms:1", rig.registry());
    let platforms = "--platform linux/amd64,linux/arm64";
    shell.ok(&format!("dhow build -q {platforms} --cache-to type=inline --push -t {place} ."));
    other_machine(&rig);
    let told = shell.run(&format!("dhow build --progress=plain {platforms} --cache-from {place} -o out ."));
    assert_eq!(cached(&told.both(), &place), 4, "{}", told.both());
}

#[test]
fn every_platform_of_an_image_built_here_is_found_by_its_name() {
    let Some(rig) = Rig::start() else { return };
    let files = [
        ("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /program\n"),
        ("amd64", "x"),
        ("arm64", "y"),
    ];
    let shell = rig.context("base", &files);
    shell.ok("dhow build -q --platform linux/amd64,linux/arm64 -t nowhere/base .");
    // Nobody has it but this store.
    let app = rig
        .context("app", &[("Dockerfile", "FROM --platform=linux/arm64 nowhere/base\nCOPY Dockerfile /\n")]);
    app.ok("dhow build -q --platform linux/arm64 -o out .");
    assert_eq!(app.ok("cat out/program"), "y");
    // Nor does it take a build: the other platform is unpacked when it is first wanted.
    other_machine(&rig);
    shell.ok("dhow build -q --platform linux/amd64,linux/arm64 -t nowhere/base .");
    let id = rig.ok("dhow create --platform linux/arm64 nowhere/base /program");
    let image = rig.ok(&format!("dhow inspect --format '{{{{.Image}}}}' {id}"));
    assert_eq!(rig.ok(&format!("dhow image inspect --format '{{{{.Architecture}}}}' {image}")), "arm64");
    assert_eq!(rig.ok("dhow image inspect --format '{{.Architecture}}' nowhere/base"), "amd64");
    let complaint = rig.fails("dhow create --pull=never --platform linux/s390x nowhere/base /program", 125);
    assert!(complaint.contains("does not provide the specified platform (linux/s390x)"), "{complaint}");
    assert_eq!(rig.ok("dhow ps -aq").lines().count(), 1);
}

#[test]
fn an_inline_cache_that_no_image_could_carry_is_told() {
    let Some(rig) = Rig::start() else { return };
    let shell = rig.context("app", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let told = |outputs: &str| shell.run(&format!("dhow build --cache-to type=inline {outputs} .")).both();
    let warning = "WARNING: the cache the image is not used: no output of this build is an image";
    assert!(told("-o out").contains(warning));
    assert!(told("-o type=tar,dest=out.tar").contains(warning));
    assert!(!told("-o out2 -o type=oci,dest=image.tar").contains(warning));
    assert!(!told("").contains(warning));
}

#[test]
fn an_image_with_its_cache_has_the_same_digest_on_every_machine() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile = "FROM alpine\nRUN echo one > /one\nCOPY a.txt /\n";
    let shell = rig.context("app", &[("Dockerfile", dockerfile), ("a.txt", "a\n")]);
    let build = |out: &str| {
        shell.ok(&format!(
            "dhow build -q --build-arg SOURCE_DATE_EPOCH=1700000000 --cache-to type=inline -o type=oci,dest={out},tar=false ."
        ));
        let folder = rig.path("work/app").join(out);
        let manifest = json(&blob(&folder, &json(&folder.join("index.json"))["manifests"][0]["digest"]));
        let config = json(&blob(&folder, &manifest["config"]["digest"]));
        assert!(config["moby.buildkit.cache.v0"].is_string(), "{config}");
        manifest
    };
    let first: Value = build("first");
    other_machine(&rig);
    assert_eq!(build("second"), first);
}

#[test]
fn a_step_that_stayed_in_a_cache_elsewhere_is_missed_for_that() {
    let Some(rig) = Rig::start() else { return };
    let name = rig.path("cache").display().to_string();
    build(&rig, &format!("--cache-to type=local,dest={name},mode=max"));
    other_machine(&rig);
    build(&rig, &format!("--cache-from type=local,src={name}"));

    // The first stage was never fetched: nobody removed it, it is not here.
    let shell = rig.at("app");
    let told = shell.run("dhow build --progress=plain --target builder .").both();
    let missed = told.lines().filter(|line| line.contains("not cached: ")).collect::<Vec<_>>();
    let only_there = format!("was only in the cache {name}");
    assert_eq!(missed.len(), 3, "{told}");
    assert!(missed.iter().all(|line| line.ends_with(&only_there)), "{told}");
    let explained = shell.ok("dhow explain --format json");
    assert!(explained.contains(r#""Kind":"elsewhere""#) && explained.contains(&name), "{explained}");

    // The second stage was fetched; what is pruned of it was removed.
    rig.ok("dhow rmi -f app");
    rig.ok("dhow builder prune -af");
    let line = "dhow build --progress=plain .";
    let told = shell.run(line).both();
    assert!(told.contains("not cached: removed by gc"), "{told}");
}
