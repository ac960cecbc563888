//! Import and export, manifest lists, trees and filters of images.

use serde_json::Value;

use crate::rig::{Rig, has_tool};
use crate::shown::{cells, inspect};

#[test]
fn what_is_exported_is_imported_again() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q busybox");
    rig.ok("docker run --name made -e A=b busybox sh -c 'echo text >/text; rm /bin/httpd; ln /text /other; mkdir -m 1777 /shared'");
    rig.ok("docker export -o files.tar made");
    let listed = rig.ok("tar -tvf files.tar");
    assert!(listed.contains("text") && !listed.contains("httpd") && !listed.contains(".wh."), "{listed}");
    assert_eq!(rig.ok("sh -c 'docker container export made | cmp - files.tar'"), "");
    rig.ok("gzip -k files.tar");
    let id = rig
        .ok("docker import -c 'ENV A=c' -c 'CMD [\"cat\", \"/other\"]' -m noted files.tar.gz me/imported:1");
    let image = inspect(&rig, "me/imported:1");
    assert_eq!((&image["Id"], &image["Comment"]), (&id.as_str().into(), &"noted".into()));
    assert_eq!(image["Config"]["Env"][0], "A=c");
    assert_eq!(rig.ok("docker run --rm me/imported:1"), "text");
    let stat = |what: &str| rig.ok(&format!("docker run --rm me/imported:1 stat -c {what}"));
    assert_eq!((stat("%a /shared"), stat("%h /text")), ("1777".to_owned(), "2".to_owned()));
    // Equal files make an equal layer, however they come.
    rig.ok("sh -c 'cat files.tar | docker image import --platform linux/arm64 - me/piped'");
    let piped = inspect(&rig, "me/piped");
    assert_eq!((&piped["Architecture"], &piped["Comment"]), (&"arm64".into(), &"Imported from -".into()));
    assert_eq!(piped["RootFS"], image["RootFS"]);
    let complaint = rig.fails("docker import no-such-file", 1);
    assert!(complaint.contains("open no-such-file: "), "{complaint}");
    let complaint = rig.fails("docker import -c 'RUN ls' files.tar", 1);
    assert!(complaint.contains("RUN"), "{complaint}");
    rig.ok("docker system check");
}

#[test]
fn a_manifest_list_is_put_together_by_hand() {
    let Some(rig) = Rig::start() else { return };
    let registry = rig.registry();
    let app = rig
        .context("app", &[("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n"), ("f", "f")]);
    for arch in ["amd64", "arm64"] {
        let name = format!("{registry}/lists/{arch}:1");
        app.ok(&format!("docker build -q --platform linux/{arch} -t {name} ."));
        rig.ok(&format!("docker push -q {name}"));
    }
    let list = format!("{registry}/lists/all:1");
    let (amd64, arm64) = (format!("{registry}/lists/amd64:1"), format!("{registry}/lists/arm64:1"));
    assert_eq!(
        rig.ok(&format!("docker manifest create {list} {amd64}")),
        format!("Created manifest list {list}")
    );
    let complaint = rig.fails(&format!("docker manifest create {list} {arm64}"), 1);
    assert!(
        complaint.contains("refusing to amend an existing manifest list with no --amend flag"),
        "{complaint}"
    );
    rig.ok(&format!("docker manifest create --amend {list} {arm64}"));
    rig.ok(&format!("docker manifest annotate --variant v8 --os-features a,b {list} {arm64}"));
    let shown: Value =
        serde_json::from_str(&rig.ok(&format!("docker manifest inspect {list}"))).expect("JSON");
    assert_eq!(shown["manifests"][0]["platform"]["architecture"], "amd64");
    assert_eq!(shown["manifests"][1]["platform"]["variant"], "v8");
    assert_eq!(shown["manifests"][1]["platform"]["os.features"][1], "b");
    let digest = rig.ok(&format!("docker manifest push --purge {list}"));
    let complaint = rig.fails(&format!("docker manifest rm {list}"), 1);
    assert!(complaint.contains("no such manifest"), "{complaint}");
    let verbose = rig.ok(&format!("docker manifest inspect --verbose {list}"));
    let verbose: Value = serde_json::from_str(&verbose).expect("JSON");
    assert_eq!(verbose[1]["Descriptor"]["platform"]["architecture"], "arm64");
    if has_tool("skopeo") {
        let raw =
            rig.ok(&format!("sh -c 'skopeo inspect --raw --tls-verify=false docker://{list} | sha256sum'"));
        assert_eq!(format!("sha256:{}", raw.trim_end_matches("  -")), digest);
    }
    // The parts came along from other repositories.
    rig.ok(&format!("docker pull -q --all-platforms {list}"));
    let tree = rig.ok("docker images --tree");
    let row = |text: &str| tree.lines().find(|line| line.starts_with(text)).map(cells);
    assert_eq!(cells(tree.lines().next().expect("a header"))[..3], ["IMAGE", "ID", "DISK USAGE"]);
    assert!(
        row(&list).is_some() && row("├─ linux/amd64").is_some() && row("└─ linux/arm64").is_some(),
        "{tree}"
    );
}

#[test]
fn lists_of_images_are_filtered_and_shaped() {
    let Some(rig) = Rig::start() else { return };
    for (name, label) in [("one", "a"), ("two", "b")] {
        let app = rig.context(
            name,
            &[("Dockerfile", "FROM scratch\nARG NAME\nLABEL kind=$NAME\nCOPY Dockerfile /$NAME\n")],
        );
        app.ok(&format!(
            "docker build -q --build-arg NAME={label} --build-arg SOURCE_DATE_EPOCH=1 -t me/{name}:1 ."
        ));
        rig.ok("docker builder prune -af");
    }
    rig.ok("docker tag me/one:1 you/one:2");
    let list = |options: &str| {
        rig.ok(&format!("docker images {options} --format '{{{{.Repository}}}}:{{{{.Tag}}}}'"))
    };
    assert_eq!(list("--filter label=kind=b"), "me/two:1");
    assert_eq!(list("--filter reference='*/one'"), "me/one:1\nyou/one:2");
    assert_eq!(list("--filter reference='you/*'"), "you/one:2");
    assert_eq!(list("--filter label!=kind=a"), "me/two:1");
    assert_eq!(list("--filter dangling=true"), "");
    assert_eq!(list("you/one"), "you/one:2");
    let json = rig.ok("docker images --format json me/two");
    let json: Value = serde_json::from_str(&json).expect("a line of JSON");
    assert_eq!((&json["Repository"], &json["Digest"]), (&"me/two".into(), &"<none>".into()));
    let table = rig.ok("docker images --format 'table {{.Tag}}\\t{{.ID}}' me/two");
    assert_eq!(cells(table.lines().next().expect("a header")), ["TAG", "IMAGE ID"]);
    let complaint = rig.fails("docker images --filter colour=red", 1);
    assert!(complaint.contains("invalid filter 'colour'"), "{complaint}");
    // A name that moves on leaves an image without one.
    rig.ok("docker tag me/two:1 me/one:1");
    rig.ok("docker tag me/two:1 you/one:2");
    assert_eq!(list("--filter dangling=true"), "<none>:<none>");
    let said = rig.ok("docker image prune -f --filter label=kind=b");
    assert!(said.starts_with("Total reclaimed space: 0B"), "{said}");
    let said = rig.ok("docker image prune -f --filter label=kind=a");
    assert!(said.contains("deleted: sha256:"), "{said}");
    assert_eq!(list("--filter dangling=true"), "");
}
