//! `dhow debug`: a shell where a step of a build stood.

use crate::rig::{CTRL_C, Rig, Shell};

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
fn ctrl_c_ends_what_the_shell_runs_and_not_the_shell() {
    let Some(rig) = Rig::start() else { return };
    failed(&rig);
    let mut terminal = rig.terminal("dhow debug");
    terminal.wait_for("where it failed");
    // A shell of its own, which dies of it whether or not `sleep` has begun; the outer one may miss that moment.
    terminal.type_in("sh -c 'echo begun $((40 + 1)); sleep 1000'\n");
    terminal.wait_for("begun 41");
    terminal.type_in(CTRL_C);
    terminal.type_in("echo alive $((40 + 2)); exit 3\n");
    terminal.wait_for("alive 42");
    assert_eq!(terminal.finish().0, 3);
}

#[test]
fn a_step_is_entered_with_its_writable_mounts_names_and_limits() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[]);
    let dockerfile = "FROM alpine AS src\nRUN mkdir /d && echo stage >/d/f\nFROM alpine\n\
                      RUN --mount=from=src,source=/d,target=/w,rw --mount=from=src,target=/r \\\n    \
                      echo step >/w/step && false\n";
    app.write("Dockerfile", dockerfile);
    app.fails(
        "docker build --add-host db:10.1.2.3 --ulimit nofile=77:99 --shm-size 1m -m 64m --memory-swap 64m .",
        1,
    );
    let script = "cat /w/f; ls /w; echo mine >/w/mine && cat /w/mine; touch /r/x 2>/dev/null || echo not /r; \
                  grep -w db /etc/hosts; ulimit -n; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; \
                  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null";
    // Again, since what is written is thrown away.
    for _ in 0..2 {
        let (said, told) = debug(&rig, "", script);
        assert_eq!(said, "stage\nf\nmine\nnot /r\n10.1.2.3\tdb\n77\n1024\n67108864", "{told}");
    }
    let left = std::fs::read_dir(rig.path("root/snapshots")).expect("snapshots");
    let left = left.flatten().filter(|entry| entry.file_name().to_string_lossy().contains("debug"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_cache_for_one_at_a_time_is_for_one_shell_at_a_time() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[]);
    for (sharing, is_for_one) in [("locked", true), ("shared", false)] {
        let mount = format!("--mount=type=cache,target=/c,id={sharing},sharing={sharing}");
        app.write("Dockerfile", &format!("FROM alpine\nRUN {mount} touch /c/x && false\n"));
        app.fails("docker build .", 1);
        let mut terminal = rig.terminal("dhow debug");
        terminal.type_in("ls -d /c/*; echo in $((40 + 2))\n");
        terminal.wait_for("in 42");
        let (said, told) = debug(&rig, "", "ls -d /c/*");
        match is_for_one {
            true => assert!(told.contains("is in use by a step") && told.contains("Hint: wait"), "{told}"),
            false => assert_eq!(said, "/c/x", "{told}"),
        }
        terminal.type_in("exit\n");
        terminal.finish();
        assert_eq!(debug(&rig, "", "ls -d /c/*").0, "/c/x");
    }
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
