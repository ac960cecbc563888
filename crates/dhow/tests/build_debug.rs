//! `dhow debug`: a shell where a step of a build stood.

use crate::rig::{Rig, Shell};

const DOCKERFILE: &str = "FROM alpine
ENV GREETING=hello
ARG TOKEN
WORKDIR /app
RUN echo before >state
USER 33
RUN --mount=type=cache,target=/c,uid=33 --mount=type=bind,target=/ctx,source=note.txt \\
    --mount=type=secret,id=key --network=none \\
    echo half >/tmp/half && echo cached >/c/file && false
";

fn failed(rig: &Rig) -> Shell<'_> {
    let app = rig.context("app", &[("Dockerfile", DOCKERFILE), ("note.txt", "from the context\n")]);
    app.write("../key", "hush\n");
    let said = app.fails("docker build --secret id=key,src=../key --build-arg TOKEN=hush-token .", 1);
    assert!(said.contains("Hint: dhow debug opens a shell where it failed"), "{said}");
    app
}

/// What the shell of `dhow debug` prints when it is given `script`, and what dhow itself says.
#[track_caller]
fn debug(rig: &Rig, arguments: &str, script: &str) -> (String, String) {
    let app = rig.at("app");
    app.write("../script", script);
    let finished = app.run(&format!("sh -c 'dhow debug {arguments} <../script'"));
    (finished.stdout.trim_end().to_owned(), finished.stderr)
}

#[test]
fn a_failed_step_can_be_looked_at_with_all_it_had() {
    let Some(rig) = Rig::start() else { return };
    let app = failed(&rig);
    let script = "pwd; id -u; cat state /tmp/half /c/file /ctx; echo $GREETING ${TOKEN:-none}; ls /sys/class/net; \
                  ls /run/secrets 2>/dev/null; touch /tmp/mine";
    let (said, told) = debug(&rig, "", script);
    assert_eq!(said, "/app\n33\nbefore\nhalf\ncached\nfrom the context\nhello none\nlo");
    assert!(told.contains("where it failed"), "{told}");
    assert!(told.contains("Not here: secret key, give it again with --secret."), "{told}");
    // The context may be another by now, and what a session changes is gone.
    app.write("note.txt", "changed\n");
    let (said, _) =
        debug(&rig, "--secret id=key,src=../key", "cat /ctx; ls /tmp; id -u >/run/x; ls /run/secrets");
    assert_eq!(said, "from the context\nhalf\nkey");
}

#[test]
fn any_step_can_be_entered_before_and_after() {
    let Some(rig) = Rig::start() else { return };
    let app = failed(&rig);
    let look = "cat state /tmp/half 2>/dev/null; id -u";
    assert_eq!(debug(&rig, "--before", look).0, "before\n33");
    assert_eq!(debug(&rig, "--step 5", look).0, "before\n0");
    assert_eq!(debug(&rig, "--step stage-0/5 --before", look).0, "0");
    // Another Dockerfile's build leaves it alone, one of the same does not.
    rig.context("other", &[("Dockerfile", "FROM alpine\nRUN echo other >/other\n")]).ok("docker build .");
    let (_, told) = debug(&rig, "--step 2", "");
    assert!(told.contains("after `RUN echo other"), "{told}");
    assert_eq!(debug(&rig, "^1", "cat /tmp/half").0, "half");
    app.edit("Dockerfile", "&& false", "&& true");
    app.ok("docker build .");
    let (_, told) = debug(&rig, "^2", "");
    assert!(told.contains("is gone") && told.contains("Hint: build again"), "{told}");
    assert_eq!(debug(&rig, "", "cat /tmp/half").0, "half");
    let (_, told) = debug(&rig, "--step 99", "");
    assert!(told.contains("no such step: 99"), "{told}");
}

#[test]
fn the_shell_has_a_terminal_if_there_is_one() {
    let Some(rig) = Rig::start() else { return };
    failed(&rig);
    let mut terminal = rig.terminal("dhow debug");
    terminal.wait_for("where it failed");
    terminal.type_in("tty; cat /tmp/half\n");
    terminal.wait_for("/dev/pts/0");
    terminal.wait_for("half");
    terminal.type_in("echo still $((40 + 2)); exit 7\n");
    terminal.wait_for("still 42");
    assert_eq!(terminal.finish().0, 7);
}

#[test]
fn without_root_a_failed_step_can_be_looked_at() {
    let Some(rig) = Rig::start_for(64_323) else { return };
    let app =
        rig.context("app", &[("Dockerfile", "FROM alpine\nRUN echo half >/half && rm /bin/ls && false\n")]);
    app.fails("docker build .", 1);
    let said = rig.at("app").ok("sh -c 'echo cat /half | dhow debug'");
    assert_eq!(said, "half");
}
