//! What a changed line or file makes a build do again. A step that makes up a number shows by it whether it was run again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::rig::{Rig, Shell};
use crate::shown::{executed, layers};

const RANDOM: &str = "RUN cat /proc/sys/kernel/random/uuid >/uuid";

/// A base, a step, the source, a step on the source, a command.
fn app(rig: &Rig) -> Shell<'_> {
    let dockerfile = format!(
        "FROM alpine\n{RANDOM}\nWORKDIR /app\nCOPY . .\nRUN cp main.txt compiled.txt\nCMD [\"cat\", \"compiled.txt\"]\n"
    );
    rig.context(
        "app",
        &[("Dockerfile", &dockerfile), ("main.txt", "hello\n"), (".dockerignore", "*.log\nDockerfile\n")],
    )
}

#[test]
fn b01_an_unchanged_build_does_nothing_and_times_do_not_count() {
    let Some(rig) = Rig::start() else { return };
    let app = app(&rig);
    let first = app.run("docker build -t app .");
    assert_eq!(executed(&first).len(), 4, "all but FROM and CMD:\n{}", first.stderr);
    let before = rig.ok("docker images -q --no-trunc app");
    app.ok("touch main.txt");
    app.write("debug.log", "ignored");
    let second = app.run("docker build -t app .");
    assert_eq!(executed(&second), Vec::<String>::new());
    assert_eq!(rig.ok("docker images -q --no-trunc app"), before);
    // The same folder elsewhere is the same.
    rig.ok("cp -r app elsewhere");
    assert_eq!(executed(&rig.run("docker build -t app elsewhere")), Vec::<String>::new());
    assert_eq!(rig.ok("docker images -q --no-trunc app"), before);
}

#[test]
fn b02_another_base_makes_everything_after_it_again() {
    let Some(rig) = Rig::start() else { return };
    let app = app(&rig);
    app.ok("docker build -t app .");
    let before = layers(&rig, "app");
    app.edit("Dockerfile", "FROM alpine\n", "FROM busybox\n");
    let rebuild = app.run("docker build -t app .");
    let ran = executed(&rebuild);
    for step in [RANDOM, "COPY . .", "RUN cp main.txt compiled.txt"] {
        // A copy may be found to be the same on any base; it still is a step of this build.
        assert!(
            ran.iter().any(|text| text == step) || step.starts_with("COPY"),
            "{step}:\n{}",
            rebuild.stderr
        );
    }
    let after = layers(&rig, "app");
    assert_ne!(after[after.len() - 4], before[before.len() - 4], "the number was made up again");
    assert_eq!(rig.ok("docker run --rm app"), "hello");
}

#[test]
fn b03_a_changed_source_file_reuses_what_comes_before_its_copy() {
    let Some(rig) = Rig::start() else { return };
    let app = app(&rig);
    app.ok("docker build -t app .");
    let before = layers(&rig, "app");
    app.edit("main.txt", "hello", "goodbye");
    let rebuild = app.run("docker build -t app .");
    assert_eq!(executed(&rebuild), ["COPY . .", "RUN cp main.txt compiled.txt"]);
    let after = layers(&rig, "app");
    let (same, changed) = after.split_at(after.len() - 2);
    assert_eq!(same, &before[..same.len()]);
    assert!(changed.iter().all(|layer| !before.contains(layer)));
    assert_eq!(rig.ok("docker run --rm app"), "goodbye");
    // And back: the first results are still known.
    app.edit("main.txt", "goodbye", "hello");
    assert_eq!(executed(&app.run("docker build -t app .")), Vec::<String>::new());
    assert_eq!(layers(&rig, "app"), before);
}

#[test]
fn b05_b07_changing_only_cmd_reuses_all_layers_and_makes_none() {
    let Some(rig) = Rig::start() else { return };
    let app = app(&rig);
    app.ok("docker build -t app .");
    let before = layers(&rig, "app");
    app.edit("Dockerfile", "\"cat\", \"compiled.txt\"", "\"echo\", \"no cat\"");
    let rebuild = app.run("docker build -t app .");
    assert_eq!(executed(&rebuild), Vec::<String>::new());
    assert_eq!(layers(&rig, "app"), before);
    assert_eq!(rig.ok("docker run --rm app"), "no cat");
    // The last of several wins.
    app.edit("Dockerfile", "CMD ", "CMD [\"false\"]\nCMD ");
    app.ok("docker build -t app .");
    assert_eq!(rig.ok("docker run --rm app"), "no cat");
}

