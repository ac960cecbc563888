//! Challenges, tokens and logins.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_registry::{Client, Credential, Keychain, RegistryError, Secret};

use crate::support::{Image, Request, Response, Server, client, config, keychain, read_all};

/// A token server whose n-th token is `token-n`, and a registry that takes what `accepts` says.
struct Guarded {
    registry: Server,
    tokens: Arc<Server>,
}

impl Guarded {
    fn start(image: Image, accepts: impl Fn(&Request, &str) -> bool + Send + Sync + 'static) -> Guarded {
        let count = AtomicUsize::new(1);
        let tokens = Arc::new(Server::start(move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            Response::new(200, format!(r#"{{"token":"token-{number}","expires_in":300}}"#))
        }));
        let realm = format!("http://{}/token", tokens.authority);
        let registry = Server::start(move |request| {
            let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
            match token.filter(|token| accepts(request, token)) {
                Some(_) => image.serve(request),
                None => challenge(&realm, request),
            }
        });
        Guarded { registry, tokens }
    }
}

fn challenge(realm: &str, request: &Request) -> Response {
    let repository = request.target.split('/').skip(2).take(2).collect::<Vec<_>>().join("/");
    let scope = format!("repository:{repository}:pull");
    Response::error(401, "UNAUTHORIZED", "authentication required")
        .header("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"here\",scope=\"{scope}\""))
}

#[test]
fn one_token_serves_a_whole_pull() {
    let image = Image::new(1000);
    let descriptor = image.descriptor.clone();
    let guarded = Guarded::start(image, |_, _| true);
    let (client, reference) = (client(), guarded.registry.reference("a/b:1"));
    client.resolve(&reference).expect("resolved");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let pull =
                || read_all(client.fetch_blob(&reference, &descriptor, 0).expect("opened")).expect("read");
            scope.spawn(pull);
        }
    });
    // The refusal, the manifest and four blobs.
    assert_eq!(guarded.registry.count(), 6);
    let expected = "GET /token?client_id=dhow&service=here&scope=repository%3Aa%2Fb%3Apull";
    assert_eq!(guarded.tokens.lines(), [expected]);

    // Of another repository the challenge is known by now.
    client.resolve(&guarded.registry.reference("c/d")).expect("resolved");
    assert_eq!((guarded.registry.count(), guarded.tokens.count()), (7, 2));
}

#[test]
fn threads_that_need_the_same_token_fetch_it_once() {
    let guarded = Guarded::start(Image::new(1), |_, _| true);
    let client = client();
    client.resolve(&guarded.registry.reference("a/b")).expect("resolved");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| client.resolve(&guarded.registry.reference("c/d")).expect("resolved"));
        }
    });
    assert_eq!(guarded.tokens.count(), 2);
}

#[test]
fn a_token_that_runs_out_is_renewed() {
    let image = Image::new(1000);
    let descriptor = image.descriptor.clone();
    let guarded = Guarded::start(image, |request, token| {
        token == if request.target.contains("/blobs/") { "token-2" } else { "token-1" }
    });
    let (client, reference) = (client(), guarded.registry.reference("a/b"));
    client.resolve(&reference).expect("resolved");
    read_all(client.fetch_blob(&reference, &descriptor, 0).expect("opened")).expect("read");
    assert_eq!((guarded.registry.count(), guarded.tokens.count()), (4, 2));
}

#[test]
fn a_registry_that_is_never_satisfied_is_left() {
    let guarded = Guarded::start(Image::new(1), |_, _| false);
    let error = client().resolve(&guarded.registry.reference("a/b")).expect_err("an error").to_string();
    let expected = format!(
        "pull access denied for {}/a/b, repository does not exist or may require 'dhow login': \
         unauthorized: authentication required",
        guarded.registry.authority
    );
    assert_eq!(error, expected);
    assert_eq!((guarded.registry.count(), guarded.tokens.count()), (2, 1));
}

