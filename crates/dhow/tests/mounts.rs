//! What `-v`, `--mount`, `--tmpfs` and `--volumes-from` show in a container.

use std::process::Command;

use crate::rig::Rig;
use crate::shown::inspect;

/// Runs a script in a throw-away container.
fn run(rig: &Rig, flags: &str, script: &str) -> String {
    rig.ok(&format!("docker run --rm {flags} busybox sh -c '{script}'"))
}

#[test]
fn an_empty_volume_is_filled_with_what_the_image_has_there() {
    let Some(rig) = Rig::start() else { return };
    let dockerfile = "FROM busybox\nRUN mkdir -p /data/sub && echo seed >/data/sub/file && \
                      chown -R 12:34 /data && chmod 2750 /data\nVOLUME /data\n";
    rig.context("seed", &[("Dockerfile", dockerfile)]).ok("docker build -q -t seed .");
    let look = "stat -c \"%u:%g %a\" /data; cat /data/sub/file 2>&1; true";
    let at = |flags: &str| rig.ok(&format!("docker run --rm {flags} seed sh -c '{look}'"));
    assert_eq!(at("-v named:/data"), "12:34 2750\nseed");
    assert_eq!(at(""), "12:34 2750\nseed", "an anonymous one, too");
    assert!(at("-v fresh:/data:nocopy").starts_with("0:0 755\ncat:"));
    assert!(at("--mount source=other,target=/data,volume-nocopy").starts_with("0:0 755\ncat:"));
    rig.ok("docker run --rm -v named:/data seed rm /data/sub/file");
    assert!(at("-v named:/data").contains("No such file"), "once filled, never again");
    assert_eq!(rig.ok("docker volume ls -q"), "fresh\nnamed\nother", "the anonymous one is gone");
}

#[test]
fn parts_of_volumes_and_images_are_shown() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    run(
        &rig,
        "-v data:/d",
        "mkdir -p /d/a/b; echo deep >/d/a/b/file; echo top >/d/file; ln -s /etc /d/out; ln -s b /d/a/l",
    );
    let part = |path: &str| format!("--mount source=data,target=/m,volume-subpath={path}");
    assert_eq!(run(&rig, &part("a/b"), "cat /m/file"), "deep");
    assert_eq!(run(&rig, &part("file"), "cat /m"), "top");
    assert_eq!(run(&rig, &part("a/l"), "cat /m/file"), "deep", "a link inside is followed");
    let complaint = rig.fails(&format!("docker run --rm {} busybox ls /m", part("no/such")), 125);
    assert!(complaint.contains("/m") && complaint.contains("No such file"), "{complaint}");
    // A link out of the volume leads to its own folders and not to the host's.
    let complaint = rig.fails(&format!("docker run --rm {} busybox ls /m", part("out")), 125);
    assert!(complaint.contains("No such file"), "{complaint}");
    assert!(
        rig.fails(&format!("docker run --rm {} busybox true", part("../..")), 125)
            .contains("within the volume")
    );
    assert_eq!(
        run(&rig, "--mount type=image,source=busybox,target=/i", "ls /i/bin/busybox"),
        "/i/bin/busybox"
    );
    assert_eq!(
        run(&rig, "--mount type=image,source=busybox,target=/i,image-subpath=bin", "ls /i/busybox"),
        "/i/busybox"
    );
    let written = rig.run("docker run --rm --mount type=image,source=busybox,target=/i busybox touch /i/x");
    assert!(written.stderr.contains("Read-only file system"), "{}", written.stderr);
    rig.ok("docker create --name holder --mount type=image,source=busybox,target=/i busybox true");
    assert_eq!(inspect(&rig, "holder")["Mounts"][0]["Type"], "image");
}

#[test]
fn a_bind_mount_is_as_its_keys_say() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let here = rig.at("");
    here.write("src/file", "host\n");
    assert_eq!(here.ok("docker run --rm -v ./src:/m busybox cat /m/file"), "host");
    assert_eq!(here.ok("docker run --rm --mount type=bind,src=./src/file,dst=/m busybox cat /m"), "host");
    let gone = here.fails("docker run --rm --mount type=bind,src=./gone,dst=/m busybox true", 125);
    assert!(
        gone.contains("invalid mount config for type \"bind\": bind source path does not exist: "),
        "{gone}"
    );
    here.ok("docker run --rm --mount type=bind,src=./made,dst=/m,bind-create-src busybox true");
    assert!(rig.path("work/made").is_dir());
    here.ok("docker run --rm -v ./also:/m busybox true");
    assert!(rig.path("work/also").is_dir());
    here.ok("docker create --name labelled -v ./src:/m:ro,z busybox");
    let mount = inspect(&rig, "labelled")["Mounts"][0].clone();
    assert_eq!(
        (&mount["Mode"], &mount["RW"], &mount["Propagation"]),
        (&"ro,z".into(), &false.into(), &"rprivate".into())
    );
    let complaint = here.fails("docker run --rm -v ./src:/m -v data:/m busybox true", 125);
    assert!(complaint.contains("Duplicate mount point: /m"), "{complaint}");
}

