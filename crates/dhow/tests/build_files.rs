//! Small Dockerfiles and what is in the image in the end.

use crate::rig::{Rig, Shell};

/// Builds `dockerfile` in a context of a few files and compares what `script` prints in a container of it.
#[track_caller]
fn check(app: &Shell<'_>, dockerfile: &str, script: &str, expected: &str) {
    app.write("Dockerfile", dockerfile);
    app.ok("docker build -q -t files .");
    let printed = app.ok(&format!("docker run --rm files sh -c '{script}'"));
    assert_eq!(printed, expected, "{dockerfile}");
}

fn context(rig: &Rig) -> Shell<'_> {
    let app = rig.context(
        "files",
        &[
            ("a.txt", "a\n"),
            ("b.txt", "b\n"),
            ("src/main.py", "main\n"),
            ("src/lib/x.py", "x\n"),
            ("src/lib/x.pyc", "compiled\n"),
            ("packed/one", "1\n"),
            ("not-packed.tar.gz", "no archive\n"),
            (".dockerignore", "**/*.pyc\nDockerfile\n"),
        ],
    );
    app.ok("tar -czf packed.bin packed");
    app.ok("chmod 750 src/lib");
    app
}

#[test]
fn copies_end_up_where_docker_puts_them() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig);
    for (copies, script, expected) in [
        ("COPY a.txt /new", "cat /new", "a"),
        ("COPY a.txt /new/", "cat /new/a.txt", "a"),
        ("COPY a.txt b.txt /new/", "cat /new/a.txt /new/b.txt", "a\nb"),
        ("COPY *.txt none* /new/", "ls /new", "a.txt\nb.txt"),
        ("COPY src /new", "cd /new && find . -type f | sort", "./lib/x.py\n./main.py"),
        ("COPY src /new", "stat -c %a:%u:%g /new/lib", "750:0:0"),
        ("COPY --chmod=640 --chown=7:8 a.txt /new", "stat -c %a:%u:%g /new", "640:7:8"),
        ("RUN mkdir /real && ln -s /real /link\nCOPY a.txt /link/", "cat /real/a.txt", "a"),
        ("WORKDIR /deep\nWORKDIR er\nCOPY a.txt .", "pwd; cat /deep/er/a.txt", "/deep/er\na"),
        ("COPY --exclude=lib src /new", "ls /new", "main.py"),
        ("COPY --link a.txt /new/\nCOPY --link a.txt b.txt /new/", "ls /new", "a.txt\nb.txt"),
        ("COPY <<here /new/\nhello\nhere", "cat /new/here", "hello"),
        ("COPY a.txt /x\nCOPY a.txt /y\nCOPY a.txt /x", "cat /x /y", "a\na"),
        ("ADD packed.bin /new", "cat /new/packed/one", "1"),
        ("ADD --unpack=false packed.bin /new/", "ls /new", "packed.bin"),
        ("ADD not-packed.tar.gz /new/", "cat /new/not-packed.tar.gz", "no archive"),
    ] {
        check(&app, &format!("FROM alpine\n{copies}\n"), script, expected);
    }
}

#[test]
fn steps_see_the_environment_user_and_shell_of_their_place() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig);
    for (steps, script, expected) in [
        ("ENV A=1 B=$A\nENV C=$A-${D:-d}\nRUN echo $A/$B/$C > /o", "cat /o", "1//1-d"),
        ("ARG A=1\nENV A=2\nRUN echo $A > /o", "cat /o; echo $A", "2\n2"),
        ("ARG A=1\nRUN echo $A > /o", "cat /o; echo [$A]", "1\n[]"),
        (
            "RUN mkdir -m 777 /w\nUSER 1000:1001\nWORKDIR /w/own\nRUN id -u > who",
            "cat who; stat -c %u:%g .",
            "1000\n1000:1001",
        ),
        ("RUN <<end\necho one > /o\necho two >> /o\nend", "cat /o", "one\ntwo"),
        (
            "RUN [\"touch\", \"/a b\"]\nRUN rm /etc/passwd && mkdir /etc/passwd",
            "ls -d /a* /etc/passwd",
            "/a b\n/etc/passwd",
        ),
        ("RUN mkdir /v\nVOLUME /v\nRUN echo kept > /v/x", "cat /v/x", "kept"),
    ] {
        check(&app, &format!("FROM alpine\n{steps}\n"), script, expected);
    }
    app.write("Dockerfile", "FROM alpine\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN false; echo unreached || true\n");
    app.fails("docker build -q -t files .", 1);
}

