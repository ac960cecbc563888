//! What dhow remembers of builds, and what it says about them.

use rustix::process::Signal;

use crate::rig::{Rig, Shell};

/// A step that prints on both streams, and one whose program reads a file.
fn talkative(rig: &Rig) -> Shell<'_> {
    let dockerfile = "FROM alpine\nRUN echo to-stdout; printf no-line-end\nRUN echo to-stderr >&2\nCOPY app.txt /\nCMD [\"cat\", \"/app.txt\"]\n";
    rig.context("app", &[("Dockerfile", dockerfile), ("app.txt", "1\n"), (".dockerignore", "Dockerfile\n")])
}

fn json(rig: &Rig, line: &str) -> serde_json::Value {
    serde_json::from_str(&rig.ok(line)).expect("JSON")
}

/// What became of the steps of a build.
fn outcomes(rig: &Rig, build: &str) -> Vec<String> {
    let inspected = json(rig, &format!("docker builder history inspect {build} --format json"));
    let steps = inspected["Steps"].as_array().expect("steps").iter();
    steps.map(|step| step["Status"].as_str().expect("a status").to_owned()).collect()
}

#[test]
fn a_build_under_way_is_listed_and_one_that_was_killed_is_told() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile = "FROM alpine\nRUN echo made > /made\nRUN echo step-$((1+2)); sleep 600\nCMD [\"x\"]\n";
    let app = rig.context("app", &[("Dockerfile", dockerfile)]);
    let mut build = app.spawn("dhow build --progress=plain -t app .");
    build.wait_for("step-3");
    let listed = |format: &str| rig.ok(&format!("dhow builder history ls --format '{format}'"));
    assert_eq!(listed("{{.Name}} {{.Status}} {{.CompletedSteps}}/{{.TotalSteps}}"), "app:latest Running 2/4");
    let id = listed("{{.Ref}}");
    assert_eq!(outcomes(&rig, &id), ["CACHED", "DONE", "RUNNING", "-"]);

    build.signal(Signal::KILL);
    build.finish();
    assert_eq!(listed("{{.Ref}} {{.Status}} {{.Duration}}|{{.CompletedAt}}|"), format!("{id} Killed ||"));
    assert_eq!(outcomes(&rig, &id), ["CACHED", "DONE", "CANCELED", "-"]);
    assert_eq!(rig.ok("dhow builder history ls --filter status=killed --format '{{.Ref}}'"), id);

    // What is under way is not what `the latest` means.
    let mut build = app.spawn("dhow build --progress=plain .");
    build.wait_for("step-3");
    assert_eq!(outcomes(&rig, ""), ["CACHED", "DONE", "CANCELED", "-"]);
    assert!(listed("{{.Status}}").starts_with("Running\nKilled"));
    drop(build);
}

#[test]
fn a_build_that_is_stopped_is_canceled() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile = "FROM alpine\nRUN echo made > /made\nRUN echo step-$((1+2)); sleep 600\n";
    let app = rig.context("app", &[("Dockerfile", dockerfile)]);
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut build = app.spawn("dhow build --progress=plain -t app .");
        build.wait_for("step-3");
        build.signal(signal);
        assert_eq!(build.finish().status, status);
        let listed = rig.ok("dhow builder history ls --format '{{.Ref}} {{.Status}} {{.Error}}'");
        let latest = listed.lines().next().expect("a build");
        let (id, rest) = latest.split_once(' ').expect("words");
        assert_eq!(rest, "Canceled canceled");
        assert_eq!(outcomes(&rig, id), ["CACHED", if status == 130 { "DONE" } else { "CACHED" }, "CANCELED"]);
    }
    assert_eq!(
        rig.ok("dhow builder history ls --filter status=canceled --format '{{.Ref}}'").lines().count(),
        2
    );
    // Its programs have ended as well, and so nothing of theirs is left to find.
    let checked = rig.ok("dhow system check");
    assert!(checked.ends_with(" as they should be"), "{checked}");
}

