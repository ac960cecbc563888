//! `RUN` in a build: its mounts, its scripts, and what surrounds it.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::rig::{Rig, Shell};
use crate::shown::executed;

const ALPINE: &str = "FROM alpine\n";

/// A folder `app` with a Dockerfile that begins with alpine.
fn app<'r>(rig: &'r Rig, steps: &str) -> Shell<'r> {
    rig.context("app", &[("Dockerfile", &format!("{ALPINE}{steps}\n"))])
}

/// What `command` says in a container of the image `app`.
#[track_caller]
fn in_image(rig: &Rig, command: &str) -> String {
    rig.ok(&format!("docker run --rm --network none app sh -c '{command}'"))
}

#[test]
fn a_cache_survives_builds_and_is_no_part_of_the_image() {
    let Some(rig) = Rig::start() else { return };
    let app = app(
        &rig,
        "ARG N\nRUN --mount=type=cache,target=/var/deep/cache,mode=0750,uid=33 \\\n    \
         echo $N >>/var/deep/cache/log; cp /var/deep/cache/log /log; stat -c %a:%u /var/deep/cache >>/log",
    );
    app.ok("docker build -t app --build-arg N=1 .");
    app.ok("docker build -t app --build-arg N=2 .");
    assert_eq!(in_image(&rig, "cat /log; [ ! -e /var/deep ]"), "1\n2\n750:33");
    // What is in it does not count, and without a cache it begins anew.
    let again = app.run("docker build -t app --build-arg N=2 .");
    assert_eq!(executed(&again), Vec::<String>::new());
    app.ok("docker build -t app --build-arg N=2 --no-cache .");
    assert_eq!(in_image(&rig, "cat /log"), "2\n750:33");
    app.ok("docker build -t app --build-arg N=3 --build-arg BUILDKIT_CACHE_MOUNT_NS=mine .");
    assert_eq!(in_image(&rig, "cat /log"), "3\n750:33");
    assert_eq!(fs::read_dir(rig.path("root/cache-mounts")).expect("the caches").count(), 2);
}

#[test]
fn a_cache_begins_with_what_a_stage_has() {
    let Some(rig) = Rig::start() else { return };
    let app = app(
        &rig,
        "RUN mkdir /seed && echo seed >/seed/file && chown 33 /seed/file\nFROM alpine\n\
         RUN --mount=type=cache,target=/c,from=0,source=/seed stat -c %u /c/file >/out; cat /c/file >>/out; \\\n    \
         echo changed >/c/file\n\
         RUN --mount=type=cache,target=/c,from=0,source=/seed cat /c/file >>/out",
    );
    app.ok("docker build -t app .");
    assert_eq!(in_image(&rig, "cat /out"), "33\nseed\nchanged");
}

#[test]
fn processes_share_a_cache_as_they_are_told() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    let both = |mount: &str, script: &str| {
        let app = app(&rig, &format!("ARG N\nRUN {mount} {script}"));
        let builds = ["1", "2"].map(|number| app.spawn(&format!("docker build --build-arg N={number} .")));
        for build in builds {
            let ended = build.finish();
            assert_eq!(ended.status, 0, "{mount}:\n{}", ended.both());
        }
    };
    // Each waits for the other, so this ends only if both have it at once.
    let meet = "touch /m/$N; until [ -e /m/1 ] && [ -e /m/2 ]; do :; done";
    let meeting = "--mount=type=cache,id=meet,target=/m";
    both(meeting, meet);
    // Each has its own while both are at work.
    let own = format!("{meeting} --mount=type=cache,target=/own,sharing=private");
    let script = "[ -z \"$(ls /own)\" ] && touch /own/$N /m/own$N && \
                  until [ -e /m/own1 ] && [ -e /m/own2 ]; do :; done";
    both(&own, script);
    // One after the other.
    let alone = "mkdir /l/busy && for i in $(seq 500); do :; done; ls / >/dev/null; rmdir /l/busy";
    both("--mount=type=cache,target=/l,sharing=locked", alone);
}

