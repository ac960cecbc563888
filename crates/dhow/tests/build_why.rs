//! What dhow remembers of builds, and what it says about them.

use crate::rig::{Rig, Shell};

/// A step that prints on both streams, and one whose program reads a file.
fn talkative(rig: &Rig) -> Shell<'_> {
    let dockerfile = "FROM alpine\nRUN echo to-stdout; printf no-line-end\nRUN echo to-stderr >&2\nCOPY app.txt /\nCMD [\"cat\", \"/app.txt\"]\n";
    rig.context("app", &[("Dockerfile", dockerfile), ("app.txt", "1\n"), (".dockerignore", "Dockerfile\n")])
}

fn json(rig: &Rig, line: &str) -> serde_json::Value {
    serde_json::from_str(&rig.ok(line)).expect("JSON")
}

#[test]
fn every_build_leaves_a_record_and_cached_steps_replay_their_output() {
    let Some(rig) = Rig::start() else { return };
    let app = talkative(&rig);
    assert!(rig.fails("docker builder history logs", 1).contains("no build is recorded"));
    app.ok("docker build -t app .");
    app.ok("docker build -t app:again .");
    let failed =
        rig.context("broken", &[("Dockerfile", "FROM alpine\nRUN echo before; exit 3\nRUN never\n")]);
    failed.fails("docker build -t broken .", 1);

    let listed =
        rig.ok("docker buildx history ls --format '{{.Name}} {{.Status}} {{.CachedSteps}}/{{.TotalSteps}}'");
    assert_eq!(listed, "broken:latest Error 1/3\napp:again Completed 5/5\napp:latest Completed 1/5");
    let listed = rig.ok("docker buildx history ls --filter status=error --format '{{.Name}}'");
    assert_eq!(listed, "broken:latest");

    // The step ran in the first build; the second, found by its image, replays it.
    for build in ["app", "app:again", "^1", "^2"] {
        let printed = |step: u8| rig.ok(&format!("docker buildx history logs {build} {step}"));
        assert_eq!((printed(2), printed(3)), ("to-stdout\nno-line-end".to_owned(), "to-stderr".to_owned()));
    }
    let replayed = rig.ok("docker build logs app:again");
    assert!(replayed.contains("CACHED; it printed when it ran:"), "{replayed}");
    assert!(replayed.contains(" to-stderr\n"), "{replayed}");

    // Of a failed build the output of the failed step is there, and the error.
    let replayed = rig.ok("docker build logs");
    assert!(replayed.contains(" before\n") && replayed.contains("exit code: 3"), "{replayed}");
    let inspected = json(&rig, "docker builder history inspect --format json");
    let steps: Vec<&str> = inspected["Steps"]
        .as_array()
        .expect("steps")
        .iter()
        .filter_map(|step| step["Status"].as_str())
        .collect();
    assert_eq!(steps, ["CACHED", "ERROR", "-"], "{inspected}");

    rig.ok("docker buildx history rm ^1 ^0");
    assert_eq!(rig.ok("docker buildx history ls --format '{{.Name}}'"), "app:latest");
    rig.ok("docker buildx history rm --all");
    assert_eq!(rig.ok("docker buildx history ls --format '{{.Name}}'"), "");
    assert_eq!(
        rig.ok("docker system check").split_once(' ').expect("words").1.split_once("are").expect("are").1,
        " as they should be"
    );
}

#[test]
fn build_logs_is_a_build_where_it_can_be_one() {
    let Some(rig) = Rig::start() else { return };
    let logs = rig.context("logs", &[("Dockerfile", "FROM scratch\nENV A=b\n")]);
    rig.ok("docker build -t first logs");
    // There is a folder of this name, so it is built.
    rig.ok("docker build logs");
    assert_eq!(rig.ok("docker buildx history ls --format '{{.Name}}'"), "logs\nfirst:latest");
    // Two words cannot be a build; neither can a folder that is not there.
    assert!(rig.ok("docker build logs first").contains("ENV A=b"));
    assert!(logs.ok("docker build logs").contains("ENV A=b"));
}

#[test]
fn output_of_any_length_is_kept_whole() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile = "FROM alpine\nRUN head -c 20000000 /dev/zero | tr '\\0' x\n";
    let app = rig.context("app", &[("Dockerfile", dockerfile)]);
    app.ok("docker build -q -t app .");
    app.ok("docker build -q -t again .");
    assert_eq!(rig.ok("sh -c 'docker build logs again 2 | wc -c'"), "20000000");
}