/// A file system mounted for a test, and unmounted with it.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(path: std::path::PathBuf) -> Mounted {
        std::fs::create_dir_all(&path).expect("a folder");
        mount(&["-t", "tmpfs", "none"], &path);
        Mounted(path)
    }
}

fn mount(words: &[&str], path: &std::path::Path) {
    assert!(Command::new("mount").args(words).arg(path).status().expect("mount starts").success());
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--recursive", "--lazy"]).arg(&self.0).status();
    }
}

#[test]
fn what_is_mounted_below_a_bind_mount_follows_its_keys() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let outer = Mounted::tmpfs(rig.path("work/outer"));
    let _inner = Mounted::tmpfs(outer.0.join("inner"));
    std::fs::write(outer.0.join("inner/file"), "").expect("a file");
    let at = |keys: &str| {
        let script = "ls /m/inner; touch /m/x /m/inner/x; rm -f /m/x /m/inner/x";
        let flags = format!("--mount type=bind,src={},dst=/m{keys}", outer.0.display());
        let ended = rig.run(&format!("docker run --rm {flags} busybox sh -c '{script}'"));
        let refused = |path: &str| ended.stderr.contains(&format!("touch: {path}: Read-only"));
        (ended.stdout.contains("file"), refused("/m/x"), refused("/m/inner/x"))
    };
    assert_eq!(at(""), (true, false, false));
    assert_eq!(at(",ro"), (true, true, true), "read-only goes all the way down");
    assert_eq!(at(",ro,bind-recursive=readonly"), (true, true, true));
    assert_eq!(at(",ro,bind-recursive=writable"), (true, true, false));
    assert_eq!(at(",bind-recursive=disabled"), (false, false, false));
    let complaint =
        rig.fails(&format!("docker run --rm -v {}:/m:rshared busybox true", outer.0.display()), 125);
    assert!(complaint.contains("but it is not a shared mount"), "{complaint}");
}

#[test]
fn mounts_propagate_where_that_is_asked_for() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    let shared = Mounted::tmpfs(rig.path("work/shared"));
    mount(&["--make-shared"], &shared.0);
    std::fs::create_dir(shared.0.join("late")).expect("a folder");
    std::fs::create_dir(shared.0.join("inside")).expect("a folder");
    let path = shared.0.display();
    for (name, mode) in [("slave", "rslave"), ("both", "rshared"), ("apart", "rprivate")] {
        rig.ok(&format!(
            "docker run -d --cap-add SYS_ADMIN --name {name} -v {path}:/m:{mode} busybox sleep 600"
        ));
    }
    let late = Mounted::tmpfs(shared.0.join("late"));
    std::fs::write(late.0.join("file"), "").expect("a file");
    let sees = |name: &str| rig.ok(&format!("docker exec {name} ls /m/late")) == "file";
    assert_eq!((sees("slave"), sees("both"), sees("apart")), (true, true, false));
    for name in ["slave", "both"] {
        rig.ok(&format!("docker exec --privileged {name} mount -t tmpfs none /m/inside"));
        rig.ok(&format!("docker exec {name} touch /m/inside/{name}"));
    }
    assert!(shared.0.join("inside/both").exists(), "what the container mounts shows on the host");
    assert!(!shared.0.join("inside/slave").exists());
}

#[test]
fn a_tmpfs_is_empty_and_as_large_as_it_is_said_to_be() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    assert!(run(&rig, "--tmpfs /t", "grep \" /t \" /proc/mounts").contains("nosuid,nodev,noexec"));
    let shown =
        run(&rig, "--tmpfs /t:exec,size=1m,mode=700,uid=5", "grep \" /t \" /proc/mounts; stat -c %a:%u /t");
    assert!(shown.contains("size=1024k") && !shown.contains("noexec") && shown.ends_with("700:5"), "{shown}");
    let keys = "--mount type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=1770,ro";
    let shown = run(&rig, keys, "grep \" /t \" /proc/mounts; stat -c %a /t");
    assert!(shown.contains("ro,") && shown.contains("size=2048k") && shown.ends_with("1770"), "{shown}");
    assert!(rig.fails("docker run --tmpfs /t:fast busybox", 125).contains("invalid tmpfs option [\"fast\"]"));
}

#[test]
fn volumes_come_from_other_containers() {
    let Some(rig) = Rig::start() else { return };
    rig.at("").write("bound/file", "bound\n");
    rig.at("").ok("docker run --name first -v data:/data -v ./bound:/bound -v /own busybox sh -c 'echo kept >/data/a; echo b >/own/b'");
    let look = "cat /data/a /bound/file /own/b";
    assert_eq!(run(&rig, "--volumes-from first", look), "kept\nbound\nb");
    let refused = rig.run("docker run --rm --volumes-from first:ro busybox touch /data/x");
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    assert!(rig.fails("docker run --volumes-from nobody busybox", 125).contains("No such container: nobody"));
    rig.ok("docker create --name second --volumes-from first busybox sh -c 'cat /own/b'");
    rig.ok("docker rm -v first");
    assert_eq!(rig.ok("docker start -a second"), "b", "the anonymous volume is still in use");
}
