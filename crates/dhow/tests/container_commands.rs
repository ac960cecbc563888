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
