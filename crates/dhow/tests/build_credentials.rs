//! Sources that are given only to those who have a token, and what becomes of the token.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::build_run::files_with;
use crate::build_sources::repository;
use crate::rig::{Answer, Asked, Double, Rig, Shell, Tar};

const TOKEN: &str = "hush-51b0-for-the-server";
/// What a server is told by who has the token: `x-access-token:hush-51b0-for-the-server`.
const GIT_BASIC: &str = "Basic eC1hY2Nlc3MtdG9rZW46aHVzaC01MWIwLWZvci10aGUtc2VydmVy";
const BEARER: &str = "Bearer hush-51b0-for-the-server";

/// A server that answers those who say `word`, and says of everybody else who they were.
struct Guarded {
    server: Double,
    /// Command lines that held the token or the word while the server was asked.
    leaks: Arc<Mutex<Vec<String>>>,
}

impl Guarded {
    fn start(
        words: &'static [&'static str],
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Guarded {
        let leaks = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&leaks);
        let server = Double::start(move |asked| {
            seen.lock().expect("no server panics").extend(command_lines_with(words));
            match &asked.authorization {
                Some(word) if words.contains(&word.as_str()) => answer(asked),
                _ => Answer::new(401, "who are you?").header("www-authenticate", "Basic realm=\"x\""),
            }
        });
        Guarded { server, leaks }
    }

    #[track_caller]
    fn leaked_nothing(&self) {
        assert_eq!(*self.leaks.lock().expect("no server panics"), Vec::<String>::new());
    }
}

/// Command lines of all processes that show the token, or what is made of it.
fn command_lines_with(words: &[&str]) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    let shows = |line: &String| line.contains(TOKEN) || words.iter().any(|word| line.contains(word));
    lines.filter(shows).collect()
}

/// A server that tells nothing, and remembers what it is told.
fn listener() -> (Double, Arc<Mutex<Vec<String>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let server = Double::start(move |asked| {
        heard.lock().expect("no server panics").extend(asked.authorization.clone());
        Answer::new(200, "elsewhere\n")
    });
    (server, told)
}

/// Nothing of the token is in the store, the run-time folder, or what `docker` says of the image.
#[track_caller]
fn kept_nowhere(rig: &Rig, image: &str) {
    for secret in [TOKEN, "aHVzaC01MWIw", "hush-51b0"] {
        for folder in ["root", "run"] {
            assert_eq!(files_with(&rig.path(folder), secret), Vec::<String>::new());
        }
    }
    for line in ["docker history --no-trunc", "docker inspect"] {
        let said = rig.ok(&format!("{line} {image}"));
        assert!(!said.contains("hush-51b0"), "{said}");
    }
    let said = rig.ok("dhow builder history inspect");
    assert!(!said.contains("hush-51b0"), "{said}");
}

#[track_caller]
fn builds(app: &Shell<'_>, flags: &str, expected: &str) {
    let built = app.run(&format!("docker build --progress=plain -t app {flags}"));
    assert_eq!(built.status, 0, "{flags}: {}", built.both());
    assert!(!built.both().contains("hush-51b0"), "{}", built.both());
    assert_eq!(app.ok("docker run --rm app cat /f"), expected, "{flags}");
}

