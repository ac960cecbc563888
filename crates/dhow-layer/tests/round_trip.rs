//! From folder to tar and back, and from tars that others made.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dhow_layer::{
    ApplyOptions, CompressOptions, Compression, Compressor, DiffOptions, UnpackOptions, apply, digests,
    unpack, write_tar,
};
use dhow_oci::{DiffId, Digest};
use dhow_sys::beneath::{Owner, Root, Time};
use dhow_sys::node;
use dhow_sys::overlay::{self, Layer, Upper};
use expect_test::expect;
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::FileType;
use support::{is_root, listing};

fn tar_of(dir: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    write_tar(dir, &mut tar, &DiffOptions::default()).expect("diff");
    tar
}

/// One thing to do to a folder. Names come from a small set, so that actions meet.
#[derive(Clone, Debug)]
enum Act {
    Dir { path: PathBuf, mode: u32, opaque: bool },
    File { path: PathBuf, data: Vec<u8>, mode: u32, mtime: i64, xattr: Option<Vec<u8>> },
    Symlink { path: PathBuf, target: Vec<u8> },
    Link { path: PathBuf, to: PathBuf },
    Fifo { path: PathBuf },
    Device { path: PathBuf, major: u32, minor: u32 },
    Whiteout { path: PathBuf },
}

fn path() -> impl Strategy<Value = PathBuf> {
    let name = prop_oneof![
        8 => "[abc]".prop_map(String::into_bytes),
        1 => vec(1..=255_u8, 1..5),
        1 => "[xyz]{90,200}".prop_map(String::into_bytes),
    ];
    let usable =
        |name: &Vec<u8>| !name.contains(&b'/') && name != b"." && name != b".." && !name.starts_with(b".wh.");
    vec(name.prop_filter("a name", usable), 1..4)
        .prop_map(|parts| PathBuf::from(OsStr::from_bytes(&parts.join(&b'/'))))
}

fn act() -> impl Strategy<Value = Act> {
    let mtime = prop_oneof![Just(0), Just(-5), Just(1 << 33), 0..2_000_000_000_i64];
    prop_oneof![
        3 => (path(), 0..0o10000_u32, any::<bool>()).prop_map(|(path, mode, opaque)| Act::Dir { path, mode, opaque }),
        5 => (path(), vec(any::<u8>(), 0..1500), 0..0o10000_u32, mtime, proptest::option::of(vec(any::<u8>(), 0..200)))
            .prop_map(|(path, data, mode, mtime, xattr)| Act::File { path, data, mode, mtime, xattr }),
        1 => (path(), vec(1..=255_u8, 1..150)).prop_map(|(path, target)| Act::Symlink { path, target }),
        2 => (path(), path()).prop_map(|(path, to)| Act::Link { path, to }),
        1 => path().prop_map(|path| Act::Fifo { path }),
        1 => (path(), 1..300_u32, 0..70_000_u32).prop_map(|(path, major, minor)| Act::Device { path, major, minor }),
        2 => path().prop_map(|path| Act::Whiteout { path }),
    ]
}