#[test]
fn secrets_are_seen_by_their_step_and_kept_nowhere() {
    const FILE: &str = "hush-7d1f-in-a-file";
    const VARIABLE: &str = "hush-93c2-in-a-variable";
    let Some(rig) = Rig::start() else { return };
    let steps = "\
        RUN --mount=type=secret,id=file --mount=type=secret,id=file,target=/other,mode=0444,uid=33 \\\n    \
        --mount=type=secret,id=var,env=TOKEN \\\n    \
        cat /run/secrets/file | wc -c >/out; stat -c %a:%u /run/secrets/file /other >>/out; \\\n    \
        [ \"$TOKEN\" = \"$(cat /run/secrets/twice 2>/dev/null)hush-93c2-in-a-variable\" ] || exit 1\n\
        RUN --mount=type=secret,id=none [ ! -e /run/secrets/none ]\n\
        RUN --mount=type=secret,id=file grep -q in-a-file /run/secrets/file && exit 0; exit 1";
    // The Dockerfile must not give it away either.
    let steps = steps.replace("hush-93c2-in-a-variable", "hush-93c2\"\"-in-a-variable");
    let app = app(&rig, &steps);
    app.write("../secret.txt", FILE);
    let command = "env VARIABLE=hush-93c2-in-a-variable \
                   docker build -t app --secret id=file,src=../secret.txt --secret id=var,env=VARIABLE .";
    let built = app.run(&command.replace("docker", &rig.path("bin/docker").display().to_string()));
    assert_eq!(built.status, 0, "{}", built.both());
    assert_eq!(in_image(&rig, "cat /out; ls /run"), format!("{}\n400:0\n444:33", FILE.len()));
    for secret in [FILE, VARIABLE] {
        assert_eq!(files_with(&rig.path("root"), secret), Vec::<String>::new());
        assert_eq!(files_with(&rig.path("run"), secret), Vec::<String>::new());
        assert!(!built.both().contains(secret), "{}", built.both());
        assert!(!rig.ok("docker history --no-trunc app").contains(secret));
        assert!(!rig.ok("docker inspect app").contains(secret));
    }
    // Another value is no reason to run again, and a required one that is missing is an error.
    app.write("../secret.txt", "another-in-a-file");
    let again = app.run(&command.replace("docker", &rig.path("bin/docker").display().to_string()));
    assert_eq!(executed(&again), Vec::<String>::new());
    app.write("Dockerfile", "FROM alpine\nRUN --mount=type=secret,id=key,required true\n");
    let said = app.fails("docker build .", 1);
    assert!(said.contains("secret key: not found") && said.contains("--secret id=key,src=FILE"), "{said}");
}

/// The files below `dir` that hold `text`.
pub(crate) fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        // A folder may go while it is looked at, a file may be a socket.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).unwrap_or_default();
                if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    found
}

#[test]
fn the_search_for_secrets_finds_them() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("deep")).expect("a folder");
    fs::write(dir.path().join("deep/file"), "xxhushxx").expect("a file");
    assert_eq!(files_with(dir.path(), "hush").len(), 1);
    assert_eq!(files_with(dir.path(), "loud").len(), 0);
}

#[test]
fn an_agent_is_forwarded_to_its_step() {
    let Some(rig) = Rig::start() else { return };
    let socket = rig.path("agent.sock");
    let _agent = UnixListener::bind(&socket).expect("a socket");
    let app = app(
        &rig,
        "RUN --mount=type=ssh [ -S \"$SSH_AUTH_SOCK\" ] && stat -c %n:%a:%u \"$SSH_AUTH_SOCK\" >/out\n\
         RUN --mount=type=ssh,id=other,target=/a,uid=33,mode=0660 stat -c %n:%a:%u /a >>/out; [ -S /a ]\n\
         RUN --mount=type=ssh,id=none [ -z \"$SSH_AUTH_SOCK\" ] && ls /run >>/out",
    );
    let socket = socket.display();
    app.ok(&format!("docker build -t app --ssh default={socket} --ssh other={socket} ."));
    assert_eq!(in_image(&rig, "cat /out"), "/run/buildkit/ssh_agent.0:600:0\n/a:660:33");
    let said = app.fails("docker build --ssh default=Dockerfile .", 1);
    assert!(said.contains("cannot use the key") && said.contains("/Dockerfile"), "{said}");
    app.write("Dockerfile", "FROM alpine\nRUN --mount=type=ssh,required true\n");
    let said = app.fails("docker build .", 1);
    assert!(said.contains("ssh agent default: not found"), "{said}");
}

