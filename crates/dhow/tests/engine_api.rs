//! Docker's own client through `dhow serve`.

use serde_json::Value;

use crate::rig::{Api, Rig};

/// What is asked of the socket without docker's client, and what it says.
fn ask(rig: &Rig, api: &Api, request: &str) -> String {
    rig.ok(&format!("curl --silent --unix-socket {} {request}", api.socket.display()))
}

#[test]
fn images_are_pulled_listed_tagged_saved_and_removed() {
    let Some(rig) = Rig::start() else { return };
    let Some(api) = Api::start(&rig) else { return };
    let docker = |line: &str| rig.ok(&api.line(line));
    let said = docker("pull busybox");
    assert!(said.contains("Status: Downloaded newer image for busybox:latest"), "{said}");
    assert!(docker("pull busybox").contains("Status: Image is up to date for busybox:latest"));
    docker("tag busybox me/x:1");
    // Names of one image have no order.
    let sorted = |text: String| -> Vec<String> {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let format = "--format '{{.Repository}}:{{.Tag}} {{.Size}}'";
    assert_eq!(sorted(docker(&format!("images {format}"))), sorted(rig.ok(&format!("dhow images {format}"))));
    assert_eq!(
        docker("history --format '{{.CreatedBy}}' busybox"),
        rig.ok("dhow history --format '{{.CreatedBy}}' busybox")
    );
    let inspect = |line: &str| -> Value { serde_json::from_str(&rig.ok(line)).expect("JSON") };
    assert_eq!(inspect(&api.line("image inspect busybox")), inspect("dhow image inspect busybox"));
    docker("save -o saved.tar me/x:1");
    assert_eq!(docker("rmi me/x:1"), "Untagged: me/x:1");
    assert_eq!(docker("load -i saved.tar"), "Loaded image: me/x:1");
    assert!(rig.fails(&api.line("rmi nosuch"), 1).contains("No such image: nosuch"));
    let names = "--format '{{.Name}}'";
    assert_eq!(docker(&format!("search {names} python")), rig.ok(&format!("dhow search {names} python")));
    let name = format!("{}/api/pushed:1", rig.registry());
    docker(&format!("tag busybox {name}"));
    let pushed = docker(&format!("push {name}"));
    assert!(pushed.contains("1: digest: sha256:"), "{pushed}");
    rig.ok("dhow system check");
}

#[test]
fn containers_run_talk_and_end_as_on_dockerd() {
    let Some(rig) = Rig::start() else { return };
    let Some(api) = Api::start(&rig) else { return };
    let docker = |line: &str| rig.ok(&api.line(line));
    docker("pull -q busybox");
    assert_eq!(docker("run --rm busybox echo hello"), "hello");
    let run = rig.run(&api.line("run --rm busybox sh -c 'echo out; echo err >&2; exit 3'"));
    assert_eq!((run.status, run.stdout.trim(), run.stderr.trim()), (3, "out", "err"));
    assert_eq!(rig.ok(&format!("sh -c 'echo piped | {}'", api.line("run -i --rm busybox cat"))), "piped");
    docker("run -d --name web busybox sh -c 'echo started; exec sleep 1000'");
    rig.eventually("it has started", || docker("logs web") == "started");
    assert_eq!(docker("ps --format '{{.Names}} {{.State}}'"), "web running");
    assert_eq!(docker("exec web echo from exec"), "from exec");
    assert_eq!(rig.ok(&format!("sh -c 'echo input | {}'", api.line("exec -i web cat"))), "input");
    rig.fails(&api.line("exec web sh -c 'exit 7'"), 7);
    docker("pause web");
    assert!(rig.fails(&api.line("exec web true"), 1).contains("is paused"));
    docker("unpause web");
    docker("rename web other");
    assert!(docker("commit other me/kept:1").starts_with("sha256:"));
    assert!(
        rig.fails(&api.line("rm other"), 1).contains("stop the container before removing or force remove")
    );
    let waiter = rig.spawn(&api.line("wait other"));
    docker("kill other");
    assert_eq!(waiter.finish().stdout.trim(), "137");
    assert_eq!(docker("rm other"), "other");
    assert!(rig.fails(&api.line("start nosuch"), 1).contains("No such container: nosuch"));
    let missing = rig.run(&api.line("run --name lost busybox nosuchprogram"));
    assert!(missing.status == 127 && missing.stderr.contains("executable file not found"), "{missing:?}");
}

#[test]
fn nothing_that_runs_is_lost_with_the_server() {
    let Some(rig) = Rig::start() else { return };
    let Some(api) = Api::start(&rig) else { return };
    rig.ok(&api.line("pull -q busybox"));
    rig.ok(&api.line("run -d --name kept busybox sh -c 'while :; do echo tick; sleep 0.1; done'"));
    let followed = rig.spawn(&api.line("logs -f kept"));
    let attached = rig.spawn(&api.line("attach kept"));
    rig.eventually("it ticks", || rig.ok("dhow logs kept").contains("tick"));
    api.kill();
    followed.finish();
    attached.finish();
    assert_eq!(rig.ok("dhow ps --format '{{.Names}} {{.State}}'"), "kept running");
    let Some(again) = Api::start(&rig) else { return };
    assert_eq!(rig.ok(&again.line("ps --format '{{.Names}} {{.State}}'")), "kept running");
    rig.ok(&again.line("rm -f kept"));
}

#[test]
fn what_is_no_request_is_told_so() {
    let Some(rig) = Rig::start() else { return };
    let Some(api) = Api::start(&rig) else { return };
    let message = |request: &str| -> String {
        let said: Value = serde_json::from_str(&ask(&rig, &api, request)).expect("errors are JSON");
        said["message"].as_str().expect("a message").to_owned()
    };
    assert!(message("http://x/v1.99/info").contains("Maximum supported API version is"));
    assert!(message("http://x/v1.2/info").contains("is too old"));
    assert_eq!(message("http://x/nowhere"), "page not found");
    assert!(message("http://x/swarm").contains("not a swarm manager"));
    assert!(message("http://x/containers/..%2f..%2fetc/json").contains("No such container"));
    assert!(message("http://x/images/json?filters=%5B").contains("invalid filter"));
    for body in ["{", "[]", "{\"Image\":1}", "{\"HostConfig\":{\"Binds\":1}}"] {
        assert!(
            message(&format!("-d '{body}' http://x/containers/create")).contains("invalid JSON"),
            "{body}"
        );
    }
    assert_eq!(ask(&rig, &api, "http://x/_ping"), "OK");
}
