//! Where the files of an image come from, and how they come out.

use crate::rig::{Rig, Shell};

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
