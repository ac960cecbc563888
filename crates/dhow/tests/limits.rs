//! Limits, devices, namespaces and security options: what they do, and what is said when they cannot be done.

use std::path::Path;

use crate::rig::{Rig, has_tool, skip};
use crate::shown::inspect;

/// Every flag of docker's `run`, with a value that does nothing much.
const FLAGS: &str = "
    add-host=h:127.0.0.1 annotation=a=b attach=stdout blkio-weight=0 blkio-weight-device=/dev/nothing:100
    cap-add=NET_RAW cap-drop=MKNOD cgroup-parent=/dhow-test cgroupns=private cidfile=CIDFILE cpu-count=1 cpu-percent=1
    cpu-period=100000 cpu-quota=50000 cpu-rt-period=0 cpu-rt-runtime=0 cpu-shares=512 cpus=1 cpuset-cpus=0
    cpuset-mems=0 detach detach-keys=ctrl-p device=/dev/null device-cgroup-rule=RULE
    device-read-bps=/dev/nothing:1mb device-read-iops=/dev/nothing:10 device-write-bps=/dev/nothing:1mb
    device-write-iops=/dev/nothing:10 dns=127.0.0.1 dns-option=ndots:1 dns-search=example.org domainname=example.org
    entrypoint=true env=A=b env-file=/dev/null expose=80 gpus=all group-add=10 health-cmd=true health-interval=1s
    health-retries=1 health-start-interval=1s health-start-period=1s health-timeout=1s hostname=h init interactive
    io-maxbandwidth=1 io-maxiops=1 ip=172.17.0.99 ip6=::2 ipc=private isolation=hyperv label=a=b
    label-file=/dev/null link=nobody link-local-ip=169.254.1.1 log-driver=none log-opt=max-size=1m
    mac-address=02:42:ac:11:00:99 memory=64m memory-reservation=32m memory-swap=128m memory-swappiness=50
    mount=type=tmpfs,target=/t name=flag network=none network-alias=a no-healthcheck oom-kill-disable oom-score-adj=100
    pid=host pids-limit=100 platform=linux privileged publish=127.0.0.1::80 publish-all pull=never quiet read-only
    restart=no rm runtime=native security-opt=no-new-privileges shm-size=1m sig-proxy stop-signal=SIGINT
    stop-timeout=1 storage-opt=size=1g sysctl=net.ipv4.ip_forward=1 tmpfs=/t tty ulimit=nofile=64
    use-api-socket user=1000 userns=host uts=host volume=/v volume-driver=local volumes-from=nobody workdir=/tmp";

#[test]
fn every_flag_of_dockers_run_works_or_is_refused_by_name() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let words: Vec<&str> = FLAGS.split_ascii_whitespace().collect();
    assert_eq!(words.len(), 101);
    let mut refused = Vec::new();
    for word in &words {
        let name = word.split('=').next().unwrap_or_default();
        let word = word.replace("CIDFILE", "cid").replace("RULE", "'c 1:3 r'");
        let ended = rig.run(&format!("docker run --{word} busybox true"));
        assert!(!ended.stderr.contains("unexpected argument"), "--{name} is not known: {}", ended.stderr);
        if ended.status != 0 {
            assert!(!ended.stderr.is_empty(), "--{name} failed without a word");
            refused.push((name.to_owned(), ended.stderr));
        }
    }
    // What cannot be done is said with the flag's name or the thing's that is missing.
    for (name, complaint) in &refused {
        let known = match name.as_str() {
            "isolation" => "invalid isolation",
            "gpus" => "could not select device driver",
            "volumes-from" | "link" => "nobody",
            "memory-swap" => "Memoryswap",
            "oom-kill-disable" | "memory-swappiness" => "memory",
            "network-alias" => "alias",
            "ip" | "ip6" | "mac-address" => "network",
            name => name,
        };
        let says = [name, known, "/dev/nothing"].iter().any(|word| complaint.contains(word));
        assert!(says, "--{name} is refused without saying so: {complaint}");
    }
    let names: Vec<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
    for works in
        ["annotation", "cpuset-mems", "device", "domainname", "memory-reservation", "oom-score-adj", "pid"]
    {
        assert!(!names.contains(&works), "--{works} does not work");
    }
    for windows in ["cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops", "isolation"] {
        assert!(names.contains(&windows), "--{windows} is for Windows");
    }
}