#[test]
fn files_come_to_who_has_the_token_of_their_host() {
    let Some(rig) = Rig::start() else { return };
    let (other, told) = listener();
    let away = format!("http://{}/away", other.address);
    let tar = Tar::default().file("Dockerfile", b"FROM alpine\nCOPY f /f\n").file("f", b"packed\n").end();
    let guarded = Guarded::start(&[BEARER, "Custom of-the-host"], move |asked| match asked.path.as_str() {
        "/f" => Answer::new(200, "guarded\n").header("etag", "\"1\""),
        "/ctx.tar" => Answer::new(200, tar.clone()),
        "/Dockerfile" => Answer::new(200, "FROM alpine\nRUN echo url >/f\n"),
        "/here" => Answer::new(302, "").header("location", "/f"),
        "/away" => Answer::new(302, "").header("location", away.clone()),
        _ => Answer::new(404, ""),
    });
    let at = &guarded.server.address;
    let app = rig.context("http", &[]);
    // The end of the line is the editor's.
    app.write("../token", &format!("{TOKEN}\n"));
    app.write("../header", "Custom of-the-host");
    let token = "--secret id=HTTP_AUTH_TOKEN_127.0.0.1,src=../token";
    let header = "--secret id=HTTP_AUTH_HEADER_127.0.0.1,src=../header";
    for (source, secret, expected) in [
        ("f", token, "guarded"),
        ("f", header, "guarded"),
        ("here", token, "guarded"),
        ("away", token, "elsewhere"),
    ] {
        app.write("Dockerfile", &format!("FROM alpine\nADD http://{at}/{source} /f\n"));
        builds(&app, &format!("{secret} ."), expected);
    }
    assert_eq!(*told.lock().expect("no server panics"), Vec::<String>::new(), "another server was told");
    builds(&app, &format!("{token} http://{at}/ctx.tar"), "packed");
    builds(&app, &format!("{token} -f http://{at}/Dockerfile ."), "url");
    app.write("Dockerfile", "FROM alpine\nCOPY --from=x f /f\n");
    builds(&app, &format!("{token} --build-context x=http://{at}/ctx.tar ."), "packed");
    kept_nowhere(&rig, "app");
    guarded.leaked_nothing();
    // What came for the token is not for those without it.
    app.write("Dockerfile", &format!("FROM alpine\nADD http://{at}/f /f\n"));
    for flags in ["", "--secret id=HTTP_AUTH_TOKEN_localhost,src=../token"] {
        let said = app.fails(&format!("docker build -q {flags} ."), 1);
        assert!(said.contains("the server answered 401") && said.contains("Dockerfile:2"), "{said}");
        assert!(
            said.contains("Hint: give a token with --secret id=HTTP_AUTH_TOKEN_127.0.0.1,env=NAME"),
            "{said}"
        );
    }
    app.write("../header", "Custom\nx-more: hush-51b0");
    let said = app.fails(&format!("docker build -q {header} ."), 1);
    assert!(
        said.contains("cannot use secret HTTP_AUTH_HEADER_127.0.0.1") && !said.contains("hush-51b0"),
        "{said}"
    );
    let said = app.fails(&format!("docker build -q http://{at}/ctx.tar"), 1);
    assert!(said.contains("HTTP_AUTH_TOKEN_127.0.0.1,env=NAME"), "{said}");
}

/// Answers as a server of the repositories below `work` does that needs no program.
fn repositories(root: &Path, asked: &Asked) -> Answer {
    let path = asked.path.split('?').next().unwrap_or_default().trim_start_matches('/');
    let (name, rest) = path.split_once('/').unwrap_or((path, ""));
    let file = root.join(name.trim_end_matches(".git")).join(".git").join(rest);
    fs::read(file).map_or_else(|_| Answer::new(404, ""), |bytes| Answer::new(200, bytes))
}

