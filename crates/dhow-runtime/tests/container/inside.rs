//! What a program in a container sees, and what it cannot do.

use std::fs;
use std::os::unix::fs::symlink;

use dhow_runtime::{
    BindHow, IdMap, IdRange, MemoryFile, MemoryVariable, MountSpec, Propagation, Rlimit, SeccompChoice,
    StartError,
};

use crate::world::World;

pub(crate) const TESTS: &[crate::Test] = &[
    ("output_and_exit_code_come_back", output_and_exit_code_come_back),
    ("a_killed_program_exits_with_128_and_its_signal", a_killed_program_exits_with_128_and_its_signal),
    ("a_missing_program_is_127", a_missing_program_is_127),
    ("a_program_that_cannot_be_executed_is_126", a_program_that_cannot_be_executed_is_126),
    ("environment_and_directory_are_as_asked", environment_and_directory_are_as_asked),
    ("users_are_looked_up_in_the_container", users_are_looked_up_in_the_container),
    ("namespaces_are_its_own", namespaces_are_its_own),
    ("capabilities_are_dockers", capabilities_are_dockers),
    ("seccomp_stands_in_the_way", seccomp_stands_in_the_way),
    ("the_kernels_files_are_masked", the_kernels_files_are_masked),
    ("no_descriptor_leaks", no_descriptor_leaks),
    ("devices_are_the_harmless_ones", devices_are_the_harmless_ones),
    ("limits_arrive", limits_arrive),
    ("volumes_are_mounted", volumes_are_mounted),
    ("stacked_folders_are_mounted_whole_or_in_part", stacked_folders_are_mounted_whole_or_in_part),
    ("files_in_memory_are_on_no_disk", files_in_memory_are_on_no_disk),
    ("links_in_the_image_lead_nowhere_outside", links_in_the_image_lead_nowhere_outside),
    ("a_linked_proc_is_refused", a_linked_proc_is_refused),
    ("a_directory_outside_is_no_working_directory", a_directory_outside_is_no_working_directory),
    ("init_reaps_orphans", init_reaps_orphans),
    ("a_read_only_root_cannot_be_written", a_read_only_root_cannot_be_written),
    ("a_user_namespace_is_enough", a_user_namespace_is_enough),
    ("nothing_is_left_on_the_host", nothing_is_left_on_the_host),
];

fn output_and_exit_code_come_back() {
    let outcome = World::shell("echo out; echo err >&2; exit 3").once().unwrap();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(outcome.status.exit_code, 3);
}

fn a_killed_program_exits_with_128_and_its_signal() {
    let outcome =
        World::shell("sh -c 'kill -9 $$'; echo $?; exec sh -c 'ulimit -t 1; while :; do :; done'").once();
    let outcome = outcome.unwrap();
    assert_eq!(outcome.stdout, "137\n");
    assert_eq!(outcome.status.exit_code, 137, "the limit of processor time kills");
}

fn a_missing_program_is_127() {
    let error = World::new(&["nope"]).once().unwrap_err();
    assert_eq!(error.to_string(), "exec: \"nope\": executable file not found in $PATH");
    assert_eq!(error.exit_code(), 127);
    let error = World::new(&["/no/pe"]).once().unwrap_err();
    assert_eq!(error.to_string(), "exec: \"/no/pe\": stat /no/pe: no such file or directory");
    assert_eq!(error.exit_code(), 127);
}

fn a_program_that_cannot_be_executed_is_126() {
    let error = World::new(&["/etc/secret"]).once().unwrap_err();
    assert_eq!(error.to_string(), "exec: \"/etc/secret\": permission denied");
    assert_eq!(error.exit_code(), 126);
    let error = World::new(&["/etc"]).once().unwrap_err();
    assert_eq!(error.to_string(), "exec: \"/etc\": is a directory");
    assert_eq!(error.exit_code(), 126);
}

