//! Images on their way through other tools and back, bit for bit.

use crate::rig::{Dockerd, Rig, has_tool};
use crate::shown::inspect;

/// What an image here came by.
fn manifest(rig: &Rig, name: &str) -> String {
    inspect(rig, name)["Descriptor"]["digest"].as_str().expect("it came by a manifest").to_owned()
}

#[test]
fn digests_survive_skopeo_in_every_format() {
    let Some(rig) = Rig::start() else { return };
    if !has_tool("skopeo") {
        return;
    }
    let registry = rig.registry();
    rig.ok("docker pull -q alpine");
    let (id, digest) = (inspect(&rig, "alpine")["Id"].clone(), manifest(&rig, "alpine"));
    rig.ok("docker save -o saved.tar alpine");
    rig.ok("docker save --format oci-archive -o oci.tar alpine");
    rig.ok("docker save --format oci-dir -o layout alpine");
    let sha256 = |source: &str, what: &str| {
        let sum = rig.ok(&format!("sh -c 'skopeo inspect {what} {source} | sha256sum'"));
        format!("sha256:{}", sum.trim_end_matches("  -"))
    };
    for source in ["oci-archive:saved.tar", "oci-archive:oci.tar", "oci:layout"] {
        assert_eq!(sha256(source, "--raw"), digest, "{source}");
    }
    assert_eq!(sha256("docker-archive:saved.tar", "--raw --config"), id.as_str().expect("an ID"));
    // And back: through each of its formats, and a registry.
    for (number, source) in
        ["oci-archive:saved.tar", "oci:layout", "docker-archive:saved.tar"].iter().enumerate()
    {
        for target in ["docker-archive", "oci-archive"] {
            let name = format!("back/{target}:{number}");
            rig.ok(&format!("skopeo copy --quiet {source} {target}:{number}-{target}.tar:{name}"));
            assert_eq!(
                rig.ok(&format!("docker load -i {number}-{target}.tar")),
                format!("Loaded image: {name}")
            );
            assert_eq!(
                inspect(&rig, &name)["RootFS"],
                inspect(&rig, "alpine")["RootFS"],
                "{source} by {target}"
            );
            // To OCI's own dialect skopeo writes configurations anew.
            if target == "docker-archive" {
                assert_eq!(inspect(&rig, &name)["Id"], id, "{source} by {target}");
            }
        }
        let name = format!("{registry}/round-trips/skopeo:{number}");
        rig.ok(&format!("skopeo copy --quiet --dest-tls-verify=false {source} docker://{name}"));
        rig.ok(&format!("docker pull -q {name}"));
        assert_eq!(inspect(&rig, &name)["Id"], id, "{source} by a registry");
        if !source.starts_with("docker-archive") {
            assert_eq!(manifest(&rig, &name), digest, "{source} by a registry");
        }
    }
    rig.ok("docker system check");
}

#[test]
fn podman_and_buildah_take_what_dhow_saves_and_give_it_back() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q busybox");
    let id = inspect(&rig, "busybox")["Id"].clone();
    rig.ok("docker save -o saved.tar busybox");
    for program in ["buildah", "podman"].into_iter().filter(|program| has_tool(program)) {
        // It insists on credentials where DOCKER_CONFIG says.
        let tool = format!(
            "env -u DOCKER_CONFIG {program} --storage-driver vfs --root {program} --runroot {program}-run"
        );
        for transport in ["docker-archive", "oci-archive"] {
            let there = rig.ok(&format!("{tool} pull --quiet {transport}:saved.tar"));
            assert!(id.as_str().expect("an ID").ends_with(&there), "{program}: {there} is not {id}");
            let (archive, name) =
                (format!("{program}-{transport}.tar"), format!("back/{program}:{transport}"));
            rig.ok(&format!("{tool} push --quiet {there} {transport}:{archive}:{name}"));
            assert_eq!(rig.ok(&format!("docker load -i {archive}")), format!("Loaded image: {name}"));
            let layers = |name: &str| inspect(&rig, name)["RootFS"].clone();
            assert_eq!(layers(&name), layers("busybox"), "{program} by {transport}");
        }
    }
}

#[test]
fn docker_loads_what_dhow_saves_and_dhow_what_docker_saves() {
    let Some(rig) = Rig::start() else { return };
    let Some(dockerd) = Dockerd::start(&rig) else { return };
    rig.ok("docker pull -q busybox");
    let id = inspect(&rig, "busybox")["Id"].clone();
    rig.ok("docker save -o saved.tar busybox");
    assert_eq!(rig.ok(&dockerd.line("load -i saved.tar")), "Loaded image: busybox:latest");
    assert_eq!(rig.ok(&dockerd.line("image inspect --format {{.Id}} busybox")), id.as_str().expect("an ID"));
    rig.ok(&dockerd.line("save -o by-docker.tar busybox"));
    rig.ok("docker rmi busybox");
    assert_eq!(rig.ok("docker load -i by-docker.tar"), "Loaded image: busybox:latest");
    assert_eq!(inspect(&rig, "busybox")["Id"], id);
    assert_eq!(rig.ok("docker run --rm busybox echo it runs"), "it runs");
    // Files of a container, there and back.
    let container = rig.ok(&dockerd.line("create busybox true"));
    rig.ok(&dockerd.line(&format!("export -o files.tar {container}")));
    rig.ok("docker import files.tar me/by-docker");
    assert_eq!(rig.ok("docker run --rm me/by-docker /bin/echo files came"), "files came");
    rig.ok("docker create --name here busybox true");
    rig.ok("docker export -o files-by-dhow.tar here");
    assert!(rig.ok(&dockerd.line("import files-by-dhow.tar me/by-dhow")).starts_with("sha256:"));
}
