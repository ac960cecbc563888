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
    rig.ok("oci-image-tool validate --type image --ref name=latest layout");
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
    // It insists on credentials where DOCKER_CONFIG says.
    let buildah = "env -u DOCKER_CONFIG buildah --storage-driver vfs --root peer --runroot peer-run";
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
fn skopeo_and_oci_image_tool_accept_what_dhow_saves_and_dhow_loads_it() {
    let Some(rig) = Rig::start() else { return };
    if !["skopeo", "umoci", "oci-image-tool"].into_iter().all(has_tool) {
        return;
    }
    build(&rig, "you/saved:1.0");
    rig.ok("docker save -o saved.tar you/saved:1.0");
    rig.ok("skopeo copy --quiet docker-archive:saved.tar:you/saved:1.0 oci:from-docker-archive:latest");
    rig.ok("umoci unpack --image from-docker-archive:latest bundle");
    assert_eq!(rig.ok("cat bundle/rootfs/made bundle/rootfs/notes/note"), "made\nnoted");
    // Since docker 25 the archive is an OCI image layout as well.
    rig.at("").write("layout/.keep", "");
    rig.ok("tar -xf saved.tar -C layout");
    rig.ok("oci-image-tool validate --type image --ref name=1.0 layout");

    let id = inspect(&rig, "you/saved:1.0")["Id"].clone();
    rig.ok("docker rmi you/saved:1.0");
    assert_eq!(rig.ok("docker load -i saved.tar"), "Loaded image: you/saved:1.0");
    assert_eq!(inspect(&rig, "you/saved:1.0")["Id"], id);
    assert_eq!(rig.ok("docker run --rm you/saved:1.0"), "made");
    rig.ok(
        "skopeo copy --quiet oci:from-docker-archive:latest docker-archive:by-skopeo.tar:you/by-skopeo:2.0",
    );
    assert_eq!(rig.ok("sh -c 'docker load <by-skopeo.tar'"), "Loaded image: you/by-skopeo:2.0");
    assert_eq!(rig.ok("docker run --rm you/by-skopeo:2.0"), "made");
}

#[test]
fn two_stores_build_the_same_layers_from_the_same_files() {
    let (Some(one), Some(two)) = (Rig::start(), Rig::start()) else { return };
    let dockerfile = "FROM scratch\nCOPY . /app\nCMD [\"/app/run\"]\n";
    let made = [&one, &two].map(|rig| {
        let app = rig.context("app", &[("Dockerfile", dockerfile), ("run", "#!/bin/sh\n"), ("data/a", "a")]);
        // The time of a file is part of the layer.
        app.ok("find . -exec touch -d @1000000000 {} +");
        app.ok("docker build -t app .");
        (layers(rig, "app"), inspect(rig, "app")["Config"].clone())
    });
    assert_eq!(made[0], made[1]);
}
