//! Commands that look at containers and change them while they run.

use serde_json::Value;

use crate::rig::Rig;
use crate::shown::cells;

fn with_busybox() -> Option<Rig> {
    let rig = Rig::start()?;
    rig.ok("docker pull -q busybox");
    Some(rig)
}

#[test]
fn top_shows_the_container_s_processes_only() {
    let Some(rig) = with_busybox() else { return };
    rig.ok("docker run -d --name web busybox sh -c 'sleep 600 & exec sleep 601'");
    rig.eventually("both run", || rig.ok("docker top web -o pid,args").contains("sleep 600"));
    let top = rig.ok("docker top web");
    let titles: Vec<&str> = top.lines().next().expect("a line").split_whitespace().collect();
    assert_eq!(titles, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let commands: Vec<&str> = top.lines().skip(1).map(|line| *cells(line).last().expect("a cell")).collect();
    assert_eq!(commands.len(), 2, "{top}");
    assert!(commands.contains(&"sleep 600") && commands.contains(&"sleep 601"), "{top}");
    let bad = rig.fails("docker top web --no-such-option", 1);
    assert!(bad.contains("ps: "), "{bad}");
    rig.ok("docker stop -t 0 web");
    let stopped = rig.fails("docker top web", 1);
    assert!(stopped.contains("is not running"), "{stopped}");
}

#[test]
fn stats_counts_what_a_container_uses() {
    let Some(rig) = with_busybox() else { return };
    rig.ok("docker run -d --name busy -m 64m busybox sh -c 'while :; do :; done'");
    rig.ok("docker create --name idle busybox true");
    let table = rig.ok("docker stats --no-stream");
    let (titles, line) = table.split_once('\n').expect("two lines");
    let expected =
        ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    assert_eq!(cells(titles), expected);
    assert_eq!((cells(line)[1], cells(line)[7]), ("busy", "1"), "{table}");
    let json = rig.ok("docker stats --no-stream --format json busy");
    let stats: Value = serde_json::from_str(&json).expect("JSON");
    let percent = |field: &str| {
        let text = stats[field].as_str().expect("text").trim_end_matches('%');
        text.parse::<f64>().expect("a number")
    };
    assert!(percent("CPUPerc") > 0.0 && percent("MemPerc") > 0.0, "{stats}");
    assert!(stats["MemUsage"].as_str().expect("text").ends_with(" / 64MiB"), "{stats}");
    let all = rig.ok("docker stats --all --no-stream --format '{{.Name}} {{.PIDs}}'");
    assert_eq!(all, "idle 0\nbusy 1");
    let mut following = rig.spawn("docker stats --format '{{.Name}}!'");
    following.wait_for("busy!\nbusy!");
    assert!(rig.fails("docker stats --no-stream nosuch", 1).contains("No such container: nosuch"));
}

/// What happened to a container, each with the words that tell it apart.
fn events(rig: &Rig, name: &str) -> Vec<String> {
    let line =
        format!("docker events --since 0 --until 0s --filter container={name} --format '{{{{.Action}}}}'");
    rig.ok(&line).lines().map(String::from).collect()
}

#[test]
fn every_change_is_told_as_docker_tells_it() {
    let Some(rig) = with_busybox() else { return };
    rig.ok("docker create --name web busybox sleep 600");
    for line in ["start web", "pause web", "unpause web", "rename web site", "restart -t 0 site", "kill site"]
    {
        rig.ok(&format!("docker {line}"));
    }
    rig.ok("docker wait site");
    rig.ok("docker rm site");
    let id = rig.ok("docker events --since 0 --until 0s --filter event=create --format '{{.ID}}'");
    let expected = "create start pause unpause rename kill die stop start restart kill die destroy";
    assert_eq!(events(&rig, &id).join(" "), expected);
}

#[test]
fn the_keys_that_detach_are_those_of_the_flag_or_of_docker_s_configuration() {
    let Some(rig) = with_busybox() else { return };
    std::fs::write(rig.path("docker/config.json"), r#"{"detachKeys": "ctrl-x,x"}"#).expect("a file");
    let mut shell = rig.terminal("docker run -it --name shell busybox sh");
    shell.wait_for("# ");
    shell.type_in("\x18x");
    assert_eq!(shell.finish().0, 0);
    assert_eq!(rig.ok("docker ps --format '{{.Names}}'"), "shell", "it goes on");
    let mut attached = rig.terminal("docker attach --detach-keys a,b shell");
    attached.type_in("echo $((40 + 2))\r");
    attached.wait_for("42");
    attached.type_in("ab");
    assert_eq!(attached.finish().0, 0);
    let told = events(&rig, "shell");
    assert_eq!(told.iter().filter(|action| *action == "detach").count(), 2, "{told:?}");
    assert_eq!(told.iter().filter(|action| *action == "attach").count(), 2, "{told:?}");
    assert!(told.contains(&"resize".to_owned()), "{told:?}");
    let mut exec = rig.terminal("docker exec -it shell sleep 600");
    rig.eventually("it sleeps", || rig.ok("docker exec shell ps").contains("sleep 600"));
    exec.type_in("\x18x");
    assert_eq!(exec.finish().0, 0);
    assert!(rig.ok("docker exec shell ps").contains("sleep 600"), "it goes on as well");
    assert!(events(&rig, "shell").contains(&"exec_detach".to_owned()));
    let wrong = rig.fails("docker attach --detach-keys ctrl-1 shell", 1);
    assert!(wrong.contains("invalid detach keys"), "{wrong}");
}

#[test]
fn attach_without_input_sends_none_and_without_proxy_no_signals() {
    let Some(rig) = with_busybox() else { return };
    let script = "trap 'echo caught' INT; while :; do sleep 0.1; done";
    rig.ok(&format!("docker run -d -i --name web busybox sh -c \"{script}\""));
    let mut attached = rig.spawn("docker attach --no-stdin web");
    rig.eventually("it is attached", || events(&rig, "web").contains(&"attach".to_owned()));
    // The command may have told before it listens for signals: until the program has caught one.
    rig.eventually("the signal is passed on", || {
        attached.signal(rustix::process::Signal::INT);
        attached.said().contains("caught")
    });
    attached.wait_for("caught");
    drop(attached);
    let deaf = rig.spawn("docker attach --sig-proxy=false web");
    rig.eventually("it is attached", || {
        events(&rig, "web").iter().filter(|action| *action == "attach").count() == 2
    });
    deaf.signal(rustix::process::Signal::INT);
    assert_eq!(deaf.finish().status, 130, "the signal is the command's own");
    assert_eq!(rig.ok("docker ps -q").lines().count(), 1);
}

#[test]
fn logs_says_what_is_asked_of_each_line() {
    let Some(rig) = with_busybox() else { return };
    let flags = "--log-opt labels=tier,none --log-opt env=MODE -l tier='a b' -e MODE=x -e OTHER=y";
    rig.ok(&format!("docker run --name web {flags} busybox sh -c 'echo one; echo two >&2; echo three'"));
    assert_eq!(rig.ok("docker logs --tail 1 web"), "three");
    assert_eq!(rig.ok("docker logs --details --tail 1 web"), "MODE=x,tier=a+b three");
    let stamped = rig.ok("docker logs -t --tail 1 web");
    let (stamp, text) = stamped.split_once(' ').expect("a time");
    assert!(stamp.ends_with('Z') && stamp.len() == 30 && text == "three", "{stamped}");
    assert!(rig.ok(&format!("docker logs --since {stamp} web")).ends_with("three"));
    assert_eq!(rig.ok("docker logs --since 1h web"), "one\nthree");
    assert_eq!(rig.ok("docker logs --until 1h web"), "");
    assert_eq!(rig.run("docker logs web").stderr, "two\n");
    rig.ok("docker run --name mute --log-driver none busybox echo seen");
    let complaint = rig.fails("docker logs mute", 1);
    assert!(complaint.contains("configured logging driver does not support reading"), "{complaint}");
}

#[test]
fn exec_takes_its_flags_and_is_told_of() {
    let Some(rig) = with_busybox() else { return };
    rig.ok("docker run -d --name web busybox sleep 600");
    rig.at("").write("variables", "# a comment\nFROM_FILE=1\n");
    assert_eq!(rig.ok("docker exec --env-file variables -e MORE=2 web sh -c 'echo $FROM_FILE $MORE'"), "1 2");
    let capabilities = rig.ok("docker exec --privileged web grep CapEff /proc/self/status");
    assert!(!capabilities.ends_with("00000000a80425fb"), "{capabilities}");
    rig.ok("docker exec -d -w /tmp web sh -c 'pwd >where'");
    rig.eventually("it was done", || rig.run("docker exec web cat /tmp/where").stdout == "/tmp\n");
    assert_eq!(rig.run("docker exec web nosuch").status, 127);
    assert_eq!(rig.run("docker exec web /etc").status, 126);
    let told = events(&rig, "web");
    for action in ["exec_create: nosuch", "exec_start: sh -c pwd >where", "exec_die"] {
        assert!(told.iter().any(|told| told == action), "{action} is not in {told:?}");
    }
    rig.ok("docker pause web");
    assert!(rig.fails("docker exec web true", 1).contains("is paused"));
    rig.ok("docker unpause web");
}

#[test]
fn ps_shows_sizes_when_asked() {
    let Some(rig) = with_busybox() else { return };
    rig.ok("docker run --name web busybox sh -c 'head -c 2000000 /dev/zero >/big'");
    let table = rig.ok("docker ps -a -s");
    assert!(table.lines().next().expect("titles").ends_with("SIZE"), "{table}");
    assert!(table.contains("2MB (virtual "), "{table}");
    assert_eq!(rig.ok("docker ps -l -q").len(), 12);
    assert_eq!(rig.ok("docker ps -n 1 --format '{{.Names}}'"), "web");
    assert_eq!(rig.ok("docker ps -a -q --filter is-task=true"), "");
}

#[test]
fn update_changes_a_container_that_runs_and_what_it_has_the_next_time() {
    let Some(rig) = with_busybox() else { return };
    rig.ok("docker run -d --name web -m 64m --memory-swap 128m busybox sleep 600");
    let flags = "-m 200m --memory-swap 300m --cpus 0.5 --cpu-shares 512 --pids-limit 77 --restart always";
    assert_eq!(rig.ok(&format!("docker update {flags} web")), "web");
    let check = || {
        let host = crate::shown::inspect(&rig, "web")["HostConfig"].clone();
        assert_eq!((&host["Memory"], &host["PidsLimit"]), (&(200 << 20).into(), &77.into()), "{host}");
        assert_eq!(
            (&host["NanoCpus"], &host["RestartPolicy"]["Name"]),
            (&500_000_000.into(), &"always".into())
        );
        let stats = rig.ok("docker stats --no-stream --format '{{.MemUsage}}' web");
        assert!(stats.ends_with(" / 200MiB"), "{stats}");
    };
    check();
    rig.ok("docker restart -t 0 web");
    check();
    assert!(events(&rig, "web").contains(&"update".to_owned()));
    for (flags, part) in [
        ("", "you must provide one or more flags"),
        ("-m 1m", "Minimum memory limit allowed is 6MB"),
        ("-m 400m", "update the memoryswap at the same time"),
        ("--cpu-quota 5000", "CPU Quota cannot be updated as NanoCPUs has already been set"),
        ("--restart bogus", "invalid restart policy 'bogus'"),
    ] {
        let complaint = rig.fails(&format!("docker update {flags} web"), 1);
        assert!(complaint.contains(part), "{complaint}");
    }
    check();
    rig.ok("docker rm -f web");
}