fn environment_and_directory_are_as_asked() {
    let world = World::shell("pwd; env | sort").with(|spec| {
        spec.env = vec!["A=b c".into()];
        spec.cwd = "/made/for/it".into();
    });
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected =
        format!("/made/for/it\nA=b c\nHOME=/root\nHOSTNAME=box\nPATH={path}\nPWD=/made/for/it\nSHLVL=1\n");
    assert_eq!(world.output(), expected);
}

fn users_are_looked_up_in_the_container() {
    let id = |user: &str| World::shell("id; echo $HOME").with(|spec| spec.user = user.into());
    assert_eq!(id("bob").output(), "uid=1000(bob) gid=1000(bob) groups=50(staff),1000(bob)\n/home/bob\n");
    assert_eq!(id("bob:staff").output(), "uid=1000(bob) gid=50(staff) groups=50(staff)\n/home/bob\n");
    assert_eq!(id("7:8").output(), "uid=7 gid=8 groups=8\n/\n");
    let error = id("eve").once().unwrap_err();
    let text = "unable to find user eve: no matching entries in passwd file";
    assert_eq!(error, StartError::Setup(text.into()));
}

fn namespaces_are_its_own() {
    let script = "hostname; echo $$; ls /proc | grep -c '^[0-9]'; for n in mnt pid net ipc uts cgroup; do
                  readlink /proc/self/ns/$n; done; cat /proc/self/cgroup | grep pids";
    let output = World::shell(script).output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["box", "1"]);
    assert!(lines[2].parse::<u32>().unwrap() <= 4, "only its own processes are seen: {output}");
    for (name, inside) in ["mnt", "pid", "net", "ipc", "uts", "cgroup"].iter().zip(&lines[3..]) {
        let outside = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(outside.to_str(), Some(*inside), "{name}");
    }
    if let Some(line) = lines.get(9) {
        assert!(line.ends_with(":/"), "the group is the root of its view: {line}");
    }
}

fn capabilities_are_dockers() {
    let status = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status | tr -d '\\t'";
    let root = World::shell(status).output();
    let sets = |inherited: &str, permitted: &str, bounding: &str| {
        format!(
            "CapInh:{inherited}\nCapPrm:{permitted}\nCapEff:{permitted}\nCapBnd:{bounding}\nCapAmb:{inherited}\n"
        )
    };
    let (none, docker) = ("0000000000000000", "00000000a80425fb");
    assert_eq!(root, sets(none, docker, docker) + "NoNewPrivs:0\nSeccomp:2\n");
    let bob = World::shell(status).with(|spec| {
        spec.user = "bob".into();
        spec.no_new_privileges = true;
    });
    assert_eq!(bob.output(), sets(none, none, docker) + "NoNewPrivs:1\nSeccomp:2\n");
}

fn seccomp_stands_in_the_way() {
    // With the capability but without the profile's blessing it is the filter that refuses.
    let script = "unshare -m true 2>&1; mount -t tmpfs none /tmp 2>&1; chroot / true && echo chroot works";
    let output = World::shell(script).output();
    let expected = "unshare: unshare(0x20000): Operation not permitted\n\
                    mount: permission denied (are you root?)\nchroot works\n";
    assert_eq!(output, expected);
    let unconfined = World::shell(
        "mount -t tmpfs none /tmp && unshare -m true && grep Seccomp: /proc/self/status",
    )
    .with(|spec| {
        spec.seccomp = SeccompChoice::Unconfined;
        spec.cap_add = vec!["SYS_ADMIN".into()];
    });
    assert_eq!(unconfined.output(), "Seccomp:\t0\n");
}

fn the_kernels_files_are_masked() {
    let script =
        "cat /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep -c .;
                  echo 1 > /proc/sys/kernel/domainname; mkdir /sys/x";
    let outcome = World::shell(script).once().unwrap();
    assert_eq!(outcome.stdout, "0\n0\n");
    let denied = outcome.stderr.lines().filter(|line| line.contains("Read-only file system")).count();
    assert_eq!(denied, 2, "{}", outcome.stderr);
}

fn no_descriptor_leaks() {
    assert_eq!(World::new(&["ls", "/proc/self/fd"]).output(), "0\n1\n2\n3\n", "3 is the listing itself");
}