#[test]
fn files_of_the_context_are_mounted_as_an_image_would_have_them() {
    let Some(rig) = Rig::start() else { return };
    let app = app(
        &rig,
        "WORKDIR /w\nRUN --mount=target=src ls -A src >list; stat -c %u src/main.txt >>list; \\\n    \
         touch src/new 2>/dev/null || echo read-only >>list\n\
         RUN --mount=source=main.txt,target=/m.txt,rw echo more >>/m.txt; cat /m.txt >/w/main\n\
         RUN --mount=source=main.txt,target=/m.txt cat /m.txt >>/w/main",
    );
    app.write("main.txt", "main\n");
    app.write("debug.log", "noise");
    app.write("sub/file", "");
    app.write(".dockerignore", "*.log\nDockerfile\n");
    app.ok("chown 33 main.txt");
    app.ok("docker build -t app .");
    let seen = in_image(&rig, "cat list main; ls; ls /");
    assert!(
        seen.starts_with(".dockerignore\nmain.txt\nsub\n0\nread-only\nmain\nmore\nmain\nlist\nmain\n"),
        "{seen}"
    );
    assert!(!seen.contains("m.txt\nmedia") && !seen.ends_with("src"), "{seen}");
    // Only what is seen counts, and a miss names it.
    app.write("debug.log", "louder noise");
    assert_eq!(executed(&app.run("docker build -t app .")), Vec::<String>::new());
    app.write("main.txt", "changed\n");
    let rebuild = app.run("docker build -t app .");
    assert_eq!(executed(&rebuild).len(), 3, "{}", rebuild.stderr);
    assert!(rebuild.stderr.contains("not cached: main.txt changed"), "{}", rebuild.stderr);
    app.write("Dockerfile", "FROM alpine\nRUN --mount=source=none,target=/x true\n");
    let said = app.fails("docker build .", 1);
    assert!(said.contains("RUN --mount failed: none is not in the build context"), "{said}");
}

#[test]
fn files_of_stages_and_images_are_mounted_and_left_alone() {
    let Some(rig) = Rig::start() else { return };
    let app = app(
        &rig,
        "RUN mkdir -p /tools/bin && echo tool >/tools/bin/tool && chown -R 33 /tools && echo 1 >/other\n\
         FROM alpine\nRUN --mount=from=0,source=tools,target=/t cat /t/bin/tool >/out; \\\n    \
         stat -c %u /t/bin/tool >>/out; touch /t/new 2>/dev/null || echo read-only >>/out\n\
         RUN --mount=from=0,target=/t,rw echo mine >/t/tools/bin/tool; cat /t/tools/bin/tool >>/out\n\
         RUN --mount=from=0,source=/tools/bin/tool,target=/usr/bin/tool cat /usr/bin/tool >>/out\n\
         RUN --mount=from=busybox,target=/bb ls /bb/bin/busybox >>/out",
    );
    app.ok("docker build -t app .");
    let seen = in_image(&rig, "cat /out; ls -d /t /usr/bin/tool /bb 2>/dev/null; true");
    assert_eq!(seen, "tool\n33\nread-only\nmine\ntool\n/bb/bin/busybox");
    // Only what is mounted counts.
    app.edit("Dockerfile", "echo 1 >/other", "echo 2 >/other");
    let rebuild = executed(&app.run("docker build -t app ."));
    assert!(!rebuild.iter().any(|step| step.contains("source=")), "{rebuild:?}");
    assert!(rebuild.iter().any(|step| step.contains("rw echo mine")), "{rebuild:?}");
}

#[test]
fn memory_is_mounted_with_its_size_and_forgotten() {
    let Some(rig) = Rig::start() else { return };
    let app = app(
        &rig,
        "RUN --mount=type=tmpfs,target=/scratch/t,size=64k df -k /scratch/t | tail -n 1 >/out; \\\n    \
         cp /bin/busybox /scratch/t/sh 2>/dev/null && echo fits >>/out; rm -f /scratch/t/sh; \\\n    \
         printf '#!/bin/sh\\necho ran >>/out' >/scratch/t/run; chmod +x /scratch/t/run; /scratch/t/run",
    );
    app.ok("docker build -t app .");
    let seen = in_image(&rig, "cat /out; ls -d /scratch 2>/dev/null; true");
    assert!(seen.starts_with("tmpfs                       64"), "{seen}");
    assert!(!seen.contains("fits") && seen.ends_with("ran"), "{seen}");
}

