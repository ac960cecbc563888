//! What clients see, on each kind of storage.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_oci::{Algorithm, Digest, Digester, media_type};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper::{Request, StatusCode};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use super::{App, router};
use crate::auth::{Action, Auth, Htpasswd, Rule, Rules, Tokens, htpasswd_line};
use crate::glob::Glob;
use crate::registry::{GcOptions, Limits, Registry};
use crate::storage::{Bucket, Folder, Storage};

/// Runs a truth on every storage.
macro_rules! stories {
    ($($name:ident)*) => {
        mod folder {
            $(#[tokio::test] async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(super::Client::open(super::Folder::open(folder.path()).unwrap())).await;
            })*
        }
        mod bucket {
            $(#[tokio::test] async fn $name() {
                super::$name(super::Client::open(super::Bucket::in_memory())).await;
            })*
        }
    };
}

stories! {
    a_server_says_what_it_is_and_refuses_what_it_does_not_know
    a_blob_is_sent_in_one_request
    a_blob_is_sent_in_chunks_and_at_another_server
    a_chunk_at_the_wrong_place_is_told_the_right_one
    a_stream_that_breaks_off_is_kept_as_far_as_it_came
    what_is_not_what_its_digest_says_is_refused
    parts_of_a_blob_are_served
    a_blob_is_mounted_from_another_repository
    a_manifest_is_served_by_tag_and_by_digest
    a_manifest_needs_what_it_refers_to
    an_index_may_list_manifests_and_blobs
    what_is_too_large_is_refused
    tags_and_repositories_are_listed_in_pages
    referrers_are_found_and_go_with_their_manifest
    search_finds_names_and_tells_descriptions
    deleting_takes_away_what_was_named_and_nothing_else
    garbage_is_what_nothing_leads_to
    a_push_waits_for_a_collector_that_is_about_to_take_its_blob
    slow_clients_are_told_so
}

/// A client of a server.
#[derive(Clone)]
struct Client {
    service: TowerToHyperService<Router>,
    registry: Registry,
    authorization: Option<String>,
}

struct Reply {
    status: StatusCode,
    headers: hyper::HeaderMap,
    body: Bytes,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Status and code of an error.
    fn refusal(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["errors"][0]["code"].as_str().expect("a code").to_owned())
    }

    #[track_caller]
    fn is(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

impl Client {
    fn open(storage: impl Storage) -> Client {
        Client::with(Arc::new(storage), Auth::None)
    }

    fn with(storage: Arc<dyn Storage>, auth: Auth) -> Client {
        let limits = Limits {
            manifest_bytes_max: 10_000,
            blob_bytes_max: 20 << 20,
            patience: Duration::from_millis(200),
        };
        let registry = Registry::new(storage, limits);
        let log = Arc::new(|event| println!("{event:?}"));
        let app = App { registry: registry.clone(), auth, scheme: "http", public_url: None, log };
        let service = TowerToHyperService::new(router(Arc::new(app)));
        Client { service, registry, authorization: None }
    }

    fn as_user(&self, user: &str, password: &str) -> Client {
        let authorization = Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
        Client { authorization, ..self.clone() }
    }

    async fn ask(&self, line: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path).header("host", "registry.test:5000");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let response = self.service.call(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        assert_eq!(head.headers["docker-distribution-api-version"], "registry/2.0");
        Reply { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[], "").await
    }

    async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256_of(content);
        let line = format!("POST /v2/{repository}/blobs/uploads/?digest={digest}");
        self.ask(&line, &[], content.to_vec()).await.is(201);
        digest
    }

    async fn push_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Reply {
        let media_type = manifest["mediaType"].as_str().unwrap_or(media_type::OCI_MANIFEST);
        let line = format!("PUT /v2/{repository}/manifests/{reference}");
        self.ask(&line, &[("content-type", media_type)], manifest.to_string()).await
    }

    /// An image of one layer.
    async fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> (Digest, Digest) {
        let manifest = self.image(repository, layer).await;
        let reply = self.push_manifest(repository, tag, &manifest).await.is(201);
        (reply.header("docker-content-digest").parse().unwrap(), Digest::sha256_of(layer))
    }

    /// Its manifest, of blobs that are pushed.
    async fn image(&self, repository: &str, layer: &[u8]) -> Value {
        self.push_blob(repository, b"{}").await;
        self.push_blob(repository, layer).await;
        manifest(layer)
    }
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::sha256_of(content), "size": content.len() })
}

fn manifest(layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, b"{}"),
        "layers": [descriptor(media_type::OCI_LAYER, layer)],
    })
}