fn devices_are_the_harmless_ones() {
    let script =
        "ls /dev | grep -v core | tr '\\n' ' '; echo; head -c 3 /dev/zero | wc -c; mknod /tmp/m c 1 1;
                  cat /tmp/m; echo x > /dev/null; head -c 1 /dev/urandom | wc -c";
    let outcome = World::shell(script).once().unwrap();
    let expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n3\n1\n";
    assert_eq!(outcome.stdout, expected);
    assert_eq!(outcome.stderr, "cat: can't open '/tmp/m': Operation not permitted\n");
}

fn limits_arrive() {
    let world = World::shell(
        "ulimit -n; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null;
         cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true",
    )
    .with(|spec| {
        spec.rlimits = vec![Rlimit { name: "nofile".into(), soft: 321, hard: 400 }];
        spec.resources.memory_bytes = Some(64 << 20);
        spec.resources.pids_max = Some(77);
    });
    assert_eq!(world.output(), format!("321\n{}\n77\n", 64 << 20));
}

fn volumes_are_mounted() {
    let world = World::shell(
        "cat /v/in/file /etc/hosts; echo new > /v/in/made; echo x > /ro/f; echo x > /ro/sub/f; df -k /t | tail -1",
    );
    let (volume, hosts) = (world.path("volume"), world.path("hosts"));
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::write(volume.join("file"), "data\n").unwrap();
    fs::write(&hosts, "hosts\n").unwrap();
    let bind = |source, target: &str, readonly| MountSpec::Bind {
        source,
        target: target.into(),
        readonly,
        propagation: Propagation::Private,
        how: BindHow::default(),
    };
    let world = world.with(|spec| {
        spec.mounts = vec![
            bind(volume.clone(), "/v/in", false),
            bind(hosts, "/etc/hosts", false),
            bind(volume.clone(), "/ro", true),
            MountSpec::Tmpfs { target: "/t".into(), options: vec!["size=1m".into()] },
        ];
    });
    let outcome = world.once().unwrap();
    assert!(outcome.stdout.starts_with("data\nhosts\ntmpfs                     1024"), "{}", outcome.stdout);
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(volume.join("made")).unwrap(), "new\n");
}

fn stacked_folders_are_mounted_whole_or_in_part() {
    let world = World::shell(
        "cat /all/b/file /all/a/file /part/file /one; echo new > /all/a/new && cat /all/a/new; \
         echo no > /part/file; ls /bundle",
    );
    for (name, file) in [("one", "a/file"), ("two", "b/file")] {
        let path = world.path(name).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{name}\n")).unwrap();
    }
    symlink("/b/file", world.path("one/link")).unwrap();
    let [changes, scratch] = ["changes", "scratch"].map(|name| world.path(name));
    for folder in [&changes, &scratch] {
        fs::create_dir(folder).unwrap();
    }
    let lowers = vec![world.path("one"), world.path("two")];
    let overlay = |target: &str, subpath: &str, upper| MountSpec::Overlay {
        lowers: lowers.clone(),
        upper,
        subpath: subpath.into(),
        target: target.into(),
    };
    let mounts = vec![
        overlay("/all", "", Some((changes.clone(), scratch))),
        overlay("/part", "/a", None),
        overlay("/one", "/link", None),
    ];
    let outcome = world.with(|spec| spec.mounts = mounts);
    let run = outcome.once().unwrap();
    assert_eq!(run.stdout, "two\none\none\ntwo\nnew\n");
    assert!(run.stderr.contains("/part/file: Read-only file system"), "{}", run.stderr);
    assert_eq!(fs::read_to_string(outcome.path("changes/a/new")).unwrap(), "new\n");
}

