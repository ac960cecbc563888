//! Without root: an ordinary user pulls, builds, runs and pushes.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::rig::{Rig, free_port, has_tool, skip};

/// Nobody in particular, with no ids but their own.
const LONE_USER: u32 = 64_321;

const DOCKERFILE: &str = "FROM alpine
WORKDIR /app
COPY --chown=33:33 hello.txt .
RUN cat hello.txt > copy.txt && rm hello.txt && mkdir empty
USER 0
CMD [\"cat\", \"/app/copy.txt\"]
";

#[test]
fn a_user_with_a_single_id_pulls_builds_runs_and_pushes() {
    let Some(rig) = Rig::start_for(LONE_USER) else { return };
    let shell = rig.context("hello", &[("Dockerfile", DOCKERFILE), ("hello.txt", "hello without root\n")]);
    shell.ok("docker build -q -t hello .");
    assert_eq!(rig.ok("docker run --rm --network none hello"), "hello without root");
    assert_eq!(rig.ok("docker run --rm --network host hello sh -c 'id -u; ls /app'"), "0\ncopy.txt\nempty");
    // All of it was cached.
    assert_eq!(shell.ok("docker build -q -t hello ."), rig.ok("docker images -q --no-trunc hello"));

    let name = format!("{}/rootless/hello:1", rig.registry());
    rig.ok(&format!("docker tag hello {name}"));
    rig.ok(&format!("docker push -q {name}"));
    rig.ok("docker save -o hello.tar hello");
    rig.ok(&format!("docker rmi -f hello {name}"));
    rig.ok("docker load -i hello.tar");
    rig.ok("docker rmi hello");
    rig.ok(&format!("docker pull -q {name}"));
    assert_eq!(rig.ok(&format!("docker run --rm --network none {name}")), "hello without root");
}

#[test]
fn later_commands_reach_the_containers_of_earlier_ones() {
    let Some(rig) = Rig::start_for(LONE_USER) else { return };
    for name in ["one", "two"] {
        let script = format!("echo {name} > /name; echo up; sleep 1000");
        rig.ok(&format!("docker run -d --name {name} --network none alpine sh -c '{script}'"));
    }
    for name in ["one", "two"] {
        rig.eventually("it has said so", || rig.ok(&format!("docker logs {name}")) == "up");
        assert_eq!(rig.ok(&format!("docker exec {name} cat /name")), name);
    }
    rig.ok("docker stop -t 0 one");
    rig.ok("docker start one");
    rig.ok("docker exec one touch /made");
    rig.ok("docker rm -f one two");
    assert_eq!(rig.ok("docker ps -aq"), "");
    // All that was made can be removed again by its owner.
    rig.ok("docker rmi -f alpine");
}

#[test]
fn what_needs_root_says_so() {
    let Some(rig) = Rig::start_for(LONE_USER) else { return };
    rig.ok("docker pull -q alpine");
    let port = free_port();
    let said = rig.fails(&format!("docker run --rm -p {port}:80 alpine true"), 125);
    assert!(said.contains("publishing ports needs root for now; use --network host"), "{said}");
    let finished = rig.run("docker run --rm alpine true");
    assert_eq!(finished.status, 0);
    assert!(finished.stderr.contains("WARNING: networks need root for now"), "{}", finished.stderr);
    let said = rig.fails("docker run --rm --network none -u 33 alpine true", 125);
    assert!(said.contains("33: the user namespace has no such id"), "{said}");
    let said = rig.fails("docker run --rm --network none -m 64m alpine true", 125);
    assert!(said.contains("control groups"), "{said}");
}

#[test]
fn delegated_ids_are_those_of_the_image() {
    let Some(user) = user_with_delegated_ids() else {
        return skip("no user of this machine has delegated ids, or newuidmap is missing")
            .unwrap_or_default();
    };
    let Some(rig) = Rig::start_for(user) else { return };
    let dockerfile = "FROM alpine\nCOPY --chown=33:34 hello.txt /\nRUN chown 7 /hello.txt\nUSER 33\n";
    let shell = rig.context("hello", &[("Dockerfile", dockerfile), ("hello.txt", "hello\n")]);
    shell.ok("docker build -q -t hello .");
    assert_eq!(
        rig.ok("docker run --rm --network none hello sh -c 'id -u; stat -c %u:%g /hello.txt'"),
        "33\n7:34"
    );
    // Somebody else's process, seen from the machine; still ours to stop.
    rig.ok("docker run -d --name other --network none hello sleep 1000");
    rig.ok("docker kill other");
    rig.ok("docker rm other");
    rig.ok("docker rmi -f hello");
}

#[test]
fn where_user_namespaces_are_refused_that_is_said_and_images_can_be_listed() {
    let Some(rig) = Rig::start_for(LONE_USER) else { return };
    if !has_tool("chroot") || !has_tool("unshare") || !Path::new("/mnt").is_dir() {
        return;
    }
    // Nobody may make user namespaces from within a chroot.
    let run = |line: &str| {
        let binary = rig.path("bin/dhow");
        let script = format!(
            "mount --rbind / /mnt && exec chroot --userspec={LONE_USER}:{LONE_USER} /mnt {} {line}",
            binary.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).env("DHOW_ROOT", rig.path("root"));
        command.env("DHOW_RUN", rig.path("run")).env("DHOW_CONFIG", rig.path("config.toml"));
        command.output().expect("unshare starts")
    };
    let output = run("ps");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Error: the kernel refuses to create a user namespace"), "{said}");
    assert!(said.contains("Hint: run dhow as root"), "{said}");
    assert!(run("images").status.success());
}

/// A user who has ids to hand out, by number.
fn user_with_delegated_ids() -> Option<u32> {
    if !has_tool("newuidmap") || !has_tool("newgidmap") {
        return None;
    }
    let subgid = fs::read_to_string("/etc/subgid").ok()?;
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let table = fs::read_to_string("/etc/subuid").ok()?;
    table.lines().find_map(|line| {
        let owner = line.split(':').next()?;
        let has_groups = subgid.lines().any(|line| line.split(':').next() == Some(owner));
        let row = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|row| row[0] == owner);
        row?.get(2)?.parse().ok().filter(|uid| *uid != 0 && has_groups)
    })
}
