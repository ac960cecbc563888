//! Where the files of an image come from, and how they come out.

use std::path::PathBuf;

use dhow_oci::Digest;
use rustix::process::Signal;

use crate::rig::{Answer, Double, Rig, Shell, Tar};

/// Builds `dockerfile` in the context and compares what `script` prints in a container of it.
#[track_caller]
fn check(app: &Shell<'_>, flags: &str, dockerfile: &str, script: &str, expected: &str) {
    app.write("Dockerfile", dockerfile);
    app.ok(&format!("docker build -q -t sources {flags} ."));
    let printed = app.ok(&format!("docker run --rm sources sh -c '{script}'"));
    assert_eq!(printed, expected, "{dockerfile}");
}

#[test]
fn sources_keep_their_directories_when_asked_to() {
    let Some(rig) = Rig::start() else { return };
    let files = [("a/b/one.txt", "1"), ("a/b/two.md", "2"), ("a/c/deep/one.txt", "3"), ("one.txt", "4")];
    let app = rig.context("parents", &files);
    let find = "cd /out && find . -type f | sort";
    for (copy, expected) in [
        ("COPY --parents a/b/one.txt one.txt /out/", "./a/b/one.txt\n./one.txt"),
        ("COPY --parents a/./b /out", "./b/one.txt\n./b/two.md"),
        ("COPY --parents **/one.txt /out/", "./a/b/one.txt\n./a/c/deep/one.txt\n./one.txt"),
        ("COPY --parents --exclude=**/*.md a/*/./ /out/", "./deep/one.txt\n./one.txt"),
        ("COPY --exclude=one* *.txt a/b /out/", "./two.md"),
    ] {
        check(&app, "", &format!("FROM alpine\n{copy}\n"), find, expected);
    }
    app.write("Dockerfile", "FROM alpine\nCOPY --parents a/none /out/\n");
    let said = app.fails("docker build -q .", 1);
    assert!(said.contains("a/none is not in the build context") && said.contains("Dockerfile:2"), "{said}");
}

#[test]
fn the_umask_of_a_checkout_makes_no_difference_to_git_modes() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("modes", &[("src/run.sh", "#!/bin/sh\n"), ("src/data", "d\n")]);
    app.write(
        "Dockerfile",
        "FROM alpine\nCOPY src /src\nRUN stat -c %a:%n /src /src/run.sh /src/data > /modes\n",
    );
    app.ok("chmod 700 src src/run.sh");
    app.ok("chmod 600 src/data");
    let first = app.ok("docker build -q --context-mode=git .");
    let modes = app.ok(&format!("docker run --rm {first} cat /modes"));
    assert_eq!(modes, "755:/src\n755:/src/run.sh\n644:/src/data");
    app.ok("chmod 775 src src/run.sh");
    app.ok("chmod 664 src/data");
    assert_eq!(app.ok("docker build -q --context-mode=git ."), first);
    assert_ne!(app.ok("docker build -q ."), first);
}