#[test]
fn impossible_limits_are_refused_in_dockers_words() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    for (flags, reason) in [
        ("-m 1m", "Minimum memory limit allowed is 6MB"),
        ("-m 10m --memory-swap 5m", "Minimum memoryswap limit should be larger than memory limit"),
        ("--memory-swap 50m", "You should always set the Memory limit when using Memoryswap limit"),
        ("-m 10m --memory-reservation 20m", "Minimum memory limit can not be less than memory reservation"),
        ("--memory-swappiness 101", "valid memory swappiness range is 0-100"),
        ("--cpus 1000", "Range of CPUs is from 0.01 to"),
        ("--cpus 1 --cpu-period 1000", "Nano CPUs and CPU Period cannot both be set"),
        ("--cpu-period 10", "CPU cfs period can not be less than 1ms"),
        ("--cpu-quota 10", "CPU cfs quota can not be less than 1ms"),
        ("--cpuset-cpus 8000", "Requested CPUs are not available"),
        ("--cpuset-mems x", "Invalid value x for cpuset mems"),
        ("--blkio-weight 5", "Range of blkio weight is from 10 to 1000"),
        ("--blkio-weight-device /dev/sda:5", "invalid weight for device: /dev/sda:5"),
        ("--device-read-bps sda:1m", "bad format for device path: sda:1m"),
        ("--device-write-iops /dev/sda:1mb", "invalid rate for device: /dev/sda:1mb"),
        ("--device-read-bps /dev/null:1m", "/dev/null is not a block device"),
        ("--oom-score-adj 2000", "range for oom score adj is [-1000, 1000]"),
        ("--device /dev/no-such-device", "error gathering device information while adding custom device"),
        ("--device /dev/null:/dev/x:q", "bad mode specified: q"),
        ("--device vendor.com/gpu=all", "CDI device injection failed: unresolvable CDI devices"),
        ("--device-cgroup-rule 'c 1'", "invalid device cgroup format 'c 1'"),
        ("--security-opt fast", "invalid --security-opt: \"fast\""),
        ("--security-opt seccomp=/no/such/file", "opening seccomp profile (/no/such/file) failed"),
        ("--pid nobody", "--pid: invalid PID mode: nobody"),
        ("--ipc nobody", "--ipc: invalid IPC mode: nobody"),
        ("--ulimit nofile=2:1", "ulimit soft limit must be less than or equal to hard limit"),
        ("--cap-add FLY", "FLY"),
        ("--sysctl kernel.panic=1", "kernel.panic"),
    ] {
        let complaint = rig.fails(&format!("docker run --rm {flags} busybox true"), 125);
        assert!(complaint.contains(reason), "{flags}: {complaint}");
    }
    assert_eq!(rig.ok("docker ps -aq"), "");
}

/// A file of a container's control group, which is that of v1 or of v2.
fn group_file(rig: &Rig, flags: &str, v1: &str, v2: &str) -> String {
    let name = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { v2 } else { v1 };
    rig.ok(&format!("docker run --rm {flags} busybox cat /sys/fs/cgroup/{name}"))
}