#[test]
fn every_build_leaves_a_record_and_cached_steps_replay_their_output() {
    let Some(rig) = Rig::start() else { return };
    let app = talkative(&rig);
    assert!(rig.fails("docker builder history logs", 1).contains("no build is recorded"));
    app.ok("docker build -t app .");
    app.ok("docker build -t app:again .");
    let failed =
        rig.context("broken", &[("Dockerfile", "FROM alpine\nRUN echo before; exit 3\nRUN never\n")]);
    failed.fails("docker build -t broken .", 1);

    let listed =
        rig.ok("docker buildx history ls --format '{{.Name}} {{.Status}} {{.CachedSteps}}/{{.TotalSteps}}'");
    assert_eq!(listed, "broken:latest Error 1/3\napp:again Completed 5/5\napp:latest Completed 1/5");
    let listed = rig.ok("docker buildx history ls --filter status=error --format '{{.Name}}'");
    assert_eq!(listed, "broken:latest");

    // The step ran in the first build; the second, found by its image, replays it.
    for build in ["app", "app:again", "^1", "^2"] {
        let printed = |step: u8| rig.ok(&format!("docker buildx history logs {build} {step}"));
        assert_eq!((printed(2), printed(3)), ("to-stdout\nno-line-end".to_owned(), "to-stderr".to_owned()));
    }
    let replayed = rig.ok("docker build logs app:again");
    assert!(replayed.contains("CACHED; it printed when it ran:"), "{replayed}");
    assert!(replayed.contains(" to-stderr\n"), "{replayed}");

    // Of a failed build the output of the failed step is there, and the error.
    let replayed = rig.ok("docker build logs");
    assert!(replayed.contains(" before\n") && replayed.contains("exit code: 3"), "{replayed}");
    let inspected = json(&rig, "docker builder history inspect --format json");
    let steps: Vec<&str> = inspected["Steps"]
        .as_array()
        .expect("steps")
        .iter()
        .filter_map(|step| step["Status"].as_str())
        .collect();
    assert_eq!(steps, ["CACHED", "ERROR", "-"], "{inspected}");

    rig.ok("docker buildx history rm ^1 ^0");
    assert_eq!(rig.ok("docker buildx history ls --format '{{.Name}}'"), "app:latest");
    rig.ok("docker buildx history rm --all");
    assert_eq!(rig.ok("docker buildx history ls --format '{{.Name}}'"), "");
    assert_eq!(
        rig.ok("docker system check").split_once(' ').expect("words").1.split_once("are").expect("are").1,
        " as they should be"
    );
}

#[test]
fn build_logs_is_a_build_where_it_can_be_one() {
    let Some(rig) = Rig::start() else { return };
    let logs = rig.context("logs", &[("Dockerfile", "FROM scratch\nENV A=b\n")]);
    rig.ok("docker build -t first logs");
    // There is a folder of this name, so it is built.
    rig.ok("docker build logs");
    assert_eq!(rig.ok("docker buildx history ls --format '{{.Name}}'"), "logs\nfirst:latest");
    // Two words cannot be a build; neither can a folder that is not there.
    assert!(rig.ok("docker build logs first").contains("ENV A=b"));
    assert!(logs.ok("docker build logs").contains("ENV A=b"));
}

#[test]
fn output_of_any_length_is_kept_whole() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile = "FROM alpine\nRUN head -c 20000000 /dev/zero | tr '\\0' x\n";
    let app = rig.context("app", &[("Dockerfile", dockerfile)]);
    app.ok("docker build -q -t app .");
    app.ok("docker build -q -t again .");
    assert_eq!(rig.ok("sh -c 'docker build logs again 2 | wc -c'"), "20000000");
}

/// Why each step that ran did, as `--progress=plain` says it.
fn reasons(shell: &Shell<'_>, line: &str) -> Vec<String> {
    let build = shell.run(line);
    let said = build.stderr.lines().filter_map(|line| line.split_once(" not cached: "));
    said.map(|(_, reason)| reason.to_owned()).collect()
}