/// Does it, if the folder as it stands allows.
fn perform(root: &Root, act: &Act) -> std::io::Result<()> {
    let parents = |path: &Path| root.mkdirs(path.parent().unwrap_or(Path::new("")), 0o755).map(drop);
    match act {
        Act::Dir { path, mode, opaque } => {
            parents(path)?;
            root.mkdir(path, 0o755)?;
            root.chmod(path, *mode)?;
            if *opaque { node::set_opaque(root, path, Default::default()) } else { Ok(()) }
        }
        Act::File { path, data, mode, mtime, xattr } => {
            parents(path)?;
            std::io::Write::write_all(&mut root.create_file(path, 0o600)?, data)?;
            root.chown(path, Owner { uid: data.len() as u32 * 5000, gid: *mode })?;
            root.chmod(path, *mode)?;
            if let Some(value) = xattr {
                root.set_xattr(path, OsStr::new("user.note"), value)?;
            }
            root.set_times(path, Time { seconds: *mtime, nanoseconds: 0 })
        }
        Act::Symlink { path, target } => {
            parents(path).and_then(|()| root.symlink(OsStr::from_bytes(target), path))
        }
        Act::Link { path, to } => parents(path).and_then(|()| root.hardlink(to, path)),
        Act::Fifo { path } => parents(path).and_then(|()| root.mknod(path, FileType::Fifo, 0o640, 0, 0)),
        Act::Device { path, major, minor } => {
            parents(path).and_then(|()| root.mknod(path, FileType::BlockDevice, 0o600, *major, *minor))
        }
        Act::Whiteout { path } => parents(path).and_then(|()| node::make_whiteout(root, path)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn applying_a_folders_tar_gives_the_folder(acts in vec(act(), 0..25)) {
        if !is_root() {
            return Ok(());
        }
        let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Root::open(folder.path()).unwrap();
        for act in &acts {
            // Acts that the folder does not allow (a taken name, a file as parent) just do not happen.
            let _ = perform(&root, act);
        }
        let tar = tar_of(folder.path());
        prop_assert!(tar == tar_of(folder.path()), "two diffs of one folder differ");
        let applied = apply(&tar[..], copy.path(), &ApplyOptions::default()).unwrap();
        prop_assert_eq!(listing(copy.path()), listing(folder.path()));
        prop_assert!(tar == tar_of(copy.path()), "the copy's diff differs");
        prop_assert_eq!(applied.implied_dirs, Vec::<PathBuf>::new());
        let digests = digests(folder.path(), &DiffOptions::default()).unwrap();
        prop_assert_eq!(digests.diff_id, DiffId::new(Digest::sha256_of(&tar)));
        prop_assert_eq!(digests.summary.size_bytes, tar.len() as u64);
        prop_assert_eq!(digests.summary.entries, applied.entries);
    }
}

#[test]
fn content_ignores_times_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::open(folder.path()).unwrap();
    let file = Path::new("file");
    fs::write(folder.path().join(file), "one").unwrap();
    let content = || digests(folder.path(), &DiffOptions::default()).unwrap();
    let first = content();
    root.set_times(file, Time { seconds: 77, nanoseconds: 0 }).unwrap();
    assert_eq!(content().content, first.content);
    assert_ne!(content().diff_id, first.diff_id);
    fs::write(folder.path().join(file), "two").unwrap();
    assert_ne!(content().content, first.content);
    fs::write(folder.path().join(file), "one").unwrap();
    root.chmod(file, 0o4755).unwrap();
    assert_ne!(content().content, first.content);
}

#[test]
fn no_time_is_later_than_the_source_date_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::open(folder.path()).unwrap();
    for (name, seconds) in [("old", 100), ("new", 2_000_000_000)] {
        root.create_file(Path::new(name), 0o644).unwrap();
        root.set_times(Path::new(name), Time { seconds, nanoseconds: 5 }).unwrap();
    }
    let mut tar = Vec::new();
    write_tar(folder.path(), &mut tar, &DiffOptions { mtime_max: Some(1000), ..Default::default() }).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let options = ApplyOptions { owner: dhow_layer::Ownership::Ignore, ..Default::default() };
    apply(&tar[..], copy.path(), &options).unwrap();
    let copy = Root::open(copy.path()).unwrap();
    let mtime = |name: &str| copy.stat(Path::new(name)).unwrap().st_mtime;
    assert_eq!((mtime("old"), mtime("new")), (100, 1000));
}

#[test]
fn whiteouts_that_share_an_inode_are_no_hard_links() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = Root::open(folder.path()).unwrap();
    node::make_whiteout(&root, Path::new("a")).unwrap();
    root.hardlink(Path::new("a"), Path::new("b")).unwrap();
    let copy = tempfile::tempdir().unwrap();
    apply(&tar_of(folder.path())[..], copy.path(), &ApplyOptions::default()).unwrap();
    assert_eq!(listing(copy.path()), "whiteout a\nwhiteout b\n");
}

#[test]
fn what_a_layer_cannot_hold_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("d/.wh.x"), "").unwrap();
    let error = digests(folder.path(), &DiffOptions::default()).unwrap_err().to_string();
    expect!["d/.wh.x: names that begin with `.wh.` cannot be stored in a layer"].assert_eq(&error);
}