fn files_in_memory_are_on_no_disk() {
    let mut world = World::shell(
        "cat /run/secrets/one; stat -c %a:%u:%g /run/secrets/one; /dev/pipes/EOF; echo $TOKEN; \
         echo no > /run/secrets/one",
    );
    let file = |target: &str, content: &str, mode| MemoryFile {
        target: target.into(),
        content: content.into(),
        mode,
        uid: 1000,
        gid: 50,
    };
    world.memory.files = vec![
        file("/run/secrets/one", "hush\n", 0o440),
        file("/dev/pipes/EOF", "#!/bin/sh\necho ran\n", 0o755),
    ];
    world.memory.env = vec![MemoryVariable { name: "TOKEN".into(), value: "hush".into() }];
    let world = world.with(|spec| spec.env = vec!["TOKEN=loud".into()]);
    let outcome = world.once().unwrap();
    assert_eq!(outcome.stdout, "hush\n440:1000:50\nran\nhush\n");
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    let config = fs::read_to_string(world.bundle().config()).unwrap();
    assert!(!config.contains("hush"), "{config}");
    let left = fs::read(world.path("upper/run/secrets/one")).unwrap();
    assert!(left.is_empty(), "only the place it was mounted on is left");
}

fn links_in_the_image_lead_nowhere_outside() {
    let outside = tempfile::tempdir().unwrap();
    let world = World::shell("cat /escape/deep/hosts");
    symlink(outside.path(), world.path("lower/escape")).unwrap();
    let hosts = world.path("hosts");
    fs::write(&hosts, "bound\n").unwrap();
    let world = world.with(|spec| {
        let target = "/escape/deep/hosts".into();
        spec.mounts = vec![MountSpec::Bind {
            source: hosts,
            target,
            readonly: true,
            propagation: Propagation::Private,
            how: BindHow::default(),
        }];
        spec.cwd = "/escape/cwd".into();
    });
    let outcome = world.once();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "nothing is made outside: {outcome:?}");
}

fn a_linked_proc_is_refused() {
    let world = World::shell("true");
    symlink("tmp", world.path("lower/proc")).unwrap();
    let error = world.once().unwrap_err();
    let text = "error mounting proc to rootfs at /proc: ";
    assert!(error.to_string().starts_with(text), "{error}");
}

fn a_directory_outside_is_no_working_directory() {
    for cwd in ["/proc/self/fd/3", "/proc/self/fd/7/../../.."] {
        let world = World::shell("pwd").with(|spec| spec.cwd = cwd.into());
        assert!(world.once().is_err(), "{cwd}");
    }
}

fn init_reaps_orphans() {
    let script = "(sleep 0.1 & exec true) & sleep 0.4; echo $$; grep -c 'State:.Z' /proc/[0-9]*/status | grep -c ':1$'";
    let world = World::shell(script).with(|spec| spec.init = true);
    let outcome = world.once().unwrap();
    assert_eq!(outcome.stdout, "2\n0\n", "the program is process 2 and there are no zombies");
    let failing = World::shell("kill -TERM 1; sleep 5").with(|spec| spec.init = true);
    assert_eq!(failing.once().unwrap().status.exit_code, 143, "init passes signals on");
}

fn a_read_only_root_cannot_be_written() {
    let world =
        World::shell("touch /x 2>&1; touch /dev/shm/x && echo shm").with(|spec| spec.readonly_rootfs = true);
    assert_eq!(world.output(), "touch: /x: Read-only file system\nshm\n");
}

fn a_user_namespace_is_enough() {
    let script =
        "cat /proc/self/uid_map | tr -s ' '; readlink /proc/self/ns/user; touch /made && ls /dev | wc -l;
                  echo x > /dev/null; hostname";
    let world = World::shell(script).with(|spec| {
        let root = vec![IdRange { container: 0, host: 0, count: 1 }];
        spec.id_map = Some(IdMap { uids: root.clone(), gids: root });
    });
    let output = world.output();
    let outside = fs::read_link("/proc/self/ns/user").unwrap();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((lines[0], lines[3]), (" 0 0 1", "box"));
    assert_ne!(Some(lines[1]), outside.to_str());
}

fn nothing_is_left_on_the_host() {
    let world = World::shell("touch /written");
    world.output();
    assert!(world.path("upper/written").exists());
    crate::world::eventually("the cgroup is removed", || world.cgroups().is_empty());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(world.path("").to_str().unwrap()));
}