/// A server with files, each with an ETag and the time of the first commit of the year 2020.
pub(crate) fn files(files: Vec<(&'static str, Vec<u8>)>) -> Double {
    Double::start(move |asked| {
        let Some((_, content)) = files.iter().find(|(path, _)| *path == asked.path) else {
            return Answer::new(404, "no such file");
        };
        let etag = format!("\"{}\"", Digest::sha256_of(content).short());
        if asked.if_none_match.as_deref() == Some(etag.as_str()) {
            return Answer::new(304, "").header("etag", etag);
        }
        Answer::new(200, content.clone())
            .header("etag", etag)
            .header("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT")
    })
}

#[test]
fn files_come_by_http_once_as_long_as_they_stay_the_same() {
    let Some(rig) = Rig::start() else { return };
    let archive = Tar::default().file("in/side", b"packed\n").end();
    let server = files(vec![
        ("/dir/f.txt?token=hush", b"hello\n".to_vec()),
        ("/", b"root\n".to_vec()),
        ("/a.tar", archive),
    ]);
    let at = &server.address;
    let app = rig.context("http", &[("local", "l\n")]);
    let sum = Digest::sha256_of(b"hello\n");
    let stat = "stat -c %a:%u:%g:%Y:%n";
    for (adds, script, expected) in [
        (
            format!("ADD --checksum={sum} http://{at}/dir/f.txt?token=hush /d/"),
            format!("{stat} /d/f.txt; cat /d/f.txt"),
            "600:0:0:1577836800:/d/f.txt\nhello".to_owned(),
        ),
        (
            format!("ADD --chmod=644 --chown=7:8 http://{at}/dir/f.txt?token=hush local /d/"),
            format!("{stat} /d/f.txt; ls /d"),
            "644:7:8:1577836800:/d/f.txt\nf.txt\nlocal".to_owned(),
        ),
        (format!("ADD http://{at}/ /d/"), "cat /d/__unnamed__".to_owned(), "root".to_owned()),
        (format!("ADD http://{at}/a.tar /d/"), "ls /d".to_owned(), "a.tar".to_owned()),
        (
            format!("ADD --unpack=true http://{at}/a.tar /d/"),
            "cat /d/in/side".to_owned(),
            "packed".to_owned(),
        ),
        (format!("ADD --link http://{at}/dir/f.txt?token=hush /l"), "cat /l".to_owned(), "hello".to_owned()),
    ] {
        check(&app, "", &format!("FROM alpine\n{adds}\n"), &script, &expected);
    }
    let last = "docker build -q .";
    assert_eq!(app.ok(last), app.ok(last));
    let asked = server.asked().iter().filter(|line| line.contains("/dir/f.txt")).count();
    assert!(asked >= 4, "the server is asked each time: {asked}");
    app.write("Dockerfile", &format!("FROM alpine\nADD http://{at}/dir/f.txt?token=hush /f\n"));
    app.ok("docker build -q .");
    let said = app.run("docker build --progress=plain .").both();
    assert!(said.contains("CACHED"), "{said}");
}

#[test]
fn what_does_not_come_as_it_should_leaves_nothing_behind() {
    let Some(rig) = Rig::start() else { return };
    let server = Double::start(|asked| match asked.path.as_str() {
        "/good" => Answer::new(200, "good"),
        "/cut" => Answer::new(200, vec![b'x'; 1000]).cut_after(10),
        "/endless" => Answer::endless(Some(1 << 50)),
        _ => Answer::new(404, ""),
    });
    let at = &server.address;
    let app = rig.context("bad", &[]);
    rig.ok("docker pull -q alpine");
    let wrong = Digest::sha256_of(b"other");
    for (add, says) in [
        (format!("ADD http://{at}/none /"), "the server answered 404 not found"),
        (format!("ADD http://{at}/cut /"), "cannot fetch"),
        (format!("ADD http://{at}/endless /"), "ANNOUNCED_BYTES_MAX"),
        (format!("ADD --checksum={wrong} http://{at}/good /"), "digest is sha256:"),
        ("ADD http://127.0.0.1:1/x /".to_owned(), "connection refused"),
        ("ADD https://127.0.0.1:1/x.git#main /".to_owned(), "cannot fetch https://127.0.0.1:1/x.git"),
        ("ADD file:///etc/passwd /".to_owned(), "is not in the build context"),
        ("ADD http://a/x.git#-x /".to_owned(), "cannot be the name of a branch"),
    ] {
        app.write("Dockerfile", &format!("FROM alpine\n{add}\n"));
        let said = rig.unchanged(|| app.fails("docker build -q .", 1));
        assert!(said.contains(says) && said.contains("Dockerfile:2"), "{add}: {said}");
    }
}

/// Makes a repository with a tag, a branch, a submodule and two commits; returns where it is.
pub(crate) fn repository(rig: &Rig) -> PathBuf {
    let repo = rig.context(
        "repo",
        &[("run.sh", "#!/bin/sh\n"), ("sub/f", "one\n"), ("Dockerfile", "FROM alpine\nCOPY sub/f /f\n")],
    );
    let inner = rig.context("inner", &[("inner.txt", "inner\n")]);
    let git = "git -c user.name=x -c user.email=x@y -c init.defaultBranch=main -c protocol.file.allow=always";
    inner.ok(&format!("{git} init -q"));
    inner.ok(&format!("{git} add ."));
    inner.ok(&format!("{git} commit -q -m inner"));
    repo.ok("chmod 775 run.sh");
    for line in [
        "init -q",
        "add .",
        "commit -q -m one --date=2020-01-01T00:00:00Z",
        "tag -a -m v1 v1",
        "checkout -q -b other",
    ] {
        repo.ok(&format!("{git} {line}"));
    }
    repo.write("sub/f", "two\n");
    repo.ok(&format!("{git} commit -q -a -m two"));
    repo.ok(&format!("{git} submodule --quiet add -- ../inner mod"));
    repo.ok(&format!("{git} commit -q -m three"));
    repo.ok(&format!("{git} checkout -q main"));
    for name in ["repo", "inner"] {
        rig.at(name).ok("git update-server-info");
    }
    repo.folder().to_owned()
}

/// Serves what is below `work` as files, as repositories are served without a program.
pub(crate) fn serve(rig: &Rig) -> Double {
    let root = rig.path("work");
    Double::start(move |asked| {
        let path = asked.path.split('?').next().unwrap_or_default().trim_start_matches('/');
        // `/name.git/x` is `name/.git/x`; a submodule `../inner` of it is `/inner/x`.
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        let file = root.join(name.trim_end_matches(".git")).join(".git").join(rest);
        match std::fs::read(file) {
            Ok(bytes) => Answer::new(200, bytes),
            Err(_) => Answer::new(404, ""),
        }
    })
}

#[test]
fn repositories_are_added_at_the_commit_wanted() {
    let Some(rig) = Rig::start() else { return };
    repository(&rig);
    let server = serve(&rig);
    let url = format!("http://{}/repo.git", server.address);
    let first = rig.at("repo").ok("git rev-parse v1^{commit}");
    let app = rig.context("git", &[]);
    let short = &first[..10];
    for (add, script, expected) in [
        (
            format!("{url} /r"),
            "cat /r/sub/f; ls -A /r; stat -c %a /r/run.sh /r/sub/f",
            "one\nDockerfile\nrun.sh\nsub\n755\n644",
        ),
        (format!("{url}#v1:sub /r/"), "cat /r/f", "one"),
        (format!("{url}#other /r"), "cat /r/sub/f /r/mod/inner.txt; ls -A /r/mod", "two\ninner\ninner.txt"),
        (format!("{url}?branch=other&submodules=false&subdir=mod /r"), "ls -A /r", ""),
        (format!("{url}#{first} /r"), "cat /r/sub/f", "one"),
        (format!("--checksum={short} {url}?tag=v1 /r"), "cat /r/sub/f", "one"),
        (format!("--keep-git-dir=true {url}#v1 /r"), "cat /r/.git/HEAD; grep -c url /r/.git/config", ""),
        (
            format!("--exclude=sub --chown=5:6 {url} /r"),
            "ls /r; stat -c %u:%g /r/run.sh",
            "Dockerfile\nrun.sh\n5:6",
        ),
    ] {
        let expected = if add.starts_with("--keep") { format!("{first}\n1") } else { expected.to_owned() };
        check(&app, "", &format!("FROM alpine\nADD {add}\n"), script, &expected);
    }
    for (add, says) in [
        (format!("{url}#none /r"), "does not contain none".to_owned()),
        (format!("{url}#v1:none /r"), "has no folder none".to_owned()),
        (format!("--checksum={short} {url}#other /r"), format!("expected {short}")),
    ] {
        app.write("Dockerfile", &format!("FROM alpine\nADD {add}\n"));
        let said = app.fails("docker build -q .", 1);
        assert!(said.contains(&says) && said.contains("Dockerfile:2"), "{add}: {said}");
    }
    // The same commit is not fetched again, wherever it is.
    app.write("Dockerfile", &format!("FROM alpine\nADD {url}#{first} /r\n"));
    let before = server.asked().len();
    app.ok("docker build -q .");
    assert_eq!(server.asked().len(), before);
}

#[test]
fn without_git_the_error_says_so() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("nogit", &[("Dockerfile", "FROM alpine\nADD https://127.0.0.1:1/x.git /x\n")]);
    let dhow = env!("CARGO_BIN_EXE_dhow");
    let said = app.fails(&format!("env PATH=/nowhere {dhow} build -q ."), 1);
    assert!(
        said.contains("the program `git` is not installed") && said.contains("Hint: install git"),
        "{said}"
    );
}