#[test]
fn a_layer_survives_every_compression() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text ".repeat(500_000)).unwrap();
    let expected = digests(folder.path(), &DiffOptions::default()).unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let options = CompressOptions::new(compression, std::num::NonZeroUsize::MIN);
        let mut out = Compressor::new(Vec::new(), &options).unwrap();
        write_tar(folder.path(), &mut out, &DiffOptions::default()).unwrap();
        let compressed = out.finish().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let unpacked = unpack(&compressed[..], copy.path(), &UnpackOptions::default()).unwrap();
        assert_eq!((unpacked.compression, unpacked.diff_id), (compression, expected.diff_id));
        assert_eq!(unpacked.compressed_bytes, compressed.len() as u64);
        assert_eq!(digests(copy.path(), &DiffOptions::default()).unwrap(), expected);
    }
}

/// A folder with what archivers disagree about: long names, odd bytes, holes, links, attributes.
fn odd_folder(dir: &Path) {
    let root = Root::open(dir).unwrap();
    let long = ["n".repeat(150), "m".repeat(150), "o".repeat(150)].join("/");
    root.mkdirs(Path::new(&long), 0o750).unwrap();
    fs::write(dir.join(&long).join("file"), "deep").unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"l\xc3\xa4nge \xff\n")), "bytes").unwrap();
    root.symlink(OsStr::new(&"t/".repeat(120)), Path::new("long-link")).unwrap();
    root.hardlink(Path::new(&long).join("file").as_path(), Path::new("hard")).unwrap();
    root.mknod(Path::new("fifo"), FileType::Fifo, 0o600, 0, 0).unwrap();
    root.mknod(Path::new("null"), FileType::CharacterDevice, 0o666, 1, 3).unwrap();
    root.chown(Path::new("hard"), Owner { uid: 3_000_000, gid: 2_999_999 }).unwrap();
    root.chmod(Path::new("hard"), 0o6755).unwrap();
    let holes = fs::File::create(dir.join("holes")).unwrap();
    for offset in (0..40).map(|i| i * 300_000) {
        std::os::unix::fs::FileExt::write_all_at(&holes, b"island", offset).unwrap();
    }
    holes.set_len(20_000_000).unwrap();
    root.set_xattr(Path::new("hard"), OsStr::new("user.note"), b"a\0b\n=").unwrap();
    let mut paths =
        vec![PathBuf::from(&long), PathBuf::from("hard"), "holes".into(), "fifo".into(), "null".into()];
    paths.extend(["long-link".into(), PathBuf::from(OsStr::from_bytes(b"l\xc3\xa4nge \xff\n"))]);
    paths.extend(
        Path::new(&long).ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).map(PathBuf::from),
    );
    for (index, path) in paths.iter().enumerate() {
        root.set_times(path, Time { seconds: 1_000_000 + index as i64, nanoseconds: 0 }).unwrap();
    }
}

const PYTHON: &str = "import sys, tarfile
t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=getattr(tarfile, sys.argv[2] + '_FORMAT'))
t.add(sys.argv[1], arcname='.')
t.close()";

/// Runs an archiver on `dir`; `None`, with the reason printed, if it is not there.
fn archive(dir: &Path, program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let dir = dir.to_str().unwrap();
    let arguments = arguments.iter().map(|argument| if *argument == "DIR" { dir } else { argument });
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Some(output.stdout),
        Ok(output) => panic!("{program}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            eprintln!("skipped {program}: {error}");
            None
        }
    }
}