#[test]
fn b06_each_instruction_makes_one_layer_or_none() {
    let Some(rig) = Rig::start() else { return };
    let files = [
        (
            "Dockerfile",
            "FROM scratch\nCOPY one /\nENV NAME World\nCOPY two /\nEXPOSE 80\nLABEL a=b\nCMD [\"/one\"]\n",
        ),
        ("one", "1\n"),
        ("two", "2\n"),
    ];
    rig.context("app", &files).ok("docker build -t app .");
    assert_eq!(layers(&rig, "app").len(), 2);
    let history = rig.ok("docker history --format '{{.Size}} {{.CreatedBy}}' app");
    let rows: Vec<_> = history.lines().map(|line| line.split_once(' ').expect("two fields")).collect();
    let sizes: Vec<_> = rows.iter().map(|row| row.0).collect();
    assert_eq!(sizes, ["0B", "0B", "0B", "2B", "0B", "2B"], "{history}");
    assert!(rows[0].1.starts_with("CMD [\"/one\"]") && rows[5].1.starts_with("COPY one /"), "{history}");
}

#[test]
fn b09_a_missing_base_is_pulled_and_a_known_one_is_not() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[("Dockerfile", "FROM hello-world\nENV A=b\n")]);
    app.ok("docker build -t app .");
    assert!(rig.ok("docker images -q app").len() == 12);
    // With the registry gone, what is here still serves.
    rig.configure("127.0.0.1:9", "127.0.0.1:9");
    app.edit("Dockerfile", "A=b", "A=c");
    app.ok("docker build -t app .");
    // Asked for something newer, it says that nobody could be asked.
    let build = app.run("docker build --pull -t app .");
    assert_eq!(build.status, 0);
    assert!(build.stderr.contains("cannot look for a newer hello-world"), "{}", build.stderr);
}

#[test]
fn no_cache_runs_every_step_again() {
    let Some(rig) = Rig::start() else { return };
    let app = app(&rig);
    app.ok("docker build -t app .");
    let before = layers(&rig, "app");
    let rebuild = app.run("docker build --no-cache -t app .");
    assert!(executed(&rebuild).iter().any(|text| text == RANDOM), "{}", rebuild.stderr);
    assert_ne!(layers(&rig, "app"), before);
}

/// Whether somebody waits for one of the locks in a folder.
fn is_waited_for(folder: &Path) -> bool {
    let locks = fs::read_to_string("/proc/locks").expect("the kernel tells of locks");
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let inodes: Vec<String> =
        files.filter_map(|file| Some(format!(":{} ", file.metadata().ok()?.ino()))).collect();
    locks.lines().any(|lock| lock.contains("-> ") && inodes.iter().any(|inode| lock.contains(inode)))
}

#[test]
fn processes_that_build_the_same_at_once_run_a_step_once() {
    let Some(rig) = Rig::start() else { return };
    // It counts its runs where only the cache mount sees it, and lasts until it is told to end.
    let step = "RUN --mount=type=cache,target=/c echo run >>/c/runs; until [ -e /c/go ]; do sleep 1; done; \
                cat /proc/sys/kernel/random/uuid >/uuid";
    let app = rig.context("app", &[("Dockerfile", &format!("FROM alpine\n{step}\n"))]);
    let cache = || {
        let caches = fs::read_dir(rig.path("root/cache-mounts")).into_iter().flatten().flatten();
        caches.map(|cache| cache.path().join("fs")).find(|folder| folder.join("runs").exists())
    };
    let runs = || {
        cache().map_or(0, |cache| fs::read_to_string(cache.join("runs")).expect("the count").lines().count())
    };
    let first = app.spawn("docker build -t first .");
    rig.eventually("the step runs", || runs() == 1);
    let second = app.spawn("docker build -t second .");
    let locks = rig.path("run/build-locks");
    rig.eventually("the other build waits, or runs the step too", || is_waited_for(&locks) || runs() > 1);
    fs::write(cache().expect("it is there").join("go"), "").expect("a file");
    let [first, second] = [first, second].map(|build| {
        let build = build.finish();
        assert_eq!(build.status, 0, "{}", build.both());
        executed(&build).len()
    });
    assert_eq!((first, second, runs()), (1, 0, 1));
    assert_eq!(layers(&rig, "first"), layers(&rig, "second"));
}
