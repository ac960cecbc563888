//! `--provenance` and `--attest`: what an image was made of and how, in the shape that BuildKit writes.

use std::path::Path;

use dhow_oci::Digest;
use serde_json::{Value, json};

use crate::build_cache_elsewhere::{blob, json, other_machine};
use crate::build_sources::{files, repository, serve};
use crate::rig::{Rig, Shell};

const DOCKERFILE: &str = "FROM alpine AS tools
RUN --mount=type=secret,id=key --network=none echo built > /tool
FROM alpine
ARG VERSION=1
ARG DEPLOY_TOKEN
COPY a.txt /
COPY --from=tools /tool /
RUN --network=none echo $VERSION > /version
";

fn app(rig: &Rig) -> Shell<'_> {
    rig.context("app", &[("Dockerfile", DOCKERFILE), ("a.txt", "a\n")])
}

/// The index of a layout, and of each attestation in it the image it is about and the statement.
fn statements(folder: &Path) -> (Value, Vec<(Value, Value)>) {
    let root = json(&folder.join("index.json"))["manifests"][0].clone();
    assert_eq!(root["mediaType"], "application/vnd.oci.image.index.v1+json");
    let index = json(&blob(folder, &root["digest"]));
    let is_attestation =
        |entry: &&Value| entry["annotations"]["vnd.docker.reference.type"] == "attestation-manifest";
    let entries = index["manifests"].as_array().expect("entries").iter().filter(is_attestation);
    let statement = |entry: &Value| {
        assert_eq!(entry["platform"], json!({ "architecture": "unknown", "os": "unknown" }));
        let manifest = json(&blob(folder, &entry["digest"]));
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
        let statement = json(&blob(folder, &layer["digest"]));
        assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], statement["predicateType"]);
        let config = json(&blob(folder, &manifest["config"]["digest"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
        (entry["annotations"]["vnd.docker.reference.digest"].clone(), statement)
    };
    let statements = entries.map(statement).collect();
    (index, statements)
}

fn hex(digest: &Value) -> &str {
    digest.as_str().and_then(|text| text.strip_prefix("sha256:")).expect("a digest")
}

#[test]
fn provenance_names_what_an_image_was_made_of() {
    let Some(rig) = Rig::start() else { return };
    let app = app(&rig);
    app.write("key", "hush");
    let flags = "--secret id=key,src=key --build-arg VERSION=7 --build-arg DEPLOY_TOKEN=hidden-value --label a=b -t app:1";
    app.ok(&format!(
        "dhow build -q {flags} --provenance=mode=max,builder-id=https://ci/1 -o type=oci,dest=max,tar=false ."
    ));
    let (index, found) = statements(&rig.path("work/app/max"));
    let (about, statement) = &found[0];
    assert_eq!((found.len(), about), (1, &index["manifests"][0]["digest"]));
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let subject = &statement["subject"][0];
    assert_eq!(subject["name"], "pkg:docker/app@1?platform=linux%2Famd64");
    assert_eq!(subject["digest"]["sha256"], hex(about));

    let definition = &statement["predicate"]["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(definition["externalParameters"]["configSource"]["path"], "Dockerfile");
    assert_eq!(
        (&request["frontend"], &request["args"]["build-arg:VERSION"]),
        (&"dockerfile.v0".into(), &"7".into())
    );
    assert_eq!((&request["args"]["label:a"], &request["secrets"][0]["id"]), (&"b".into(), &"key".into()));
    assert_eq!(request["locals"], json!([{ "name": "context" }, { "name": "dockerfile" }]));
    let materials = definition["resolvedDependencies"].as_array().expect("materials");
    assert_eq!(materials.len(), 1, "{materials:?}");
    assert_eq!(materials[0]["uri"], "pkg:docker/alpine@latest?platform=linux%2Famd64");
    assert_eq!(materials[0]["digest"]["sha256"].as_str().map(str::len), Some(64));

    let details = &statement["predicate"]["runDetails"];
    assert_eq!(details["builder"]["id"], "https://ci/1");
    let metadata = &details["metadata"];
    assert_eq!(metadata["buildkit_completeness"]["resolvedDependencies"], false, "a folder was read");
    assert_eq!(metadata["buildkit_completeness"]["request"], false, "a secret value is left out");
    // Steps follow those they need, and are found in the Dockerfile.
    let steps = definition["internalParameters"]["buildConfig"]["llbDefinition"].as_array().expect("steps");
    for (at, step) in steps.iter().enumerate() {
        assert_eq!(step["id"], format!("step{at}"));
        for input in step["inputs"].as_array().into_iter().flatten() {
            let input = input.as_str().and_then(|text| text.strip_prefix("step")?.strip_suffix(":0"));
            assert!(input.and_then(|number| number.parse::<usize>().ok()).is_some_and(|number| number < at));
        }
    }
    let text = statement.to_string();
    assert!(text.contains("echo $VERSION > /version") && text.contains("local://context"), "{text}");
    assert!(!text.contains("hidden-value") && !text.contains("hush"), "{text}");
    assert!(metadata["buildkit_metadata"]["source"]["infos"][0]["data"].is_string());
    let layers = metadata["buildkit_metadata"]["layers"].as_object().expect("layers");
    let manifest = json(&blob(&rig.path("work/app/max"), about));
    let whole = layers.values().map(|stacks| stacks[0].as_array().map_or(0, Vec::len)).max();
    assert_eq!(whole, manifest["layers"].as_array().map(Vec::len), "{layers:?}");

    app.ok(&format!("dhow build -q {flags} --attest type=provenance,mode=min,version=v0.2 -o type=oci,dest=min,tar=false ."));
    let (_, found) = statements(&rig.path("work/app/min"));
    let statement = &found[0].1;
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v0.2");
    let predicate = &statement["predicate"];
    assert_eq!(predicate["buildType"], "https://mobyproject.org/buildkit@v1");
    assert_eq!(predicate["invocation"]["parameters"]["args"], json!({}));
    assert_eq!(predicate["metadata"]["completeness"]["parameters"], false);
    assert!(predicate["buildConfig"].is_null() && !statement.to_string().contains("VERSION"));
}

#[test]
fn provenance_goes_where_the_image_goes() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context(
        "app",
        &[("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH\n"), ("a.txt", "a\n")],
    );
    let platforms = "--platform linux/amd64,linux/arm64 --provenance=true";
    let place = format!("{}/attested:1", rig.registry());
    app.ok(&format!("dhow build -q {platforms} --push --load -t {place} -o type=image ."));
    app.ok(&format!("dhow build -q {platforms} -t {place} -o type=oci,dest=layout,tar=false ."));
    let (index, found) = statements(&rig.path("work/app/layout"));
    let about: Vec<&Value> = found.iter().map(|(about, _)| about).collect();
    assert_eq!(about, [&index["manifests"][0]["digest"], &index["manifests"][1]["digest"]]);

    // What is in the store is pushed as it is, and what is in the registry is pulled by its image.
    rig.ok(&format!("dhow tag {place} {place}-again"));
    rig.ok(&format!("dhow push {place}-again"));
    other_machine(&rig);
    rig.ok(&format!("dhow pull {place}-again"));
    assert_eq!(
        rig.ok(&format!("dhow image inspect --format '{{{{.Architecture}}}}' {place}-again")),
        "amd64"
    );

    // Files are told of by their paths.
    app.ok(&format!("dhow build -q {platforms} -o out ."));
    let statement = json(&rig.path("work/app/out/linux_arm64/provenance.json"));
    assert_eq!(statement["subject"][0]["name"], "arm64");
    assert_eq!(statement["subject"].as_array().map(Vec::len), Some(1));
    app.ok("dhow build -q --provenance=filename=made.json -o type=tar,dest=out.tar .");
    let told: Value = serde_json::from_str(&app.ok("tar -xOf out.tar made.json")).expect("a statement");
    assert_eq!(told["subject"][0]["name"], "amd64");
    app.ok("dhow build -q --provenance=inline-only=true -o bare .");
    assert!(!rig.path("work/app/bare/provenance.json").exists());
    // Nothing is told unless somebody asks.
    app.ok("dhow build -q -o type=oci,dest=plain,tar=false .");
    let root = json(&rig.path("work/app/plain/index.json"))["manifests"][0].clone();
    assert_eq!(root["mediaType"], "application/vnd.oci.image.manifest.v1+json");
}

#[test]
fn provenance_names_what_came_from_elsewhere() {
    let Some(rig) = Rig::start() else { return };
    let files = files(vec![("/dir/f.txt", b"hello\n".to_vec())]);
    repository(&rig);
    let server = serve(&rig);
    let (at, repo) = (&files.address, format!("http://{}/repo.git", server.address));
    let commit = rig.at("repo").ok("git rev-parse v1^{commit}");
    let dockerfile = format!("FROM scratch\nADD http://hidden:word@{at}/dir/f.txt /\nADD {repo}#v1 /r/\n");
    let app = rig.context("app", &[("Dockerfile", &dockerfile)]);
    let definition = |context: &str| {
        app.ok("rm -rf out");
        app.ok(&format!("dhow build -q --provenance=true -o type=oci,dest=out,tar=false {context}"));
        let (_, found) = statements(&rig.path("work/app/out"));
        assert!(!found[0].1.to_string().contains("hidden:word"), "{}", found[0].1);
        let predicate = &found[0].1["predicate"];
        let is_whole = &predicate["runDetails"]["metadata"]["buildkit_completeness"]["resolvedDependencies"];
        (predicate["buildDefinition"].clone(), is_whole.as_bool().expect("a truth"))
    };
    let file = json!({
        "uri": format!("http://{at}/dir/f.txt"),
        "digest": { "sha256": Digest::sha256_of(b"hello\n").hex() },
    });
    let checked_out = json!({ "uri": format!("{repo}#v1"), "digest": { "sha1": commit } });
    // The second time all is cached, and what it was made of is the same.
    for _ in 0..2 {
        let (definition, is_whole) = definition(".");
        let mut expected = vec![file.clone(), checked_out.clone()];
        expected.sort_by_key(|material| material["uri"].to_string());
        assert_eq!(definition["resolvedDependencies"], Value::Array(expected));
        assert!(!is_whole, "a folder was read");
    }
    // A context from elsewhere is a material, and what the build began with.
    let (definition, is_whole) = definition(&format!("{repo}#v1"));
    let source = &definition["externalParameters"]["configSource"];
    assert_eq!((&source["uri"], &source["digest"]), (&checked_out["uri"], &checked_out["digest"]));
    assert!(is_whole);
    assert!(definition["resolvedDependencies"].as_array().expect("materials").contains(&checked_out));
}

#[test]
fn others_read_what_carries_a_statement() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context(
        "app",
        &[("Dockerfile", "FROM alpine\nCOPY a.txt /\nCMD [\"cat\", \"/a.txt\"]\n"), ("a.txt", "a\n")],
    );
    let place = format!("{}/attested/one:1", rig.registry());
    app.ok(&format!(
        "dhow build -q --provenance=true -t {place} -o type=docker,dest=image.tar -o type=image ."
    ));

    // Here it is one image, which runs, and leaves with the statement.
    rig.ok("dhow rmi alpine");
    let id = rig.ok("dhow images -aq --no-trunc");
    assert_eq!(id.lines().count(), 1, "{id}");
    assert_eq!(rig.ok(&format!("dhow run --rm {place}")), "a");
    rig.ok(&format!("dhow push {place}"));
    let raw = |name: &str| -> Value {
        let text = rig.ok(&format!("skopeo inspect --raw --tls-verify=false docker://{name}"));
        serde_json::from_str(&text).expect("a document")
    };
    let index = raw(&place);
    let entries = index["manifests"].as_array().expect("entries");
    let types: Vec<&Value> =
        entries.iter().map(|entry| &entry["annotations"]["vnd.docker.reference.type"]).collect();
    assert_eq!(types, [&Value::Null, &"attestation-manifest".into()], "{index}");
    assert_eq!(entries[1]["annotations"]["vnd.docker.reference.digest"], entries[0]["digest"]);
    let digest = entries[1]["digest"].as_str().expect("a digest");
    let layer = raw(&format!("{}@{digest}", place.trim_end_matches(":1")))["layers"][0].clone();
    assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
    app.ok(&format!("skopeo copy -q --tls-verify=false docker://{place} dir:copy"));
    let inspected = app.ok("skopeo inspect --config docker-archive:image.tar");
    let config: Value = serde_json::from_str(&inspected).expect("a configuration");
    assert_eq!(config["config"]["Cmd"], json!(["cat", "/a.txt"]));

    other_machine(&rig);
    app.ok("dhow load -i image.tar");
    assert_eq!(rig.ok("dhow images -aq --no-trunc"), id);
    assert_eq!(rig.ok(&format!("dhow run --rm {place}")), "a");
}