#[test]
fn stages_are_built_when_something_needs_them() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig);
    for (stages, script, expected) in [
        ("FROM alpine AS a\nRUN echo 1 > /x\nFROM alpine\nCOPY --from=a /x /y", "cat /y", "1"),
        // From another stage files come with their owner.
        (
            "FROM alpine AS a\nRUN touch /x && chown 5:6 /x\nFROM alpine\nCOPY --from=0 /x /y",
            "stat -c %u:%g /y",
            "5:6",
        ),
        (
            "FROM alpine AS a\nRUN echo 1 > /x\nFROM a AS b\nRUN echo 2 >> /x\nFROM b\nRUN echo 3 >> /x",
            "cat /x",
            "1\n2\n3",
        ),
        ("FROM alpine AS never\nRUN exit 1\nFROM alpine\nRUN echo 1 > /x", "cat /x", "1"),
        ("FROM alpine\nCOPY --from=busybox /bin/busybox /busybox", "/busybox echo hi", "hi"),
    ] {
        check(&app, &format!("{stages}\n"), script, expected);
    }
}

#[test]
fn a_hundred_and_twenty_layers_are_built_and_run() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig);
    let copies: String = (0..120).map(|number| format!("COPY a.txt /n{}\n", number % 50)).collect();
    check(&app, &format!("FROM alpine\n{copies}"), "ls -d /n* | wc -l", "50");
}

#[test]
fn a_failing_stage_ends_the_others() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig);
    app.write(
        "Dockerfile",
        "FROM alpine AS slow\nRUN sleep 600\nFROM alpine AS bad\nRUN sleep 1; exit 7\n\
         FROM alpine\nCOPY --from=slow / /1\nCOPY --from=bad / /2\n",
    );
    let said = app.fails("docker build --jobs=2 --progress=plain .", 1);
    assert!(said.contains("exit code: 7") && said.contains("CANCELED"), "{said}");
}

#[test]
fn equal_steps_of_one_build_run_once_even_without_the_cache() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig);
    let step = "RUN cat /proc/sys/kernel/random/uuid > /id";
    check(
        &app,
        &format!("FROM alpine AS a\n{step}\nFROM alpine\n{step}\nCOPY --from=a /id /other\n"),
        "cmp /id /other && echo same",
        "same",
    );
    app.ok("docker build -q --no-cache -t files .");
    assert_eq!(app.ok("docker run --rm files sh -c 'cmp /id /other && echo same'"), "same");
}

#[test]
fn what_counts_for_the_cache_is_all_that_ends_up_in_the_image() {
    let Some(rig) = Rig::start() else { return };
    let app = context(&rig);
    app.write("Dockerfile", "FROM alpine\nCOPY src a.txt /new/\nRUN cat /new/main.py\n");
    app.ok("docker build -q -t files .");
    for (change, told) in [
        ("touch src/main.py", None),
        ("cp src/lib/x.py src/lib/y.pyc", None),
        ("chmod 700 src/main.py", Some("mode of src/main.py 0644 -> 0700")),
        ("setfattr -n user.note -v 1 a.txt", Some("a.txt changed")),
        ("cp a.txt src/new.py", Some("src/new.py is new")),
        ("rm src/new.py", None),
        ("ln -s main.py src/again", Some("src/again is new")),
    ] {
        if change.starts_with("setfattr") && !crate::rig::has_tool("setfattr") {
            continue;
        }
        app.ok(change);
        let said = app.run("docker build --progress=plain -t files .").stderr;
        match told {
            Some(told) => assert!(said.contains(told), "{change}:\n{said}"),
            None => assert!(!said.contains("not cached"), "{change}:\n{said}"),
        }
    }
}
