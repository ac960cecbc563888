//! Containers that cannot run: docker's words, docker's status, and nothing left behind.

use std::net::TcpListener;

use crate::rig::Rig;

/// A line that has to end with `status` without changing the store, and what its complaint has to say.
#[track_caller]
fn check(rig: &Rig, line: &str, status: i32, parts: &[&str]) {
    let said = rig.unchanged(|| rig.fails(line, status));
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
}

fn with_alpine() -> Option<Rig> {
    let rig = Rig::start()?;
    rig.ok("docker pull -q alpine");
    Some(rig)
}

#[test]
fn a_program_that_is_not_there_or_no_program_has_a_status_of_its_own() {
    let Some(rig) = with_alpine() else { return };
    check(&rig, "docker run --rm alpine nosuch", 127, &["\"nosuch\"", "executable file not found in $PATH"]);
    check(&rig, "docker run --rm alpine /no/such", 127, &["/no/such", "no such file or directory"]);
    check(&rig, "docker run --rm alpine /etc/passwd", 126, &["/etc/passwd", "permission denied"]);
    check(&rig, "docker run --rm alpine /etc", 126, &["/etc"]);
    check(&rig, "docker run --rm alpine sh -c 'exit 3'", 3, &[]);
}

#[test]
fn what_cannot_be_meant_is_refused_with_125() {
    let Some(rig) = with_alpine() else { return };
    for (flags, part) in [
        ("-p 99999:1", "99999"),
        ("-p x", "x"),
        ("-v rel/x:/y", "rel/x"),
        ("-v /x:y", "y"),
        ("-w rel", "rel"),
        ("-u nosuch", "nosuch"),
        ("--name '!'", "!"),
        ("--network nosuch", "nosuch"),
        ("--nosuch", "--nosuch"),
    ] {
        check(&rig, &format!("docker run --rm {flags} alpine true"), 125, &[part]);
    }
    check(&rig, "docker run 'a b'", 125, &["invalid reference format"]);
    check(&rig, "docker run Upper", 125, &["must be lowercase"]);
}

#[test]
fn an_unknown_flag_has_docker_s_status_and_a_wrong_number_of_arguments_another() {
    let Some(rig) = Rig::start() else { return };
    for command in ["run", "create", "exec", "images", "ps", "logs", "build", "container run"] {
        check(&rig, &format!("docker {command} --nosuch x y"), 125, &["--nosuch"]);
    }
    for command in ["run", "exec x", "pull", "rm", "tag x", "nosuch"] {
        check(&rig, &format!("docker {command}"), 1, &[]);
    }
}

#[test]
fn references_that_are_none_are_refused_everywhere() {
    let Some(rig) = Rig::start() else { return };
    for (name, status) in [("pull", 1), ("push", 1), ("rmi", 1), ("create", 125), ("run", 125)] {
        for (reference, part) in
            [("UPPER", "lowercase"), ("a:b:c", "invalid reference format"), ("a@sha256:12", "invalid")]
        {
            check(&rig, &format!("docker {name} {reference}"), status, &[part]);
        }
    }
    let long = "a".repeat(300);
    check(&rig, &format!("docker pull {long}"), 1, &[]);
}

#[test]
fn a_name_in_use_is_a_conflict() {
    let Some(rig) = with_alpine() else { return };
    let id = rig.ok("docker run -d --name taken alpine sleep 100");
    for command in ["run -d", "run --rm", "create"] {
        check(
            &rig,
            &format!("docker {command} --name taken alpine true"),
            125,
            &["The container name \"/taken\" is already in use", &id],
        );
    }
    let other = rig.ok("docker create alpine true");
    check(&rig, &format!("docker rename {other} taken"), 1, &["taken", "already in use"]);
    check(&rig, "docker rm taken", 1, &["taken", "running"]);
    check(&rig, "docker rmi alpine", 1, &["alpine"]);
}

#[test]
fn a_port_in_use_is_named_whoever_uses_it() {
    let Some(rig) = with_alpine() else { return };
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let run = format!("docker run --rm -d -p {port}:80 alpine sleep 100");
    check(&rig, &run, 125, &[&format!("0.0.0.0:{port}"), "address already in use"]);
    drop(listener);
    let first = rig.ok(&run);
    check(&rig, &run, 125, &[&format!("0.0.0.0:{port}"), "port is already allocated"]);
    rig.ok(&format!("docker rm -f {first}"));
    rig.ok(&run);
}

#[test]
fn containers_that_are_not_there_are_named() {
    let Some(rig) = with_alpine() else { return };
    for command in [
        "start", "stop", "kill", "rm", "logs", "port", "wait", "pause", "unpause", "restart", "exec",
        "commit",
    ] {
        let more = if command == "exec" { " true" } else { "" };
        check(&rig, &format!("docker {command} nosuch{more}"), 1, &["No such container: nosuch"]);
    }
}