#[test]
fn tars_of_other_archivers_give_the_same_folder() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    odd_folder(folder.path());
    let all = listing(folder.path());
    let without_xattrs = all.replace(" user.note=a\\x00b\\n=", "");
    assert_ne!(all, without_xattrs);
    let gnu: &[&str] = &["-C", "DIR", "-cf", "-", "--xattrs"];
    let cases: &[(&str, Vec<&str>, &str)] = &[
        ("tar", [gnu, &["--format=pax", "."]].concat(), &all),
        ("tar", [gnu, &["--format=pax", "--sparse", "--sparse-version=1.0", "."]].concat(), &all),
        ("tar", [gnu, &["--format=pax", "--sparse", "--sparse-version=0.1", "."]].concat(), &all),
        ("tar", [gnu, &["--format=pax", "--sparse", "--sparse-version=0.0", "."]].concat(), &all),
        ("tar", vec!["-C", "DIR", "-cf", "-", "--format=gnu", "."], &without_xattrs),
        ("tar", vec!["-C", "DIR", "-cf", "-", "--format=gnu", "--sparse", "."], &without_xattrs),
        (
            "tar",
            vec!["-C", "DIR", "-cf", "-", "--format=gnu", "--transform=s,^[.]/,/,", "."],
            &without_xattrs,
        ),
        ("python3", vec!["-c", PYTHON, "DIR", "PAX"], &without_xattrs),
        ("python3", vec!["-c", PYTHON, "DIR", "GNU"], &without_xattrs),
        ("bsdtar", vec!["-C", "DIR", "-cf", "-", "--format=pax", "--xattrs", "."], &all),
        ("bsdtar", vec!["-C", "DIR", "-cf", "-", "--format=gnutar", "."], &without_xattrs),
    ];
    for (program, arguments, expected) in cases {
        let Some(tar) = archive(folder.path(), program, arguments) else { continue };
        let copy = tempfile::tempdir().unwrap();
        let applied = apply(&tar[..], copy.path(), &ApplyOptions::default());
        applied.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
        assert_eq!(listing(copy.path()), **expected, "{program} {arguments:?}");
    }
}

#[test]
fn gnu_tar_reads_what_we_write() {
    if !is_root() {
        return;
    }
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    odd_folder(folder.path());
    let file = copy.path().join("layer.tar");
    fs::write(&file, tar_of(folder.path())).unwrap();
    let target = copy.path().join("out");
    fs::create_dir(&target).unwrap();
    let arguments =
        ["--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", file.to_str().unwrap(), "-C", "DIR"];
    if archive(&target, "tar", &arguments).is_some() {
        assert_eq!(listing(&target), listing(folder.path()));
    }
}

/// Mounts the layers, topmost first, at `at`, runs `act` and unmounts.
fn through_overlay<T>(lowers: &[&Path], upper: Option<&Path>, at: &Path, act: impl FnOnce(&Path) -> T) -> T {
    let layers: Vec<Layer<'_>> = lowers.iter().map(|lower| Layer::Path(lower)).collect();
    let work = at.with_extension("work");
    fs::create_dir_all(&work).unwrap();
    let upper = upper.map(|upper| Upper { upper: Layer::Path(upper), work: Layer::Path(&work) });
    let mount = overlay::mount(&layers, upper, overlay::Options::default()).unwrap();
    mount.attach(at).unwrap();
    drop(mount);
    let result = act(at);
    rustix::mount::unmount(at, rustix::mount::UnmountFlags::empty()).unwrap();
    result
}

#[test]
fn what_a_command_changed_is_the_same_after_a_trip_through_tar() {
    if !is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let dir = |name: &str| {
        let path = scratch.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let (lower, upper, copy, at) = (dir("lower"), dir("upper"), dir("copy"), dir("at"));
    let script = "umask 022; mkdir -p etc opt/app/lib srv/old var; echo 1 > etc/conf; echo 2 > opt/app/lib/a; \
        ln etc/conf etc/same; echo 3 > srv/old/x; echo 4 > var/gone; chmod 1777 var";
    run(&lower, script);
    let script = "rm -rf opt/app var/gone; mkdir -p opt/app; echo new > opt/app/only; echo more >> etc/conf; \
        rm -r srv; ln -s etc srv; mv var run; chown 5:6 run; rm etc/same; mkdir etc/same";
    let wanted = through_overlay(&[&lower], Some(&upper), &at, |at| {
        run(at, script);
        listing(at)
    });
    let tar = tar_of(&upper);
    apply(&tar[..], &copy, &ApplyOptions::default()).unwrap();
    let got = through_overlay(&[&copy, &lower], None, &at, listing);
    assert_eq!(got, wanted);
    assert!(tar == tar_of(&copy), "the copy's diff differs");
}

fn run(dir: &Path, script: &str) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(dir).status().unwrap();
    assert!(status.success(), "{script}");
}
