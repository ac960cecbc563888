//! Pulling from registries that are honest, slow, broken or hostile.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Image, Request, Response, Server, client, client_for, config, keychain, read_all};
use dhow_oci::{Descriptor, Digest, media_type};
use dhow_registry::{Client, Keychain, RegistryConfig, RegistryError, Security, VerifyingReader};

/// A registry that serves `image` and does `first` to its first requests, counted from 0.
fn after(
    image: Image,
    first: impl Fn(usize, &Request) -> Option<Response> + Send + Sync + 'static,
) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| {
        first(count.fetch_add(1, Ordering::SeqCst), request).unwrap_or_else(|| image.serve(request))
    })
}

fn resolve_error(server: &Server) -> String {
    client()
        .resolve(&server.reference("a/b:1"))
        .expect_err("an error")
        .to_string()
        .replace(&server.authority, "HOST")
}

fn layer(server: &Server, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
    let reader =
        client().fetch_blob(&server.reference("a/b"), descriptor, 0).map_err(|error| error.to_string())?;
    read_all(reader).map_err(|error| error.to_string())
}

#[test]
fn an_anonymous_pull_takes_one_request_per_document_and_one_connection() {
    let image = Image::new(100_000);
    let (descriptor, bytes, manifest) =
        (image.descriptor.clone(), image.layer.clone(), image.manifest.clone());
    let server = after(image, |_, _| None);
    let (client, reference) = (client(), server.reference("a/b:1"));
    let resolved = client.resolve(&reference).expect("resolved");
    assert_eq!(resolved.bytes, manifest);
    assert_eq!(resolved.descriptor, Descriptor::of(media_type::OCI_MANIFEST, &manifest));
    let reader = client.fetch_blob(&reference, &descriptor, 0).expect("opened");
    assert_eq!(read_all(VerifyingReader::new(reader, &descriptor)).expect("read"), bytes);
    read_all(client.fetch_blob(&reference, &descriptor, 0).expect("opened")).expect("read");
    let blob = format!("GET /v2/a/b/blobs/{}", descriptor.digest);
    assert_eq!(server.lines(), ["GET /v2/a/b/manifests/1", &blob, &blob]);
    assert_eq!(server.connections(), 1);
}

#[test]
fn only_the_digest_takes_one_head() {
    let server = after(Image::new(1), |_, _| None);
    let descriptor = client().head(&server.reference("a/b")).expect("a descriptor");
    assert_eq!(descriptor.digest, Digest::sha256_of(&Image::new(1).manifest));
    assert_eq!(server.lines(), ["HEAD /v2/a/b/manifests/latest"]);
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let image = Image::new(300_000);
    let (descriptor, bytes) = (image.descriptor.clone(), image.layer.clone());
    let part = bytes.clone();
    let server = after(image, move |count, request| match count {
        0 => Some(Response::ranged(request, &part).cut_after(100_000)),
        1 => Some(Response::error(503, "UNAVAILABLE", "later")),
        2 => Some(Response::ranged(request, &part).cut_after(1)),
        _ => None,
    });
    assert_eq!(layer(&server, &descriptor).expect("read"), bytes);
    let starts: Vec<_> = server.requests().iter().map(Request::range_start).collect();
    assert_eq!(starts, [0, 100_000, 100_000, 100_001]);
}

#[test]
fn an_offset_is_honoured_by_servers_that_ignore_it() {
    let image = Image::new(1000);
    let (descriptor, bytes) = (image.descriptor.clone(), image.layer.clone());
    let whole = bytes.clone();
    let server = after(image, move |_, _| Some(Response::new(200, whole.clone())));
    let reader = client().fetch_blob(&server.reference("a/b"), &descriptor, 600).expect("opened");
    assert_eq!(read_all(reader).expect("read"), bytes[600..]);
}

#[test]
fn a_transfer_that_never_gets_on_fails() {
    let image = Image::new(1000);
    let descriptor = image.descriptor.clone();
    let server = Server::start(move |request| Response::ranged(request, &image.layer).cut_after(10));
    let error = layer(&server, &descriptor).expect_err("an error");
    assert!(error.contains("a/b@sha256:") && error.contains("connection closed before the end"), "{error}");
    assert!(error.contains("(at byte 40 of 1000)"), "{error}");
    assert_eq!(server.count(), 4);
}