#[test]
fn a_context_may_come_from_elsewhere() {
    let Some(rig) = Rig::start() else { return };
    let repo = repository(&rig);
    let app = rig.context(
        "ctx",
        &[
            ("Dockerfile", "FROM alpine\nCOPY f /f\n"),
            ("f", "f\n"),
            ("mine", "FROM alpine\nCOPY f /f\nRUN echo mine >> /f\n"),
        ],
    );
    app.ok("tar -cf ../ctx.tar .");
    app.ok("tar -czf ../ctx.tgz .");
    app.ok("tar -cjf ../ctx.tbz .");
    app.ok("tar -cJf ../ctx.txz .");
    let tar = std::fs::read(rig.path("work/ctx.tar")).expect("a tar");
    let server = files(vec![
        ("/ctx.tar", tar),
        ("/Dockerfile", b"FROM alpine\nRUN echo alone > /f\n".to_vec()),
        ("/with-copy", b"FROM alpine\nCOPY f /f\nRUN echo url >> /f\n".to_vec()),
    ]);
    let at = &server.address;
    let repo = repo.display();
    for (line, expected) in [
        ("docker build -q - < ../ctx.tar".to_owned(), "f"),
        ("docker build -q - < ../ctx.tgz".to_owned(), "f"),
        ("docker build -q - < ../ctx.tbz".to_owned(), "f"),
        ("docker build -q - < ../ctx.txz".to_owned(), "f"),
        ("cat ../ctx.tar | docker build -q -f mine -".to_owned(), "f\nmine"),
        ("printf \"FROM alpine\\nRUN echo text > /f\" | docker build -q -".to_owned(), "text"),
        ("printf \"FROM alpine\\nCOPY f /f\" | docker build -q -f - .".to_owned(), "f"),
        (format!("docker build -q -f http://{at}/with-copy ."), "f\nurl"),
        (format!("docker build -q http://{at}/ctx.tar"), "f"),
        (format!("docker build -q -f mine http://{at}/ctx.tar"), "f\nmine"),
        (format!("docker build -q http://{at}/Dockerfile"), "alone"),
        (format!("docker build -q \"file://{repo}#v1\""), "one"),
        (format!("docker build -q -f ../Dockerfile \"file://{repo}?submodules=0#other\""), "two"),
    ] {
        let image = app.ok(&format!("sh -c '{line}'"));
        assert_eq!(app.ok(&format!("docker run --rm {image} cat /f")), expected, "{line}");
    }
    let said = app.fails("sh -c 'cat ../ctx.tar | docker build -q -f - -'", 1);
    assert!(said.contains("can't use stdin for both build context and dockerfile"), "{said}");
    let said = app.fails("sh -c 'printf \"FROM alpine\\nCOPY f /\" | docker build -q -'", 1);
    assert!(said.contains("f is not in the build context"), "{said}");
    let said = app.fails(&format!("docker build -q http://{at}/none"), 1);
    assert!(said.contains(&format!("cannot get the build context http://{at}/none")), "{said}");
    // A repository may not bring another one of this machine with it.
    let said = app.fails(&format!("docker build -q \"file://{repo}#other\""), 1);
    assert!(said.contains("transport 'file' not allowed"), "{said}");
    assert_eq!(leftovers(&rig), Vec::<String>::new());
}