#[test]
fn limits_reach_the_control_group() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    for (flags, v1, in_v1, v2, in_v2) in [
        ("-m 64m", "memory/memory.limit_in_bytes", "67108864", "memory.max", "67108864"),
        (
            "-m 64m --memory-swap 96m",
            "memory/memory.memsw.limit_in_bytes",
            "100663296",
            "memory.swap.max",
            "33554432",
        ),
        (
            "--memory-reservation 32m",
            "memory/memory.soft_limit_in_bytes",
            "33554432",
            "memory.low",
            "33554432",
        ),
        ("--cpus 0.5", "cpu/cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000"),
        ("-c 512", "cpu/cpu.shares", "512", "cpu.weight", "20"),
        ("--cpuset-cpus 0 --cpuset-mems 0", "cpuset/cpuset.cpus", "0", "cpuset.cpus", "0"),
        ("--pids-limit 50", "pids/pids.max", "50", "pids.max", "50"),
    ] {
        let expected = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { in_v2 } else { in_v1 };
        assert_eq!(group_file(&rig, flags, v1, v2), expected, "{flags}");
    }
    if Path::new("/sys/fs/cgroup/memory/memory.swappiness").exists() {
        let swappiness =
            "docker run --rm --memory-swappiness 7 busybox cat /sys/fs/cgroup/memory/memory.swappiness";
        assert_eq!(rig.ok(swappiness), "7");
    }
    assert_eq!(rig.ok("docker run --rm --oom-score-adj 321 busybox cat /proc/self/oom_score_adj"), "321");
    assert_eq!(
        rig.ok("docker run --rm --ulimit nofile=100:200 busybox sh -c 'ulimit -n; ulimit -Hn'"),
        "100\n200"
    );
    assert!(
        rig.ok("docker run --rm --shm-size 3m busybox grep /dev/shm /proc/mounts").contains("size=3072k")
    );
    assert_eq!(
        rig.ok("docker run --rm --domainname example.org busybox cat /proc/sys/kernel/domainname"),
        "example.org"
    );
    rig.ok("docker run -d --name below --cgroup-parent /dhow-test-parent --pids-limit 50 busybox sleep 600");
    let pid = inspect(&rig, "below")["State"]["Pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the groups of a process");
    assert!(groups.contains("/dhow-test-parent/"), "{groups}");
    rig.ok("docker pause below");
    assert_eq!(inspect(&rig, "below")["State"]["Paused"], true, "its group is found there");
    rig.ok("docker unpause below");
    rig.ok("docker rm -f below");
    assert!(
        rig.fails("docker run --cgroup-parent ../up busybox", 125).contains("invalid cgroup parent: ../up")
    );
    rig.ok("docker create --name noted --annotation who=me --memory-reservation 32m --cpuset-mems 0 busybox");
    let host = inspect(&rig, "noted")["HostConfig"].clone();
    assert_eq!((&host["Annotations"]["who"], &host["CpusetMems"]), (&"me".into(), &"0".into()));
    assert_eq!(host["MemoryReservation"], 32 << 20);
}

#[test]
fn a_device_is_given_with_the_access_that_is_said() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let with =
        |flags: &str, script: &str| rig.run(&format!("docker run --rm {flags} busybox sh -c '{script}'"));
    let zero = "head -c 3 /dev/mine | od -An -tx1";
    assert_eq!(with("--device /dev/zero:/dev/mine", zero).stdout.trim(), "00 00 00");
    if !Path::new("/dev/fuse").exists() {
        return skip("the machine has no /dev/fuse").unwrap_or_default();
    }
    let open = "mknod /tmp/node c 10 229; exec 3</tmp/node && echo open";
    assert!(with("", open).stderr.contains("Operation not permitted"));
    assert_eq!(with("--device-cgroup-rule \"c 10:229 r\"", open).stdout, "open\n");
    assert_eq!(with("--device /dev/fuse:r", "exec 3</dev/fuse && echo open").stdout, "open\n");
    let refused = with("--device /dev/fuse:r", "exec 3>/dev/fuse");
    assert!(refused.stderr.contains("Operation not permitted"), "{}", refused.stderr);
}

#[test]
fn namespaces_are_shared_as_the_modes_say() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    rig.ok("docker run -d --name donor --ipc shareable busybox sh -c 'echo kept >/dev/shm/note; sleep 600'");
    rig.eventually("the note is there", || rig.run("docker exec donor cat /dev/shm/note").status == 0);
    rig.ok("docker run -d --name closed busybox sleep 600");
    assert_eq!(rig.ok("docker run --rm --ipc container:donor busybox cat /dev/shm/note"), "kept");
    assert!(rig.ok("docker run --rm --pid container:donor busybox ps").contains("sleep 600"));
    let link = |flags: &str, kind: &str| {
        rig.ok(&format!("docker run --rm {flags} busybox readlink /proc/self/ns/{kind}"))
    };
    let own = |kind: &str| {
        std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a link").display().to_string()
    };
    for (flags, kind) in
        [("--ipc host", "ipc"), ("--pid host", "pid"), ("--uts host", "uts"), ("--cgroupns host", "cgroup")]
    {
        assert_eq!(link(flags, kind), own(kind), "{flags}");
        assert_ne!(link("", kind), own(kind), "{kind}");
    }
    assert_eq!(rig.run("docker run --rm --ipc none busybox ls /dev/shm").status, 1);
    let complaint = rig.fails("docker run --rm --ipc container:closed busybox true", 125);
    assert!(complaint.contains("non-shareable IPC"), "{complaint}");
    rig.ok("docker kill donor");
    rig.ok("docker wait donor");
    let complaint = rig.fails("docker run --rm --pid container:donor busybox true", 125);
    assert!(complaint.contains("cannot join PID namespace of a non running container"), "{complaint}");
}

