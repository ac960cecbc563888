//! Known ways out of a container: each is tried inside a default one, and fails.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use crate::rig::{Rig, has_tool};

/// What `attempts.c` tries; fewer would mean that it died on the way.
const ATTEMPTS_MIN: usize = 69;
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/escape/attempts.c");

#[test]
fn every_known_way_out_is_shut() {
    let Some(rig) = Rig::start() else { return };
    if !has_tool("gcc") {
        return;
    }
    rig.ok("docker pull busybox");
    let tools = rig.path("tools");
    fs::create_dir(&tools).expect("a folder");
    let gcc =
        Command::new("gcc").args(["-O1", "-static", "-o"]).arg(tools.join("attempts")).arg(SOURCE).status();
    assert!(gcc.expect("gcc starts").success(), "the attempts do not compile");
    let marker = rig.path("marker");
    fs::write(&marker, "of the host\n").expect("a file");
    let name = format!("dhow-escape-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an abstract name");
    let _host = UnixListener::bind_addr(&address).expect("a socket of the host");
    let told = rig.ok(&format!(
        "docker run --rm -v {}:/tools:ro busybox /tools/attempts {} {name}",
        tools.display(),
        marker.display()
    ));
    let escaped: Vec<&str> = told.lines().filter(|line| line.ends_with("ESCAPED")).collect();
    assert_eq!(escaped, Vec::<&str>::new());
    assert!(told.lines().count() >= ATTEMPTS_MIN, "an attempt was not made");
}

#[test]
fn a_working_directory_behind_a_descriptor_is_inside() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let marker = rig.path("marker");
    fs::write(&marker, "of the host\n").expect("a file");
    let up = format!("../../../../../../../../../..{}", marker.display());
    rig.ok("docker run -d --name up busybox sleep 600");
    for number in 3..12 {
        let folder = format!("/proc/self/fd/{number}");
        let run = rig.run(&format!("docker run --rm -w {folder} busybox cat {up}"));
        assert!(run.status != 0 && run.stdout.is_empty(), "{folder}: {}", run.stdout);
        let exec = rig.run(&format!("docker exec -w {folder} up cat {up}"));
        assert!(exec.status != 0 && exec.stdout.is_empty(), "{folder}: {}", exec.stdout);
    }
}

#[test]
fn the_program_of_the_host_cannot_be_run_or_written_from_inside() {
    let Some(rig) = Rig::start() else { return };
    // A program whose interpreter is "the program that executes me" would be dhow, were dhow to execute it.
    let dockerfile = "FROM busybox\nRUN printf '#!/proc/self/exe\\n' >/bad && chmod +x /bad\n";
    rig.context("bad", &[("Dockerfile", dockerfile)]).ok("docker build -q -t bad .");
    let before = fs::read(env!("CARGO_BIN_EXE_dhow")).expect("the program");
    let _ = rig.run("docker run --rm bad /bad");
    rig.ok("docker run -d --name up bad sleep 600");
    let overwrite =
        "for n in 1 2 3 4 5 6 7 8; do for p in /proc/[0-9]*/exe; do echo x 2>/dev/null >$p; done; done; true";
    let watcher = rig.spawn(&format!("docker exec up sh -c '{overwrite}'"));
    for _ in 0..5 {
        let _ = rig.run("docker exec up /bad");
    }
    let _ = watcher.finish();
    assert!(
        before == fs::read(env!("CARGO_BIN_EXE_dhow")).expect("the program"),
        "the program was overwritten"
    );
}
