//! The life of containers.

use std::net::{TcpListener, TcpStream};

use crate::build_run::a_device_of_the_machine;
use crate::rig::{CTRL_C, Rig, free_port};
use crate::shown::{inspect, is_id, published};

#[test]
fn b08_expose_opens_nothing_and_publishing_does() {
    let Some(rig) = Rig::start() else { return };
    let port = free_port();
    let dockerfile = format!(
        "FROM busybox\nWORKDIR /www\nRUN echo served >index.html\nEXPOSE {port}\nCMD httpd -f -p {port}\n"
    );
    rig.context("web", &[("Dockerfile", &dockerfile)]).ok("docker build -t web .");
    rig.ok("docker run -d --name closed web");
    assert_eq!(rig.ok("docker port closed"), "");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "EXPOSE alone opens nothing");
    rig.ok("docker run -d --name all -P web");
    let chosen = published(&rig, "all", port);
    assert_eq!(rig.page(&format!("http://127.0.0.1:{chosen}/")), "served\n");
    rig.ok(&format!("docker run -d --name one -p 127.0.0.1:{port}:{port} web"));
    assert_eq!(rig.page(&format!("http://127.0.0.1:{port}/")), "served\n");
    assert_eq!(rig.ok("docker port one"), format!("{port}/tcp -> 127.0.0.1:{port}"));
}

#[test]
fn b10_run_pulls_a_missing_image() {
    let Some(rig) = Rig::start() else { return };
    let first = rig.run("docker run hello-world");
    assert_eq!(first.status, 0);
    assert!(
        first.stdout.starts_with("\nHello! If you can read this, your containers work.\n"),
        "{}",
        first.stdout
    );
    assert!(
        first.stderr.starts_with("Unable to find image 'hello-world:latest' locally\n"),
        "{}",
        first.stderr
    );
    let second = rig.run("docker run hello-world");
    assert_eq!((second.stdout, second.stderr.as_str()), (first.stdout, ""));
    let complaint = rig.fails("docker run no-such-image", 125);
    assert!(complaint.contains("no-such-image"), "{complaint}");
    assert_eq!(rig.ok("docker ps -aq").lines().count(), 2);
}

#[test]
fn b18_a_port_that_is_taken_is_named() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("it has an address").port();
    let by_host = rig.fails(&format!("docker run -d -p {port}:80 --name one busybox sleep 60"), 125);
    assert!(
        by_host.contains(&format!("0.0.0.0:{port}")) && by_host.contains("address already in use"),
        "{by_host}"
    );
    assert_eq!(rig.ok("docker ps -q"), "");
    drop(taken);
    rig.ok(&format!("docker run -d -p {port}:80 --name two busybox sleep 60"));
    let by_container = rig.fails(&format!("docker run -d -p {port}:80 --name three busybox sleep 60"), 125);
    let allocated = format!("Bind for 0.0.0.0:{port} failed: port is already allocated");
    assert!(by_container.contains(&allocated), "{by_container}");
    assert_eq!(rig.ok("docker ps -q").lines().count(), 1);
}

#[test]
fn run_ends_as_its_program_does() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    for (line, status) in [
        ("docker run --rm busybox true", 0),
        ("docker run --rm busybox sh -c 'exit 42'", 42),
        ("docker run --rm busybox no-such-program", 127),
        ("docker run --rm busybox /etc", 126),
        ("docker run --no-such-flag busybox", 125),
        ("docker run --rm -v relative:path:with:colons busybox", 125),
    ] {
        assert_eq!(rig.run(line).status, status, "{line}");
    }
    let both = rig.run("docker run --rm busybox sh -c 'echo out; echo err >&2'");
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(rig.ok("docker ps -aq"), "", "--rm and failed starts leave nothing");
}

#[test]
fn run_gives_what_its_flags_say() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    assert_eq!(rig.ok("docker run --rm -e A=b -w /tmp busybox sh -c 'echo $A $PWD'"), "b /tmp");
    assert!(rig.ok("docker run --rm -u 1000:2000 busybox id").starts_with("uid=1000 gid=2000"));
    assert_eq!(rig.ok("docker run --rm --entrypoint echo busybox hello"), "hello");
    assert_eq!(rig.ok("docker run --rm --network none busybox ls /sys/class/net"), "lo");
    rig.at("").write("shared/file", "from the host\n");
    let shared = rig.path("work/shared");
    let shared = shared.display();
    assert_eq!(rig.ok(&format!("docker run --rm -v {shared}:/data busybox cat /data/file")), "from the host");
    let complaint = rig.fails(&format!("docker run --rm -v {shared}:/data:ro busybox touch /data/new"), 1);
    assert!(complaint.contains("Read-only file system"), "{complaint}");
    rig.ok("docker run --rm -v notes:/notes busybox sh -c 'echo kept >/notes/a'");
    assert_eq!(rig.ok("docker run --rm -v notes:/notes busybox cat /notes/a"), "kept");
    let piped = rig.ok("sh -c 'echo typed | docker run --rm -i busybox cat'");
    assert_eq!(piped, "typed");
}

#[test]
fn the_primary_group_is_among_the_supplementary_ones() {
    let Some(rig) = Rig::start() else { return };
    // Else a program that drops its primary group could read what is denied to that group (CVE-2022-36109).
    rig.ok("docker pull busybox");
    assert_eq!(rig.ok("docker run --rm -u 1000:2000 busybox id"), "uid=1000 gid=2000 groups=2000");
}

