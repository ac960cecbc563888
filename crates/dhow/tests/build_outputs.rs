//! What `dhow build` makes of a result: folders, archives, images here and in registries.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::slice;

use dhow_oci::{Digest, media_type};
use serde_json::Value;

use crate::build_cache_elsewhere::{blob, manifest, other_machine};
use crate::rig::{Double, Image, Rig, Shell, Tar, has_tool};
use crate::shown::inspect;

const DOCKERFILE: &str = "FROM busybox AS base
FROM scratch
COPY --from=base /bin/busybox /bin/
COPY note /notes/
COPY note /notes/second
CMD [\"/bin/busybox\", \"cat\", \"/notes/note\"]
";

fn context<'r>(rig: &'r Rig, dockerfile: &str) -> Shell<'r> {
    rig.context("app", &[("Dockerfile", dockerfile), ("note", "noted\n")])
}

fn json(app: &Shell<'_>, path: &str) -> Value {
    let text = fs::read_to_string(app.folder().join(path)).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

/// The image that a registry has under a name, as skopeo sees it.
fn raw(rig: &Rig, name: &str) -> Value {
    let text = rig.ok(&format!("skopeo inspect --raw --tls-verify=false docker://{name}"));
    serde_json::from_str(&text).expect("a manifest")
}

#[test]
fn files_go_into_a_folder_or_a_tar_and_never_outside() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig, "FROM scratch\nCOPY --chown=7:8 --chmod=640 note /dir/\nCOPY note /top\n");
    app.ok("docker build -o out .");
    let note = fs::metadata(app.folder().join("out/dir/note")).expect("a file");
    assert_eq!((note.uid(), note.mode() & 0o7777), (0, 0o640));

    app.write("out/own", "stays\n");
    app.write("outside/file", "untouched\n");
    app.ok("rm -r out/dir");
    app.ok("ln -s ../outside out/dir");
    app.ok("docker build --output type=local,dest=out .");
    assert_eq!(app.ok("cat out/own out/dir/note outside/file"), "stays\nnoted\nuntouched");
    assert_eq!(app.ok("ls -A outside"), "file");
    app.ok("docker build -o type=local,dest=out,mode=delete .");
    assert_eq!(app.ok("ls -A out"), "dir\ntop");

    app.ok("docker build -o type=tar,dest=files.tar .");
    assert_eq!(app.ok("tar --numeric-owner -tvf files.tar dir/note").split_whitespace().nth(1), Some("7/8"));
    assert_eq!(app.ok("sh -c 'docker build -q -o - . | tar -xO top'"), "noted");
    // Nothing of this is an image here.
    assert_eq!(rig.ok("docker images -q"), "");
}

#[test]
fn archives_and_layouts_are_read_by_others() {
    let Some(rig) = Rig::start() else { return };
    if !["skopeo", "umoci", "oci-image-tool"].into_iter().all(has_tool) {
        return;
    }
    let app = context(&rig, DOCKERFILE);
    app.ok("docker build -t you/app:1 -o type=oci,dest=oci.tar -o type=docker,dest=docker.tar \
            -o type=oci,dest=layout,tar=false,compression=zstd -o type=oci,dest=plain,tar=false,compression=uncompressed .");
    app.ok("skopeo copy --quiet oci-archive:oci.tar:1 oci:from-oci:1");
    app.ok("skopeo copy --quiet docker-archive:docker.tar:you/app:1 oci:from-docker:1");
    app.ok("oci-image-tool validate --type image --ref name=1 from-oci");
    // umoci knows no zstd.
    app.ok("skopeo inspect oci:layout:1");
    for layout in ["from-oci", "from-docker", "plain"] {
        app.ok(&format!("umoci unpack --image {layout}:1 {layout}-bundle"));
        assert_eq!(app.ok(&format!("cat {layout}-bundle/rootfs/notes/second")), "noted");
    }
    let media_type = |layout: &str| {
        let index = json(&app, &format!("{layout}/index.json"));
        let digest = index["manifests"][0]["digest"].as_str().expect("a digest").replace(':', "/");
        let manifest = json(&app, &format!("{layout}/blobs/{digest}"));
        manifest["layers"][0]["mediaType"].as_str().expect("a type").to_owned()
    };
    assert!(media_type("layout").ends_with("tar+zstd"));
    assert!(media_type("plain").ends_with(".tar"));
    // An image of another name is added to a layout.
    app.ok("docker build -t you/app:2 -o type=oci,dest=layout,tar=false .");
    assert_eq!(json(&app, "layout/index.json")["manifests"].as_array().map(Vec::len), Some(2));
    assert_eq!(app.ok("docker load -i docker.tar"), "Loaded image: you/app:1");
    assert_eq!(rig.ok("docker run --rm you/app:1"), "noted");
}

