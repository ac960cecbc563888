//! `cp` and `diff`: files of containers, out and in.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use crate::rig::Rig;

const SCRIPT: &str = "mkdir -p /src/sub && echo one >/src/one && echo deep >/src/sub/deep && ln -s /src/one /link && \
                      ln -s sub /src/to-sub && chmod 640 /src/one && chown 12:34 /src/one";

#[test]
fn files_come_out_by_dockers_table() {
    let Some(rig) = Rig::start() else { return };
    rig.ok(&format!("docker run --name box busybox sh -c '{SCRIPT}'"));
    let at = rig.at("out");
    fs::create_dir_all(at.folder().join("there")).expect("a folder");
    let read =
        |path: &str| fs::read_to_string(at.folder().join(path)).unwrap_or_else(|error| error.to_string());
    at.ok("docker cp box:/src/one new");
    at.ok("docker cp box:/src/one there");
    at.ok("docker cp box:/src/one there/renamed");
    assert_eq!(
        (read("new"), read("there/one"), read("there/renamed")),
        ("one\n".into(), "one\n".into(), "one\n".into())
    );
    at.ok("docker cp box:/src made");
    at.ok("docker cp box:/src there");
    at.ok("docker cp box:/src/. content");
    at.ok("docker cp box:src/. there/");
    for path in ["made/sub/deep", "there/src/sub/deep", "content/sub/deep", "there/sub/deep"] {
        assert_eq!(read(path), "deep\n", "{path}");
    }
    let one = fs::metadata(at.folder().join("new")).expect("a file");
    assert_eq!((one.permissions().mode() & 0o777, one.uid()), (0o640, 0), "whoever copies owns the copy");
    at.ok("docker cp -a box:/src/one owned");
    let owned = fs::metadata(at.folder().join("owned")).expect("a file");
    assert_eq!((owned.uid(), owned.gid()), (12, 34));
    at.ok("docker cp box:/link .");
    assert_eq!(fs::read_link(at.folder().join("link")).expect("a link").to_str(), Some("/src/one"));
    at.ok("docker cp -L box:/link followed");
    assert_eq!(read("followed"), "one\n");
    for (line, reason) in [
        ("docker cp box:/src new", "cannot copy directory"),
        ("docker cp box:/src/one nowhere/", "no such directory"),
        ("docker cp box:/src/one nowhere/x", "does not exist"),
        ("docker cp box:/nothing .", "Could not find the file /nothing in container box"),
        ("docker cp box:/src/one/ .", "not a directory"),
        ("docker cp nobody:/x .", "No such container: nobody"),
        ("docker cp box:/a box:/b", "copying between containers is not supported"),
        ("docker cp a b", "must specify at least one container source"),
    ] {
        let complaint = at.fails(line, 1);
        assert!(complaint.contains(reason), "{line}: {complaint}");
    }
    assert_eq!(
        at.ok("sh -c 'docker cp box:/src - | tar t | sort'"),
        "src/\nsrc/one\nsrc/sub/\nsrc/sub/deep\nsrc/to-sub"
    );
}

#[test]
fn files_go_in_by_dockers_table() {
    let Some(rig) = Rig::start() else { return };
    rig.ok(
        "docker run -d --name up -v data:/data --tmpfs /t --user 1000:1000 -v /ro:/none busybox sleep 600",
    );
    rig.ok("docker create --name down -v data:/data busybox true");
    let at = rig.at("in");
    at.write("file", "in\n");
    at.write("dir/sub/deep", "deep\n");
    symlink("file", at.folder().join("link")).expect("a link");
    for name in ["up", "down"] {
        let check = |path: &str, text: &str| {
            assert_eq!(at.ok(&format!("sh -c 'docker cp {name}:{path} - | tar xO'")), text, "{name}:{path}");
        };
        at.ok(&format!("docker cp file {name}:/new"));
        check("/new", "in");
        at.ok(&format!("docker cp file {name}:/tmp"));
        check("/tmp/file", "in");
        at.ok(&format!("docker cp dir {name}:/made"));
        check("/made/sub/deep", "deep");
        at.ok(&format!("docker cp dir {name}:/tmp/"));
        check("/tmp/dir/sub/deep", "deep");
        at.ok(&format!("docker cp dir/. {name}:/tmp"));
        check("/tmp/sub/deep", "deep");
        at.ok(&format!("docker cp -L link {name}:/through"));
        check("/through", "in");
        at.ok(&format!("docker cp file {name}:/data/from-{name}"));
        at.ok(&format!("sh -c 'tar c dir | gzip | docker cp - {name}:/tmp/sub'"));
        check("/tmp/sub/dir/sub/deep", "deep");
        for (line, reason) in [
            ("docker cp dir NAME:/new", "cannot copy directory"),
            ("docker cp file NAME:/made/sub/deep/", "not a directory"),
            ("docker cp file NAME:/no/such/folder", "Could not find the file /no/such in container NAME"),
            ("docker cp file NAME:/no/", "no such directory"),
            ("docker cp nothing NAME:/", "lstat nothing: no such file or directory"),
            ("sh -c 'tar c file | docker cp - NAME:/new'", "must be a directory"),
        ] {
            let complaint = at.fails(&line.replace("NAME", name), 1);
            assert!(complaint.contains(&reason.replace("NAME", name)), "{line}: {complaint}");
        }
    }
    at.write("file", "again\n");
    at.ok("docker cp file up:/t/kept");
    assert_eq!(rig.ok("docker exec up cat /t/kept /data/from-down"), "again\nin", "mounts are part of it");
    at.ok("docker cp -a file up:/mine");
    assert_eq!(rig.ok("docker exec up stat -c %u:%g /mine"), "1000:1000");
    at.write("other/file/x", "");
    let complaint = at.fails("docker cp other/. up:/tmp", 1);
    assert!(complaint.contains("cannot overwrite non-directory"), "{complaint}");
}