#[test]
fn scripts_given_in_place_are_run() {
    let Some(rig) = Rig::start() else { return };
    let app = app(
        &rig,
        "RUN <<EOF\necho one >/out\necho two >>/out\nEOF\n\
         RUN <<SCRIPT\n#!/bin/sh -e\necho \"$0\" >>/out\nSCRIPT\n\
         RUN cat <<A >>/out && cat <<B >>/out\nin a\nA\nin b\nB\n\
         RUN cat 3<<EOF <&3 >>/out\nby number\nEOF\n\
         RUN 3<<EOF\necho last >>/out\nEOF",
    );
    app.ok("docker build -t app .");
    assert_eq!(
        in_image(&rig, "cat /out; ls /dev/pipes 2>/dev/null; true"),
        "one\ntwo\n/dev/pipes/SCRIPT\nin a\nin b\nby number\nlast"
    );
}

#[test]
fn networks_and_rights_are_given_as_asked_and_allowed() {
    let Some(rig) = Rig::start() else { return };
    let app =
        app(&rig, "RUN --network=none ls /sys/class/net >/out\nRUN --network=host ls /sys/class/net >/host");
    let said = app.fails("docker build -t app .", 1);
    assert!(said.contains("RUN --network=host needs the entitlement network.host"), "{said}");
    assert!(said.contains("--allow network.host"), "{said}");
    app.ok("docker build -t app --allow network.host .");
    assert_eq!(in_image(&rig, "cat /out"), "lo");
    assert!(in_image(&rig, "cat /host").contains("dhow0"), "the host's bridge is seen");
    let caps = "FROM alpine\nRUN --security=insecure grep CapEff /proc/self/status >/out\n";
    app.write("Dockerfile", caps);
    let said = app.fails("docker build -t app .", 1);
    assert!(said.contains("needs the entitlement security.insecure"), "{said}");
    app.ok("docker build -t app --allow security.insecure .");
    let all = in_image(&rig, "cat /out");
    // The machine's devices are there, and may be used.
    let node = a_device_of_the_machine();
    app.write("Dockerfile", &format!("FROM alpine\nRUN --security=insecure stat -c %F:%t:%T {node} >/out\n"));
    app.ok("docker build -t app --allow security.insecure .");
    assert_eq!(in_image(&rig, "cat /out"), rig.ok(&format!("stat -c %F:%t:%T {node}")));
    app.write("Dockerfile", &caps.replace("--security=insecure ", ""));
    app.ok("docker build -t app .");
    let usual = in_image(&rig, "cat /out");
    assert_eq!(usual, "CapEff:\t00000000a80425fb");
    assert!(all.len() == usual.len() && all > usual.replace('a', "1"), "{all}");
    app.write("Dockerfile", "FROM alpine\nRUN --device=vendor.com/class=x true\n");
    assert!(app.fails("docker build .", 1).contains("RUN --device is not supported yet"));
}

/// A device that only a container without walls has.
pub(crate) fn a_device_of_the_machine() -> String {
    let usual = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"];
    let nodes = fs::read_dir("/dev").expect("devices").flatten().filter(|entry| {
        let kind = entry.file_type().expect("a type");
        (kind.is_char_device() || kind.is_block_device())
            && !usual.contains(&entry.file_name().to_string_lossy().as_ref())
    });
    let mut nodes: Vec<String> = nodes.map(|entry| entry.path().display().to_string()).collect();
    nodes.sort_unstable();
    nodes.into_iter().next().expect("the machine has a device of its own")
}