#[test]
fn images_are_pushed_with_the_attributes_asked_for() {
    let Some(rig) = Rig::start() else { return };
    if !has_tool("skopeo") {
        return;
    }
    let app = context(&rig, DOCKERFILE);
    let (registry, repository) = (rig.registry(), format!("{}/outputs/app", rig.registry()));
    app.ok(&format!(
        "docker build -t {repository}:1 --push --annotation a=b --metadata-file meta.json --iidfile id ."
    ));
    let manifest = raw(&rig, &format!("{repository}:1"));
    assert_eq!(manifest["annotations"]["a"], "b");
    let metadata = json(&app, "meta.json");
    let digest = rig
        .ok(&format!("skopeo inspect --tls-verify=false --format {{{{.Digest}}}} docker://{repository}:1"));
    assert_eq!(metadata["containerimage.digest"], digest.as_str());
    assert_eq!(metadata["image.name"], format!("{repository}:1"));
    let id = fs::read_to_string(app.folder().join("id")).expect("an image ID");
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    assert_eq!(manifest["config"]["digest"], id.as_str());
    // What was pushed is here too, and pushing it again gives the same.
    assert_eq!(inspect(&rig, &format!("{repository}:1"))["Id"], id.as_str());
    assert!(rig.ok(&format!("docker push {repository}:1")).contains(&digest));

    app.ok(&format!(
        "docker build -o 'type=image,\"name={repository}:2,{registry}/outputs/other:2\",push=true,store=false,\
         compression=zstd,force-compression=true' ."
    ));
    for name in [format!("{repository}:2"), format!("{registry}/outputs/other:2")] {
        let layers = raw(&rig, &name)["layers"].clone();
        let layers = layers.as_array().expect("layers");
        assert!(
            layers
                .iter()
                .all(|layer| layer["mediaType"].as_str().is_some_and(|kind| kind.ends_with("+zstd")))
        );
    }
    rig.fails(&format!("docker inspect {repository}:2"), 1);

    app.ok(&format!(
        "docker build --metadata-file meta.json -o type=registry,name={registry}/outputs/nameless,push-by-digest=true,oci-mediatypes=false ."
    ));
    let digest = json(&app, "meta.json")["containerimage.digest"].as_str().expect("a digest").to_owned();
    let manifest = raw(&rig, &format!("{registry}/outputs/nameless@{digest}"));
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    rig.fails(&format!("skopeo inspect --tls-verify=false docker://{registry}/outputs/nameless"), 1);
}

#[test]
fn layers_of_others_are_packed_anew_by_force() {
    let Some(rig) = Rig::start() else { return };
    // No folder gives this tar again: its entries are in no order, and one is there twice.
    let tar = Tar::default().file("b", b"1\n").file("a", b"2\n").file("b", b"3\n").end();
    let app = context(&rig, "FROM odd\nCOPY note /\n");
    fs::write(app.folder().join("odd.tar"), &tar).expect("a tar");
    app.ok("gzip -n odd.tar");
    let packed = fs::read(app.folder().join("odd.tar.gz")).expect("a packed tar");
    let diff_id = Digest::sha256_of(&tar).to_string();
    let image = Image::travelling(slice::from_ref(&packed), media_type::OCI_LAYER_GZIP, &[diff_id]);
    let double = Double::with(vec![("library/odd", image)]);
    rig.configure(&double.address, "127.0.0.1:1");
    let lowest = |flags: &str| {
        app.ok("rm -rf out");
        app.ok(&format!("docker build -q -o type=oci,dest=out,tar=false,{flags} ."));
        let folder = app.folder().join("out");
        let layer = manifest(&folder)["layers"][0].clone();
        let bytes = fs::read(blob(&folder, &layer["digest"])).expect("a layer");
        (layer["mediaType"].as_str().expect("a type").to_owned(), bytes)
    };
    // Unless it is forced a layer leaves as it came.
    assert_eq!(lowest("compression=zstd"), (media_type::OCI_LAYER_GZIP.to_owned(), packed.clone()));
    assert_eq!(
        lowest("compression=uncompressed,force-compression=true"),
        (media_type::OCI_LAYER.to_owned(), tar.clone())
    );
    let (kind, bytes) = lowest("compression=gzip,compression-level=1,force-compression=true");
    assert_eq!(kind, media_type::OCI_LAYER_GZIP);
    assert_ne!(bytes, packed);
    fs::write(app.folder().join("again.gz"), bytes).expect("a file");
    app.ok("gzip -d again.gz");
    assert_eq!(fs::read(app.folder().join("again")).expect("a tar"), tar);
    let (kind, bytes) = lowest("compression=zstd,force-compression=true");
    assert_eq!((kind.as_str(), &bytes[..4]), (media_type::OCI_LAYER_ZSTD, &[0x28, 0xb5, 0x2f, 0xfd][..]));
    // Whoever unpacks it checks what it holds.
    other_machine(&rig);
    app.write("Dockerfile", "FROM packed\nCOPY note /second\n");
    app.ok("docker build -q --build-context packed=oci-layout://out -o files .");
    assert_eq!(app.ok("cat files/a files/b files/note files/second"), "2\n3\nnoted\nnoted");
}

