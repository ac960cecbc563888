//! Containers that are started again, and those that are asked how they are.

use serde_json::Value;

use crate::rig::Rig;
use crate::shown::inspect;

fn with_busybox() -> Option<Rig> {
    let rig = Rig::start()?;
    rig.ok("docker pull -q busybox");
    Some(rig)
}

/// What happened to a container, without its ids and times.
fn events(rig: &Rig, name: &str) -> String {
    let line =
        format!("docker events --since 0 --until 0s --filter container={name} --format '{{{{.Action}}}}'");
    rig.ok(&line).replace('\n', " ")
}

#[test]
fn a_program_that_fails_is_started_again_as_often_as_its_policy_says() {
    let Some(rig) = with_busybox() else { return };
    let first = rig.run("docker run --name failing --restart on-failure:2 busybox sh -c 'echo run; exit 3'");
    assert_eq!(
        (first.status, first.stdout.as_str()),
        (3, "run\n"),
        "run ends with the first run, as docker's"
    );
    assert_eq!(rig.ok("docker wait failing"), "3");
    assert_eq!(rig.ok("docker logs failing"), "run\nrun\nrun");
    let shown = inspect(&rig, "failing");
    assert_eq!((&shown["RestartCount"], &shown["State"]["Status"]), (&2.into(), &"exited".into()));
    let policy = serde_json::json!({ "Name": "on-failure", "MaximumRetryCount": 2 });
    assert_eq!(shown["HostConfig"]["RestartPolicy"], policy);
    assert_eq!(events(&rig, "failing"), "create attach start die start die start die");
    rig.ok("docker run --name fine --restart on-failure busybox true");
    assert_eq!(rig.ok("docker wait fine"), "0");
    assert_eq!(inspect(&rig, "fine")["RestartCount"], 0);
}

#[test]
fn a_container_between_two_runs_says_so_and_can_be_stopped_killed_and_removed() {
    let Some(rig) = with_busybox() else { return };
    for (name, end) in [("one", "stop"), ("two", "kill"), ("three", "rm -f")] {
        // A program that is not there when it is to run again would end it; this one fails for good.
        rig.ok(&format!("docker run -d --name {name} --restart always busybox sh -c 'exit 4'"));
        rig.eventually("it waits", || inspect(&rig, name)["State"]["Restarting"] == true);
        let state = inspect(&rig, name)["State"].clone();
        // Between two looks it may have run once more.
        assert!(["restarting", "running"].contains(&state["Status"].as_str().expect("a word")), "{state}");
        assert!(rig.ok("docker ps").contains(name), "it counts as running");
        assert_eq!(rig.ok(&format!("docker {end} {name}")), name);
    }
    for name in ["one", "two"] {
        rig.eventually("it is over", || inspect(&rig, name)["State"]["Status"] == "exited");
        assert_eq!(inspect(&rig, name)["State"]["ExitCode"], 4);
        rig.ok(&format!("docker rm {name}"));
    }
    assert_eq!(rig.ok("docker ps -aq"), "");
}

#[test]
fn only_who_is_not_stopped_by_a_user_comes_back() {
    let Some(rig) = with_busybox() else { return };
    let script = "trap 'exit 9' USR1; while :; do sleep 0.1; done";
    rig.ok(&format!("docker run -d --name web --restart unless-stopped busybox sh -c \"{script}\""));
    let pid = |rig: &Rig| inspect(rig, "web")["State"]["Pid"].as_i64().expect("a number");
    let first = pid(&rig);
    rig.ok(&format!("kill -9 {first}"));
    rig.eventually("it is back", || ![0, first].contains(&pid(&rig)));
    assert_eq!(inspect(&rig, "web")["RestartCount"], 1);
    rig.ok("docker kill -s USR1 web");
    rig.ok("docker wait web");
    assert_eq!(
        inspect(&rig, "web")["State"]["ExitCode"],
        9,
        "docker's kill means the end whatever the signal"
    );
    rig.ok("docker start web");
    assert_eq!(inspect(&rig, "web")["RestartCount"], 0, "a user's start counts anew");
    rig.ok("docker stop -t 0 web");
    assert_eq!(inspect(&rig, "web")["State"]["Status"], "exited");
}

#[test]
fn a_policy_that_is_none_is_refused_in_docker_s_words() {
    let Some(rig) = with_busybox() else { return };
    for (flags, part) in [
        ("--restart bogus", "invalid restart policy 'bogus'"),
        ("--restart on-failure:x", "maximum retry count must be an integer"),
        ("--restart always:3", "maximum retry count cannot be used with restart policy 'always'"),
        ("--restart always --rm", "conflicting options: cannot specify both --restart and --rm"),
        ("--no-healthcheck --health-cmd x", "--no-healthcheck conflicts with --health-* options"),
        ("--health-cmd x --health-interval 1us", "Interval in Healthcheck cannot be less than 1ms"),
        ("--health-cmd x --health-retries -1", "--health-retries cannot be negative"),
    ] {
        let complaint = rig.fails(&format!("docker run {flags} busybox true"), 125);
        assert!(complaint.contains(part), "{complaint}");
    }
    assert_eq!(rig.ok("docker ps -aq"), "");
}

