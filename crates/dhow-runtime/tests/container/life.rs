//! Shims: starting, attaching, logging, ending, vanishing.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dhow_runtime::shim::NetworkSetup;
use dhow_runtime::{
    AttachEnd, AttachStreams, Attached, ExitStatus, RuntimeChoice, RuntimeState, StdinMode, WindowSize,
    signal, spawn_shim, spawn_shim_attached, wait,
};
use serde_json::json;

use crate::world::{World, eventually};

pub(crate) const TESTS: &[crate::Test] = &[
    ("a_detached_container_lives_on_and_is_recorded", a_detached_container_lives_on_and_is_recorded),
    ("an_error_reaches_the_command_and_leaves_nothing", an_error_reaches_the_command_and_leaves_nothing),
    ("the_first_client_sees_everything", the_first_client_sees_everything),
    ("input_reaches_the_program", input_reaches_the_program),
    ("a_terminal_has_a_size_and_one_stream", a_terminal_has_a_size_and_one_stream),
    ("a_later_client_sees_what_comes_later", a_later_client_sees_what_comes_later),
    ("a_killed_shim_takes_its_container_along", a_killed_shim_takes_its_container_along),
    (
        "a_program_that_changed_its_user_does_not_survive_either",
        a_program_that_changed_its_user_does_not_survive_either,
    ),
    ("one_container_has_one_shim", one_container_has_one_shim),
    ("hooks_are_called", hooks_are_called),
    ("want_of_memory_is_recorded", want_of_memory_is_recorded),
    ("runc_makes_the_same_container", runc_makes_the_same_container),
];

/// A network that leaves a mark inside, which proves when it was called.
pub(crate) struct MarkerNetwork;

impl NetworkSetup for MarkerNetwork {
    fn connect(&mut self, netns: BorrowedFd<'_>) -> Result<(), String> {
        let mark = || fs::write("/proc/sys/net/ipv4/ip_default_ttl", "77");
        dhow_sys::netns::in_netns(netns, mark).flatten().map_err(|error| error.to_string())
    }

    fn disconnect(&mut self) {}
}

pub(crate) fn mark_exit(request: &serde_json::Value, status: &ExitStatus) {
    let path = request["mark"].as_str().expect("the tests say where");
    fs::write(path, status.exit_code.to_string()).expect("the tests can write");
}