#[test]
fn a_build_may_be_dated_as_its_context() {
    let Some(rig) = Rig::start() else { return };
    let repo = repository(&rig);
    let dockerfile = "FROM alpine\nARG SOURCE_DATE_EPOCH=none\nRUN echo $SOURCE_DATE_EPOCH >/f\n";
    let app = rig.context("dated", &[("Dockerfile", dockerfile)]);
    app.ok("tar -cf ../dated.tar .");
    let server = files(vec![("/dated.tar", std::fs::read(rig.path("work/dated.tar")).expect("a tar"))]);
    let (at, repo) = (&server.address, repo.display());
    let commit = rig.at("repo").ok("git log -1 --format=%ct v1");
    let build = "docker build -q -f - --build-arg";
    let (from_git, from_http) = (format!("file://{repo}#v1"), format!("http://{at}/dated.tar"));
    for (args, seconds) in [
        (format!("SOURCE_DATE_EPOCH=context {from_git}"), &*commit),
        (format!("SOURCE_DATE_EPOCH=context {from_http}"), "1577836800"),
        (format!("SOURCE_DATE_EPOCH=x --build-context x={from_git} ."), &*commit),
        (format!("SOURCE_DATE_EPOCH=x --build-context x={from_http} ."), "1577836800"),
    ] {
        // The second time the commit is not checked out any more.
        for time in ["first", "second"] {
            let image = app.ok(&format!("sh -c '{build} {args} <Dockerfile'"));
            let created = app.ok(&format!("docker inspect --format {{{{.Created}}}} {image}"));
            assert_eq!(app.ok(&format!("date -d {created} +%s")), seconds, "{args}, {time}");
            assert_eq!(app.ok(&format!("docker run --rm {image} cat /f")), seconds, "{args}, {time}");
        }
    }
    // A stage that is one `ADD` stands for what it adds.
    let web = serve(&rig);
    let rest = "FROM alpine\nARG SOURCE_DATE_EPOCH=none\nRUN echo $SOURCE_DATE_EPOCH >/f\n";
    for (source, seconds) in
        [(format!("http://{}/repo.git#v1", web.address), &*commit), (from_http.clone(), "1577836800")]
    {
        let src = "ARG WHERE\nFROM scratch AS src\nARG WHERE\nADD $WHERE /\n";
        app.write("staged", &format!("{src}{rest}"));
        let args = format!("--build-arg WHERE={source} --build-arg SOURCE_DATE_EPOCH=src");
        let image = app.ok(&format!("docker build -q -f staged {args} ."));
        assert_eq!(app.ok(&format!("docker run --rm {image} cat /f")), seconds, "{source}");
        for more in ["ENV A=b", "ADD $WHERE /again", "RUN true", "COPY Dockerfile /", "ADD Dockerfile /"] {
            app.write("staged", &format!("{src}{more}\n{rest}"));
            let said = app.fails(&format!("docker build -q -f staged {args} ."), 1);
            assert!(said.contains("stage src is more than `FROM scratch` and one ADD"), "{more}: {said}");
        }
    }
    app.write("staged", &format!("FROM alpine AS src\nADD {from_http} /\n{rest}"));
    let said = app.fails("docker build -q -f staged --build-arg SOURCE_DATE_EPOCH=src .", 1);
    assert!(said.contains("stage src is more than `FROM scratch` and one ADD"), "{said}");
    let plain = "docker build --progress=plain -t dated --build-arg";
    let said = app.run(&format!("{plain} SOURCE_DATE_EPOCH=context .")).both();
    assert!(
        said.contains("SOURCE_DATE_EPOCH is ignored: the build context has no time of its own"),
        "{said}"
    );
    assert_eq!(app.ok("docker run --rm dated cat /f"), "none");
    let said =
        app.fails(&format!("{plain} SOURCE_DATE_EPOCH=x --build-context x=docker-image://alpine ."), 1);
    assert!(said.contains("build context x is neither a repository nor a download"), "{said}");
}

