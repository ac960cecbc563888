//! Other tools accept what dhow writes, and dhow what they write.

use serde_json::Value;

use crate::rig::{Rig, has_tool};
use crate::shown::{inspect, layers};

const DOCKERFILE: &str = "FROM busybox\nRUN echo made >/made && rm /bin/httpd\nCOPY note /notes/\nENV A=b\nCMD [\"cat\", \"/made\"]\n";

fn build(rig: &Rig, name: &str) {
    rig.context("app", &[("Dockerfile", DOCKERFILE), ("note", "noted\n")])
        .ok(&format!("docker build -t {name} ."));
}

#[test]
fn skopeo_umoci_and_oci_image_tool_accept_what_dhow_pushes() {
    let Some(rig) = Rig::start() else { return };
    if !["skopeo", "umoci", "oci-image-tool"].into_iter().all(has_tool) {
        return;
    }
    let registry = rig.registry();
    let name = format!("{registry}/peers/accepted");
    build(&rig, &name);
    let said = rig.ok(&format!("docker push {name}"));
    let seen = rig.ok(&format!("skopeo inspect --tls-verify=false docker://{name}"));
    let seen: Value = serde_json::from_str(&seen).expect("skopeo prints JSON");
    let digest = seen["Digest"].as_str().expect("an image has a digest");
    assert!(said.contains(&format!("latest: digest: {digest} size: ")), "{digest} is not in:\n{said}");
    assert!(seen["Env"].as_array().expect("a list").contains(&"A=b".into()), "{seen}");

    rig.ok(&format!("skopeo copy --quiet --src-tls-verify=false docker://{name} oci:layout:latest"));
    rig.ok("oci-image-tool validate --type imageLayout --ref name=latest layout");
    rig.ok("umoci unpack --image layout:latest bundle");
    assert_eq!(rig.ok("cat bundle/rootfs/made bundle/rootfs/notes/note"), "made\nnoted");
    assert!(!rig.path("work/bundle/rootfs/bin/httpd").exists(), "what was removed stays removed");
}

#[test]
fn dhow_pulls_what_skopeo_pushed_and_digests_survive_the_round_trip() {
    let Some(rig) = Rig::start() else { return };
    if !has_tool("skopeo") {
        return;
    }
    let registry = rig.registry();
    for (source, format) in
        [("library/alpine", "v2s2"), ("library/python:3.9-slim", "oci"), ("library/busybox", "v2s2")]
    {
        let copy = format!("{registry}/peers/copied-{format}");
        rig.ok(&format!(
            "skopeo copy --quiet --format {format} --src-tls-verify=false --dest-tls-verify=false \
             docker://{registry}/{source} docker://{copy}"
        ));
        let digest = |name: &str| {
            rig.ok(&format!("skopeo inspect --tls-verify=false --format {{{{.Digest}}}} docker://{name}"))
        };
        rig.ok(&format!("docker pull {copy}"));
        let back = format!("{registry}/peers/back-{format}");
        rig.ok(&format!("docker tag {copy} {back}"));
        rig.ok(&format!("docker push {back}"));
        assert_eq!(digest(&back), digest(&copy), "{source} as {format}");
    }
}

#[test]
fn dhow_pulls_and_runs_what_buildah_pushed() {
    let Some(rig) = Rig::start() else { return };
    if !has_tool("buildah") {
        return;
    }
    let registry = rig.registry();
    let buildah = "buildah --storage-driver vfs --root peer --runroot peer-run";
    let name = format!("{registry}/peers/by-buildah");
    let container = rig.ok(&format!("{buildah} from --tls-verify=false {registry}/library/busybox"));
    rig.at("").write("note", "by buildah\n");
    rig.ok(&format!("{buildah} copy {container} note /note"));
    rig.ok(&format!("{buildah} config --cmd 'cat /note' {container}"));
    rig.ok(&format!("{buildah} commit --quiet {container} {name}"));
    rig.ok(&format!("{buildah} push --quiet --tls-verify=false {name}"));
    assert_eq!(rig.ok(&format!("docker run --rm {name}")), "by buildah");
}

#[test]
fn two_stores_build_the_same_layers_from_the_same_files() {
    let (Some(one), Some(two)) = (Rig::start(), Rig::start()) else { return };
    let dockerfile = "FROM scratch\nCOPY . /app\nCMD [\"/app/run\"]\n";
    let made = [&one, &two].map(|rig| {
        let app = rig.context("app", &[("Dockerfile", dockerfile), ("run", "#!/bin/sh\n"), ("data/a", "a")]);
        app.ok("docker build -t app .");
        (layers(rig, "app"), inspect(rig, "app")["Config"].clone())
    });
    assert_eq!(made[0], made[1]);
}
