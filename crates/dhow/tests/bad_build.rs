//! Builds that cannot work: the line, the reason, and a store as it was.

use std::fs;

use crate::rig::{Rig, Tar};

/// Builds in an empty store that has alpine, fails, and returns the complaint.
#[track_caller]
fn complaint(files: &[(&str, &str)]) -> Option<String> {
    let rig = Rig::start()?;
    rig.ok("docker pull -q alpine");
    let app = rig.context("app", files);
    let said = rig.unchanged(|| app.fails("docker build -t app .", 1));
    Some(said)
}

#[track_caller]
fn check(files: &[(&str, &str)], parts: &[&str]) {
    let Some(said) = complaint(files) else { return };
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
}

#[test]
fn all_mistakes_of_a_dockerfile_are_told_at_once() {
    let dockerfile = "FROM alpine\nRNU echo\nENV\nCOPY a\n";
    check(&[("Dockerfile", dockerfile)], &["Dockerfile:2", "RUN", "Dockerfile:3", "Dockerfile:4"]);
    check(&[("Dockerfile", "")], &["Dockerfile"]);
    check(&[("Dockerfile", "RUN echo\n")], &["Dockerfile:1", "FROM"]);
    check(&[("other", "FROM alpine\n")], &["Dockerfile"]);
}

#[test]
fn a_copy_source_that_is_ignored_names_the_line_that_ignores_it() {
    check(
        &[
            ("Dockerfile", "FROM alpine\nCOPY notes.txt /\n"),
            ("notes.txt", ""),
            (".dockerignore", "# mine\n*.md\n*.txt\n"),
        ],
        &["Dockerfile:2", "notes.txt", ".dockerignore", "3", "*.txt"],
    );
    check(&[("Dockerfile", "FROM alpine\nCOPY ../secret /\n")], &["Dockerfile:2", "secret"]);
    check(
        &[("Dockerfile", "FROM alpine AS one\nFROM alpine\nCOPY --from=one /none /\n")],
        &["Dockerfile:3", "/none"],
    );
}

/// It leaves no image, no name and nothing that a later build could take. What it keeps for `dhow debug` and the history
/// goes with these.
#[test]
fn a_failing_step_shows_its_output_and_its_status_and_leaves_nothing_to_build_on() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    let before = (rig.holdings(), rig.ok("docker builder du"));
    let cases: [(&str, &[&str]); 3] = [
        (
            "FROM alpine\nRUN echo first; echo second >&2; exit 42\n",
            &["Dockerfile:2", "first", "second", "42"],
        ),
        ("FROM alpine\nRUN [\"/no/such\"]\n", &["Dockerfile:2", "/no/such"]),
        ("FROM alpine\nUSER nosuch\nRUN true\n", &["Dockerfile:", "nosuch"]),
    ];
    for (dockerfile, parts) in cases {
        let said = rig
            .context("app", &[("Dockerfile", dockerfile)])
            .fails("docker build -t app --iidfile ../id .", 1);
        for part in parts {
            assert!(said.contains(part), "`{part}` is missing in:\n{said}");
        }
        assert!(!rig.path("id").exists(), "there is no image");
        assert_eq!(rig.ok("docker builder du"), before.1);
        rig.ok("docker system check");
    }
    rig.ok("dhow builder history rm --all");
    rig.ok("docker image prune --force");
    assert_eq!(rig.holdings(), before.0);
}

/// `ADD x.tar /` of tars that try to leave. Whether refused or tamed, the host's file stays.
#[test]
fn an_added_tar_does_not_escape() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    let canary = rig.path("canary");
    fs::write(&canary, "alive").expect("a canary");
    let target = canary.to_str().expect("a path is text");
    let folder = canary.parent().and_then(|folder| folder.to_str()).expect("a folder");
    let up = format!("{}{}", "../".repeat(12), &target[1..]);
    let tar = Tar::default;
    let tars = [
        ("dots", tar().file(&up, b"dead").end(), true),
        ("hard-dots", tar().hard_link("x", &up).end(), true),
        ("hard-absolute", tar().hard_link("x", target).end(), true),
        ("hard-through", tar().symlink("out", folder).hard_link("x", "out/canary").end(), true),
        ("cut", tar().file("whole", &[7; 5000]).end()[..2000].to_vec(), true),
        ("absolute", tar().file(target, b"dead").end(), false),
        ("through", tar().symlink("out", folder).file("out/canary", b"dead").end(), false),
        (
            "through-folder",
            tar().symlink("out", folder).folder("out").file("out/canary", b"dead").end(),
            false,
        ),
    ];
    for (name, bytes, is_refused) in tars {
        let app = rig.context(name, &[("Dockerfile", "FROM alpine\nADD x.tar /\n")]);
        fs::write(app.folder().join("x.tar"), bytes).expect("a tar");
        if is_refused {
            let said = rig.unchanged(|| app.fails("docker build .", 1));
            assert!(said.contains("Dockerfile:2") && said.contains("x.tar"), "{name}:\n{said}");
        } else {
            app.run("docker build .");
        }
        assert_eq!(fs::read_to_string(&canary).expect("it lives"), "alive", "{name}");
        let links = std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&canary).expect("it lives"));
        assert_eq!(links, 1, "{name}: a file outside was linked");
    }
    rig.ok("docker system check");
}

/// An image whose own links point out of it must not lead COPY or WORKDIR to the host.
#[test]
fn links_in_an_image_do_not_lead_a_copy_to_the_host() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    let folder = rig.path("outside");
    fs::create_dir(&folder).expect("a folder");
    let dockerfile = format!(
        "FROM alpine\nRUN ln -s {0} /out && ln -s ../../../../../../..{0} /dots\nCOPY canary /out/\nCOPY canary /dots/\nWORKDIR /out/made\nCOPY canary .\n",
        folder.display()
    );
    let app = rig.context("app", &[("Dockerfile", &dockerfile), ("canary", "dead")]);
    app.run("docker build -t app .");
    assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 0, "something was copied to the host");
    rig.ok("docker system check");
}