/// What builds left in the store and the run-time folder.
fn leftovers(rig: &Rig) -> Vec<String> {
    let names = |folder: &str| std::fs::read_dir(rig.path(folder)).into_iter().flatten().flatten();
    let snapshots = names("root/snapshots").map(|entry| entry.file_name().to_string_lossy().into_owned());
    let active = snapshots.filter(|name| name.starts_with("active-") || name.starts_with("new-"));
    let notes = names("run/build").map(|entry| entry.file_name().to_string_lossy().into_owned());
    active.chain(notes).collect()
}

#[test]
fn a_hostile_context_stays_inside_and_leaves_nothing_behind() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    let app = rig.context("hostile", &[("canary", "alive\n")]);
    let build = |tar: Tar| {
        std::fs::write(rig.path("work/bad.tar"), tar.end()).expect("a tar");
        app.run("sh -c 'docker build -q - < ../bad.tar'")
    };
    let dockerfile = b"FROM alpine\nCOPY . /x/\n";
    for (name, tar) in [
        ("dots", Tar::default().file("../canary", b"dead\n")),
        ("hard link", Tar::default().hard_link("x", "../../../../etc/passwd")),
    ] {
        let ended = rig.unchanged(|| build(tar.file("Dockerfile", dockerfile)));
        assert_eq!(ended.status, 1, "{name}");
        assert!(
            ended.stderr.contains("cannot get the build context from standard input"),
            "{}",
            ended.stderr
        );
    }
    // A link leads where it would lead in the image, an absolute name is one in the context, a device is left out.
    let outside = rig.path("work/hostile");
    let tar = Tar::default()
        .symlink("link", &outside.display().to_string())
        .file("/etc/f", b"f\n")
        .device("disk")
        .file("Dockerfile", dockerfile);
    let ended = build(tar);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    let image = ended.stdout.trim();
    assert_eq!(
        app.ok(&format!("docker run --rm {image} ls /x /x/etc")),
        "/x:\nDockerfile\netc\nlink\n\n/x/etc:\nf"
    );
    let ended = build(
        Tar::default().symlink("up", "/../../..").file("up/canary", b"dead\n").file("Dockerfile", dockerfile),
    );
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert_eq!(app.ok("cat canary"), "alive");
    assert_eq!(leftovers(&rig), Vec::<String>::new());
}