#[test]
fn a_miss_says_what_changed() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile =
        "FROM alpine\nARG VERSION\nARG API_TOKEN\nWORKDIR /app\nCOPY . .\nRUN cat run.sh\nRUN true\n";
    let ignore = ("Dockerfile.dockerignore", "Dockerfile*\n");
    let app = rig.context("app", &[("Dockerfile", dockerfile), ("run.sh", "echo 1\n"), ("b", "b\n"), ignore]);
    let build = "docker build --build-arg VERSION=1 --build-arg API_TOKEN=hush-7f3a .";
    let first = reasons(&app, build);
    assert!(
        first.iter().all(|reason| reason == "no earlier build of this step") && first.len() == 4,
        "{first:?}"
    );
    assert_eq!(reasons(&app, build), Vec::<String>::new());

    app.ok("chmod 755 run.sh");
    let below = "what it builds upon changed: COPY . .";
    assert_eq!(reasons(&app, build), ["mode of run.sh 0644 -> 0755", below, below]);
    // Size and time of modification stay as they are, and it is seen all the same.
    app.ok("touch -d 2020-01-01 run.sh");
    app.ok(build);
    app.write("run.sh", "echo 2\n");
    app.ok("touch -d 2020-01-01 run.sh");
    assert_eq!(reasons(&app, build)[0], "run.sh changed");
    app.write("c", "c");
    app.ok("rm b");
    assert_eq!(reasons(&app, build)[0], "c is new, b is gone");

    let other = "docker build --build-arg VERSION=2 --build-arg API_TOKEN=quiet-9c1d .";
    assert_eq!(reasons(&app, other)[0], "ARG VERSION 1 -> 2, ARG API_TOKEN changed");
    assert_eq!(
        reasons(&app, &other.replace("docker build", "docker build --network none"))[0],
        "network default -> none"
    );

    // Lines move, the file gets another name, the folder another place: the nearest earlier build is found.
    app.edit("Dockerfile", "WORKDIR", "# a comment\nLABEL a=b\n\nWORKDIR");
    app.edit("Dockerfile", "RUN true", "RUN true 2");
    assert_eq!(reasons(&app, other), ["instruction was `RUN true`"]);
    app.ok("mv Dockerfile Dockerfile.prod");
    app.ok("mv Dockerfile.dockerignore Dockerfile.prod.dockerignore");
    app.edit("Dockerfile.prod", "RUN true 2", "RUN true 3");
    assert_eq!(
        reasons(&app, &other.replace("docker build", "docker build -f Dockerfile.prod")),
        ["instruction was `RUN true 2`"]
    );
    rig.ok("cp -a app copied");
    let copied = rig.at("copied");
    copied.edit("Dockerfile.prod", "RUN true 3", "RUN true 4");
    assert_eq!(
        reasons(&copied, &other.replace("docker build", "docker build -f Dockerfile.prod")),
        ["instruction was `RUN true 3`"]
    );

    // Images name their arguments in their history, as docker's do. What is remembered of builds does not know them.
    assert_eq!(app.run("sh -c 'grep -alE \"hush-7f3a|quiet-9c1d\" ../../root/db.sqlite*'").stdout, "");
}

#[test]
fn it_says_when_a_base_moved_and_when_the_last_run_failed() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    rig.ok("docker pull -q busybox");
    rig.ok("docker tag alpine base:1");
    let app = rig.context("app", &[("Dockerfile", "FROM base:1\nRUN true\nRUN test -e /ok || false\n")]);
    app.fails("docker build .", 1);
    assert_eq!(reasons(&app, "docker build ."), ["its last run failed"]);
    rig.ok("docker tag busybox base:1");
    app.edit("Dockerfile", " || false", " || true");
    let moved = reasons(&app, "docker build .");
    assert!(
        moved[0].starts_with("base base:1 moved sha256:") && moved[0].contains(" -> sha256:"),
        "{moved:?}"
    );
    // What never came to a result is nothing to compare with.
    assert_eq!(moved[1], "no earlier build of this step");

    let explained = rig.ok("docker explain ^0 'RUN true'");
    assert!(explained.starts_with("#2   DONE     [2/3] RUN true\n"), "{explained}");
    assert!(explained.ends_with(&moved[0]), "{explained}");
    let explained = json(&rig, "docker explain --format json");
    assert_eq!(explained["Steps"][1]["Reason"]["Kind"], "base", "{explained}");
    assert_eq!(explained["Steps"][2]["Reason"]["Kind"], "first-build", "{explained}");
    assert_eq!(explained["Steps"][0]["Reason"], serde_json::Value::Null);
    assert!(rig.fails("docker explain ^0 9", 1).contains("no such step: 9"));
    assert!(rig.fails("docker explain nothing", 1).contains("no such build: nothing"));
}

