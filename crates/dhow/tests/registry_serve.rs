//! `dhow registry serve`, as dhow, skopeo, buildah and curl see it.

use std::fs;

use dhow_oci::Digest;
use serde_json::Value;

use crate::rig::{Dockerd, Rig, Served, has_tool, places};

const APP: &[(&str, &str)] =
    &[("Dockerfile", "FROM scratch\nCOPY one two /\n"), ("one", "1\n"), ("two", "2\n")];

/// Users ada and bob; everybody may pull from `public`, ada may push everywhere, bob may pull.
fn protected(rig: &Rig, tokens: bool) -> Served {
    for (user, password) in [("ada", "love lace"), ("bob", "builder")] {
        rig.ok(&format!("sh -c 'echo \"{password}\" | dhow registry htpasswd {user} >>users'"));
    }
    let work = rig.path("work");
    let config = format!(
        r#"
        folder = "{0}/registry"
        [auth]
        users = "{0}/users"
        tokens = {tokens}
        [[rule]]
        repositories = ["public/**"]
        users = ["anonymous"]
        allow = ["pull"]
        [[rule]]
        repositories = ["**"]
        users = ["bob"]
        allow = ["pull"]
        [[rule]]
        repositories = ["**"]
        users = ["ada"]
        allow = ["pull", "push", "delete"]
        "#,
        work.display()
    );
    rig.at("").write("registry.toml", &config);
    Served::start(rig, "--config registry.toml")
}

#[test]
fn dhow_signs_in_pushes_searches_and_pulls_as_far_as_it_may() {
    let Some(rig) = Rig::start() else { return };
    for tokens in [true, false] {
        let server = protected(&rig, tokens);
        let at = server.address.as_str();
        for name in ["public/app", "private/app"] {
            rig.context("app", APP).ok(&format!("docker build -q -t {at}/{name} ."));
        }
        let said = rig.fails(&format!("docker push {at}/public/app"), 1);
        assert!(said.contains("unauthorized") || said.contains("authentication required"), "{said}");
        let login = |user: &str, password: &str| {
            rig.run(&format!("sh -c 'echo \"{password}\" | docker login -u {user} --password-stdin {at}'"))
        };
        assert_eq!(login("ada", "wrong").status, 1);
        assert!(login("ada", "love lace").stdout.contains("Login Succeeded"));
        for name in ["public/app", "private/app"] {
            assert!(rig.ok(&format!("docker push {at}/{name}")).contains("latest: digest: sha256:"));
        }
        let found = |term: &str| rig.ok(&format!("docker search --format '{{{{.Name}}}}' {at}/{term}"));
        assert_eq!(found("app"), "public/app\nprivate/app");
        assert_eq!(found("private"), "private/app");

        assert!(login("bob", "builder").stdout.contains("Login Succeeded"));
        rig.ok(&format!("docker rmi {at}/private/app"));
        rig.ok(&format!("docker pull {at}/private/app"));
        rig.ok(&format!("docker tag {at}/private/app {at}/private/bobs"));
        let said = rig.fails(&format!("docker push {at}/private/bobs"), 1);
        assert!(said.contains("denied"), "{said}");

        rig.ok(&format!("docker logout {at}"));
        if tokens {
            assert_eq!(found("app"), "public/app");
        } else {
            rig.fails(&format!("docker search {at}/app"), 1);
        }
        rig.ok(&format!("docker rmi {at}/public/app {at}/private/app {at}/private/bobs"));
        rig.ok(&format!("docker pull {at}/public/app"));
        rig.fails(&format!("docker pull {at}/private/app"), 1);
        drop(server);
        rig.ok("rm -r users registry");
    }
}