#[test]
fn a_bomb_is_defused() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    let app = rig.context("bomb", &[("Dockerfile", "FROM alpine\nADD bomb.tgz /x/\n")]);
    app.ok("truncate -s 300M zeros");
    app.ok("tar -czf bomb.tgz zeros");
    app.ok("rm zeros");
    let said = rig.unchanged(|| app.fails("docker build -q .", 1));
    assert!(said.contains("UNPACKED_RATIO_MAX") && said.contains("Dockerfile:2"), "{said}");
}

#[test]
fn a_context_of_a_killed_build_is_swept_up_by_the_next() {
    let Some(rig) = Rig::start() else { return };
    let app =
        rig.context("killed", &[("Dockerfile", "FROM alpine\nRUN echo started; sleep 600\n"), ("f", "f\n")]);
    app.ok("tar -cf ../killed.tar .");
    let mut running = app.spawn("sh -c 'exec docker build --progress=plain - < ../killed.tar'");
    running.wait_for("] RUN echo started");
    running.signal(Signal::KILL);
    running.finish();
    assert!(!leftovers(&rig).is_empty());
    app.write("Dockerfile", "FROM alpine\nCOPY f /f\n");
    app.ok("docker build -q .");
    assert_eq!(leftovers(&rig), Vec::<String>::new());
}

