//! Images as others write them, and as others read them.

use std::fs;

use crate::rig::{Rig, has_tool};
use crate::shown::inspect;

/// An image that came by an index of two platforms, at a name in the registry.
fn multi(rig: &Rig, name: &str) {
    let app =
        rig.context("multi", &[("Dockerfile", "FROM scratch\nARG TARGETARCH\nADD data /data-$TARGETARCH\n")]);
    app.write("data", "data\n");
    app.ok(&format!(
        "docker build -q --platform linux/amd64,linux/arm64 -o type=image,name={name},push=true ."
    ));
    rig.ok(&format!("docker rmi -f {name}"));
    rig.ok("docker builder prune -af");
}

#[test]
fn archives_are_loaded_however_they_are_packed() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q hello-world");
    rig.ok("docker save -o plain.tar hello-world");
    let id = inspect(&rig, "hello-world")["Id"].clone();
    for program in ["gzip", "bzip2", "xz", "zstd"].into_iter().filter(|program| has_tool(program)) {
        rig.ok(&format!("sh -c '{program} -c plain.tar >packed'"));
        rig.ok("docker rmi hello-world");
        assert_eq!(rig.ok("docker load -i packed"), "Loaded image: hello-world:latest", "{program}");
        assert_eq!(inspect(&rig, "hello-world")["Id"], id, "{program}");
    }
    let archive = fs::read(rig.path("work/plain.tar")).expect("an archive");
    fs::write(rig.path("work/cut.tar"), &archive[..archive.len() / 2]).expect("half of it");
    rig.ok("docker rmi hello-world");
    let complaint = rig.fails("docker load -i cut.tar", 1);
    assert!(complaint.contains("the archive"), "{complaint}");
    assert_eq!(rig.ok("docker images -q"), "");
    rig.ok("docker system check");
}

#[test]
fn a_layout_may_be_a_folder() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q busybox");
    rig.ok("docker save --format oci-dir -o layout busybox");
    assert!(!rig.path("work/layout/manifest.json").exists(), "the layout has docker's list as well");
    if has_tool("oci-image-tool") {
        rig.ok("oci-image-tool validate --type image --ref name=latest layout");
    }
    rig.ok("docker save --format oci-archive -o archive.tar busybox");
    assert!(!rig.ok("tar -tf archive.tar").contains("manifest.json"));
    rig.ok("docker rmi busybox");
    assert_eq!(rig.ok("docker load -i layout"), "Loaded image: busybox:latest");
    rig.ok("docker rmi busybox");
    assert_eq!(rig.ok("docker load -i archive.tar"), "Loaded image: busybox:latest");
    assert_eq!(rig.ok("docker run --rm busybox echo it runs"), "it runs");
    rig.fails("docker save --format oci-dir busybox", 1);
}

#[test]
fn what_dockers_before_25_saved_is_loaded() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q hello-world");
    rig.ok("docker save -o new.tar hello-world");
    rig.at("").write("new/.keep", "");
    rig.ok("tar -xf new.tar -C new");
    let listed = fs::read_to_string(rig.path("work/new/manifest.json")).expect("docker's list");
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let config = listed[0]["Config"].as_str().expect("a path");
    let layer = listed[0]["Layers"][0].as_str().expect("a path");
    let id = config.rsplit('/').next().expect("a digest");
    // A layer of such an archive is a plain tar in a folder of its own, and one that is there twice a link.
    rig.at("").write("old/0123/VERSION", "1.0");
    rig.at("").write("old/0123/json", "{}");
    rig.ok(&format!("sh -c 'gzip -dc new/{layer} >old/0123/layer.tar; cp new/{config} old/{id}.json'"));
    rig.ok("ln -s ../0123 old/4567");
    rig.at("").write(
        "old/manifest.json",
        &format!(r#"[{{"Config":"{id}.json","RepoTags":["old/name:1"],"Layers":["0123/layer.tar"]}}]"#),
    );
    rig.at("").write("old/repositories", r#"{"old/name":{"1":"0123"}}"#);
    rig.ok("tar -cf old.tar -C old .");
    rig.ok("docker rmi hello-world");
    assert_eq!(rig.ok("docker load -i old.tar"), "Loaded image: old/name:1");
    assert_eq!(inspect(&rig, "old/name:1")["Id"], format!("sha256:{id}"));
    // The format before that had no list at all.
    fs::remove_file(rig.path("work/old/manifest.json")).expect("the list goes");
    let complaint = rig.fails("docker load -i old", 1);
    assert!(complaint.contains("written by a docker before 1.10"), "{complaint}");
}

#[test]
fn an_index_travels_whole_or_says_what_it_left() {
    let Some(rig) = Rig::start() else { return };
    let name = format!("{}/formats/multi:1", rig.registry());
    let copy = format!("{}/formats/copy:1", rig.registry());
    multi(&rig, &name);
    let pulled = rig.ok(&format!("docker pull {name}"));
    let index = pulled.lines().find_map(|line| line.strip_prefix("Digest: ")).expect("a digest").to_owned();
    rig.ok(&format!("docker tag {name} {copy}"));
    let pushed = rig.run(&format!("docker push {copy}"));
    assert!(
        pushed.stderr.contains("only the available single-platform image was pushed"),
        "{}",
        pushed.both()
    );
    rig.ok(&format!("docker pull -q --all-platforms {name}"));
    let pushed = rig.run(&format!("docker push {copy}"));
    assert!(pushed.stdout.contains(&format!("1: digest: {index} ")), "{}", pushed.both());
    assert_eq!(pushed.stderr, "");
    let one = rig.ok(&format!("docker push --platform linux/arm64 {copy}"));
    assert!(!one.contains(&index), "{one}");

    let architecture = |options: &str| {
        rig.ok(&format!("docker image inspect {options} --format {{{{.Architecture}}}} {name}"))
    };
    assert_eq!(architecture("--platform linux/amd64"), "amd64");
    assert_eq!(architecture("--platform linux/arm64"), "arm64");
    let history = rig.ok(&format!("docker history --platform linux/arm64 --no-trunc {name}"));
    assert!(history.contains("/data-arm64"), "{history}");
    let complaint = rig.fails(&format!("docker save --platform linux/s390x -o x.tar {name}"), 1);
    assert!(complaint.contains("does not provide the specified platform (linux/s390x)"), "{complaint}");

    rig.ok(&format!("docker save -o multi.tar {name}"));
    rig.ok(&format!("docker save --platform linux/arm64 -o arm64.tar {name}"));
    rig.ok(&format!("docker rmi {name} {copy}"));
    assert_eq!(rig.ok("docker images -aq"), "");
    rig.ok("docker load -i multi.tar");
    rig.ok(&format!("docker tag {name} {copy}"));
    assert!(rig.ok(&format!("docker push {copy}")).contains(&index));
    rig.ok(&format!("docker rmi --platform linux/amd64 {name}"));
    assert_eq!(architecture(""), "arm64");
    rig.ok(&format!("docker rmi {name} {copy}"));
    rig.ok("docker load -i arm64.tar");
    assert_eq!(architecture(""), "arm64");
    let complaint = rig.fails("docker load --platform linux/amd64 -i arm64.tar", 1);
    assert!(complaint.contains("does not provide the specified platform (linux/amd64)"), "{complaint}");
    rig.ok("docker system check");
}
