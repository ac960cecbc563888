//! What happens, what it takes, and what can go: events, system df, prune, info, version.

use serde_json::Value;

use crate::rig::Rig;
use crate::shown::{cells, inspect};

/// What `docker events` says of what has been, one line for each: kind, action and name.
fn events(rig: &Rig, options: &str) -> Vec<String> {
    let format = "'{{.Type}} {{.Action}} {{.Actor.Attributes.name}}'";
    let said = rig.ok(&format!("docker events --until 0s {options} --format {format}"));
    said.lines().map(str::to_owned).collect()
}

#[test]
fn everything_that_happens_is_told_once() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q busybox");
    rig.ok("docker tag busybox me/box:1");
    let id = inspect(&rig, "busybox")["Id"].as_str().expect("an ID").to_owned();
    rig.ok("docker save -o box.tar me/box:1");
    rig.ok("docker rmi me/box:1");
    rig.ok("docker load -q -i box.tar");
    let expected = [
        "pull busybox",
        "tag me/box:1",
        &format!("save {id}"),
        &format!("untag {id}"),
        &format!("load {id}"),
    ]
    .map(|event| format!("image {event}"));
    assert_eq!(events(&rig, "--since 1h"), expected);

    rig.ok("docker run --rm --name once --label a=b busybox true");
    rig.fails("docker run --name failed busybox sh -c 'exit 3'", 3);
    rig.ok("docker rm failed");
    let mut told = events(&rig, "--since 1h --filter container=once");
    assert_eq!(
        told,
        ["create", "attach", "start", "die", "destroy"].map(|event| format!("container {event} once"))
    );
    assert_eq!(events(&rig, "--since 1h --filter label=a=b"), told);
    told = events(&rig, "--since 1h --filter image=busybox --filter event=die --filter event=pull");
    assert_eq!(told, ["image pull busybox", "container die once", "container die failed"]);
    let json = rig
        .ok("docker events --since 1h --until 0s --filter event=die --filter container=failed --format json");
    let event: Value = serde_json::from_str(&json).expect("one event as JSON");
    assert_eq!(event["Actor"]["Attributes"]["exitCode"], "3");
    assert_eq!(
        (&event["Type"], &event["status"], &event["from"]),
        (&"container".into(), &"die".into(), &"busybox".into())
    );
    assert!(
        event["timeNano"].as_i64().expect("a time") / 1_000_000_000
            == event["time"].as_i64().expect("a time")
    );
    let text = rig.ok("docker events --since 1h --until 0s --filter type=image --filter event=pull");
    assert!(text.contains(" image pull busybox:latest (") && text.contains("name=busybox"), "{text}");
    let complaint = rig.fails("docker events --filter colour=red --until 0s", 1);
    assert!(complaint.contains("invalid filter 'colour'"), "{complaint}");
}

#[test]
fn who_follows_sees_what_other_processes_do() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q hello-world");
    let following =
        rig.spawn("docker events --filter type=image --format '{{.Action}} {{.Actor.Attributes.name}}'");
    // Until it listens nothing is told: tag until something comes.
    let mut tags = 0;
    rig.eventually("an event is told", || {
        tags += 1;
        rig.ok(&format!("docker tag hello-world me/tag:{tags}"));
        following.said().contains("tag me/tag:")
    });
    rig.ok("docker rmi me/tag:1");
    rig.eventually("the name that went is told", || following.said().contains("untag sha256:"));
    following.signal(rustix::process::Signal::INT);
    assert_eq!(following.finish().status, 130);
}