#[test]
fn what_surrounds_a_step_is_as_the_command_line_says() {
    let Some(rig) = Rig::start() else { return };
    let app = app(
        &rig,
        "RUN grep -wE 'db|gate' /etc/hosts >/out; ulimit -n >>/out; df -k /dev/shm | tail -n 1 | tr -s ' ' >>/out; \\\n    \
         hostname >>/out; env | grep -iE '^(http|no)_proxy=' | sort >>/out",
    );
    // What the command line says wins over the image for as long as a step runs.
    app.edit("Dockerfile", "FROM alpine\n", "FROM alpine\nENV http_proxy=image no_proxy=image\n");
    fs::write(rig.path("docker/config.json"), r#"{"proxies":{"default":{"httpProxy":"http://proxy:1"}}}"#)
        .expect("docker's configuration");
    app.ok("docker build -t app --add-host db:10.1.2.3 --add-host gate=host-gateway --ulimit nofile=77:99 \
         --shm-size 1m --build-arg BUILDKIT_SANDBOX_HOSTNAME=sandbox .");
    let seen = in_image(&rig, "cat /out");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "10.1.2.3\tdb");
    assert!(lines[1].ends_with("\tgate") && lines[1].starts_with(|c: char| c.is_ascii_digit()), "{seen}");
    assert_eq!(lines[2], "77");
    assert!(lines[3].contains(" 1024 "), "{seen}");
    assert_eq!(
        lines[4..],
        ["sandbox", "HTTP_PROXY=http://proxy:1", "http_proxy=http://proxy:1", "no_proxy=image"]
    );
    let history = rig.ok("docker history --no-trunc app");
    assert!(!history.contains("proxy:1"), "{history}");
    assert_eq!(in_image(&rig, "echo $http_proxy $no_proxy"), "image image");
}

#[test]
fn steps_are_limited_in_what_they_use() {
    let Some(rig) = Rig::start() else { return };
    // v1 and v2 call it differently; both are a file of the step's own group.
    let app = app(
        &rig,
        "RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null >/out; \\\n    \
         cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null | head -n 1 | cut -d ' ' -f 1 >>/out; \\\n    \
         grep Cpus_allowed_list /proc/self/status >>/out",
    );
    let flags = "-m 64m --memory-swap 64m --cpu-period 50000 --resource cpu-quota=25000 --cpuset-cpus 0 --cpuset-mems 0";
    app.ok(&format!("docker build -t app {flags} --cgroup-parent /dhow-build-test ."));
    assert_eq!(in_image(&rig, "cat /out"), "67108864\n25000\nCpus_allowed_list:\t0");
    // How much it may use does not count.
    let again = app.run("docker build -t app -m 128m --cgroup-parent /dhow-build-test .");
    assert_eq!(executed(&again), Vec::<String>::new());
    let said = app.fails("docker build --resource fuel=1 .", 1);
    assert!(said.contains("unknown resource \"fuel\""), "{said}");
}

#[test]
fn a_filter_runs_the_steps_of_a_stage_again() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile =
        "FROM alpine AS one\nRUN echo 1 >/one\nFROM alpine\nCOPY --from=one /one /\nRUN echo 2 >/two\n";
    let app = rig.context("app", &[("Dockerfile", dockerfile)]);
    app.ok("docker build -t app .");
    let again = app.run("docker build -t app --no-cache-filter one .");
    assert_eq!(executed(&again), ["RUN echo 1 >/one"], "the same result leaves what follows cached");
}

#[test]
fn without_root_mounts_work_as_well() {
    let Some(rig) = Rig::start_for(64_322) else { return };
    let app = app(
        &rig,
        "RUN mkdir /tools && echo tool >/tools/tool\nFROM alpine\n\
         RUN --mount=from=0,source=/tools,target=/t --mount=type=cache,target=/c,uid=7 --mount=type=tmpfs,target=/m \\\n    \
         --mount=type=secret,id=s,uid=7 --mount=target=/ctx \\\n    \
         cat /t/tool /ctx/file /run/secrets/s >/out && touch /m/x /c/x && stat -c %u /c /run/secrets/s >>/out\n\
         RUN --mount=from=0,target=/t,rw echo x >/t/tools/tool && cat /t/tools/tool >>/out\n\
         RUN --mount=type=cache,target=/c ls /c >>/out",
    );
    app.write("file", "file\n");
    app.write("../secret", "hush\n");
    app.ok("docker build -t app --secret id=s,src=../secret .");
    assert_eq!(
        in_image(&rig, "cat /out; ls -d /t /c /m /ctx 2>/dev/null; true"),
        "tool\nfile\nhush\n0\n0\nx\nx"
    );
    let said = app.fails("docker build -m 64m --no-cache .", 1);
    assert!(said.contains("control groups"), "{said}");
}
