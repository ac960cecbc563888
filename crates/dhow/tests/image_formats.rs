//! Images as others write them, and as others read them.

use std::fs;

use dhow_oci::Digest;
use serde_json::Value;

use crate::rig::{Answer, Double, Image, Rig, Tar, has_tool};
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
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
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

#[test]
fn a_layer_that_registries_do_not_keep_comes_from_where_its_urls_say() {
    let Some(rig) = Rig::start() else { return };
    let layer = Tar::default().file("hello", b"from elsewhere").end();
    let diff_id = Digest::sha256_of(&layer).to_string();
    let mut image = Image::travelling(
        std::slice::from_ref(&layer),
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        &[diff_id],
    );
    let elsewhere = Double::start(move |asked| match asked.path.as_str() {
        "/layers/one" => Answer::new(200, layer.clone()),
        _ => Answer::new(404, ""),
    });
    let mut written: Value = serde_json::from_slice(&image.manifest).expect("a manifest");
    written["layers"][0]["urls"] = serde_json::json!([
        format!("http://{}/gone", elsewhere.address),
        format!("http://{}/layers/one", elsewhere.address)
    ]);
    image.manifest = written.to_string().into_bytes();
    // The registry has the configuration alone.
    image.blobs.retain(|_, blob| blob.starts_with(b"{"));
    let registry = Double::start(move |asked| image.answer(asked));
    rig.ok(&format!("docker pull -q {}/a/b", registry.address));
    rig.ok(&format!("docker create --name held {}/a/b x", registry.address));
    assert_eq!(rig.ok("sh -c 'docker export held | tar -xO hello'"), "from elsewhere");
    rig.ok("docker system check");
}

#[test]
fn files_of_a_container_are_imported_from_a_url() {
    let Some(rig) = Rig::start() else { return };
    let tar = Tar::default().file("hello", b"hello").end();
    let server = Double::start(move |asked| match asked.path.as_str() {
        "/files.tar" => Answer::new(200, tar.clone()),
        _ => Answer::new(404, "nothing"),
    });
    let url = format!("http://{}/files.tar", server.address);
    let id = rig.ok(&format!("docker import -c 'CMD [\"/hello\"]' {url} me/imported:1"));
    let image = inspect(&rig, "me/imported:1");
    assert_eq!(
        (image["Id"].as_str(), &image["Comment"]),
        (Some(id.as_str()), &format!("Imported from {url}").into())
    );
    let said = rig.fails(&format!("docker import http://{}/none me/none", server.address), 1);
    assert!(said.contains("404") && said.contains("/none"), "{said}");
}
