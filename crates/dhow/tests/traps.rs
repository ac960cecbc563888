//! What a learner pastes from the tutorials that cannot work: the answer has to help.

use crate::rig::Rig;

#[track_caller]
fn complaint(dockerfile: &str) -> String {
    let Some(rig) = Rig::start() else { return String::new() };
    let said = rig.context("app", &[("Dockerfile", dockerfile)]).fails("docker build -t app .", 1);
    assert_eq!(rig.ok("docker images -q"), rig.ok("docker images -q alpine"), "no image is made");
    said
}

#[track_caller]
fn check(dockerfile: &str, parts: &[&str]) {
    let said = complaint(dockerfile);
    for part in parts.iter().filter(|_| !said.is_empty()) {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
}

#[test]
fn trap_2_push_is_no_instruction_but_a_command() {
    check("FROM alpine\nPUSH you/app\n", &["Dockerfile:2", "unknown instruction: PUSH", "dhow push"]);
}

#[test]
fn an_instruction_with_a_typing_error_gets_a_suggestion() {
    check("FROM alpine\nCPOY . .\n", &["Dockerfile:2", "unknown instruction: CPOY", "COPY"]);
}

#[test]
fn a27_a_failing_run_shows_its_line_its_output_and_its_status() {
    check(
        "FROM alpine\n\nRUN mkdir /user/local/foo\n",
        &["Dockerfile:3", "RUN mkdir /user/local/foo", "can't create directory '/user/local/foo'", "1"],
    );
}

#[test]
fn a_missing_copy_source_is_named() {
    check("FROM alpine\nCOPY requirements.txt /app/\n", &["Dockerfile:2", "requirements.txt"]);
}

#[test]
fn trap_4_a_shell_given_a_word_instead_of_a_script_fails_as_docker_does() {
    let Some(rig) = Rig::start() else { return };
    let app = rig
        .context("app", &[("Dockerfile", "FROM ubuntu\nCMD [\"/bin/bash\", \"echo\", \"Hello World\"]\n")]);
    app.ok("docker build -t app .");
    let run = rig.run("docker run --rm app");
    assert!(run.status == 126 || run.status == 127, "{run:?}");
    assert!(run.stderr.contains("echo"), "{run:?}");
}

#[test]
fn exec_forms_take_variables_literally_and_shell_forms_do_not() {
    let Some(rig) = Rig::start() else { return };
    let app =
        rig.context("app", &[("Dockerfile", "FROM alpine\nENV PORT 5000\nCMD [\"echo\", \"$PORT\"]\n")]);
    app.ok("docker build -t app .");
    assert_eq!(rig.ok("docker run --rm app"), "$PORT");
    app.edit("Dockerfile", "[\"echo\", \"$PORT\"]", "echo $PORT");
    app.ok("docker build -t app .");
    assert_eq!(rig.ok("docker run --rm app"), "5000");
}