#[test]
fn a_wrong_password_is_told_from_a_missing_repository() {
    let tokens = Server::start(|_| Response::new(401, r#"{"details":"incorrect username or password"}"#));
    let realm = format!("http://{}/token", tokens.authority);
    let registry = Server::start(move |request| challenge(&realm, request));
    let folder = tempfile::tempdir().expect("a folder");
    let client = Client::new(config(), keychain(&folder, &[&registry.authority]));
    let error = client.resolve(&registry.reference("a/b")).expect_err("an error").to_string();
    assert_eq!(error, format!("{}: unauthorized: incorrect username or password", registry.authority));
    assert!(tokens.lines()[0].contains("&account=me"));
}

#[test]
fn an_identity_token_is_exchanged_and_never_shown() {
    let guarded = Guarded::start(Image::new(1), |_, _| true);
    let folder = tempfile::tempdir().expect("a folder");
    let keychain = Keychain::new(folder.path().join("config.json"), Vec::new());
    let token = Credential::IdentityToken { username: None, token: Secret::new("it/s+secret") };
    keychain.store(&guarded.registry.authority, &token).expect("stored");
    Client::new(config(), keychain).resolve(&guarded.registry.reference("a/b")).expect("resolved");
    let request = &guarded.tokens.requests()[0];
    assert_eq!(request.line(), "POST /token");
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        "client_id=dhow&service=here&grant_type=refresh_token&scope=repository%3Aa%2Fb%3Apull\
         &refresh_token=it%2Fs%2Bsecret"
    );
    assert!(!format!("{token:?}").contains("secret"));
}

#[test]
fn a_token_server_cannot_leak_its_tokens_through_our_errors() {
    for body in [r#"{"token":"s3cret"#, r#"["s3cret"]"#, r#"{"token":"s3cret\n"}"#] {
        let tokens = Server::start(move |_| Response::new(200, body));
        let realm = format!("http://me:s3cret@{}/token?s3cret", tokens.authority);
        let registry = Server::start(move |request| challenge(&realm, request));
        let error = client().resolve(&registry.reference("a/b")).expect_err("an error");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
}

#[test]
fn a_broken_credential_store_matters_only_where_credentials_are_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    std::fs::write(&path, r#"{"credsStore":"gone"}"#).expect("written");
    let client = Client::new(config(), Keychain::new(path, Vec::new()));
    let public = Guarded::start(Image::new(1), |_, _| true);
    client.resolve(&public.registry.reference("a/b")).expect("resolved");
    let private = Guarded::start(Image::new(1), |_, _| false);
    let error = client.resolve(&private.registry.reference("a/b")).expect_err("an error").to_string();
    assert_eq!(error, "docker-credential-gone is not installed in any of the folders of PATH");
}

/// A registry with users and passwords.
fn basic() -> Server {
    Server::start(|request| match request.header("authorization") {
        Some("Basic bWU6aHVudGVyMg==") => Response::new(200, "{}"),
        _ => Response::error(401, "UNAUTHORIZED", "authentication required")
            .header("www-authenticate", "Basic realm=\"x\""),
    })
}

#[test]
fn a_login_is_checked_with_the_registry() {
    let server = basic();
    let outcome = client().login(&server.authority, "me", &Secret::new("hunter2")).expect("in");
    assert_eq!(outcome.status, "Login Succeeded");
    assert!(matches!(outcome.credential, Credential::Basic { .. }));
    let error = client().login(&server.authority, "me", &Secret::new("wrong")).expect_err("an error");
    assert!(matches!(error, RegistryError::Unauthorized { .. }));
    assert_eq!(error.to_string(), format!("{}: unauthorized: authentication required", server.authority));
}

#[test]
fn a_login_keeps_the_identity_token_if_there_is_one() {
    let tokens = Server::start(|_| Response::new(200, r#"{"access_token":"t","refresh_token":"r"}"#));
    let realm = format!("http://{}/token", tokens.authority);
    let registry = Server::start(move |request| match request.header("authorization") {
        Some("Bearer t") => Response::new(200, "{}"),
        _ => Response::new(401, "").header("www-authenticate", format!("Bearer realm=\"{realm}\"")),
    });
    let outcome = client().login(&registry.authority, "me", &Secret::new("hunter2")).expect("in");
    let expected = Credential::IdentityToken { username: Some("me".into()), token: Secret::new("r") };
    assert_eq!(outcome.credential, expected);
    assert_eq!(tokens.lines(), ["GET /token?client_id=dhow&account=me&offline_token=true"]);
}