#[test]
fn stages_can_be_made_again_by_name() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile =
        "FROM alpine AS tools\nRUN echo tools >/t\nFROM alpine\nRUN echo app >/a\nCOPY --from=tools /t /t\n";
    let app = rig.context("app", &[("Dockerfile", dockerfile)]);
    app.ok("docker build .");
    let build = app.run("docker build -q --no-cache-filter TOOLS --explain=json .");
    let line = build.stdout.lines().next().expect("JSON, then the image");
    let explained: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let kinds: Vec<&str> = explained["Steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| step["Reason"]["Kind"].as_str().unwrap_or("-"))
        .collect();
    // The tools are made again, come out the same, and so what copies them is not disturbed.
    assert_eq!(kinds, ["-", "no-cache", "-", "-", "-"], "{explained}");
}

#[test]
fn the_cache_is_measured_pruned_and_kept_small() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[("Dockerfile", "FROM alpine\nRUN head -c 3000000 /dev/zero >/zeroes\n")]);
    app.ok("docker build -t app .");
    // The image has the layer too, so nothing would be freed.
    let shown = "docker builder du --format '{{.Description}} {{.Size}} {{.Shared}} {{.Reclaimable}}'";
    let step = "RUN head -c 3000000 /dev/zero >/zeroes";
    assert_eq!(rig.ok(shown), format!("{step} 3MB true false"));
    assert_eq!(rig.ok("docker builder prune -f"), "Total:\t0B");
    rig.ok("docker rmi app");
    assert_eq!(rig.ok(shown), format!("{step} 3MB false true"));
    assert_eq!(reasons(&app, "docker build ."), Vec::<String>::new());
    rig.ok("docker image prune -f");
    assert_eq!(rig.ok("docker buildx prune -f --filter until=24h"), "Total:\t0B");
    assert_eq!(rig.ok("docker buildx prune -f --max-used-space 10MB"), "Total:\t0B");
    assert!(rig.ok("docker buildx prune -f --max-used-space 1MB").ends_with("Total:\t3MB"));
    assert_eq!(rig.ok(shown), "");
    assert_eq!(reasons(&app, "docker build ."), ["removed by gc"]);

    // A limit in the configuration is kept at the end of builds: what was used longest ago goes.
    let config = std::fs::read_to_string(rig.path("config.toml")).expect("a configuration");
    std::fs::write(rig.path("config.toml"), config + "[build]\ncache-max = \"4MB\"\n")
        .expect("a configuration");
    rig.ok("docker image prune -f");
    app.edit("Dockerfile", "zero >/zeroes", "zero >/others");
    app.ok("docker build .");
    rig.ok("docker image prune -f");
    app.edit("Dockerfile", "zero >/others", "zero >/third");
    app.ok("docker build .");
    assert_eq!(rig.ok(shown).lines().count(), 2, "one of the older ones is gone");
    assert!(rig.ok(shown).contains("/third"), "the newest is there");
    assert!(rig.ok("docker system check").ends_with("are as they should be"));
}

/// What the cache mounts of this rig are, each from id to whether it is used now.
fn cache_mounts(rig: &Rig) -> Vec<(String, String)> {
    let format = "{{.Description}}\t{{.Size}} {{.Mutable}} {{.InUse}} {{.Reclaimable}}";
    let listed = rig.ok(&format!("docker builder du --filter type=exec.cachemount --format '{format}'"));
    let rows = listed.lines().map(|line| line.split_once('\t').expect("two fields"));
    rows.map(|(description, rest)| (description.to_owned(), rest.to_owned())).collect()
}

/// Uses are ordered by the second they were in.
fn another_second(rig: &Rig) {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs();
    let second = now();
    rig.eventually("the next second", || now() > second);
}