#[test]
fn equal_builds_have_equal_provenance() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[("Dockerfile", "FROM alpine\nRUN echo one > /one\n")]);
    let build = |out: &str| {
        app.ok(&format!(
            "dhow build -q --build-arg SOURCE_DATE_EPOCH=1700000000 --provenance=mode=max -o type=oci,dest={out},tar=false ."
        ));
        let (index, found) = statements(&rig.path("work/app").join(out));
        let metadata = &found[0].1["predicate"]["runDetails"]["metadata"];
        assert_eq!(metadata["startedOn"], "2023-11-14T22:13:20Z");
        index
    };
    let first = build("first");
    other_machine(&rig);
    assert_eq!(build("second"), first);
}

#[test]
fn other_attestations_are_refused() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /provenance.json\n")]);
    for (flags, message) in [
        ("--sbom=true", "attestations of type sbom are not supported yet"),
        ("--attest type=vex", "unknown attestation type \"vex\""),
        ("--provenance=mode=all", "invalid value \"all\" for mode of attestation provenance"),
        ("--provenance=true -o out", "the result has a file provenance.json of its own"),
    ] {
        let error = app.fails(&format!("dhow build {flags} ."), 1);
        assert!(error.contains(message), "{flags}: {error}");
    }
    app.ok("dhow build -q --sbom=false --provenance=false --attest type=sbom,disabled=true .");
}