#[test]
fn content_that_is_not_what_it_is_called_is_refused() {
    let image = Image::new(1000);
    let descriptor = image.descriptor.clone();
    let mut wrong = image.layer.clone();
    wrong[500] ^= 1;
    let reader = VerifyingReader::new(wrong.as_slice(), &descriptor);
    let error = read_all(reader).expect_err("an error").to_string();
    assert!(error.contains(&format!("expected {}", descriptor.digest)), "{error}");

    let server = after(Image::new(999), |_, _| None);
    let error = layer(&server, &descriptor).expect_err("an error");
    assert!(error.ends_with("content has 999 bytes, expected 1000"), "{error}");
}

#[test]
fn a_manifest_must_have_the_digest_it_is_served_under() {
    let lie = |_: usize, _: &Request| {
        let digest = Digest::sha256_of(b"other").to_string();
        Some(Response::new(200, Image::new(1).manifest).header("docker-content-digest", digest))
    };
    let server = after(Image::new(1), lie);
    assert!(resolve_error(&server).starts_with("HOST/a/b:1: content is sha256:"));
    let wanted = server.reference("a/b").with_digest(Digest::sha256_of(b"wanted"));
    let error = client().resolve(&wanted).expect_err("an error");
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
}

#[test]
fn an_endless_manifest_meets_a_limit() {
    for response in [
        Response::new(200, "").endless(),
        Response::new(200, "").header("content-length", (100 << 20).to_string()),
    ] {
        let server = after(Image::new(1), move |_, _| Some(response.clone()));
        assert_eq!(resolve_error(&server), "HOST/a/b:1: manifest is larger than the limit of 4194304 bytes");
    }
}

#[test]
fn what_is_no_manifest_is_named() {
    for (body, expected) in [
        ("<html>", "manifest is not valid JSON of its type"),
        ("[[[[", "manifest is not valid JSON of its type"),
        (
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            "this is a Docker schema 1 manifest, which is no longer supported; rebuild or re-push the image",
        ),
    ] {
        let server = after(Image::new(1), move |_, _| Some(Response::new(200, body)));
        let error = client().resolve(&server.reference("a/b:1")).expect_err("an error");
        assert_eq!(error.to_string(), format!("manifest of {}/a/b:1 cannot be used", server.authority));
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some(expected));
    }
}

#[test]
fn refusals_are_worded_as_by_docker() {
    for (status, code, message, expected) in [
        (
            404,
            "MANIFEST_UNKNOWN",
            "manifest unknown",
            "manifest for HOST/a/b:1 not found: manifest unknown: manifest unknown",
        ),
        (
            404,
            "NAME_UNKNOWN",
            "repository name not known to registry",
            "repository HOST/a/b not found: name unknown: repository name not known to registry",
        ),
        (
            403,
            "DENIED",
            "requested access to the resource is denied",
            "pull access denied for HOST/a/b, repository does not exist or may require 'dhow login': denied: requested access to the resource is denied",
        ),
        (
            400,
            "NAME_INVALID",
            "bad\\nname",
            "HOST: cannot pull HOST/a/b:1: registry answered 400: name invalid: bad name",
        ),
        (500, "UNKNOWN", "oops", "HOST: cannot pull HOST/a/b:1: registry answered 500: unknown: oops"),
    ] {
        let server = after(Image::new(1), move |_, _| Some(Response::error(status, code, message)));
        assert_eq!(resolve_error(&server), expected);
        assert_eq!(server.count(), if status == 500 { 4 } else { 1 });
    }
}