#[test]
fn skopeo_copies_lists_and_deletes_on_either_storage() {
    let Some(rig) = Rig::start() else { return };
    if !has_tool("skopeo") {
        return;
    }
    for (kind, flags) in places(&rig) {
        let server = Served::start(&rig, &flags);
        let (from, at) = (rig.registry(), server.address.as_str());
        for (source, tag, format) in
            [("alpine", "1", "v2s2"), ("alpine", "2", "oci"), ("busybox", "3", "oci")]
        {
            rig.ok(&format!(
                "skopeo copy --quiet --format {format} --src-tls-verify=false --dest-tls-verify=false \
                 docker://{from}/library/{source} docker://{at}/a/b:{tag}"
            ));
        }
        let list = || {
            let list = rig.ok(&format!("skopeo list-tags --tls-verify=false docker://{at}/a/b"));
            serde_json::from_str::<Value>(&list).expect("skopeo prints JSON")["Tags"].clone()
        };
        assert_eq!(list(), serde_json::json!(["1", "2", "3"]), "{kind}");
        rig.ok(&format!("skopeo delete --tls-verify=false docker://{at}/a/b:3"));
        assert_eq!(list(), serde_json::json!(["1", "2"]), "{kind}");
        // The digests are what they were, and what is served is what was pushed.
        rig.ok(&format!("skopeo copy --quiet --src-tls-verify=false docker://{at}/a/b:1 oci:{kind}:1"));
        rig.ok(&format!("docker pull {at}/a/b:2"));
        assert_eq!(
            rig.ok(&format!("docker run --rm --network none {at}/a/b:2 echo works")),
            "works",
            "{kind}"
        );

        let before = rig.ok(&format!("dhow registry gc {flags} --grace 0 --dry-run"));
        let after = rig.ok(&format!("dhow registry gc {flags} --grace 0"));
        assert!(
            before.starts_with("would remove ") && !before.contains(" 0 blobs"),
            "busybox is garbage: {before}"
        );
        assert_eq!(
            before.split_once(" links"),
            after.replacen("removed", "would remove", 1).split_once(" links")
        );
        rig.ok(&format!("docker rmi {at}/a/b:2"));
        rig.ok(&format!("docker pull {at}/a/b:2"));
        let again = rig.ok(&format!("dhow registry gc {flags} --grace 0"));
        assert!(again.starts_with("removed 0 blobs (0B), 0 links"), "{again}");
        assert!(!server.said().contains("ERROR"), "{}", server.said());
    }
}

#[test]
fn buildah_pushes_and_pulls_with_a_password() {
    let Some(rig) = Rig::start() else { return };
    if !has_tool("buildah") {
        return;
    }
    let server = protected(&rig, true);
    let at = server.address.as_str();
    // It insists on credentials where DOCKER_CONFIG says.
    let buildah = "env -u DOCKER_CONFIG buildah --storage-driver vfs --root peer --runroot peer-run";
    let container = rig.ok(&format!("{buildah} from scratch"));
    rig.at("").write("note", "by buildah\n");
    rig.ok(&format!("{buildah} copy {container} note /note"));
    rig.ok(&format!("{buildah} commit --quiet {container} noted"));
    let push = format!("{buildah} push --quiet --tls-verify=false");
    rig.fails(&format!("{push} --creds bob:builder noted {at}/public/noted"), 125);
    rig.ok(&format!("{push} --creds 'ada:love lace' noted {at}/public/noted"));
    rig.ok(&format!("{buildah} rmi --all --force"));
    rig.ok(&format!("{buildah} pull --quiet --tls-verify=false {at}/public/noted"));
}

