//! More processes inside a running container.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use dhow_runtime::{
    ExecEnd, ExecRequest, ExecStreams, StartError, WindowSize, exec, signal, spawn_shim, wait,
};

use crate::world::{World, eventually};

pub(crate) const TESTS: &[crate::Test] = &[
    ("a_second_process_shares_the_container", a_second_process_shares_the_container),
    ("a_second_process_can_have_a_terminal", a_second_process_can_have_a_terminal),
    ("a_second_process_fails_as_the_first_would", a_second_process_fails_as_the_first_would),
    ("a_detached_process_lives_on", a_detached_process_lives_on),
];

fn running() -> World {
    let world = World::shell("sleep 1000").with(|spec| spec.env = vec!["A=1".into()]);
    spawn_shim(&world.request(), None).unwrap();
    world
}

fn stop(world: &World) {
    signal(&world.run_dir(), 9).unwrap();
    wait(&world.run_dir(), &world.bundle()).unwrap();
}

fn request(args: &[&str]) -> ExecRequest {
    ExecRequest {
        args: args.iter().map(|arg| arg.to_string()).collect(),
        env: vec![],
        user: None,
        cwd: None,
        privileged: false,
        terminal: false,
        window: None,
        detach: false,
    }
}

fn run(world: &World, request: &ExecRequest) -> Result<(String, ExecEnd), StartError> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let streams = ExecStreams {
        stdin: None,
        stdout: file.as_fd(),
        stderr: file.as_fd(),
        detach_keys: &[],
        signals: None,
    };
    let end = exec(&world.run_dir(), &world.bundle(), request, streams);
    drop(file);
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    end.map(|end| (output, end))
}

fn a_second_process_shares_the_container() {
    let world = running();
    let script = "hostname; tr '\\0' ' ' < /proc/1/cmdline; echo; pwd; echo $A $B; id -u;
                  grep -E '^(CapEff|Seccomp:)' /proc/self/status; ls /proc/self/fd | wc -l; exit 7";
    let mut order = request(&["sh", "-c", script]);
    order.env = vec!["B=2".into()];
    order.cwd = Some("/tmp".into());
    let (output, end) = run(&world, &order).unwrap();
    let expected = "box\nsh -c sleep 1000 \n/tmp\n1 2\n0\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n4\n";
    // The shell may have replaced itself by its only command.
    assert_eq!(output.replace("\nsleep 1000 \n", "\nsh -c sleep 1000 \n"), expected);
    assert_eq!(end, ExecEnd::Exited(7));
    let mut as_bob = request(&["sh", "-c", "id -un; id -gn"]);
    as_bob.user = Some("bob:staff".into());
    assert_eq!(run(&world, &as_bob).unwrap().0, "bob\nstaff\n");
    let mut privileged = request(&["sh", "-c", "mount -t tmpfs none /tmp && echo mounted"]);
    privileged.privileged = true;
    assert_eq!(run(&world, &privileged).unwrap().0, "mounted\n");
    stop(&world);
}

fn a_second_process_can_have_a_terminal() {
    let world = running();
    let mut order = request(&["sh", "-c", "tty; stty size; echo err >&2; exit 3"]);
    order.terminal = true;
    order.window = Some(WindowSize { rows: 11, columns: 22 });
    let (output, end) = run(&world, &order).unwrap();
    assert_eq!((output.as_str(), end), ("/dev/pts/0\r\n11 22\r\nerr\r\n", ExecEnd::Exited(3)));
    stop(&world);
}

fn a_second_process_fails_as_the_first_would() {
    let world = running();
    let error = run(&world, &request(&["nope"])).unwrap_err();
    assert_eq!(error.to_string(), "exec: \"nope\": executable file not found in $PATH");
    let error = run(&world, &request(&["/etc/secret"])).unwrap_err();
    assert_eq!(error.exit_code(), 126);
    let mut terminal = request(&["nope"]);
    terminal.terminal = true;
    assert_eq!(run(&world, &terminal).unwrap_err().exit_code(), 127);
    stop(&world);
    let error = run(&world, &request(&["true"])).unwrap_err();
    assert_eq!(error.to_string(), "container is not running");
}

fn a_detached_process_lives_on() {
    let world = running();
    let mut order = request(&["sh", "-c", "sleep 0.3; echo made > /made"]);
    order.detach = true;
    assert_eq!(run(&world, &order).unwrap().1, ExecEnd::Detached);
    eventually("it did its work", || world.path("upper/made").exists());
    stop(&world);
}