fn streams(stdin: Option<BorrowedFd<'_>>) -> AttachStreams<'_> {
    AttachStreams { stdin, resized: None, terminal: false, detach_keys: &[], signals: None }
}

fn pump(world: &World, attached: Attached, stdin: Option<BorrowedFd<'_>>) -> (String, String, AttachEnd) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let end = attached.pump(&world.run_dir(), streams(stdin), &mut stdout, &mut stderr).unwrap();
    (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap(), end)
}

fn code(end: &AttachEnd) -> i32 {
    match end {
        AttachEnd::Exited(status) => status.exit_code,
        other => panic!("{other:?}"),
    }
}

fn a_detached_container_lives_on_and_is_recorded() {
    let world = World::shell("echo one; echo two >&2; trap 'exit 5' TERM; while :; do sleep 0.1; done");
    assert_eq!(world.state(), RuntimeState::Created);
    let started = spawn_shim(&world.request(), None).unwrap();
    assert_eq!(world.state(), RuntimeState::Running { pid: started.pid, started_at: started.started_at });
    eventually("both lines are logged", || world.log().len() == 8);
    assert!(signal(&world.run_dir(), 15).unwrap());
    let status = wait(&world.run_dir(), &world.bundle()).unwrap().unwrap();
    assert_eq!((status.exit_code, status.oom_killed, status.error.as_deref()), (5, false, None));
    assert_eq!(world.state(), RuntimeState::Exited(status));
    assert!(!signal(&world.run_dir(), 15).unwrap(), "there is nothing to signal any more");
    assert!(world.cgroups().is_empty());
    spawn_shim(&world.request(), None).unwrap();
    assert!(matches!(world.state(), RuntimeState::Running { .. }), "it can be started again");
    signal(&world.run_dir(), 9).unwrap();
    assert_eq!(wait(&world.run_dir(), &world.bundle()).unwrap().unwrap().exit_code, 137);
}

fn an_error_reaches_the_command_and_leaves_nothing() {
    let world = World::new(&["nope"]);
    let error = spawn_shim(&world.request(), None).unwrap_err();
    assert_eq!(error.to_string(), "exec: \"nope\": executable file not found in $PATH");
    wait(&world.run_dir(), &world.bundle()).unwrap();
    assert_eq!(world.state(), RuntimeState::Created);
    assert!(world.cgroups().is_empty());
}

fn the_first_client_sees_everything() {
    let world = World::shell("echo first; echo err >&2; seq 1 100000; exit 4");
    let (_, attached) = spawn_shim_attached(&world.request(), None).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let (stdout, stderr, end) = pump(&world, attached, None);
    assert!(stdout.starts_with("first\n1\n2\n") && stdout.ends_with("\n100000\n"));
    assert_eq!((stdout.lines().count(), stderr.as_str(), code(&end)), (100_001, "err\n", 4));
    assert_eq!(world.log().lines().count(), 100_002, "all of it was logged, too");
    wait(&world.run_dir(), &world.bundle()).unwrap();
}

fn input_reaches_the_program() {
    let world = World::shell("cat; echo done");
    let mut request = world.request();
    request.stdin = StdinMode::Once;
    let (_, attached) = spawn_shim_attached(&request, None).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let feed = std::thread::spawn(move || {
        for _ in 0..2000 {
            writer.write_all(&[b'x'; 999]).unwrap();
            writer.write_all(b"\n").unwrap();
        }
    });
    let (stdout, _, end) = pump(&world, attached, Some(reader.as_fd()));
    feed.join().unwrap();
    assert_eq!((stdout.len(), code(&end)), (2_000_005, 0), "the end of input reaches it");
    wait(&world.run_dir(), &world.bundle()).unwrap();
}

fn a_terminal_has_a_size_and_one_stream() {
    let world = World::shell(
        "tty; stty size; echo err >&2; test -c /dev/console && echo console; readlink /proc/self/fd/1",
    )
    .with(|spec| spec.terminal = true);
    let mut request = world.request();
    request.window = Some(WindowSize { rows: 33, columns: 99 });
    let (_, attached) = spawn_shim_attached(&request, None).unwrap();
    let (stdout, stderr, end) = pump(&world, attached, None);
    assert_eq!(stdout, "/dev/pts/0\r\n33 99\r\nerr\r\nconsole\r\n/dev/pts/0\r\n");
    assert_eq!((stderr.as_str(), code(&end)), ("", 0));
    wait(&world.run_dir(), &world.bundle()).unwrap();
}

fn a_later_client_sees_what_comes_later() {
    let world = World::shell("echo early; while ! test -e /go; do sleep 0.02; done; echo late");
    spawn_shim(&world.request(), None).unwrap();
    eventually("the first line is logged", || world.log() == "early\n");
    let attached = Attached::connect(&world.run_dir()).unwrap();
    // The overlay's own upper directory may not be written to, so the container's view of it is.
    let RuntimeState::Running { pid, .. } = world.state() else { panic!("it runs") };
    std::thread::sleep(Duration::from_millis(50));
    fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
    let (stdout, _, end) = pump(&world, attached, None);
    assert_eq!((stdout.as_str(), code(&end)), ("late\n", 0));
    wait(&world.run_dir(), &world.bundle()).unwrap();
}

fn parent(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_string()
}

fn kill_shim_of(pid: i32) {
    assert!(Command::new("kill").args(["-9", &parent(pid)]).status().unwrap().success());
}

fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !Path::new(&format!("/proc/{pid}")).exists() || stat.contains(") Z ")
}