#[test]
fn squashed_layers_are_one_and_hide_what_they_hid() {
    let Some(rig) = Rig::start() else { return };
    let app = context(
        &rig,
        "FROM alpine\nRUN mkdir /d && touch /d/a /d/b /tmp/x\nRUN rm /d/a /tmp/x && rm -r /sbin && mkdir /sbin\n\
         RUN rm -r /d && mkdir /d && touch /d/c\nCOPY note /sbin/\n",
    );
    app.ok("docker build -q -t plain .");
    app.ok("docker build -q -t squashed --squash .");
    let layers = |name: &str| inspect(&rig, name)["RootFS"]["Layers"].as_array().expect("layers").clone();
    let base = layers("alpine").len();
    assert_eq!(layers("squashed").len(), base + 1);
    assert_eq!(layers("squashed")[..base], layers("plain")[..base]);
    let tree = |name: &str| {
        rig.ok(&format!("docker run --rm {name} sh -c 'find / -xdev -not -path \"/dev*\" | sort | xargs stat -c \"%n %a %u %s\"'"))
    };
    let is_same = |line: &&str| !line.starts_with("/etc/host") && !line.starts_with("/ ");
    assert_eq!(
        tree("plain").lines().filter(is_same).collect::<Vec<_>>(),
        tree("squashed").lines().filter(is_same).collect::<Vec<_>>()
    );
}

#[test]
fn what_is_not_supported_is_refused_before_anything_runs() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig, "FROM no-such-image\n");
    for (flags, complaint) in [
        ("--sbom", "attestations of type sbom are not supported yet"),
        ("--attest type=sbom", "attestations of type sbom are not supported yet"),
        ("-o type=image,compression=estargz", "compression=estargz is not supported yet"),
        ("-o type=paper", "unknown output type \"paper\""),
        ("--build-arg SOURCE_DATE_EPOCH=today", "invalid SOURCE_DATE_EPOCH \"today\""),
        ("--annotation index:a=b", "an image of a single platform has no index to annotate"),
        ("--push", "tag is needed when pushing to registry"),
    ] {
        let said = app.fails(&format!("docker build {flags} ."), 1);
        assert!(said.contains(complaint), "{flags}: {said}");
    }
    app.write("Dockerfile", "FROM scratch\nCOPY note /\n");
    app.ok("docker build -q --provenance=false --sbom=false .");
}

/// What the registry stand-in offers for a platform that no test machine has.
const FOREIGN: &str = "linux/s390x";