#[test]
fn what_is_not_used_is_measured_and_removed() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q busybox");
    rig.ok("docker pull -q hello-world");
    rig.ok("docker run --name stopped -v /data busybox sh -c 'head -c 100000 /dev/zero >/file; head -c 5000 /dev/zero >/data/file'");
    let rows = |options: &str| -> Vec<Vec<String>> {
        let table = rig.ok(&format!("docker system df {options}"));
        table.lines().map(|line| cells(line).into_iter().map(str::to_owned).collect()).collect()
    };
    let df = rows("");
    assert_eq!(df[0], ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    assert_eq!(df[1][..3], ["Images", "2", "1"]);
    assert_eq!(df[2], ["Containers", "1", "0", "100kB", "100kB (100%)"]);
    assert_eq!(df[3], ["Local Volumes", "1", "1", "5kB", "0B (0%)"]);
    assert_eq!(df[4][..2], ["Build Cache", "0"]);
    // What the images take is what lies there.
    let blobs: u64 = rig
        .ok("find ../root/blobs ../root/snapshots -type f -printf '%s\\n'")
        .lines()
        .map(|size| size.parse::<u64>().expect("a size"))
        .sum();
    let containers = 100_000;
    let shown = dhow_size(&df[1][3]);
    let actual = (blobs - containers) as f64;
    assert!((shown - actual).abs() / actual < 0.02, "{shown} is shown, {actual} is there");
    let verbose = rig.ok("docker system df -v");
    for title in [
        "Images space usage:",
        "Containers space usage:",
        "Local Volumes space usage:",
        "Build cache usage: 0B",
    ] {
        assert!(verbose.contains(title), "{title}");
    }
    let json: Value = serde_json::from_str(&rig.ok("docker system df -v --format json")).expect("JSON");
    assert_eq!(json["Containers"][0]["Names"], "stopped");
    assert_eq!(json["Volumes"][0]["Links"], "1");

    let asked = rig.run("docker system prune -a --volumes");
    assert!(
        asked.stdout.contains("  - all anonymous volumes not used by at least one container\n"),
        "{}",
        asked.both()
    );
    assert_eq!(rig.ok("docker images -q").lines().count(), 2, "nobody said yes");
    rig.ok("docker system prune -f --filter label=nobody");
    assert_eq!(rig.ok("docker ps -aq").lines().count(), 1);
    let id = rig.ok("docker ps -aq --no-trunc");
    let said = rig.ok("docker system prune -af --volumes");
    assert!(said.contains(&format!("Deleted Containers:\n{id}\n")), "{said}");
    assert!(said.contains("untagged: hello-world:latest"), "{said}");
    assert!(said.contains("Total reclaimed space: "), "{said}");
    assert_eq!(rig.ok("docker images -aq") + &rig.ok("docker ps -aq"), "");
    for row in &rows("")[1..] {
        assert_eq!((row[1].as_str(), row[3].as_str()), ("0", "0B"), "{row:?}");
    }
    rig.ok("docker system check");
}

/// Bytes of a size as docker shows it.
fn dhow_size(text: &str) -> f64 {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => panic!("{other} is no unit"),
    };
    number.parse::<f64>().expect("a number") * unit
}

#[test]
fn info_and_version_answer_templates() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q hello-world");
    rig.ok("docker run --name done hello-world");
    let info = rig.ok("docker info");
    for line in [" Containers: 1\n", "  Stopped: 1\n", " Images: 1\n", " Storage Driver: overlay2\n"] {
        assert!(info.contains(line), "{line}{info}");
    }
    assert_eq!(
        rig.ok("docker system info --format '{{.ContainersStopped}} {{.Driver}} {{.OSType}}'"),
        "1 overlay2 linux"
    );
    assert_eq!(rig.ok("docker info -f '{{.DockerRootDir}}'"), rig.path("root").display().to_string());
    let version = rig.ok("docker version --format '{{.Server.Version}} {{.Client.Version}}'");
    let (server, client) = version.split_once(' ').expect("two versions");
    assert_eq!(server, client);
    assert!(rig.ok("docker version").contains(&format!(" Version:           {client}\n")));
    let json: Value = serde_json::from_str(&rig.ok("docker version -f json")).expect("JSON");
    assert_eq!(json["Server"]["Os"], "linux");
}

/// Bytes of all files below a folder, each once however many names it has.
fn file_bytes(folder: &std::path::Path) -> u64 {
    let line = format!("find {} -type f -printf '%i %s\\n'", folder.display());
    let listed = std::process::Command::new("sh").args(["-c", &line]).output().expect("find is there");
    let listed = String::from_utf8(listed.stdout).expect("numbers");
    let inodes: std::collections::BTreeMap<&str, u64> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(inode, bytes)| (inode, bytes.parse().expect("a number")))
        .collect();
    inodes.values().sum()
}

#[test]
fn system_df_says_what_the_files_take() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    rig.ok("docker pull -q python:3.9-slim");
    rig.ok("docker run --name box --network none alpine sh -c 'head -c 300000 /dev/zero > /zeros'");
    rig.ok("docker commit box kept");
    let context = [("Dockerfile", "FROM alpine\nRUN head -c 200000 /dev/zero > /more\n")];
    rig.context("app", &context).ok("docker build -q -t app .");
    let shown = rig.ok("docker system df --format '{{.Size}}'");
    let bytes = |text: &str| -> f64 {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').expect("a unit");
        let unit = match &text[end..] {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            other => panic!("{other} in {text}"),
        };
        text[..end].parse::<f64>().expect("a number") * unit
    };
    let shown: f64 = shown.lines().map(bytes).sum();
    let taken = (file_bytes(&rig.path("root/blobs")) + file_bytes(&rig.path("root/snapshots"))) as f64;
    // It is shown with four digits.
    assert!((shown - taken).abs() / taken < 0.001, "{shown} is shown and {taken} taken");
}