#[test]
fn security_options_have_their_effect() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let at = rig.at("");
    let profile = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 },
        { "names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "excludes": { "caps": ["CAP_NET_ADMIN"] } }
    ] }"#;
    at.write("profile.json", profile);
    let with = |flags: &str, script: &str| {
        let ended = at.run(&format!("docker run --rm {flags} busybox sh -c '{script}'"));
        ended.stdout + &ended.stderr
    };
    let own = "--security-opt seccomp=profile.json";
    assert!(with(own, "mkdir /x").contains("not supported"), "errno 95");
    assert!(with(own, "chmod 700 /tmp").contains("Operation not permitted"));
    assert_eq!(
        with(&format!("{own} --cap-add NET_ADMIN"), "chmod 700 /tmp"),
        "",
        "the capability excludes the rule"
    );
    at.write("profile.json", "{ not a profile");
    assert!(with(own, "true").contains("Decoding seccomp profile failed"));
    let status = |flags: &str, field: &str| with(flags, &format!("grep {field}: /proc/self/status"));
    assert!(status("--security-opt seccomp=unconfined", "Seccomp").trim_end().ends_with('0'));
    assert!(status("--security-opt no-new-privileges", "NoNewPrivs").trim_end().ends_with('1'));
    assert!(status("--cap-drop ALL", "CapBnd").trim_end().ends_with("0000000000000000"));
    assert!(status("--cap-drop ALL --cap-add CHOWN", "CapEff").trim_end().ends_with("0000000000000001"));
    assert_eq!(with("", "test -s /proc/kcore || test -w /proc/sysrq-trigger && echo reached"), "");
    let paths = "grep -c \"/proc/sys \\|/proc/keys\" /proc/mounts";
    assert_eq!(with("", paths).trim(), "2");
    assert_eq!(with("--security-opt systempaths=unconfined", paths).trim(), "0");
    assert!(with("--read-only", "touch /x").contains("Read-only file system"));
    assert_eq!(with("--read-only --tmpfs /t", "touch /t/x"), "");
    if !Path::new("/sys/module/apparmor").exists() {
        assert!(
            with("--security-opt apparmor=mine", "true").contains("AppArmor is not enabled on this host")
        );
    }
}

#[test]
fn other_runtimes_run_what_dhow_writes() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    rig.ok("docker run --rm -v data:/d busybox sh -c 'mkdir /d/sub; echo deep >/d/sub/file'");
    for runtime in ["runc", "crun"] {
        if !has_tool(runtime) {
            continue;
        }
        let first = rig.run(&format!("docker run --rm --runtime {runtime} busybox true"));
        if first.stderr.contains("hybrid mode not supported") {
            let _: Option<()> =
                skip(&format!("{runtime} does not work with the control groups of this host"));
            continue;
        }
        let run = |flags: &str, script: &str| {
            rig.ok(&format!("docker run --rm --runtime {runtime} {flags} busybox sh -c '{script}'"))
        };
        assert_eq!(run("-e A=b --hostname h", "echo $A; hostname"), "b\nh");
        assert_eq!(run("--mount source=data,target=/m,volume-subpath=sub", "cat /m/file"), "deep");
        assert_eq!(run("--mount type=image,source=busybox,target=/i,image-subpath=bin", "ls /i/sh"), "/i/sh");
        assert!(run("-v data:/d:ro", "touch /d/x 2>&1; true").contains("Read-only file system"));
        let all = "--init --read-only --tmpfs /t --shm-size 2m --ulimit nofile=64 --oom-score-adj 10 --device /dev/zero \
                   --cap-drop ALL --security-opt no-new-privileges --pids-limit 50 -m 64m --cpus 1 --annotation a=b";
        assert_eq!(run(all, "cat /proc/self/oom_score_adj"), "10");
        assert_eq!(rig.run(&format!("docker run --rm --runtime {runtime} busybox sh -c 'exit 9'")).status, 9);
    }
}
