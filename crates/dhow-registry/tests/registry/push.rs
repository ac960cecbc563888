//! Pushing to registries that are picky, forgetful or short of breath.

use std::io::{self, Cursor, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_oci::{Digest, media_type};
use dhow_registry::{Pushed, RegistryError};

use crate::support::{Image, Request, Response, Server, client};

/// A registry that takes uploads as distribution-spec has it, except where `instead` answers.
fn taking(instead: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static) -> Server {
    let received = Mutex::new(Vec::new());
    Server::start(move |request| {
        if let Some(response) = instead(request) {
            return response;
        }
        let mut received = received.lock().expect("no panic");
        match request.method.as_str() {
            "HEAD" => Response::new(404, ""),
            "POST" => {
                received.clear();
                Response::new(202, "").header("location", "/upload?state=0")
            }
            "PATCH" => {
                let range = format!("{}-{}", received.len(), received.len() + request.body.len() - 1);
                assert_eq!(request.header("content-range"), Some(range.as_str()));
                received.extend(&request.body);
                Response::new(202, "").header("location", format!("/upload?state={}", received.len()))
            }
            _ => {
                received.extend(&request.body);
                let digest = Digest::sha256_of(&received).to_string().replace(':', "%3A");
                match request.target.ends_with(&format!("&digest={digest}")) {
                    true => Response::new(201, ""),
                    false => Response::error(400, "DIGEST_INVALID", "provided digest did not match"),
                }
            }
        }
    })
}

fn push(server: &Server, image: &Image, from: Option<&str>) -> Result<Pushed, RegistryError> {
    let open = || Ok(Box::new(Cursor::new(image.layer.clone())) as Box<dyn Read + Send>);
    client().push_blob(&server.reference("a/b"), &image.descriptor, from, &open)
}

fn methods(server: &Server) -> String {
    server.requests().iter().map(|request| request.method.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_blob_is_looked_for_and_then_sent_in_one_piece() {
    let server = taking(|_| None);
    assert_eq!(push(&server, &Image::new(300_000), None).expect("pushed"), Pushed::Uploaded);
    assert_eq!(methods(&server), "HEAD POST PUT");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_blob_that_is_there_costs_one_request() {
    let server = taking(|_| Some(Response::new(200, "")));
    assert_eq!(push(&server, &Image::new(3), None).expect("pushed"), Pushed::Existed);
    assert_eq!(methods(&server), "HEAD");
}

#[test]
fn a_blob_is_mounted_if_the_registry_can() {
    let image = Image::new(3);
    let target = format!("/v2/a/b/blobs/uploads/?mount={}&from=c%2Fd", image.descriptor.digest);
    let mounting = taking(move |request| (request.target == target).then(|| Response::new(201, "")));
    assert_eq!(push(&mounting, &image, Some("c/d")).expect("pushed"), Pushed::Mounted);
    assert_eq!(methods(&mounting), "HEAD POST");
    let refusing = taking(|_| None);
    assert_eq!(push(&refusing, &image, Some("c/d")).expect("pushed"), Pushed::Uploaded);
    assert_eq!(methods(&refusing), "HEAD POST PUT");
}

#[test]
fn an_empty_blob_can_be_pushed() {
    let server = taking(|_| None);
    assert_eq!(push(&server, &Image::new(0), None).expect("pushed"), Pushed::Uploaded);
}

#[test]
fn a_blob_too_long_for_one_request_goes_in_pieces() {
    let is_long = |request: &Request| request.method == "PUT" && !request.body.is_empty();
    let server =
        taking(move |request| is_long(request).then(|| Response::error(413, "SIZE_INVALID", "too long")));
    assert_eq!(push(&server, &Image::new(17 << 20), None).expect("pushed"), Pushed::Uploaded);
    assert_eq!(methods(&server), "HEAD POST PUT HEAD POST PATCH PATCH PUT");
}

#[test]
fn an_upload_that_breaks_is_begun_again() {
    let count = AtomicUsize::new(0);
    let server = taking(move |request| {
        let is_first = request.method == "PUT" && count.fetch_add(1, Ordering::SeqCst) == 0;
        is_first.then(|| Response::new(201, "x").cut_after(0).header("content-length", "x"))
    });
    assert_eq!(push(&server, &Image::new(10_000), None).expect("pushed"), Pushed::Uploaded);
}

#[test]
fn an_upload_whose_answer_is_lost_is_not_repeated() {
    let is_there = AtomicUsize::new(0);
    let server = taking(move |request| match request.method.as_str() {
        "PUT" => {
            is_there.store(1, Ordering::SeqCst);
            Some(Response::silent())
        }
        "HEAD" if is_there.load(Ordering::SeqCst) == 1 => Some(Response::new(200, "")),
        _ => None,
    });
    assert_eq!(push(&server, &Image::new(10), None).expect("pushed"), Pushed::Uploaded);
    assert_eq!(methods(&server), "HEAD POST PUT HEAD");
}

#[test]
fn refusals_name_the_repository() {
    let server =
        taking(|_| Some(Response::error(403, "DENIED", "requested access to the resource is denied")));
    let error = push(&server, &Image::new(3), None).expect_err("an error").to_string();
    let expected = format!(
        "push access denied for {}/a/b, repository does not exist or may require 'dhow login': ",
        server.authority
    );
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn content_that_cannot_be_read_is_our_fault_and_said_so() {
    let server = taking(|_| None);
    let image = Image::new(1000);
    let short = || Ok(Box::new(io::empty()) as Box<dyn Read + Send>);
    let error =
        client().push_blob(&server.reference("a/b"), &image.descriptor, None, &short).expect_err("an error");
    assert_eq!(error.to_string(), format!("cannot read {} to push it", image.descriptor.digest));
    let missing = || Err(io::Error::from(io::ErrorKind::NotFound));
    let error = client()
        .push_blob(&server.reference("a/b"), &image.descriptor, None, &missing)
        .expect_err("an error");
    assert!(matches!(error, RegistryError::Content { .. }), "{error}");
}

#[test]
fn a_manifest_is_put_under_its_tag_and_the_registrys_digest_must_be_ours() {
    let (image, server) = (Image::new(3), Server::start(|_| Response::new(201, "")));
    let digest = client()
        .push_manifest(&server.reference("a/b:1"), media_type::OCI_MANIFEST, &image.manifest)
        .expect("pushed");
    assert_eq!(digest, Digest::sha256_of(&image.manifest));
    let request = &server.requests()[0];
    assert_eq!(request.line(), "PUT /v2/a/b/manifests/1");
    assert_eq!(request.header("content-type"), Some(media_type::OCI_MANIFEST));
    assert_eq!(request.body, image.manifest);

    let other = Digest::sha256_of(b"other").to_string();
    let server =
        Server::start(move |_| Response::new(201, "").header("docker-content-digest", other.clone()));
    let result = client().push_manifest(&server.reference("a/b"), media_type::OCI_MANIFEST, &image.manifest);
    assert!(matches!(result, Err(RegistryError::DigestMismatch { .. })));
}