#[test]
fn a_busy_registry_is_waited_for_if_it_says_when() {
    let busy =
        |seconds: &str| Response::error(429, "TOOMANYREQUESTS", "slow down").header("retry-after", seconds);
    let soon = busy("1");
    let server = after(Image::new(1), move |count, _| (count == 0).then(|| soon.clone()));
    let start = Instant::now();
    client().resolve(&server.reference("a/b")).expect("resolved");
    assert!(start.elapsed() >= Duration::from_secs(1));

    let late = busy("3600");
    let server = after(Image::new(1), move |_, _| Some(late.clone()));
    let error = client().resolve(&server.reference("a/b:1")).expect_err("an error");
    assert!(error.is_passing());
    assert_eq!(
        error.to_string().replace(&server.authority, "HOST"),
        "HOST: too many requests for HOST/a/b:1, try again in 3600 seconds: toomanyrequests: slow down"
    );
    assert_eq!(server.count(), 1);
}

#[test]
fn a_passing_failure_passes() {
    let server = after(Image::new(1), |count, _| match count {
        0 => Some(Response::new(502, "<html>")),
        1 => Some(Response::new(200, "{}").cut_after(1)),
        2 => Some(Response::new(200, "{}").cut_after(0)),
        _ => None,
    });
    client().resolve(&server.reference("a/b")).expect("resolved");
}

#[test]
fn silence_ends() {
    let server = Server::start(|_| Response::silent());
    let start = Instant::now();
    let error = resolve_error(&server);
    assert_eq!(error, "HOST: cannot pull HOST/a/b:1: HOST: no answer in time");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn nobody_there_is_said_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let authority = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let reference = format!("{authority}/a/b:1").parse().expect("a reference");
    let error = client().resolve(&reference).expect_err("an error");
    assert!(error.is_unreachable());
    let text = error.to_string().replace(&authority, "HOST");
    assert_eq!(text, "HOST: cannot pull HOST/a/b:1: HOST: connection refused");
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::new(1000);
    let (descriptor, bytes) = (image.descriptor.clone(), image.layer.clone());
    let elsewhere = Server::start(move |request| Response::ranged(request, &image.layer));
    let target = format!("http://{}/bucket?signature=x", elsewhere.authority);
    let server = Server::start(move |request| match request.header("authorization") {
        None => Response::error(401, "UNAUTHORIZED", "who").header("www-authenticate", "Basic realm=x"),
        Some(_) if request.target.starts_with("/moved") => {
            Response::new(307, "").header("location", target.clone())
        }
        Some(_) => Response::new(307, "").header("location", "/moved"),
    });
    let keychain = keychain(&folder, &[&server.authority]);
    let client = Client::new(config(), keychain);
    let reader = client.fetch_blob(&server.reference("a/b"), &descriptor, 0).expect("opened");
    assert_eq!(read_all(reader).expect("read"), bytes);
    assert_eq!(server.requests()[2].header("authorization"), Some("Basic bWU6aHVudGVyMg=="));
    assert_eq!(elsewhere.requests()[0].header("authorization"), None);
}

#[test]
fn redirects_in_a_circle_end() {
    let server = Server::start(|_| Response::new(307, "").header("location", "/again"));
    assert_eq!(resolve_error(&server), "HOST: cannot pull HOST/a/b:1: HOST: more than 5 redirects");
}

#[test]
fn mirrors_are_asked_first_without_the_registrys_credentials() {
    let folder = tempfile::tempdir().expect("a folder");
    let challenge =
        || Response::error(401, "UNAUTHORIZED", "who").header("www-authenticate", "Basic realm=x");
    let mirror = Server::start(move |_| challenge());
    let image = Image::new(10);
    let main = Server::start(move |request| match request.header("authorization") {
        None => challenge(),
        Some(_) => image.serve(request),
    });
    let keychain = keychain(&folder, &["docker.io"]);
    let client = client_for("docker.io", &main.authority, &["127.0.0.1:1", &mirror.authority], keychain);
    let resolved = client.resolve(&"alpine:3".parse().expect("a reference")).expect("resolved");
    assert_eq!(resolved.endpoint.to_string(), format!("http://{}", main.authority));
    assert_eq!(mirror.lines(), ["GET /v2/library/alpine/manifests/3"]);
    assert_eq!(mirror.requests()[0].header("authorization"), None);
    assert_eq!(main.count(), 2);
}

