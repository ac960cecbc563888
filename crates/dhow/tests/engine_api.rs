//! Docker's own client through `dhow serve`.

use serde_json::Value;

use crate::rig::{Api, Rig, has_tool, skip};

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

const COMPOSE: &str = r#"version: "3"
services:
  web:
    image: busybox
    command: sh -c "echo hello from web; exec sleep 1000"
    ports: ["0:80"]
    depends_on: [db]
  db:
    image: busybox
    command: sh -c "echo hello from db; exec sleep 1000"
    volumes: ["data:/data"]
volumes:
  data: {}
"#;

#[test]
fn compose_brings_up_services_that_find_each_other_and_takes_them_down() {
    let Some(rig) = Rig::start() else { return };
    let Some(api) = Api::start(&rig) else { return };
    if !has_tool("docker-compose") {
        return;
    }
    rig.ok("dhow pull -q busybox");
    // Names of projects become names of networks, which all tests share.
    let project = format!("rig{}", std::process::id());
    let app = rig.context("app", &[("docker-compose.yml", COMPOSE)]);
    let host = format!("env DOCKER_HOST=unix://{}", api.socket.display());
    let compose = |line: &str| app.ok(&format!("{host} docker-compose --ansi never -p {project} {line}"));
    compose("up -d");
    rig.eventually("both say hello", || {
        let said = compose("logs");
        said.contains("hello from web") && said.contains("hello from db")
    });
    let listed = compose("ps");
    assert_eq!(listed.matches(" Up ").count(), 2, "{listed}");
    assert!(compose("exec -T web ping -c1 -W5 db").contains("1 packets received"));
    compose("down -v -t 0");
    assert_eq!(rig.ok("dhow ps -aq"), "");
    assert_eq!(rig.ok("dhow volume ls -q"), "");
    assert_eq!(rig.ok(&format!("dhow network ls -q --filter name={project}")), "");
}

const PYTHON: &str = r#"
import docker, io, tarfile
client = docker.from_env()
assert client.ping()
client.images.pull('busybox', tag='latest')
assert client.containers.run('busybox', 'echo from python', remove=True) == b'from python\n'
network = client.networks.create('NAME', driver='bridge')
volume = client.volumes.create('data')
held = client.containers.run('busybox', 'sh -c "echo held; exec sleep 1000"', detach=True, name='held', network='NAME',
                             volumes={'data': {'bind': '/data', 'mode': 'rw'}}, labels={'a': 'b'})
code, output = held.exec_run('echo exec')
assert (code, output) == (0, b'exec\n'), (code, output)
for line in held.logs(stream=True, follow=True):
    assert line == b'held\n', line
    break
assert [c.name for c in client.containers.list(filters={'label': 'a=b'})] == ['held']
assert held.attrs['NetworkSettings']['Networks'].keys() == {'NAME'}
held.pause(); held.reload(); assert held.status == 'paused'; held.unpause()
image = held.commit('me/by-python', 'x')
assert 'me/by-python:x' in image.tags
events = client.events(decode=True, filters={'event': 'die'})
held.kill()
assert next(events)['Actor']['Attributes']['exitCode'] == '137'
assert held.wait()['StatusCode'] == 137
try:
    client.containers.get('nosuch')
    raise SystemExit('it was found')
except docker.errors.NotFound:
    pass
held.remove(); network.remove(); volume.remove()
print('done')
"#;

#[test]
fn docker_py_does_what_it_does_on_dockerd() {
    let Some(rig) = Rig::start() else { return };
    let Some(api) = Api::start(&rig) else { return };
    if rig.run("python3 -c 'import docker'").status != 0 {
        let _: Option<()> = skip("python3-docker is not installed");
        return;
    }
    let script = PYTHON.replace("NAME", &format!("py{}", std::process::id()));
    rig.at("").write("story.py", &script);
    let said = rig.ok(&format!("env DOCKER_HOST=unix://{} python3 story.py", api.socket.display()));
    assert_eq!(said, "done");
}

#[test]
fn a_build_says_what_dockers_first_builder_said_and_shares_dhows_cache() {
    let Some(rig) = Rig::start() else { return };
    let Some(api) = Api::start(&rig) else { return };
    rig.ok("dhow pull -q busybox");
    let app = rig.context(
        "app",
        &[
            (
                "Dockerfile",
                "FROM busybox\nARG V=1\nCOPY hello /\nRUN echo built $V\nCMD [\"cat\", \"/hello\"]\n",
            ),
            ("hello", "hello\n"),
        ],
    );
    let line = |line: &str| format!("env DOCKER_BUILDKIT=0 {}", api.line(line));
    let said = app.ok(&line("build -t me/app:1 --build-arg V=2 --label a=b ."));
    for part in
        ["Step 1/5 : FROM busybox", "Step 4/5 : RUN echo built $V", "built 2", "Successfully tagged me/app:1"]
    {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    assert_eq!(rig.ok("dhow run --rm me/app:1"), "hello");
    assert_eq!(rig.ok("dhow image inspect --format '{{.Config.Labels.a}}' me/app:1"), "b");
    let again = app.ok(&line("build -t me/app:1 --build-arg V=2 --label a=b ."));
    assert_eq!(again.matches("Using cache").count(), 4, "{again}");
    let quiet = app.ok(&line("build -q ."));
    assert!(quiet.starts_with("sha256:"), "{quiet}");
    app.write("Bad", "FROM busybox\nRUN exit 3\n");
    let failed = app.fails(&line("build -f Bad ."), 1);
    assert!(failed.contains("exit 3"), "{failed}");
    assert!(app.fails(&line("build -f Missing ."), 1).contains("Missing"));
    // From standard input there is a Dockerfile, or an archive.
    let sent = app.ok(&format!("sh -c 'tar c . | {}'", line("build -q -")));
    assert!(sent.starts_with("sha256:"), "{sent}");
}

#[test]
fn files_go_in_and_out_and_what_changed_is_told() {
    let Some(rig) = Rig::start() else { return };
    let Some(api) = Api::start(&rig) else { return };
    rig.ok("dhow pull -q busybox");
    rig.ok("dhow run -d --name held busybox sh -c 'mkdir /made; echo in >/made/file; exec sleep 1000'");
    rig.eventually("the file is there", || rig.run("dhow exec held cat /made/file").status == 0);
    rig.ok(&api.line("cp held:/made out"));
    assert_eq!(rig.ok("cat out/file"), "in");
    rig.at("").write("given", "given\n");
    rig.ok(&api.line("cp given held:/made/given"));
    assert_eq!(rig.ok("dhow exec held cat /made/given"), "given");
    assert!(rig.fails(&api.line("cp held:/nosuch out"), 1).contains("nosuch"));
    assert_eq!(rig.ok(&api.line("diff held")), rig.ok("dhow diff held"));
    rig.ok(&api.line("update --memory 64m --memory-swap 64m held"));
    assert_eq!(rig.ok("dhow inspect --format '{{.HostConfig.Memory}}' held"), "67108864");
    let used = rig.ok(&api.line("stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}' held"));
    assert!(used.starts_with("held 1 ") && used.ends_with("/ 64MiB"), "{used}");
    assert!(rig.ok(&api.line("top held")).contains("sleep 1000"));
    rig.ok(&api.line("rm -f held"));
}