#[test]
fn dockers_and_podmans_clients_sign_in_push_and_pull() {
    let Some(rig) = Rig::start() else { return };
    let server = protected(&rig, true);
    let at = server.address.as_str();
    rig.ok("docker pull -q busybox");
    rig.ok("docker save -o saved.tar busybox");
    let dockerd = Dockerd::start(&rig);
    let docker = dockerd.iter().map(|dockerd| (dockerd.line(""), ""));
    // Left to itself it keeps passwords in a folder of the host, in the way of other users.
    let podman = [
        "env -u DOCKER_CONFIG REGISTRY_AUTH_FILE=peer-auth podman --storage-driver vfs --root peer --runroot peer-run",
    ];
    let podman = podman.into_iter().filter(|_| has_tool("podman"));
    for (client, plain) in docker.chain(podman.map(|client| (client.to_owned(), " --tls-verify=false"))) {
        rig.ok(&format!("{client} load -q -i saved.tar"));
        rig.ok(&format!("{client} tag docker.io/library/busybox {at}/public/by-other"));
        for (user, status) in [("bob:builder", 1), ("ada:love lace", 0)] {
            let (name, password) = user.split_once(':').expect("a password follows");
            rig.ok(&format!(
                "sh -c 'echo \"{password}\" | {client} login{plain} -u {name} --password-stdin {at}'"
            ));
            let pushed = rig.run(&format!("{client} push{plain} {at}/public/by-other"));
            assert_eq!(i32::from(pushed.status != 0), status, "{user}: {}", pushed.both());
        }
        rig.ok(&format!("{client} logout {at}"));
        rig.ok(&format!("{client} rmi {at}/public/by-other docker.io/library/busybox"));
        rig.ok(&format!("{client} pull{plain} {at}/public/by-other"));
        rig.ok(&format!("docker pull -q {at}/public/by-other"));
        assert_eq!(rig.ok(&format!("docker run --rm {at}/public/by-other echo it runs")), "it runs");
        rig.ok(&format!("docker rmi {at}/public/by-other"));
    }
}

#[test]
fn an_upload_goes_on_at_another_server_when_its_own_is_killed() {
    let Some(rig) = Rig::start() else { return };
    for (kind, flags) in places(&rig) {
        let (one, two) = (Served::start(&rig, &flags), Served::start(&rig, &flags));
        let curl = "curl --silent --show-error --fail --max-time 60";
        let location = rig.ok(&format!(
            "{curl} -X POST -o /dev/null -w '%header{{location}}' http://{}/v2/a/blobs/uploads/",
            one.address
        ));
        // More than one part of a bucket, and an odd number of bytes.
        rig.ok("sh -c 'head -c 20000001 /dev/urandom >blob; head -c 9000001 blob >first; tail -c +9000002 blob >second'");
        let content = fs::read(rig.path("work/blob")).expect("the blob");
        let digest = Digest::sha256_of(&content);
        rig.ok(&format!(
            "{curl} -X PATCH -H 'Content-Range: 0-9000000' --data-binary @first http://{}{location}",
            one.address
        ));
        one.kill();
        let range =
            rig.ok(&format!("{curl} -o /dev/null -w '%header{{range}}' http://{}{location}", two.address));
        assert_eq!(range, "0-9000000", "{kind}");
        rig.ok(&format!(
            "{curl} -X PATCH -H 'Content-Range: 9000001-20000000' --data-binary @second http://{}{location}",
            two.address
        ));
        rig.ok(&format!("{curl} -X PUT 'http://{}{location}?digest={digest}'", two.address));
        rig.ok(&format!("{curl} -o back http://{}/v2/a/blobs/{digest}", two.address));
        assert!(fs::read(rig.path("work/back")).expect("the blob") == content, "{kind}: other bytes");
    }
}

#[test]
fn a_server_that_is_told_to_stop_finishes_what_is_under_way() {
    let Some(rig) = Rig::start() else { return };
    let mut server = Served::start(&rig, "--folder registry");
    let url = format!("http://{}/v2/a/blobs/uploads/", server.address);
    let digest = Digest::sha256_of(b"begun ended");
    let mut upload = rig.spawn(&format!(
        "sh -c \"(printf 'begun '; until test -e go; do sleep 0.05; done; printf ended) | \
         curl -sSv -X POST -H 'Expect: 100-continue' -T - '{url}?digest={digest}'\""
    ));
    upload.wait_for("100 Continue");
    server.stop();
    rig.at("").write("go", "");
    let upload = upload.finish();
    assert!(upload.stderr.contains("201 Created"), "{}", upload.both());
    assert_eq!(server.finish().status, 0);
    let server = Served::start(&rig, "--folder registry");
    assert_eq!(rig.page(&format!("http://{}/v2/a/blobs/{digest}", server.address)), "begun ended");
}

