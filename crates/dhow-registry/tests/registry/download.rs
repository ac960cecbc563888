//! Files that are no images.

use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_registry::{Download, DownloadError, DownloadRequest};

use crate::support::{Response, Server, client, read_all};

fn get(url: &str) -> Result<Download, DownloadError> {
    client().download(&DownloadRequest { url, ..DownloadRequest::default() })
}

fn text(download: Download) -> String {
    match download {
        Download::NotModified => "not modified".to_owned(),
        Download::Content(content) => {
            String::from_utf8(read_all(content.reader).expect("a body")).expect("text")
        }
    }
}

#[test]
fn a_file_comes_with_what_tells_its_versions_apart() {
    let server = Server::start(|request| match request.header("if-none-match") {
        Some("\"1\"") => Response::new(304, ""),
        _ => Response::new(200, "file").header("etag", "\"1\"").header("last-modified", "some time"),
    });
    let url = format!("http://{}/f?q=1", server.authority);
    let Ok(Download::Content(content)) = get(&url) else { panic!("content") };
    assert_eq!(
        (content.etag.as_deref(), content.last_modified.as_deref()),
        (Some("\"1\""), Some("some time"))
    );
    assert_eq!(
        (content.content_length, read_all(content.reader).expect("a body")),
        (Some(4), b"file".to_vec())
    );
    let again = DownloadRequest { url: &url, etag: content.etag.as_deref(), ..DownloadRequest::default() };
    assert_eq!(text(client().download(&again).expect("an answer")), "not modified");
    assert_eq!(server.lines(), ["GET /f?q=1", "GET /f?q=1"]);
}

#[test]
fn redirects_are_followed_and_passwords_stay_at_home() {
    let other = Server::start(|_| Response::new(200, "there"));
    let there = format!("http://{}/there", other.authority);
    let server = Server::start(move |request| match request.target.as_str() {
        "/far" => Response::new(302, "").header("location", there.clone()),
        "/near" => Response::new(301, "").header("location", "/here"),
        _ => Response::new(200, "here"),
    });
    let at = |path: &str| format!("http://me:pw@{}{path}", server.authority);
    assert_eq!(text(get(&at("/near")).expect("an answer")), "here");
    assert_eq!(text(get(&at("/far")).expect("an answer")), "there");
    let authorized = |server: &Server| -> Vec<bool> {
        server.requests().iter().map(|request| request.header("authorization").is_some()).collect()
    };
    assert_eq!((authorized(&server), authorized(&other)), (vec![true; 3], vec![false]));
}

#[test]
fn what_may_pass_is_tried_again_and_what_does_not_is_told() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.target.as_str() {
        "/busy" if count.fetch_add(1, Ordering::SeqCst) == 0 => Response::new(503, ""),
        "/busy" => Response::new(200, "at last"),
        _ => Response::new(404, "secret words"),
    });
    let at = |path: &str| format!("http://me:pw@{}{path}", server.authority);
    assert_eq!(text(get(&at("/busy")).expect("an answer")), "at last");
    let error = get(&at("/none?token=x")).map(drop).expect_err("it is not there").to_string();
    let expected =
        format!("cannot fetch http://{}/none: the server answered 404 not found", server.authority);
    assert_eq!(error, expected);
    assert!(get("ftp://x/y").is_err());
}