#[test]
fn named_contexts_stand_in_for_images_stages_and_sources() {
    let Some(rig) = Rig::start() else { return };
    repository(&rig);
    let web = serve(&rig);
    let tar = Tar::default().file("f", b"packed\n").end();
    let server = files(vec![("/x.tar", tar), ("/f", b"plain\n".to_vec())]);
    let app = rig.context("named", &[("f", "mine\n")]);
    rig.context("other", &[("f", "other\n"), ("secret", "s\n"), (".dockerignore", "secret\n")]);
    rig.ok("docker pull -q busybox");
    layout(&rig);
    let (web, at) = (&web.address, &server.address);
    let copy = "FROM alpine\nCOPY --from=x f /f\n";
    for (source, dockerfile, script, expected) in [
        ("../other".to_owned(), copy, "cat /f", "other"),
        (
            "../other".to_owned(),
            "FROM alpine\nCOPY --from=x . /x\n",
            "ls /x /x/.dockerignore",
            "/x/.dockerignore\n\n/x:\nf",
        ),
        (
            "../other".to_owned(),
            "FROM x AS all\nFROM alpine\nCOPY --from=all / /x\n",
            "cat /x/f; stat -c %u /x/f",
            "other\n0",
        ),
        (format!("http://{web}/repo.git#other:sub"), copy, "cat /f", "two"),
        (format!("http://{at}/x.tar"), copy, "cat /f", "packed"),
        (format!("http://{at}/f"), copy, "cat /f", "plain"),
        (
            "docker-image://busybox".to_owned(),
            "FROM x\nRUN echo in > /f\n",
            "cat /f; ls /bin/busybox",
            "in\n/bin/busybox",
        ),
        (
            "docker-image://busybox".to_owned(),
            "FROM alpine AS x\nRUN exit 1\nFROM x\nRUN echo ok > /f\n",
            "cat /f",
            "ok",
        ),
        (
            "target:made".to_owned(),
            "FROM alpine AS made\nRUN echo made > /f\nFROM alpine\nCOPY --from=x /f /f\n",
            "cat /f",
            "made",
        ),
        (
            "oci-layout://../layout:one".to_owned(),
            "FROM x\nRUN echo laid >> /from\n",
            "cat /from",
            "layout\nlaid",
        ),
    ] {
        check(&app, &format!("--build-context x={source}"), dockerfile, script, expected);
    }
    for (value, says) in [
        ("x=/none/such", "cannot read the build context /none/such"),
        ("x=bake://y", "bake:// is no kind of build context"),
        ("scratch=.", "the name is reserved"),
        ("x=target:none", "there is no stage \"none\""),
        ("x=oci-layout://../layout:two", "has no image two; it has one"),
        ("x", "invalid context value: x, expected key=value"),
    ] {
        app.write("Dockerfile", copy);
        let said = app.fails(&format!("docker build -q --build-context {value} ."), 1);
        assert!(said.contains(says), "{value}: {said}");
    }
}

/// An image layout in `work/layout` whose image, tagged `one`, is busybox with a file more.
fn layout(rig: &Rig) {
    let app = rig.context("laid", &[("Dockerfile", "FROM busybox\nRUN echo layout > /from\n")]);
    app.ok("docker build -q -t laid:one .");
    app.ok("docker save -o ../laid.tar laid:one");
    app.ok("mkdir ../layout");
    app.ok("tar -xf ../laid.tar -C ../layout");
    // The name in the layout is the tag alone, as other tools write it.
    let path = rig.path("work/layout/index.json");
    let index = std::fs::read_to_string(&path).expect("an index");
    assert!(index.contains("org.opencontainers.image.ref.name"), "{index}");
    app.ok("docker rmi laid:one");
}