#[test]
fn several_platforms_make_an_index_and_share_their_steps() {
    let Some(rig) = Rig::start() else { return };
    if !["skopeo", "umoci"].into_iter().all(has_tool) {
        return;
    }
    let app = context(
        &rig,
        "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN echo $(cat /proc/sys/kernel/random/uuid) >/shared\n\
         ARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM >/platform\n\
         FROM scratch\nCOPY --from=build /shared /platform /\n",
    );
    let name = format!("{}/outputs/several:1", rig.registry());
    app.ok(&format!(
        "docker build --no-cache --platform linux/amd64,linux/arm64 -t {name} -o type=image,push=true \
         -o type=local,dest=out -o type=tar,dest=out.tar --annotation index:of=all \
         --annotation manifest-descriptor[linux/arm64],manifest[linux/arm64]:only=arm ."
    ));
    for (folder, platform) in [("linux_amd64", "linux/amd64"), ("linux_arm64", "linux/arm64")] {
        assert_eq!(app.ok(&format!("cat out/{folder}/platform")), platform);
        assert_eq!(app.ok(&format!("tar -xOf out.tar {folder}/platform")), platform);
    }
    // Equal steps are done once, even without the cache.
    app.ok("cmp out/linux_amd64/shared out/linux_arm64/shared");

    let index = raw(&rig, &name);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["annotations"]["of"], "all");
    let manifests = index["manifests"].as_array().expect("manifests");
    assert_eq!(manifests[0]["platform"]["architecture"], "amd64");
    assert_eq!(manifests[1]["platform"]["architecture"], "arm64");
    assert_eq!(manifests[0]["annotations"], Value::Null);
    assert_eq!(manifests[1]["annotations"]["only"], "arm");
    rig.ok(&format!(
        "skopeo copy --quiet --override-arch arm64 --src-tls-verify=false docker://{name} oci:arm:1"
    ));
    rig.ok("umoci unpack --image arm:1 bundle");
    assert_eq!(rig.ok("cat bundle/rootfs/platform"), "linux/arm64");
    // All of it is kept here, and is pushed elsewhere as it is.
    let copy = format!("{}/outputs/several-copied:1", rig.registry());
    rig.ok(&format!("docker tag {name} {copy}"));
    rig.ok(&format!("docker push -q {copy}"));
    assert_eq!(raw(&rig, &copy), index);

    app.ok("docker build --build-arg BUILDKIT_MULTI_PLATFORM=1 -o single .");
    let own = app.ok("ls single");
    assert!(own.starts_with("linux_"), "{own}");
    let said = app.fails("docker build --platform linux/amd64,linux/arm64 -o type=docker,dest=a.tar .", 1);
    assert!(said.contains("output docker holds one platform"), "{said}");
}

#[test]
fn a_step_for_another_machine_says_so() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig, "FROM hello-world\nRUN [\"/hello\"]\n");
    let said = app.fails(&format!("docker build --platform {FOREIGN} ."), 1);
    assert!(said.contains("it is for linux/s390x, which this machine cannot run"), "{said}");
    assert!(said.contains("Dockerfile:2") && said.contains("binfmt_misc"), "{said}");
    // What needs no program is built, and the name goes on meaning the image for this machine.
    rig.ok("docker pull hello-world");
    let own = inspect(&rig, "hello-world")["Id"].clone();
    app.write("Dockerfile", "FROM hello-world\nCOPY note /\n");
    app.ok(&format!("docker build -q -t foreign --platform {FOREIGN} ."));
    assert_eq!(inspect(&rig, "foreign")["Architecture"], "s390x");
    assert_eq!(inspect(&rig, "hello-world")["Id"], own);
}

const REPRODUCIBLE: &str = "FROM alpine
WORKDIR /app/deep
COPY . .
COPY <<end /made/here
text
end
RUN mkdir -p /out/a && echo hi >/out/a/b && ln -s b /out/a/c && ln /out/a/b /out/d && cat a/x >/out/x
RUN touch -d @5 /out/old && rm -r b
CMD [\"true\"]
";
/// Nobody in particular.
const USER: u32 = 64_322;

/// Builds, pushes and returns the manifest as the registry has it.
fn reproduced(rig: &Rig, umask: &str, files: &[(&str, &str)]) -> (Value, String) {
    let app = rig.context("app", files);
    let name = format!("{}/outputs/reproduced-{umask}:1", rig.registry());
    let build = format!("docker build -t {name} .");
    app.ok(&format!("sh -c 'umask {umask} && SOURCE_DATE_EPOCH=1700000000 {build}'"));
    app.ok(&format!("docker push -q {name}"));
    (raw(rig, &name), inspect(rig, &name)["Created"].as_str().expect("a time").to_owned())
}

#[test]
fn two_machines_make_the_same_image_of_the_same_files() {
    let (Some(one), Some(two)) = (Rig::start(), Rig::start_for(USER)) else { return };
    if !has_tool("skopeo") {
        return;
    }
    let files = [("a/x", "1"), ("a/y", "2"), ("b/z", "3"), ("Dockerfile", REPRODUCIBLE)];
    let mut backwards = files;
    backwards.reverse();
    let first = reproduced(&one, "022", &files);
    let second = reproduced(&two, "077", &backwards);
    assert_eq!(first, second);
    assert_eq!(first.1, "2023-11-14T22:13:20Z");
    // Layers of the base are as they came.
    let layers = |name: &str| inspect(&one, name)["RootFS"]["Layers"][0].clone();
    assert_eq!(layers(&format!("{}/outputs/reproduced-022:1", one.registry())), layers("alpine"));
}
