//! What Debian's docker and dhow say of the same container for the same commands.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rig::{Dockerd, Normal, Rig};

/// Fields that one of them has alone, each for a reason.
const APART: &[&str] = &[
    // Docker dropped these since Debian's version.
    "HostConfig.KernelMemory",
    "HostConfig.KernelMemoryTCP",
    "NetworkSettings.HairpinMode",
    "NetworkSettings.LinkLocalIPv6Address",
    "NetworkSettings.LinkLocalIPv6PrefixLen",
    "NetworkSettings.SecondaryIPAddresses",
    "NetworkSettings.SecondaryIPv6Addresses",
    // Docker has these since Debian's version.
    "NetworkSettings.Networks.none.DNSNames",
    "NetworkSettings.Networks.none.GwPriority",
    "State.Health.Log",
    // What dhow has no answer to yet.
    "GraphDriver",
    "HostConfig.MaskedPaths",
    "HostConfig.ReadonlyPaths",
];

/// Fields that are to have one value in both.
const ALIKE: &[&str] = &[
    "/Path",
    "/Args",
    "/Name",
    "/RestartCount",
    "/State/Status",
    "/State/Running",
    "/State/Paused",
    "/State/Restarting",
    "/State/OOMKilled",
    "/State/Dead",
    "/State/ExitCode",
    "/State/Error",
    "/HostConfig/RestartPolicy",
    "/HostConfig/LogConfig",
    "/HostConfig/AutoRemove",
    "/HostConfig/Memory",
    "/HostConfig/NanoCpus",
    "/HostConfig/PidsLimit",
    "/HostConfig/ExtraHosts",
    "/HostConfig/Ulimits",
    "/HostConfig/NetworkMode",
    "/Config/Cmd",
    "/Config/Healthcheck",
    "/Config/Labels",
    "/Config/StopSignal",
    "/Config/StopTimeout",
    "/Config/WorkingDir",
    "/Config/User",
];

/// Lines after which both are to have said the same, but for who says so, and ended with the same status.
const LINES: &[&str] = &[
    "stop nosuch",
    "restart nosuch",
    "pause nosuch",
    "unpause one",
    "wait nosuch",
    "logs nosuch",
    "port nosuch",
    "port one 80",
    "top nosuch",
    "rm nosuch",
    "attach nosuch",
    "exec nosuch true",
    "update one",
    "update --restart always:3 one",
    "inspect nosuch",
    "pause one",
    "pause one",
    "unpause one",
    "kill -s BOGUS one",
    "stop -t 0 one",
    "wait one",
    "pause one",
    "attach one",
    "ps -a --format '{{.Names}} {{.State}}'",
    "start one",
    "ps --format '{{.Names}} {{.State}}' --filter name=one",
    "rename one two",
    "kill two",
    "wait two",
    "rm two",
];

#[test]
fn a_container_is_shown_and_handled_as_by_docker() {
    let Some(rig) = Rig::start() else { return };
    let Some(dockerd) = Dockerd::start(&rig) else { return };
    rig.ok("docker pull -q busybox");
    rig.ok("docker save -o busybox.tar busybox");
    rig.ok(&dockerd.line("load -q -i busybox.tar"));
    let flags = "-d --name one --network none -e A=1 -l x=y -w /tmp --health-cmd true --health-interval 1h -m 64m \
                 --cpus 0.5 --restart on-failure:3 --log-opt max-size=10m --stop-timeout 3 --stop-signal INT";
    let run = format!("run {flags} busybox sleep 600");
    rig.ok(&dockerd.line(&run));
    rig.ok(&format!("docker {run}"));
    let shown =
        |line: &str| -> Value { serde_json::from_str::<Value>(&rig.ok(line)).expect("JSON")[0].clone() };
    let (theirs, ours) = (shown(&dockerd.line("inspect one")), shown("docker inspect one"));
    let (their_fields, our_fields) = (fields(&theirs), fields(&ours));
    let apart: Vec<&String> = their_fields
        .symmetric_difference(&our_fields)
        .filter(|name| !APART.iter().any(|known| name.starts_with(known)))
        .collect();
    assert!(apart.is_empty(), "fields that only one of them has: {apart:?}");
    let mut differences = Vec::new();
    for name in ALIKE.iter().filter(|name| ours.pointer(name) != theirs.pointer(name)) {
        differences.push(format!("{name}: {:?} is to be {:?}", ours.pointer(name), theirs.pointer(name)));
    }
    for line in LINES {
        let (theirs, ours) = (rig.run(&dockerd.line(line)), rig.run(&format!("docker {line}")));
        let (theirs, ours) = [theirs, ours].map(|said| (said.status, plain(&said.both()))).into();
        if ours != theirs {
            differences.push(format!("{line}: {ours:?} is to be {theirs:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The names of all fields, with those above them. What depends on the container is no name.
fn fields(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, above: &str, names: &mut BTreeSet<String>) {
        let Value::Object(fields) = value else { return };
        for (name, value) in fields {
            let name = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            if !["Config.Labels", "HostConfig.LogConfig.Config"].contains(&above) {
                walk(value, &name, names);
                names.insert(name);
            }
        }
    }
    let mut names = BTreeSet::new();
    walk(value, "", &mut names);
    names
}

/// What is said, without who says it: docker tells that its daemon does.
fn plain(text: &str) -> String {
    let text = Normal::default().text(text);
    let strip = |line: &str| {
        let line = line.strip_prefix("Error response from daemon: ").unwrap_or(line);
        line.strip_prefix("Error: ").unwrap_or(line).to_owned()
    };
    let mut lines: Vec<String> = text.lines().map(strip).collect();
    lines.retain(|line| !line.is_empty());
    lines.join("\n")
}