fn a_killed_shim_takes_its_container_along() {
    let world = World::shell("sleep 1000");
    let started = spawn_shim(&world.request(), None).unwrap();
    kill_shim_of(started.pid);
    eventually("init dies with the shim", || is_gone(started.pid));
    assert_eq!(wait(&world.run_dir(), &world.bundle()).unwrap(), None);
    assert_eq!(world.state(), RuntimeState::Dead);
    eventually("looking at it cleans up", || {
        world.state();
        world.cgroups().is_empty() || !world.run_dir().init().exists()
    });
}

fn a_program_that_changed_its_user_does_not_survive_either() {
    // su changes its user, which makes the kernel forget whom to die with.
    let world = World::new(&["su", "bob", "-c", "exec sleep 1000"]);
    let started = spawn_shim(&world.request(), None).unwrap();
    eventually("it changed its user", || {
        fs::read_to_string(format!("/proc/{}/status", started.pid)).unwrap_or_default().contains("Uid:\t1000")
    });
    kill_shim_of(started.pid);
    eventually("the state is the truth", || world.state() == RuntimeState::Dead);
    eventually("nothing runs", || is_gone(started.pid));
}

fn one_container_has_one_shim() {
    let world = World::shell("sleep 1000");
    let started = spawn_shim(&world.request(), None).unwrap();
    let error = spawn_shim(&world.request(), None).unwrap_err();
    assert_eq!(error.to_string(), format!("container {} is already running", world.id));
    assert!(matches!(world.state(), RuntimeState::Running { pid, .. } if pid == started.pid));
    signal(&world.run_dir(), 9).unwrap();
    wait(&world.run_dir(), &world.bundle()).unwrap();
}

fn hooks_are_called() {
    let world = World::shell("cat /proc/sys/net/ipv4/ip_default_ttl; exit 6");
    let mark = world.path("mark");
    let mut request = world.request();
    request.network = Some(json!({}));
    request.on_exit = Some(json!({ "mark": mark }));
    spawn_shim(&request, None).unwrap();
    wait(&world.run_dir(), &world.bundle()).unwrap();
    assert_eq!(world.log(), "77\n", "the network was there before the program");
    assert_eq!(fs::read_to_string(mark).unwrap(), "6");
}

fn want_of_memory_is_recorded() {
    let world = World::shell("dd if=/dev/zero of=/dev/null bs=200M count=1").with(|spec| {
        spec.resources.memory_bytes = Some(16 << 20);
        spec.resources.memory_swap_bytes = Some(16 << 20);
    });
    spawn_shim(&world.request(), None).unwrap();
    let status = wait(&world.run_dir(), &world.bundle()).unwrap().unwrap();
    assert!(status.oom_killed, "{status:?}");
    assert_eq!(status.exit_code, 137);
}

fn runc_makes_the_same_container() {
    if Command::new("runc").arg("--version").output().is_err() {
        println!("skipped: runc is not installed");
        return;
    }
    let script = "hostname; id; pwd; grep -E '^(Cap|Seccomp:|NoNew)' /proc/self/status; ls /dev; env | sort;
                  cat /proc/kcore | wc -c; echo x > /proc/sysrq-trigger; ls /proc/self/fd; unshare -m true; exit 9";
    let run = |runtime: RuntimeChoice| {
        let world = World::shell(script).with(|spec| {
            spec.user = "bob".into();
            spec.cwd = "/home/bob".into();
        });
        let mut request = world.request();
        request.runtime = runtime;
        let (_, attached) = spawn_shim_attached(&request, None).unwrap();
        let (stdout, stderr, end) = pump(&world, attached, None);
        wait(&world.run_dir(), &world.bundle()).unwrap();
        assert!(world.cgroups().is_empty());
        (stdout, stderr, code(&end))
    };
    assert_eq!(run(RuntimeChoice::Native), run(RuntimeChoice::Oci { program: "runc".into() }));
}