#[test]
fn cache_mounts_are_measured_pruned_and_kept_small() {
    let Some(rig) = Rig::start() else { return };
    // Each fills the cache mount of its name.
    let fill = |name: &str| {
        let run = "RUN --mount=type=cache,target=/c,id=$NAME head -c 3000000 /dev/zero >/c/zeroes";
        let app =
            rig.context("app", &[("Dockerfile", &format!("FROM alpine\n{}\n", run.replace("$NAME", name)))]);
        app.ok("docker build --no-cache .");
        another_second(&rig);
    };
    let described = |name: &str| {
        format!(
            "cached mount /c from exec /bin/sh -c head -c 3000000 /dev/zero >/c/zeroes with id \"/{name}\""
        )
    };
    let descriptions = || cache_mounts(&rig).into_iter().map(|(told, _)| told).collect::<Vec<_>>();
    fill("one");
    fill("two");
    let listed = cache_mounts(&rig);
    assert_eq!(descriptions(), [described("one"), described("two")], "by last use");
    for (_, told) in &listed {
        assert!(told.starts_with('3') && told.ends_with("MB true false true"), "{told}");
    }
    // Used again it is the latest, and it is measured again.
    let more = rig.context(
        "more",
        &[("Dockerfile", "FROM alpine\nRUN --mount=type=cache,id=one,target=/more cat /c/zeroes /more/zeroes >/more/again || true\n")],
    );
    more.ok("docker build .");
    let listed = cache_mounts(&rig);
    assert!(listed[0].0 == described("two") && listed[1].0.contains("/more"), "{listed:?}");
    assert!(listed[1].1.starts_with('6'), "{listed:?}");

    // A limit takes what was used longest ago, and a filter leaves what it does not fit.
    assert_eq!(
        rig.ok("docker builder prune -f --filter type=exec.cachemount --filter until=24h"),
        "Total:\t0B"
    );
    rig.ok("docker builder prune -af --filter type=regular");
    assert_eq!(cache_mounts(&rig).len(), 2);
    rig.ok("docker builder prune -f --filter type=exec.cachemount --max-used-space 8MB");
    let left = descriptions();
    assert!(left.len() == 1 && left[0].contains("/more"), "{left:?}");
    assert_eq!(std::fs::read_dir(rig.path("root/cache-mounts")).expect("the caches").count(), 1);

    // What is in use stays.
    let busy = rig.context(
        "busy",
        &[("Dockerfile", "FROM alpine\nRUN --mount=type=cache,target=/busy touch /busy/here; until [ -e /busy/go ]; do sleep 1; done; rm /busy/go\n")],
    );
    let build = busy.spawn("docker build .");
    let folder = || {
        let caches = std::fs::read_dir(rig.path("root/cache-mounts")).expect("the caches").flatten();
        caches.map(|cache| cache.path().join("fs")).find(|folder| folder.join("here").exists())
    };
    rig.eventually("the step runs", || folder().is_some());
    assert!(rig.ok("docker builder prune -af").contains("Total:\t6"));
    let left = cache_mounts(&rig);
    assert!(
        left.len() == 1 && left[0].0.contains("/busy") && left[0].1.ends_with("true true false"),
        "{left:?}"
    );
    std::fs::write(folder().expect("it is there").join("go"), "").expect("a file");
    let build = build.finish();
    assert_eq!(build.status, 0, "{}", build.both());
    rig.ok("docker builder prune -af");
    assert_eq!(cache_mounts(&rig), []);

    // A limit in the configuration is kept at the end of builds.
    let config = std::fs::read_to_string(rig.path("config.toml")).expect("a configuration");
    std::fs::write(rig.path("config.toml"), config + "[build]\ncache-max = \"4MB\"\n")
        .expect("a configuration");
    fill("three");
    assert_eq!(descriptions(), [described("three")]);
    fill("four");
    assert_eq!(descriptions(), [described("four")]);
    assert!(rig.ok("docker system check").ends_with("are as they should be"));
}

#[test]
fn rawjson_has_buildkit_s_shape() {
    let Some(rig) = Rig::start() else { return };
    let app = talkative(&rig);
    let build = app.run("docker build --progress=rawjson .");
    let lines: Vec<serde_json::Value> =
        build.stderr.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let all = |what: &str| {
        lines.iter().filter_map(|line| line[what].as_array()).flatten().cloned().collect::<Vec<_>>()
    };
    let ran = all("vertexes")
        .into_iter()
        .filter(|vertex| vertex["name"].as_str().is_some_and(|name| name.contains("RUN echo to-stderr")));
    let ran: Vec<_> = ran.collect();
    let last = ran.last().expect("the step is a vertex");
    assert!(
        last["started"].is_string() && last["completed"].is_string() && last["inputs"].is_array(),
        "{last}"
    );
    assert_eq!(last["reason"], "no earlier build of this step");
    let logs: Vec<_> = all("logs").into_iter().filter(|log| log["vertex"] == last["digest"]).collect();
    assert_eq!((&logs[0]["stream"], &logs[0]["data"]), (&2.into(), &"dG8tc3RkZXJyCg==".into()), "{logs:?}");
}