#[test]
fn nothing_is_written_where_a_container_cannot_write() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull busybox");
    rig.at("").write("bound/kept", "kept\n");
    rig.at("").write("file", "");
    let at = rig.at("");
    for (name, start) in [("still", "create"), ("busy", "run -d")] {
        at.ok(&format!("docker {start} --name {name} --read-only -v ./bound:/bound:ro busybox sleep 600"));
        for path in ["/x", "/bound/x"] {
            let complaint = at.fails(&format!("docker cp file {name}:{path}"), 1);
            assert!(complaint.contains("Read-only file system"), "{name}:{path}: {complaint}");
        }
        assert_eq!(at.ok(&format!("sh -c 'docker cp {name}:/bound/kept - | tar xO'")), "kept");
    }
}

#[test]
fn links_in_a_container_never_lead_to_files_of_the_host() {
    let Some(rig) = Rig::start() else { return };
    let outside = rig.path("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("secret"), "of the host\n").expect("a file");
    let path = outside.display();
    let script = format!(
        "ln -s {path} /out; ln -s ../../../../../../../../..{path}/secret /deep; ln -s /proc/1/root /up; mkdir -p /d; \
         ln -s {path} /d/l; sleep 600"
    );
    rig.ok(&format!("docker run -d --name run busybox sh -c '{script}'"));
    rig.eventually("it is ready", || rig.run("docker exec run test -L /d/l").status == 0);
    rig.ok("docker commit run linked");
    rig.ok("docker create --name made linked");
    let at = rig.at("");
    at.write("file", "written\n");
    for name in ["run", "made"] {
        for source in ["/out/secret", "/up/secret", "/d/l/secret"] {
            at.fails(&format!("docker cp {name}:{source} got"), 1);
        }
        at.fails(&format!("docker cp -L {name}:/deep got"), 1);
        at.fails(&format!("docker cp file {name}:/out/secret"), 1);
        at.fails(&format!("docker cp file {name}:/d/l/new"), 1);
        assert!(!rig.path("work/got").exists());
    }
    // A link that is swapped back and forth while files are copied.
    let swap = "while :; do ln -sfn /d /swap; ln -sfn PATH /swap; done".replace("PATH", &path.to_string());
    rig.ok(&format!("docker exec -d run sh -c '{swap}'"));
    for _ in 0..20 {
        let _ = at.run("docker cp file run:/swap/secret");
        let _ = at.run("docker cp run:/swap/secret got");
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).expect("a file"), "of the host\n");
    let got = fs::read_to_string(rig.path("work/got")).unwrap_or_default();
    assert!(!got.contains("of the host"), "{got}");
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 1);
}

#[test]
fn diff_tells_what_a_container_wrote() {
    let Some(rig) = Rig::start() else { return };
    rig.context(
        "base",
        &[("Dockerfile", "FROM busybox\nRUN mkdir -p /app/old && echo a >/app/a && echo b >/app/old/b\n")],
    )
    .ok("docker build -q -t base .");
    rig.ok("docker run --name box -v /mounted base sh -c 'echo x >/app/a; rm -r /app/old; mkdir /new; echo y >/new/y'");
    assert_eq!(rig.ok("docker diff box"), "C /app\nC /app/a\nD /app/old\nA /mounted\nA /new\nA /new/y");
    assert!(rig.ok("docker container diff --format json box").contains(r#"{"Path":"/app/old","Kind":2}"#));
    rig.ok("docker create --name idle base");
    assert_eq!(rig.ok("docker diff idle"), "");
    assert!(rig.fails("docker diff nobody", 1).contains("No such container: nobody"));
}