#[test]
fn a_mirror_that_works_keeps_the_registry_out_of_it() {
    let image = Image::new(10);
    let descriptor = image.descriptor.clone();
    let mirror = after(image, |_, _| None);
    let prefixed = format!("{}/hub", mirror.authority);
    let client = client_for("docker.io", "127.0.0.1:1", &[&prefixed], Keychain::anonymous());
    let reference = "alpine:3".parse().expect("a reference");
    client.resolve(&reference).expect("resolved");
    read_all(client.fetch_blob(&reference, &descriptor, 0).expect("opened")).expect("read");
    assert_eq!(mirror.lines()[0], "GET /v2/hub/library/alpine/manifests/3");
    assert_eq!(mirror.count(), 2);
}

#[test]
fn tags_are_gathered_from_all_pages_and_a_page_that_follows_itself_ends() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v2/a/b/tags/list?n=1000" => Response::new(200, r#"{"name":"a/b","tags":["1","2"]}"#)
            .header("link", "</v2/a/b/tags/list?last=2>; rel=\"next\""),
        _ => Response::new(200, r#"{"tags":["3"]}"#).header("link", "<?last=2>; rel=\"next\""),
    });
    assert_eq!(client().tags(&server.reference("a/b")).expect("tags"), ["1", "2", "3"]);
    let empty = Server::start(|_| Response::new(200, r#"{"tags":null}"#));
    assert_eq!(client().tags(&empty.reference("a/b")).expect("tags"), [""; 0]);
}

#[test]
fn search_asks_the_registry_in_the_term() {
    let server = Server::start(|request| match request.target.starts_with("/v1/search") {
        true => Response::new(
            200,
            r#"{"results":[{"name":"mysql","description":null,"star_count":9,"is_official":true}]}"#,
        ),
        false => Response::new(404, ""),
    });
    let results = client().search(&format!("{}/my sql", server.authority), 25).expect("results");
    assert_eq!(server.lines(), ["GET /v1/search?n=25&q=my%20sql"]);
    assert_eq!((results[0].name.as_str(), results[0].star_count, results[0].is_official), ("mysql", 9, true));

    let silent = Server::start(|_| Response::new(404, ""));
    let error = client().search(&format!("{}/x", silent.authority), 25).expect_err("an error").to_string();
    let expected = format!("{}: cannot search x: this registry does not offer search", silent.authority);
    assert_eq!(error, expected);
}

#[test]
fn a_proxy_is_asked_to_connect_and_loopback_is_not_proxied() {
    let image = Image::new(10);
    // Proxy and registry in one: after CONNECT, the same connection carries the registry's requests.
    let proxy = Server::start(move |request| match request.method.as_str() {
        "CONNECT" => Response::new(200, ""),
        _ => image.serve(request),
    });
    let mut config = config();
    config.proxy.http = Some(format!("http://me:hunter2@{}", proxy.authority));
    let table = RegistryConfig { security: Some(Security::PlainHttp), ..RegistryConfig::default() };
    config.registries.insert("registry.invalid:5000".into(), table);
    let client = Client::new(config, Keychain::anonymous());
    client.resolve(&"registry.invalid:5000/a/b:1".parse().expect("a reference")).expect("resolved");
    assert_eq!(proxy.lines(), ["CONNECT registry.invalid:5000", "GET /v2/a/b/manifests/1"]);
    client.resolve(&proxy.reference("c/d:1")).expect("resolved");
    assert_eq!(proxy.lines()[2..], ["GET /v2/c/d/manifests/1"]);
}

#[test]
fn a_layer_kept_elsewhere_is_fetched_from_there() {
    let image = Image::new(10);
    let (mut descriptor, bytes) = (image.descriptor.clone(), image.layer.clone());
    let elsewhere = Server::start(move |request| Response::ranged(request, &image.layer));
    descriptor.urls = vec![format!("http://{}/layer", elsewhere.authority)];
    let server = Server::start(|_| Response::error(404, "BLOB_UNKNOWN", "blob unknown to registry"));
    assert_eq!(layer(&server, &descriptor).expect("read"), bytes);
    assert_eq!(elsewhere.lines(), ["GET /layer"]);
}