#[test]
fn a_blob_of_any_size_takes_little_memory() {
    const BYTES: u64 = 200_000_000;
    const MEMORY_BYTES_MAX: u64 = 100 << 20;
    let Some(rig) = Rig::start() else { return };
    let sum = rig.ok(&format!("sh -c 'head -c {BYTES} /dev/zero | sha256sum'"));
    let digest = format!("sha256:{}", sum.split_whitespace().next().expect("a sum"));
    for (kind, flags) in places(&rig) {
        let server = Served::start(&rig, &flags);
        let url = format!("http://{}/v2/a/blobs", server.address);
        rig.ok(&format!(
            "sh -c \"head -c {BYTES} /dev/zero | curl -sS --fail -X POST -T - '{url}/uploads/?digest={digest}'\""
        ));
        let back = rig.ok(&format!("sh -c 'curl -sS --fail {url}/{digest} | sha256sum'"));
        assert_eq!(back, sum, "{kind}");
        let memory = server.memory_bytes_max();
        println!("{kind}: {} MiB", memory >> 20);
        assert!(memory < MEMORY_BYTES_MAX, "{kind}: {memory} bytes of memory");
    }
}

#[test]
fn tls_and_client_certificates_are_asked_for_beyond_this_machine() {
    let Some(rig) = Rig::start() else { return };
    let said = rig.fails("dhow registry serve --folder registry --listen 0.0.0.0:0", 1);
    assert!(said.contains("without TLS") && said.contains("--insecure"), "{said}");
    if !has_tool("openssl") {
        return;
    }
    for name in ["server", "client"] {
        rig.ok(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name}-authority \
             -keyout {name}-ca.key -out {name}-ca.crt"
        ));
        rig.at("").write(&format!("{name}.ext"), "subjectAltName=IP:127.0.0.1\n");
        rig.ok(&format!(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        rig.ok(&format!(
            "openssl x509 -req -in {name}.csr -CA {name}-ca.crt -CAkey {name}-ca.key -CAcreateserial -days 2 \
             -extfile {name}.ext -out {name}.crt"
        ));
    }
    rig.at("").write(
        "tls.toml",
        "folder = \"registry\"\n[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"\nclient-ca = \"client-ca.crt\"\n",
    );
    let server = Served::start(&rig, "--config tls.toml");
    let at = server.address.as_str();
    let curl = "curl --silent --show-error --fail --cacert server-ca.crt";
    rig.ok(&format!("{curl} --cert client.crt --key client.key https://{at}/v2/"));
    assert_ne!(rig.run(&format!("{curl} https://{at}/v2/")).status, 0, "without a certificate");

    let work = rig.path("work");
    let config = fs::read_to_string(rig.path("config.toml")).expect("the rig's");
    let own = format!(
        "[registry.\"{at}\"]\nca = [\"{0}/server-ca.crt\"]\ncert = \"{0}/client.crt\"\nkey = \"{0}/client.key\"\n",
        work.display()
    );
    fs::write(rig.path("config.toml"), config + &own).expect("a configuration");
    rig.context("app", APP).ok(&format!("docker build -q -t {at}/app ."));
    rig.ok(&format!("docker push {at}/app"));
    if has_tool("skopeo") {
        rig.ok("mkdir certs");
        rig.ok("cp server-ca.crt certs/ca.crt");
        rig.ok("cp client.crt certs/client.cert");
        rig.ok("cp client.key certs/client.key");
        rig.ok(&format!("skopeo inspect --cert-dir certs docker://{at}/app"));
    }
}