#[test]
fn repositories_come_to_who_has_their_token() {
    let Some(rig) = Rig::start() else { return };
    repository(&rig);
    let (other, told) = listener();
    let (root, away) = (rig.path("work"), format!("http://{}/away", other.address));
    // `me:hush-51b0-for-the-server`
    const USER_BASIC: &str = "Basic bWU6aHVzaC01MWIwLWZvci10aGUtc2VydmVy";
    let guarded = Guarded::start(&[GIT_BASIC, USER_BASIC, "Custom of-the-host"], move |asked| {
        match asked.path.split_once(".git/") {
            Some(("/old", rest)) => Answer::new(301, "").header("location", format!("/repo.git/{rest}")),
            Some(("/away", rest)) => Answer::new(302, "").header("location", format!("{away}.git/{rest}")),
            _ => repositories(&root, asked),
        }
    });
    let at = &guarded.server.address;
    let url = format!("http://{at}/repo.git");
    let app = rig.context("git", &[]);
    app.write("../token", &format!("{TOKEN}\n"));
    app.write("../header", "Custom of-the-host");
    let token = "--secret id=GIT_AUTH_TOKEN,src=../token".to_owned();
    for (add, flags, expected) in [
        (format!("{url}#v1:sub"), token.clone(), "one"),
        (format!("{url}#other:sub"), format!("--secret id=GIT_AUTH_TOKEN.{at},src=../token"), "two"),
        (
            format!("{url}?branch=main&subdir=sub"),
            "--secret id=GIT_AUTH_HEADER,src=../header".to_owned(),
            "one",
        ),
        (
            format!("{url}?tag=v1&subdir=sub"),
            format!("--secret id=GIT_AUTH_HEADER.{at},src=../header"),
            "one",
        ),
        (format!("http://{at}/old.git?branch=other&subdir=sub&submodules=0"), token.clone(), "two"),
    ] {
        // A layer that is there already would not be fetched.
        app.ok("dhow builder prune -a -f");
        app.write("Dockerfile", &format!("FROM alpine\nADD {add} /\n"));
        let built = app.run(&format!("docker build --progress=plain -t app {flags} ."));
        assert_eq!(built.status, 0, "{add}: {}", built.both());
        assert_eq!(app.ok("docker run --rm app cat /f"), expected, "{add}");
    }
    // A token for no host in particular is for the repository alone, not for its submodules.
    app.write("Dockerfile", &format!("FROM alpine\nADD {url}#other /r\n"));
    let said = app.fails(&format!("docker build -q {token} ."), 1);
    assert!(said.contains("Failed to clone 'mod'") && !said.contains("hush-51b0"), "{said}");
    app.ok("dhow builder prune -a -f");
    builds(&app, &format!("{token} {url}#v1"), "one");
    app.write("Dockerfile", "FROM alpine\nCOPY --from=x sub/f /f\n");
    builds(&app, &format!("{token} --build-context x={url}#v1 ."), "one");
    guarded.leaked_nothing();
    kept_nowhere(&rig, "app");

    for (add, flags, says) in [
        (format!("http://{at}/repo.git#v1"), String::new(), "--secret id=GIT_AUTH_TOKEN,env=NAME".to_owned()),
        (
            format!("http://{at}/repo.git#v1"),
            "--secret id=GIT_AUTH_TOKEN.h,src=../token".to_owned(),
            "could not read Username".to_owned(),
        ),
        (
            format!("http://{at}/away.git#v1"),
            token.clone(),
            format!("leads to http://{}/away.git, where its credentials must not go", other.address),
        ),
    ] {
        app.write("Dockerfile", &format!("FROM alpine\nADD {add} /r\n"));
        let said = app.fails(&format!("docker build -q {flags} ."), 1);
        assert!(said.contains(&says) && said.contains("Dockerfile:2"), "{add}: {said}");
    }
    // A password in the Dockerfile is on no command line either.
    app.ok("dhow builder prune -a -f");
    app.write("Dockerfile", &format!("FROM alpine\nADD http://me:{TOKEN}@{at}/old.git#v1:sub /\n"));
    app.ok("docker build -q -t app .");
    assert_eq!(app.ok("docker run --rm app cat /f"), "one");
    guarded.leaked_nothing();
    assert_eq!(*told.lock().expect("no server panics"), Vec::<String>::new(), "another server was told");
}

#[test]
fn the_search_for_tokens_in_command_lines_finds_them() {
    let mut waiting = Command::new("sh")
        .args(["-c", "echo ready; read x; : shown-in-a-line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut ready = [0; 6];
    waiting.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("it is ready");
    assert_eq!(command_lines_with(&["shown-in-a-line"]).len(), 1);
    drop(waiting.stdin.take());
    waiting.wait().expect("it ends");
}