#[test]
fn a_container_outlives_its_command_and_can_be_looked_at() {
    let Some(rig) = Rig::start() else { return };
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let id = rig.ok(&format!("docker run -d --name clock busybox sh -c \"{script}\""));
    assert!(is_id(&id, 64), "{id}");
    rig.eventually("the log has a line", || rig.ok("docker logs clock") == "ready");
    assert_eq!(rig.ok("docker exec clock hostname"), &id[..12]);
    assert_eq!(rig.run("docker exec clock sh -c 'exit 9'").status, 9);
    assert_eq!(inspect(&rig, "clock")["State"]["Running"], true);
    let mut follower = rig.spawn("docker logs -f clock");
    follower.wait_for("ready");
    assert_eq!(rig.ok("docker stop clock"), "clock");
    assert_eq!(follower.finish().stdout, "ready\nbye\n");
    let state = inspect(&rig, "clock")["State"].clone();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &3.into()));
    assert!(rig.ok("docker ps -a").contains("Exited (3) "));
    assert_eq!(rig.ok("docker start clock"), "clock");
    rig.eventually("it is ready again", || rig.ok("docker logs clock") == "ready\nbye\nready");
    assert_eq!(rig.ok("docker kill clock"), "clock");
    rig.eventually("it is over", || rig.ok("docker ps -q").is_empty());
    assert_eq!(inspect(&rig, "clock")["State"]["ExitCode"], 137);
    assert_eq!(rig.ok("docker rm clock"), "clock");
    let complaint = rig.fails("docker rm clock", 1);
    assert!(complaint.contains("No such container: clock"), "{complaint}");
}

#[test]
fn a_running_container_is_removed_only_by_force() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker run -d --name busy busybox sleep 600");
    let complaint = rig.fails("docker rm busy", 1);
    assert!(
        complaint.contains("container is running")
            || complaint.contains("You cannot remove a running container"),
        "{complaint}"
    );
    let used = rig.fails("docker rmi busybox", 1);
    assert!(used.contains("conflict"), "{used}");
    assert_eq!(rig.ok("docker rm -f busy"), "busy");
}

#[test]
fn a23_commit_makes_an_image_of_what_changed() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker run --name work busybox sh -c 'echo changed >/note; rm /bin/httpd'");
    let id = rig.ok("docker commit -m 'a note' work you/worked");
    assert!(is_id(id.trim_start_matches("sha256:"), 64), "{id}");
    assert_eq!(rig.ok("docker run --rm you/worked cat /note"), "changed");
    assert_eq!(rig.run("docker run --rm you/worked httpd --help").status, 127);
    assert!(rig.ok("docker history you/worked").contains("a note"));
}

#[test]
fn an_interactive_shell_sits_at_a_terminal() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let mut shell = rig.terminal("docker run -it --rm --name shell busybox sh");
    shell.wait_for("# ");
    shell.type_in("tty; stty size\r");
    shell.wait_for("/dev/pts/0");
    shell.wait_for("40 120");
    shell.type_in("sleep 600\r");
    shell.wait_for("sleep 600");
    rig.eventually("it sleeps", || rig.ok("docker exec shell ps").contains("sleep 600"));
    shell.type_in(CTRL_C);
    shell.type_in("echo still $((40 + 2)) here\r");
    shell.wait_for("still 42 here");
    shell.type_in("exit 7\r");
    assert_eq!(shell.finish().0, 7);
    assert_eq!(rig.ok("docker ps -aq"), "");
}

#[test]
fn ctrl_c_at_a_terminal_without_t_reaches_the_program() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done";
    let mut run = rig.terminal(&format!("docker run --rm busybox sh -c \"{script}\""));
    run.wait_for("ready");
    run.type_in(CTRL_C);
    run.wait_for("interrupted");
    assert_eq!(run.finish().0, 5);
}

#[test]
fn a_container_is_kept_apart_from_its_host() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let ps = rig.ok("docker run --rm busybox ps -o pid,comm");
    assert_eq!(ps.lines().count(), 2, "only the program itself: {ps}");
    let capabilities = rig.ok("docker run --rm busybox grep CapEff /proc/self/status");
    assert!(capabilities.ends_with("00000000a80425fb"), "docker's default set, not {capabilities}");
    let seccomp = rig.ok("docker run --rm busybox grep Seccomp: /proc/self/status");
    assert!(seccomp.ends_with('2'), "{seccomp}");
    assert_eq!(rig.ok("docker run --rm busybox cat /proc/keys"), "", "it is masked");
    assert_ne!(rig.run("docker run --rm busybox sh -c 'echo 1 >/proc/sys/kernel/panic'").status, 0);
    assert_ne!(rig.run("docker run --rm busybox mount -t tmpfs none /mnt").status, 0);
}

#[test]
fn a_privileged_container_sees_and_uses_the_devices_of_the_machine() {
    let Some(rig) = Rig::start() else { return };
    let node = a_device_of_the_machine();
    let stat = format!("stat -c %F:%t:%T:%a:%u:%g {node}");
    assert_eq!(rig.ok(&format!("docker run --rm --privileged alpine {stat}")), rig.ok(&stat));
    assert_ne!(rig.run(&format!("docker run --rm alpine {stat}")).status, 0);
    // The kernel's log, made anew: only the first may open it.
    let open = "sh -c 'mknod /log c 1 11 && : </log'";
    rig.ok(&format!("docker run --rm --privileged alpine {open}"));
    let said = rig.run(&format!("docker run --rm alpine {open}"));
    assert!(said.status != 0 && said.stderr.contains("not permitted"), "{}", said.both());
}