async fn a_server_says_what_it_is_and_refuses_what_it_does_not_know(client: Client) {
    client.get("/v2/").await.is(200);
    client.get("/healthz").await.is(200);
    assert_eq!(client.get("/v2/A/tags/list").await.refusal(), (400, "NAME_INVALID".to_owned()));
    assert_eq!(client.get("/v2/a/tags/list").await.refusal(), (404, "NAME_UNKNOWN".to_owned()));
    assert_eq!(client.get("/nowhere").await.refusal(), (404, "UNSUPPORTED".to_owned()));
    assert_eq!(client.get("/token").await.refusal(), (404, "UNSUPPORTED".to_owned()));
    let reply = client.ask("DELETE /v2/", &[], "").await;
    assert_eq!(reply.refusal(), (405, "UNSUPPORTED".to_owned()));
    let reply = client.get(&format!("/v2/a/blobs/{}", Digest::sha256_of(b""))).await;
    assert_eq!(reply.refusal(), (404, "BLOB_UNKNOWN".to_owned()));
    for tag in ["latest", ".INVALID"] {
        let reply = client.get(&format!("/v2/a/manifests/{tag}")).await;
        assert_eq!(reply.refusal(), (404, "MANIFEST_UNKNOWN".to_owned()));
    }
}

async fn a_blob_is_sent_in_one_request(client: Client) {
    let digest = client.push_blob("a/b", b"content").await;
    let reply = client.get(&format!("/v2/a/b/blobs/{digest}")).await.is(200);
    assert_eq!(reply.body, "content");
    assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    assert_eq!((reply.header("content-length"), reply.header("accept-ranges")), ("7", "bytes"));
    let head = client.ask(&format!("HEAD /v2/a/b/blobs/{digest}"), &[], "").await.is(200);
    assert_eq!(head.header("content-length"), "7");

    // The other way to do it: begin, and PUT everything.
    let digest = Digest::sha256_of(b"more");
    let begun = client.ask("POST /v2/a/b/blobs/uploads/", &[], "").await.is(202);
    let location = begun.header("location");
    let reply = client.ask(&format!("PUT {location}?digest={digest}"), &[], "more").await.is(201);
    assert_eq!(reply.header("location"), format!("/v2/a/b/blobs/{digest}"));
    assert_eq!(client.get(reply.header("location")).await.is(200).body, "more");
    assert_eq!(client.get(location).await.refusal(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    let empty = client.push_blob("a/b", b"").await;
    assert_eq!(client.get(&format!("/v2/a/b/blobs/{empty}")).await.is(200).body, "");
}

async fn a_blob_is_sent_in_chunks_and_at_another_server(client: Client) {
    // Everything is in the storage: another process would be no different from another registry over it.
    let begun = client.ask("POST /v2/a/blobs/uploads/", &[], "").await.is(202);
    let location = begun.header("location");
    assert!(!begun.header("docker-upload-uuid").is_empty());
    let first = client.ask(&format!("PATCH {location}"), &[("content-range", "0-3")], "abcd").await.is(202);
    assert_eq!((first.header("range"), first.header("location")), ("0-3", location));
    let streamed = client.ask(&format!("PATCH {location}"), &[], "efg").await.is(202);
    assert_eq!(streamed.header("range"), "0-6");
    let status = client.get(location).await.is(204);
    assert_eq!((status.header("range"), status.header("location")), ("0-6", location));
    let digest = Digest::sha256_of(b"abcdefghij");
    let end = format!("PUT {location}?digest={digest}");
    client.ask(&end, &[("content-range", "7-9")], "hij").await.is(201);
    assert_eq!(client.get(&format!("/v2/a/blobs/{digest}")).await.is(200).body, "abcdefghij");
}

async fn a_chunk_at_the_wrong_place_is_told_the_right_one(client: Client) {
    let begun = client.ask("POST /v2/a/blobs/uploads/", &[], "").await.is(202);
    let location = begun.header("location");
    client.ask(&format!("PATCH {location}"), &[("content-range", "0-3")], "abcd").await.is(202);
    for range in ["0-3", "5-6"] {
        let reply = client.ask(&format!("PATCH {location}"), &[("content-range", range)], "wxyz").await;
        assert_eq!(reply.refusal(), (416, "RANGE_INVALID".to_owned()));
        assert_eq!((reply.header("range"), reply.header("location")), ("0-3", location));
    }
    for (range, body, code) in [("4-9", "ab", "SIZE_INVALID"), ("x", "ab", "BLOB_UPLOAD_INVALID")] {
        let reply = client.ask(&format!("PATCH {location}"), &[("content-range", range)], body).await;
        assert_eq!(reply.refusal(), (400, code.to_owned()), "{range}");
    }
    client.ask(&format!("DELETE {location}"), &[], "").await.is(204);
    let reply = client.ask(&format!("PATCH {location}"), &[], "more").await;
    assert_eq!(reply.refusal(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    // An upload belongs to its repository.
    let begun = client.ask("POST /v2/a/blobs/uploads/", &[], "").await.is(202);
    let elsewhere = begun.header("location").replace("/v2/a/", "/v2/b/");
    assert_eq!(client.get(&elsewhere).await.refusal(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
}

async fn a_stream_that_breaks_off_is_kept_as_far_as_it_came(client: Client) {
    let begun = client.ask("POST /v2/a/blobs/uploads/", &[], "").await.is(202);
    let location = begun.header("location");
    let pieces: [Result<&str, std::io::Error>; 2] = [Ok("abc"), Err(std::io::Error::other("gone"))];
    let broken = Body::from_stream(futures_util::stream::iter(pieces));
    client.ask(&format!("PATCH {location}"), &[], broken).await.is(400);
    assert_eq!(client.get(location).await.is(204).header("range"), "0-2");
    let digest = Digest::sha256_of(b"abcdef");
    client.ask(&format!("PUT {location}?digest={digest}"), &[], "def").await.is(201);
}

async fn what_is_not_what_its_digest_says_is_refused(client: Client) {
    let digest = Digest::sha256_of(b"something else");
    let whole = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    assert_eq!(client.ask(&whole, &[], "this").await.refusal(), (400, "DIGEST_INVALID".to_owned()));
    let begun = client.ask("POST /v2/a/blobs/uploads/", &[], "").await.is(202);
    let location = begun.header("location");
    let end = format!("PUT {location}?digest={digest}");
    assert_eq!(client.ask(&end, &[], "this").await.refusal(), (400, "DIGEST_INVALID".to_owned()));
    let reply = client.ask(&format!("PUT {location}"), &[], "").await;
    assert_eq!(reply.refusal(), (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(client.get(&format!("/v2/a/blobs/{digest}")).await.status, 404);

    let mut digester = Digester::new(Algorithm::Sha512);
    digester.update(b"long");
    let long = digester.finish();
    let whole = format!("POST /v2/a/blobs/uploads/?digest={long}");
    assert_eq!(client.ask(&whole, &[], "wrong").await.refusal(), (400, "DIGEST_INVALID".to_owned()));
    client.ask(&whole, &[], "long").await.is(201);
    assert_eq!(client.get(&format!("/v2/a/blobs/{long}")).await.is(200).body, "long");
}

async fn parts_of_a_blob_are_served(client: Client) {
    let digest = client.push_blob("a", b"0123456789").await;
    let line = format!("GET /v2/a/blobs/{digest}");
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-2", 206, "bytes 8-9/10", "89"),
        ("bytes=0-0,2-3", 200, "", "0123456789"),
    ] {
        let reply = client.ask(&line, &[("range", range)], "").await.is(status);
        assert_eq!((reply.header("content-range"), &reply.body[..]), (content_range, body.as_bytes()));
    }
    let reply = client.ask(&line, &[("range", "bytes=10-")], "").await;
    assert_eq!(reply.refusal(), (416, "RANGE_INVALID".to_owned()));
    assert_eq!(reply.header("content-range"), "bytes */10");
    let etag = format!("\"{digest}\"");
    assert!(client.ask(&line, &[("if-none-match", &etag)], "").await.is(304).body.is_empty());
}

async fn a_blob_is_mounted_from_another_repository(client: Client) {
    let digest = client.push_blob("from", b"content").await;
    assert_eq!(client.get(&format!("/v2/to/blobs/{digest}")).await.status, 404, "others do not have it");
    let reply =
        client.ask(&format!("POST /v2/to/blobs/uploads/?mount={digest}&from=from"), &[], "").await.is(201);
    assert_eq!(client.get(reply.header("location")).await.is(200).body, "content");
    let absent = Digest::sha256_of(b"absent");
    for query in [
        format!("mount={absent}&from=from"),
        format!("mount={digest}&from=nowhere"),
        format!("mount={digest}&from=../x"),
        format!("mount={digest}"),
    ] {
        let reply = client.ask(&format!("POST /v2/new/blobs/uploads/?{query}"), &[], "").await.is(202);
        assert!(reply.header("location").starts_with("/v2/new/blobs/uploads/"), "it is an upload then");
    }
}

async fn a_manifest_is_served_by_tag_and_by_digest(client: Client) {
    let manifest = client.image("a/b", b"layer").await;
    let digest = Digest::sha256_of(manifest.to_string().as_bytes());
    let reply = client.push_manifest("a/b", "v1.0", &manifest).await.is(201);
    assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    assert_eq!(reply.header("location"), format!("/v2/a/b/manifests/{digest}"));
    assert_eq!(reply.header("oci-subject"), "");
    for reference in ["v1.0".to_owned(), digest.to_string()] {
        let path = format!("/v2/a/b/manifests/{reference}");
        let reply = client.get(&path).await.is(200);
        assert_eq!(reply.body, manifest.to_string());
        assert_eq!(reply.header("content-type"), media_type::OCI_MANIFEST);
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
        let head = client.ask(&format!("HEAD {path}"), &[], "").await.is(200);
        assert_eq!(head.header("content-length"), manifest.to_string().len().to_string());
        let etag = format!("\"{digest}\"");
        client.ask(&format!("GET {path}"), &[("if-none-match", &etag)], "").await.is(304);
    }
    client.push_manifest("a/b", &digest.to_string(), &manifest).await.is(201);
    let other = Digest::sha256_of(b"other");
    let reply = client.push_manifest("a/b", &other.to_string(), &manifest).await;
    assert_eq!(reply.refusal(), (400, "DIGEST_INVALID".to_owned()));
    let reply = client.push_manifest("a/b", ".x", &manifest).await;
    assert_eq!(reply.refusal(), (400, "TAG_INVALID".to_owned()));
    // Another image takes the tag.
    let (second, _) = client.push_image("a/b", "v1.0", b"another layer").await;
    let reply = client.get("/v2/a/b/manifests/v1.0").await.is(200);
    assert_eq!(reply.header("docker-content-digest"), second.to_string());
    client.get(&format!("/v2/a/b/manifests/{digest}")).await.is(200);
}

async fn a_manifest_needs_what_it_refers_to(client: Client) {
    let manifest = manifest(b"layer");
    let reply = client.push_manifest("a", "latest", &manifest).await;
    assert_eq!(reply.refusal(), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    let message = reply.json()["errors"][0]["message"].to_string();
    assert!(message.contains(&Digest::sha256_of(b"layer").to_string()), "{message}");
    // A blob of another repository is not ours, and one of another size is another.
    client.image("b", b"layer").await;
    assert_eq!(client.push_manifest("a", "latest", &manifest).await.status, 400);
    client.image("a", b"layer").await;
    let mut lying = manifest.clone();
    lying["layers"][0]["size"] = json!(4);
    assert_eq!(
        client.push_manifest("a", "latest", &lying).await.refusal(),
        (400, "MANIFEST_BLOB_UNKNOWN".to_owned())
    );
    client.push_manifest("a", "latest", &manifest).await.is(201);
    // A foreign layer lies elsewhere.
    let mut foreign = manifest.clone();
    foreign["layers"][0] = descriptor(media_type::OCI_LAYER, b"elsewhere");
    foreign["layers"][0]["urls"] = json!(["https://example.org/layer"]);
    client.push_manifest("a", "foreign", &foreign).await.is(201);
    let line = "PUT /v2/a/manifests/bad";
    for (media_type, body) in
        [("text/plain", "hello"), (media_type::OCI_MANIFEST, "{}"), (media_type::OCI_INDEX, "[")]
    {
        let reply = client.ask(line, &[("content-type", media_type)], body).await;
        assert_eq!(reply.refusal(), (400, "MANIFEST_INVALID".to_owned()), "{body}");
    }
}

async fn an_index_may_list_manifests_and_blobs(client: Client) {
    let manifest = client.image("a", b"layer").await.to_string();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [
            descriptor(media_type::OCI_MANIFEST, manifest.as_bytes()),
            descriptor(media_type::OCI_LAYER, b"layer"),
        ],
    });
    assert_eq!(
        client.push_manifest("a", "i", &index).await.refusal(),
        (400, "MANIFEST_BLOB_UNKNOWN".to_owned())
    );
    let digest = Digest::sha256_of(manifest.as_bytes());
    client.push_manifest("a", &digest.to_string(), &serde_json::from_str(&manifest).unwrap()).await.is(201);
    client.push_manifest("a", "i", &index).await.is(201);
    let reply = client.get("/v2/a/manifests/i").await.is(200);
    assert_eq!(reply.header("content-type"), media_type::OCI_INDEX);
}

async fn what_is_too_large_is_refused(client: Client) {
    let mut manifest = client.image("a", b"layer").await;
    manifest["annotations"] = json!({ "long": "x".repeat(10_000) });
    let reply = client.push_manifest("a", "latest", &manifest).await;
    assert_eq!(reply.refusal(), (413, "SIZE_INVALID".to_owned()));
    let begun = client.ask("POST /v2/a/blobs/uploads/", &[], "").await.is(202);
    let location = begun.header("location");
    let reply = client.ask(&format!("PATCH {location}"), &[], vec![0; (20 << 20) + 1]).await;
    assert_eq!(reply.refusal(), (413, "SIZE_INVALID".to_owned()));
}

async fn tags_and_repositories_are_listed_in_pages(client: Client) {
    let manifest = client.image("a/b", b"layer").await;
    for tag in ["3.1", "latest", "Alpha", "3.10", "_x"] {
        client.push_manifest("a/b", tag, &manifest).await.is(201);
    }
    let all = ["3.1", "3.10", "Alpha", "_x", "latest"];
    let reply = client.get("/v2/a/b/tags/list").await.is(200);
    assert_eq!(reply.json(), json!({ "name": "a/b", "tags": all }));
    assert_eq!(reply.header("link"), "");
    let (mut path, mut seen) = ("/v2/a/b/tags/list?n=2".to_owned(), Vec::new());
    for _ in 0..3 {
        let reply = client.get(&path).await.is(200);
        seen.extend(
            reply.json()["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()),
        );
        let Some(next) = reply.header("link").strip_prefix('<') else { break };
        path = next.split_once('>').unwrap().0.to_owned();
    }
    assert_eq!(seen, all);
    let tags = async |query: &str| {
        client.get(&format!("/v2/a/b/tags/list?{query}")).await.is(200).json()["tags"].clone()
    };
    assert_eq!(tags("last=Alpha").await, json!(["_x", "latest"]));
    assert_eq!(tags("last=B&n=1").await, json!(["_x"]));
    assert_eq!(tags("n=0").await, json!([]));
    assert_eq!(tags("last=zzz").await, json!([]));
    let reply = client.get("/v2/a/b/tags/list?n=many").await;
    assert_eq!(reply.refusal(), (400, "PAGINATION_NUMBER_INVALID".to_owned()));

    for repository in ["a", "a-c", "b"] {
        client.push_image(repository, "latest", b"layer").await;
    }
    let (mut path, mut seen) = ("/v2/_catalog?n=1".to_owned(), Vec::new());
    for _ in 0..5 {
        let reply = client.get(&path).await.is(200);
        seen.extend(
            reply.json()["repositories"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap().to_owned()),
        );
        let Some(next) = reply.header("link").strip_prefix('<') else { break };
        path = next.split_once('>').unwrap().0.to_owned();
    }
    seen.sort_unstable();
    assert_eq!(seen, ["a", "a-c", "a/b", "b"]);
}

async fn referrers_are_found_and_go_with_their_manifest(client: Client) {
    let (subject, _) = client.push_image("a", "latest", b"layer").await;
    let path = format!("/v2/a/referrers/{subject}");
    let reply = client.get(&path).await.is(200);
    assert_eq!(reply.header("content-type"), media_type::OCI_INDEX);
    assert_eq!(reply.json()["manifests"], json!([]));
    let mut digests = Vec::new();
    for (kind, note) in [("application/sbom", "one"), ("application/signature", "two")] {
        let mut artifact = client.image("a", note.as_bytes()).await;
        artifact["artifactType"] = json!(kind);
        artifact["subject"] = json!({ "mediaType": media_type::OCI_MANIFEST, "digest": subject, "size": 1 });
        artifact["annotations"] = json!({ "note": note });
        let digest = Digest::sha256_of(artifact.to_string().as_bytes());
        let reply = client.push_manifest("a", &digest.to_string(), &artifact).await.is(201);
        assert_eq!(reply.header("oci-subject"), subject.to_string());
        digests.push(digest.to_string());
    }
    let found = |reply: &Reply| {
        let mut found: Vec<String> = reply.json()["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                format!(
                    "{} {} {}",
                    entry["artifactType"].as_str().unwrap(),
                    entry["annotations"]["note"].as_str().unwrap(),
                    entry["digest"].as_str().unwrap()
                )
            })
            .collect();
        found.sort_unstable();
        found
    };
    let both =
        [format!("application/sbom one {}", digests[0]), format!("application/signature two {}", digests[1])];
    let reply = client.get(&path).await.is(200);
    assert_eq!((found(&reply), reply.header("oci-filters-applied")), (both.to_vec(), ""));
    let reply = client.get(&format!("{path}?artifactType=application/sbom")).await.is(200);
    assert_eq!((found(&reply), reply.header("oci-filters-applied")), (both[..1].to_vec(), "artifactType"));
    client.ask(&format!("DELETE /v2/a/manifests/{}", digests[0]), &[], "").await.is(202);
    assert_eq!(found(&client.get(&path).await), both[1..]);
    assert_eq!(client.get("/v2/a/referrers/sha256:x").await.refusal(), (400, "DIGEST_INVALID".to_owned()));
    // Nobody knows it, and so nothing refers to it.
    let unknown = Digest::sha256_of(b"unknown");
    assert_eq!(
        client.get(&format!("/v2/new/referrers/{unknown}")).await.is(200).json()["manifests"],
        json!([])
    );
}

async fn search_finds_names_and_tells_descriptions(client: Client) {
    for repository in ["team/flask", "flask", "mysql"] {
        client.push_image(repository, "latest", b"layer").await;
    }
    let mut told = client.image("flask", b"layer").await;
    told["annotations"] = json!({ "org.opencontainers.image.description": "A small web framework" });
    client.push_manifest("flask", "latest", &told).await.is(201);
    let answer = client.get("/v1/search?q=Flask&n=25").await.is(200).json();
    assert_eq!(answer["num_results"], 2);
    assert_eq!(
        (&answer["results"][0]["name"], &answer["results"][0]["description"]),
        (&json!("flask"), &json!("A small web framework"))
    );
    assert_eq!(answer["results"][1]["name"], "team/flask");
    assert_eq!(client.get("/v1/search?q=flask&n=1").await.json()["num_results"], 1);
    assert_eq!(client.get("/v1/search?q=nothing").await.json()["results"], json!([]));
}

async fn deleting_takes_away_what_was_named_and_nothing_else(client: Client) {
    let (digest, layer) = client.push_image("a", "one", b"layer").await;
    client.push_image("a", "two", b"layer").await;
    client.push_image("a", "other", b"another").await;
    let delete = async |path: &str| client.ask(&format!("DELETE /v2/a/{path}"), &[], "").await;
    delete("manifests/one").await.is(202);
    assert_eq!(delete("manifests/one").await.refusal(), (404, "MANIFEST_UNKNOWN".to_owned()));
    client.get(&format!("/v2/a/manifests/{digest}")).await.is(200);
    delete(&format!("manifests/{digest}")).await.is(202);
    assert_eq!(delete(&format!("manifests/{digest}")).await.refusal(), (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(client.get("/v2/a/tags/list").await.json()["tags"], json!(["other"]));
    delete(&format!("blobs/{layer}")).await.is(202);
    assert_eq!(delete(&format!("blobs/{layer}")).await.refusal(), (404, "BLOB_UNKNOWN".to_owned()));
    assert_eq!(client.get(&format!("/v2/a/blobs/{layer}")).await.status, 404);
}

const AT_ONCE: GcOptions = GcOptions { grace: Duration::ZERO, upload_expiry: Duration::ZERO, dry_run: false };

async fn garbage_is_what_nothing_leads_to(client: Client) {
    let (kept, kept_layer) = client.push_image("kept", "latest", b"kept").await;
    let (lost, lost_layer) = client.push_image("lost", "latest", b"lost").await;
    client.push_image("lost", "shares", b"kept").await;
    client.ask("POST /v2/kept/blobs/uploads/", &[], "").await.is(202);
    let old = GcOptions {
        grace: Duration::from_secs(3600),
        upload_expiry: Duration::from_secs(3600),
        dry_run: false,
    };
    let report = client.registry.gc(&old).await.unwrap();
    assert_eq!((report.blobs, report.unlinked, report.uploads), (0, 0, 0), "nothing is old enough");
    for reference in
        [lost.to_string(), Digest::sha256_of(manifest(b"kept").to_string().as_bytes()).to_string()]
    {
        client.ask(&format!("DELETE /v2/lost/manifests/{reference}"), &[], "").await.is(202);
    }
    let dry = client.registry.gc(&GcOptions { dry_run: true, ..AT_ONCE }).await.unwrap();
    client.get(&format!("/v2/lost/blobs/{lost_layer}")).await.is(200);
    let report = client.registry.gc(&AT_ONCE).await.unwrap();
    assert_eq!((report.blobs, report.bytes, report.unlinked, report.uploads), (1, 4, 3, 1), "{report:?}");
    assert_eq!((dry.blobs, dry.bytes, dry.unlinked, dry.uploads), (1, 4, 3, 1), "{dry:?}");
    client.get(&format!("/v2/kept/manifests/{kept}")).await.is(200);
    assert_eq!(client.get(&format!("/v2/kept/blobs/{kept_layer}")).await.is(200).body, "kept");
    assert_eq!(client.get(&format!("/v2/lost/blobs/{lost_layer}")).await.status, 404);
    assert_eq!(client.get(&format!("/v2/lost/blobs/{kept_layer}")).await.status, 404);
    assert_eq!(client.get("/v2/_catalog").await.json()["repositories"], json!(["kept"]));
    let again = client.registry.gc(&AT_ONCE).await.unwrap();
    assert_eq!((again.blobs, again.unlinked, again.uploads), (0, 0, 0), "{again:?}");
    // What was collected can be pushed again.
    client.push_image("lost", "latest", b"lost").await;
}

async fn a_push_waits_for_a_collector_that_is_about_to_take_its_blob(client: Client) {
    let manifest = client.image("a", b"layer").await;
    let layer = Digest::sha256_of(b"layer");
    let announcement = client.registry.announce(&[layer]).await.unwrap();
    let push = {
        let client = client.clone();
        tokio::spawn(async move { client.push_manifest("a", "latest", &manifest).await })
    };
    // The collector sees the manifest, which is written before the push waits, and leaves the blob.
    let path =
        format!("/v2/a/manifests/{}", Digest::sha256_of(self::manifest(b"layer").to_string().as_bytes()));
    while client.get(&path).await.status != 200 {
        tokio::task::yield_now().await;
    }
    assert!(!push.is_finished());
    let report = client.registry.gc(&AT_ONCE).await.unwrap();
    assert_eq!((report.blobs, report.unlinked), (0, 0), "{report:?}");
    client.registry.retract(&announcement).await.unwrap();
    push.await.unwrap().is(201);

    // One that has already looked takes the blob; then the push is told, and nothing is left that lacks something.
    let other = self::manifest(b"other");
    client.image("a", b"other").await;
    let layer = Digest::sha256_of(b"other");
    let announcement = client.registry.announce(&[layer]).await.unwrap();
    let push = {
        let (client, other) = (client.clone(), other.clone());
        tokio::spawn(async move { client.push_manifest("a", "other", &other).await })
    };
    let path = format!("/v2/a/manifests/{}", Digest::sha256_of(other.to_string().as_bytes()));
    while client.get(&path).await.status != 200 {
        tokio::task::yield_now().await;
    }
    client.ask(&format!("DELETE /v2/a/blobs/{layer}"), &[], "").await.is(202);
    client.registry.retract(&announcement).await.unwrap();
    assert_eq!(push.await.unwrap().refusal(), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    assert_eq!(client.get("/v2/a/manifests/other").await.status, 404);
}

async fn slow_clients_are_told_so(client: Client) {
    let begun = client.ask("POST /v2/a/blobs/uploads/", &[], "").await.is(202);
    let location = begun.header("location");
    let stalling = || {
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>("abc")]);
        Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
    };
    client.ask(&format!("PATCH {location}"), &[], stalling()).await.is(408);
    assert_eq!(client.get(location).await.is(204).header("range"), "0-2", "what came is kept");
    client.ask("PUT /v2/a/manifests/latest", &[], stalling()).await.is(408);
}

#[tokio::test]
async fn asking_for_a_blob_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open(Folder::open(folder.path()).unwrap());
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let half_hour = GcOptions { grace: Duration::from_secs(1800), ..AT_ONCE };
    for asks in [true, false] {
        let digest = client.push_blob("a", b"content").await;
        let (hex, fan) = (digest.hex(), &digest.hex()[..2]);
        for path in
            [format!("records/repositories/a/_blobs/sha256/{hex}"), format!("blobs/sha256/{fan}/{hex}")]
        {
            std::fs::File::open(folder.path().join(path)).unwrap().set_modified(hour_ago).unwrap();
        }
        let path = format!("/v2/a/blobs/{digest}");
        if asks {
            client.ask(&format!("HEAD {path}"), &[], "").await.is(200);
        }
        let report = client.registry.gc(&half_hour).await.unwrap();
        assert_eq!(report.blobs, u64::from(!asks), "{report:?}");
        client.get(&path).await.is(if asks { 200 } else { 404 });
    }
}

/// What a client knows of an image after its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Accepted,
    /// The answer was an error, or it was being deleted.
    Unclear,
}

impl Client {
    async fn try_push(&self, tag: &str, layer: &[u8]) -> Known {
        for content in [b"{}", layer] {
            let line = format!("POST /v2/a/blobs/uploads/?digest={}", Digest::sha256_of(content));
            self.ask(&line, &[], content.to_vec()).await;
        }
        match self.push_manifest("a", tag, &manifest(layer)).await.status {
            StatusCode::CREATED => Known::Accepted,
            _ => Known::Unclear,
        }
    }
}

fn files(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn a_server_killed_at_any_step_leaves_what_it_accepted_and_garbage() {
    for steps in 0.. {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).unwrap().dying_after(steps);
        let client = Client::open(folder.clone());
        let mut first = client.try_push("one", b"first").await;
        let second = client.try_push("two", b"second").await;
        if first == Known::Accepted {
            first = Known::Unclear;
            client.ask("DELETE /v2/a/manifests/one", &[], "").await;
            let _ = client.registry.gc(&AT_ONCE).await;
        }
        // A minute later, when announcements of the dead count no more, another server comes.
        let _ = std::fs::remove_dir_all(root.path().join("records/gc"));
        let reopened = Folder::open(root.path()).unwrap();
        let next = Client::open(reopened.clone());
        if second == Known::Accepted {
            let manifest = next.get("/v2/a/manifests/two").await.is(200);
            assert_eq!(manifest.body, self::manifest(b"second").to_string());
            for content in [&b"{}"[..], b"second"] {
                let blob = next.get(&format!("/v2/a/blobs/{}", Digest::sha256_of(content))).await.is(200);
                assert_eq!(blob.body, content, "after {steps} steps");
            }
        }
        // Whatever was begun can be done again, and nothing is in its way.
        for (tag, layer) in [("one", &b"first"[..]), ("two", b"second"), ("three", b"third")] {
            assert_eq!(next.try_push(tag, layer).await, Known::Accepted, "after {steps} steps");
        }
        next.registry.gc(&AT_ONCE).await.unwrap();
        reopened.sweep(std::time::SystemTime::now() + Duration::from_secs(60)).await.unwrap();
        let left = ["temp", "uploads", "blobs", "records/gc"].map(|name| files(&root.path().join(name)));
        assert_eq!(left, [0, 0, 4, 0], "after {steps} steps, {first:?} {second:?}");
        if !folder.is_dead() {
            assert!(steps > 50, "{steps} steps are too few for all that");
            break;
        }
    }
}

fn rule(repositories: &str, users: &[&str], allow: &[Action]) -> Rule {
    Rule {
        repositories: vec![Glob::parse(repositories).unwrap()],
        users: users.iter().map(|user| (*user).to_owned()).collect(),
        allow: allow.to_vec(),
    }
}

/// Ada may push to `team`, everybody who signed in may pull from it, and the whole world from `public`.
fn rules() -> Arc<Rules> {
    Arc::new(Rules::new(vec![
        rule("public/**", &["anonymous"], &[Action::Pull]),
        rule("team/**", &["*"], &[Action::Pull]),
        rule("**", &["ada"], &[Action::Pull, Action::Push]),
        rule("public/**", &["ada"], &[Action::Delete]),
    ]))
}

fn users(folder: &std::path::Path) -> Arc<Htpasswd> {
    let path = folder.join("users");
    let lines = [htpasswd_line("ada", "love lace").unwrap(), htpasswd_line("bob", "builder").unwrap()];
    std::fs::write(&path, lines.join("\n")).unwrap();
    Arc::new(Htpasswd::open(&path).unwrap())
}

#[tokio::test]
async fn names_and_passwords_are_asked_for_and_rules_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let auth = Auth::Basic { users: users(folder.path()), rules: rules() };
    let nobody = Client::with(Arc::new(Bucket::in_memory()), auth);
    let (ada, bob) = (nobody.as_user("ada", "love lace"), nobody.as_user("bob", "builder"));
    let reply = nobody.get("/v2/").await;
    assert_eq!(reply.refusal(), (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(reply.header("www-authenticate"), "Basic realm=\"dhow registry\"");
    assert_eq!(nobody.as_user("ada", "wrong").get("/v2/").await.status, 401);
    assert_eq!(nobody.as_user("eve", "love lace").get("/v2/").await.status, 401);
    ada.get("/v2/").await.is(200);
    for repository in ["team/app", "public/app", "private/app"] {
        ada.push_image(repository, "latest", b"layer").await;
    }
    let status = async |client: &Client, name: &str| {
        client.get(&format!("/v2/{name}/manifests/latest")).await.status.as_u16()
    };
    assert_eq!((status(&bob, "team/app").await, status(&nobody, "team/app").await), (200, 401));
    assert_eq!((status(&bob, "public/app").await, status(&nobody, "public/app").await), (200, 200));
    assert_eq!((status(&bob, "private/app").await, status(&nobody, "private/app").await), (403, 401));
    let push = bob.ask("POST /v2/team/app/blobs/uploads/", &[], "").await;
    assert_eq!(push.refusal(), (403, "DENIED".to_owned()));
    assert_eq!(ada.ask("DELETE /v2/team/app/manifests/latest", &[], "").await.status, 403);
    ada.ask("DELETE /v2/public/app/manifests/latest", &[], "").await.is(202);
    // Who may not pull from a repository cannot get its blobs by mounting them.
    let layer = Digest::sha256_of(b"layer");
    let names =
        async |client: &Client| client.get("/v2/_catalog").await.is(200).json()["repositories"].clone();
    assert_eq!(names(&bob).await, json!(["public/app", "team/app"]));
    // Clients that have a name show it only when asked.
    for path in ["/v2/_catalog", "/v1/search?q=app"] {
        assert_eq!(nobody.get(path).await.status, 401);
    }
    assert_eq!(nobody.get(&format!("/v2/team/app/blobs/{layer}")).await.status, 401);
}

#[tokio::test]
async fn tokens_are_given_for_what_is_allowed_and_good_for_that_alone() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Bucket::in_memory());
    let tokens = Arc::new(Tokens::open(storage.as_ref(), "here", Duration::from_secs(60)).await.unwrap());
    let auth = Auth::Token { users: users(folder.path()), rules: rules(), tokens };
    let nobody = Client::with(storage, auth);
    let reply = nobody.get("/v2/").await;
    assert_eq!(
        reply.header("www-authenticate"),
        "Bearer realm=\"http://registry.test:5000/token\",service=\"here\""
    );
    let reply = nobody.ask("POST /v2/team/app/blobs/uploads/", &[], "").await;
    assert_eq!(reply.refusal(), (401, "UNAUTHORIZED".to_owned()));
    assert!(reply.header("www-authenticate").ends_with("scope=\"repository:team/app:pull,push\""));

    let token = async |client: &Client, scope: &str| {
        let reply = client.get(&format!("/token?service=here&scope={scope}")).await.is(200);
        assert_eq!(reply.json()["expires_in"], 60);
        let token = reply.json()["token"].as_str().unwrap().to_owned();
        Client { authorization: Some(format!("Bearer {token}")), ..client.clone() }
    };
    let ada =
        token(&nobody.as_user("ada", "love lace"), "repository:team/app:pull,push+repository:public/app:*")
            .await;
    ada.get("/v2/").await.is(200);
    ada.push_image("team/app", "latest", b"layer").await;
    ada.push_image("public/app", "latest", b"layer").await;
    ada.ask("DELETE /v2/public/app/manifests/latest", &[], "").await.is(202);
    let other = ada.ask("POST /v2/other/blobs/uploads/", &[], "").await;
    assert_eq!(other.status, 401, "another token would do");
    assert!(other.header("www-authenticate").contains("error=\"insufficient_scope\""));
    let bob = token(&nobody.as_user("bob", "builder"), "repository:team/app:pull,push").await;
    bob.get("/v2/team/app/manifests/latest").await.is(200);
    let denied = bob.ask("POST /v2/team/app/blobs/uploads/", &[], "").await;
    assert_eq!(denied.refusal(), (403, "DENIED".to_owned()), "no token would do");
    let anonymous = token(&nobody, "repository:public/app:pull&scope=repository:team/app:pull").await;
    anonymous.get("/v2/").await.is(200);
    anonymous.get("/v2/public/app/tags/list").await.is(200);
    assert_eq!(anonymous.get("/v2/team/app/tags/list").await.status, 401);
    assert_eq!(anonymous.get("/v2/_catalog").await.json()["repositories"], json!(["public/app"]));
    assert_eq!(bob.get("/v1/search?q=app").await.json()["num_results"], 2);

    assert_eq!(nobody.as_user("ada", "wrong").get("/token?service=here").await.status, 401);
    assert_eq!(nobody.get("/token?service=there").await.status, 400);
    let form =
        "grant_type=password&service=here&username=ada&password=love+lace&scope=repository:team/app:pull";
    let reply = nobody.ask("POST /token", &[], form).await.is(200);
    assert_eq!(reply.json()["scope"], "repository:team/app:pull");
    let reply = nobody.ask("POST /token", &[], form.replace("password&", "refresh_token&")).await.is(400);
    assert_eq!(reply.json()["error"], "unsupported_grant_type");
    let forged = Client { authorization: Some("Bearer x.y.z".to_owned()), ..nobody.clone() };
    assert_eq!(forged.get("/v2/team/app/tags/list").await.status, 401);
}