#[test]
fn health_is_asked_shown_filtered_and_told() {
    let Some(rig) = with_busybox() else { return };
    let script = "trap 'rm /well' USR1; touch /well; while :; do sleep 0.1; done";
    rig.ok(&format!(
        "docker run -d --name web --health-cmd 'echo asked; test -e /well' --health-interval 300ms \
         --health-retries 2 busybox sh -c \"{script}\""
    ));
    assert!(rig.ok("docker ps").contains("(health: starting)") || rig.ok("docker ps").contains("(healthy)"));
    let health = |rig: &Rig| -> Value { inspect(rig, "web")["State"]["Health"].clone() };
    rig.eventually("it is well", || health(&rig)["Status"] == "healthy");
    assert!(rig.ok("docker ps").contains("(healthy)"));
    assert_eq!(
        rig.ok("docker ps --filter health=healthy --format '{{.Names}} {{.HealthStatus}}'"),
        "web healthy"
    );
    assert_eq!(rig.ok("docker ps -q --filter health=unhealthy"), "");
    rig.ok("docker exec web sh -c 'kill -USR1 1'");
    rig.eventually("it is ill", || health(&rig)["Status"] == "unhealthy");
    assert!(rig.ok("docker ps").contains("(unhealthy)"));
    rig.eventually("five probes are remembered", || health(&rig)["Log"].as_array().map_or(0, Vec::len) == 5);
    let probe = health(&rig)["Log"][4].clone();
    assert_eq!((&probe["ExitCode"], &probe["Output"]), (&1.into(), &"asked\n".into()));
    let told = events(&rig, "web");
    assert!(told.contains("health_status: healthy") && told.contains("health_status: unhealthy"), "{told}");
    rig.ok("docker rm -f web");
}

#[test]
fn a_health_check_of_the_image_is_run_unless_it_is_not_wanted() {
    let Some(rig) = with_busybox() else { return };
    let dockerfile = "FROM busybox\nHEALTHCHECK --interval=200ms --retries=1 CMD exit 1\nCMD sleep 600\n";
    rig.context("ill", &[("Dockerfile", dockerfile)]).ok("docker build -q -t ill .");
    rig.ok("docker run -d --name one ill");
    rig.eventually("it is ill", || inspect(&rig, "one")["State"]["Health"]["Status"] == "unhealthy");
    rig.ok("docker run -d --name two --no-healthcheck ill");
    assert_eq!(inspect(&rig, "two")["State"]["Health"], Value::Null);
    assert_eq!(rig.ok("docker ps -a --filter health=none --format '{{.Names}}'"), "two");
}

/// Does to a rig what a reboot does: its shims are gone, and with them its run-time folder.
fn reboot(rig: &Rig) {
    for name in rig.ok("docker ps --format '{{.Names}}'").lines() {
        let pid = inspect(rig, name)["State"]["Pid"].as_i64().expect("a number");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("the name is in brackets");
        let shim = fields.split_whitespace().nth(1).expect("a parent").to_owned();
        rig.ok(&format!("kill -9 {shim}"));
        rig.eventually("the container is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
    std::fs::remove_dir_all(rig.path("run/containers")).expect("it was there");
}

#[test]
fn after_a_reboot_records_tell_the_truth_and_containers_come_back_that_are_to() {
    let Some(rig) = with_busybox() else { return };
    for (name, policy) in
        [("plain", "no"), ("always", "always"), ("stopped", "unless-stopped"), ("unless", "unless-stopped")]
    {
        rig.ok(&format!("docker run -d --name {name} --restart {policy} busybox sleep 600"));
    }
    rig.ok("docker stop -t 0 stopped");
    rig.ok("docker create --name never --restart always busybox sleep 600");
    reboot(&rig);
    for name in ["plain", "always", "unless"] {
        let state = inspect(&rig, name)["State"].clone();
        assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &255.into()), "{state}");
        assert_eq!((&state["Pid"], &state["Running"]), (&0.into(), &false.into()));
    }
    assert_eq!(rig.ok("docker ps -q"), "");
    assert_eq!(rig.ok("dhow system start"), "always\nunless");
    assert_eq!(rig.ok("docker ps --format '{{.Names}}'"), "unless\nalways");
    assert_eq!(rig.ok("dhow system start"), "", "they run");
    let stopped = rig.ok("dhow system stop -t 0");
    assert_eq!(stopped.lines().count(), 2, "{stopped}");
    assert_eq!(rig.ok("docker ps -q"), "");
    assert_eq!(rig.ok("dhow system start"), "always\nunless", "a host that goes down is no user who stops");
}
