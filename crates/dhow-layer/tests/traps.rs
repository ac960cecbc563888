//! Tars made to do harm, and tars that are merely odd. Each lands in a folder with a canary outside of it.

mod forger;
mod support;

use std::error::Error;
use std::fs;

use dhow_layer::{
    Applied, ApplyOptions, Devices, EXTENSION_BYTES_MAX, Limits, Skipped, UnpackOptions, Whiteouts, apply,
    unpack,
};
use expect_test::{Expect, expect};
use forger::Forger;
use support::{is_root, listing};

/// Applies `tar` to `<scratch>/layer` and checks that nothing but that folder changed. The result is the
/// error with its causes, or what the folder looks like.
fn applied(tar: &[u8], options: &ApplyOptions) -> (String, Option<Applied>) {
    let scratch = tempfile::tempdir().unwrap();
    let layer = scratch.path().join("layer");
    fs::create_dir(&layer).unwrap();
    fs::write(scratch.path().join("canary"), "alive").unwrap();
    let result = apply(tar, &layer, options);
    let names = fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(names, 2, "something was made outside of the layer");
    let canary = fs::metadata(scratch.path().join("canary")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&canary), 1, "a file outside was linked");
    assert_eq!(fs::read(scratch.path().join("canary")).unwrap(), b"alive");
    match result {
        Ok(applied) => (listing(&layer), Some(applied)),
        Err(error) => (format!("error: {}\n", chain(&error)), None),
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn check(tar: Forger, expected: Expect) {
    if is_root() {
        expected.assert_eq(&applied(&tar.end(), &ApplyOptions::default()).0);
    }
}

fn tar() -> Forger {
    Forger::default()
}

#[test]
fn paths_that_leave_are_refused() {
    check(
        tar().file("../canary", "dead"),
        expect![[r#"
        error: ../canary: path leaves the layer through `..`
    "#]],
    );
    check(
        tar().file("a/../../canary", "dead"),
        expect![[r#"
        error: a/../../canary: path leaves the layer through `..`
    "#]],
    );
    check(
        tar().file("/../canary", "dead"),
        expect![[r#"
        error: /../canary: path leaves the layer through `..`
    "#]],
    );
    check(
        tar().pax(&[("path", b"../canary")]).file("x", "dead"),
        expect![[r#"
        error: ../canary: path leaves the layer through `..`
    "#]],
    );
    check(
        tar().pax(&[("path", b"a\0b")]).file("x", ""),
        expect![[r#"
        error: a\x00b: path holds a NUL byte
    "#]],
    );
    check(
        tar().pax(&[("path", &b"a/".repeat(2049))]).file("x", ""),
        expect![[r#"
            error: a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/...a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/: path is longer than 4096 bytes
        "#]],
    );
    check(
        tar().pax(&[("path", &[b'n'; 256])]).file("x", ""),
        expect![[r#"
        error: cannot unpack nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn: File name too long (os error 36)
    "#]],
    );
    check(
        tar().file(".wh...", ""),
        expect![[r#"
        error: .wh...: names that begin with `.wh.` are reserved for whiteouts
    "#]],
    );
    check(
        tar().file(".wh.", ""),
        expect![[r#"
        error: .wh.: names that begin with `.wh.` are reserved for whiteouts
    "#]],
    );
    check(
        tar().file("../.wh.canary", ""),
        expect![[r#"
        error: ../.wh.canary: path leaves the layer through `..`
    "#]],
    );
    check(
        tar().file(".wh.a/b", ""),
        expect![[r#"
        error: .wh.a/b: names that begin with `.wh.` are reserved for whiteouts
    "#]],
    );
    check(
        tar().file("../.wh..wh..opq", ""),
        expect![[r#"
        error: ../.wh..wh..opq: path leaves the layer through `..`
    "#]],
    );
    check(
        tar().file("/", "x"),
        expect![[r#"
        error: the root of a layer can only be a directory
    "#]],
    );
    check(
        tar().symlink("./", "/etc"),
        expect![[r#"
        error: the root of a layer can only be a directory
    "#]],
    );
}

#[test]
fn absolute_paths_are_relative_to_the_root() {
    check(
        tar().file("/etc/x", "in"),
        expect![[r#"
        d 0755 0:0 0 etc
        f 0755 0:0 1000 etc/x "in" x1
    "#]],
    );
    check(
        tar().file("a/../b", "in"),
        expect![[r#"
        f 0755 0:0 1000 b "in" x1
    "#]],
    );
}

#[test]
fn links_lead_where_they_would_in_a_chroot() {
    check(
        tar().symlink("up", "../../..").file("up/canary", "in"),
        expect![[r#"
        f 0755 0:0 1000 canary "in" x1
        l 0777 0:0 1000 up -> ../../..
    "#]],
    );
    check(
        tar().symlink("abs", "/").file("abs/canary", "in"),
        expect![[r#"
        l 0777 0:0 1000 abs -> /
        f 0755 0:0 1000 canary "in" x1
    "#]],
    );
    check(
        tar().dir("d").symlink("via", "../../../d").file("via/canary", "in"),
        expect![[r#"
        d 0755 0:0 1000 d
        f 0755 0:0 1000 d/canary "in" x1
        l 0777 0:0 1000 via -> ../../../d
    "#]],
    );
    check(
        tar().symlink("dangling", "/nowhere").file("dangling/x", "in"),
        expect![[r#"
            error: dangling holds entries but is not a directory
        "#]],
    );
    check(
        tar().symlink("loop", "loop").file("loop/x", "in"),
        expect![[r#"
        error: cannot unpack loop: Too many levels of symbolic links (os error 40)
    "#]],
    );
    check(
        tar().symlink("proc", "/proc/self/root").file("proc/canary", "in"),
        expect![[r#"
        error: cannot unpack proc: Too many levels of symbolic links (os error 40)
    "#]],
    );
    check(
        tar().symlink("x", "../canary").file("x", "replaces the link"),
        expect![[r#"
        f 0755 0:0 1000 x "replaces the link" x1
    "#]],
    );
    check(
        tar().symlink("x", "/d").dir("d").dir("x"),
        expect![[r#"
        d 0755 0:0 1000 d
        d 0755 0:0 1000 x trusted.overlay.opaque=y
    "#]],
    );
}

#[test]
fn hard_links_stay_in_the_layer() {
    check(
        tar().hardlink("x", "../canary"),
        expect![[r#"
        error: x: hard link to ../canary: path leaves the layer through `..`
    "#]],
    );
    check(
        tar().hardlink("x", "/canary"),
        expect![[r#"
        error: x: cannot make hard link to /canary: No such file or directory (os error 2)
    "#]],
    );
    check(
        tar().symlink("up", "..").hardlink("x", "up/canary"),
        expect![[r#"
        error: x: cannot make hard link to up/canary: No such file or directory (os error 2)
    "#]],
    );
    check(
        tar().symlink("l", "../canary").hardlink("x", "l").file("x", "not through it"),
        expect![[r#"
        l 0777 0:0 1000 l -> ../canary
        f 0755 0:0 1000 x "not through it" x1
    "#]],
    );
    check(
        tar().dir("d").hardlink("x", "d"),
        expect![[r#"
        error: x: cannot make hard link to d: is a directory
    "#]],
    );
    check(
        tar().file("f", "1").hardlink("f", "f"),
        expect![[r#"
        f 0755 0:0 1000 f "1" x1
    "#]],
    );
    check(
        tar().file("f", "1").file("x", "2").hardlink("x", "/f"),
        expect![[r#"
        f 0755 0:0 1000 f "1" x2
        f 0755 0:0 1000 x "1" x2
    "#]],
    );
}

#[test]
fn later_entries_win() {
    check(
        tar().file("a", "1").file("a", "2"),
        expect![[r#"
        f 0755 0:0 1000 a "2" x1
    "#]],
    );
    check(
        tar().dir("a").file("a/b", "1").file("a", "file"),
        expect![[r#"
        f 0755 0:0 1000 a "file" x1
    "#]],
    );
    check(
        tar().file("a", "1").file("a/b", "2"),
        expect![[r#"
            error: a holds entries but is not a directory
        "#]],
    );
    check(
        tar().file("a", "1").dir("a"),
        expect![[r#"
        d 0755 0:0 1000 a trusted.overlay.opaque=y
    "#]],
    );
}

#[test]
fn whiteouts_hide_what_is_below_and_never_what_is_here() {
    check(
        tar().file("d/.wh.gone", ""),
        expect![[r#"
        d 0755 0:0 0 d
        whiteout d/gone
    "#]],
    );
    check(
        tar().file(".wh.f", "").file("f", "here"),
        expect![[r#"
        f 0755 0:0 1000 f "here" x1
    "#]],
    );
    check(
        tar().file("f", "here").file(".wh.f", ""),
        expect![[r#"
        f 0755 0:0 1000 f "here" x1
    "#]],
    );
    check(
        tar().file(".wh.d", "").dir("d"),
        expect![[r#"
        d 0755 0:0 1000 d trusted.overlay.opaque=y
    "#]],
    );
    check(
        tar().dir("d").file("d/f", "here").file(".wh.d", ""),
        expect![[r#"
        d 0755 0:0 1000 d trusted.overlay.opaque=y
        f 0755 0:0 1000 d/f "here" x1
    "#]],
    );
    check(
        tar().file(".wh.d", "").file("d/f", "implied"),
        expect![[r#"
        d 0755 0:0 0 d trusted.overlay.opaque=y
        f 0755 0:0 1000 d/f "implied" x1
    "#]],
    );
    check(
        tar().dir("d").file("d/f", "here").file("d/.wh..wh..opq", ""),
        expect![[r#"
        d 0755 0:0 1000 d trusted.overlay.opaque=y
        f 0755 0:0 1000 d/f "here" x1
    "#]],
    );
    check(tar().file(".wh..wh..opq", ""), expect![]);
    check(tar().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "aufs").file(".wh..wh.aufs", ""), expect![]);
    check(
        tar().entry(b'3', "zero", "", b""),
        expect![[r#"
        whiteout zero
    "#]],
    );
}

#[test]
fn broken_tars_say_where() {
    check(
        tar().entry(b'Z', "x", "", b""),
        expect![[r#"
        error: malformed tar at byte 0: x has the unknown type `Z`
    "#]],
    );
    check(
        tar().pax(&[("size", b"many")]).file("x", ""),
        expect![[r#"
        error: malformed tar at byte 1024: size is not a number
    "#]],
    );
    check(
        tar().pax(&[("size", b"5000")]).file("x", "four"),
        expect![[r#"
            error: tar is cut off at byte 3072
        "#]],
    );
    check(
        tar().pax(&[("path", b"only a header")]),
        expect![[r#"
            error: malformed tar at byte 1024: the archive ends after an extension header
        "#]],
    );
    check(
        tar().entry(b'x', "pax", "", b"not records"),
        expect![[r#"
            error: malformed tar at byte 0: PAX header is not made of records
        "#]],
    );
    check(
        tar().entry(b'x', "pax", "", &vec![b'x'; EXTENSION_BYTES_MAX as usize + 1]),
        expect![[r#"
        error: malformed tar at byte 0: extension header of 1048577 bytes, more than 1048576
    "#]],
    );
    check(
        tar().entry(b'L', "long", "", &vec![b'x'; EXTENSION_BYTES_MAX as usize + 1]),
        expect![[r#"
        error: malformed tar at byte 0: extension header of 1048577 bytes, more than 1048576
    "#]],
    );
    check(
        (0..70).fold(tar(), |tar, _| tar.entry(b'g', "global", "", b"")).file("x", ""),
        expect![[r#"
        error: malformed tar at byte 32768: too many extension headers in a row
    "#]],
    );
    check(
        tar()
            .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")])
            .file("x", "1\n8\n5\n"),
        expect![[r#"
            error: tar is cut off at byte 1542
        "#]],
    );
    check(
        tar().pax(&[("GNU.sparse.map", b"0,5,3,5"), ("GNU.sparse.size", b"10")]).file("x", "0123456789"),
        expect![[r#"
            error: malformed tar at byte 1024: sparse file table is not sound
        "#]],
    );
}

#[test]
fn a_tar_may_lack_its_end_but_not_its_data() {
    if !is_root() {
        return;
    }
    let options = ApplyOptions::default();
    let whole = tar().file("x", "data").cut();
    expect![[r#"
        f 0755 0:0 1000 x "data" x1
    "#]]
    .assert_eq(&applied(&whole, &options).0);
    expect![[r#"
        error: tar is cut off at byte 700
    "#]]
    .assert_eq(&applied(&whole[..700], &options).0);
    expect![[r#"
        error: tar is cut off at byte 514
    "#]]
    .assert_eq(&applied(&whole[..514], &options).0);
    expect![[r#"
        error: tar is cut off at byte 100
    "#]]
    .assert_eq(&applied(&whole[..100], &options).0);
    expect![[r#"
        error: malformed tar at byte 0: header checksum does not match
    "#]]
    .assert_eq(&applied(&[b'x'; 600], &options).0);
}

#[test]
fn limits_are_named() {
    let two = || tar().file("a", "1234").file("b", "5678").end();
    let with = |entries_max, size_bytes_max| ApplyOptions {
        limits: Limits { entries_max, size_bytes_max },
        ..ApplyOptions::default()
    };
    expect![[r#"
        error: layer holds more than 1 entries
    "#]]
    .assert_eq(&applied(&two(), &with(1, 100)).0);
    expect![[r#"
        error: layer holds more than 7 bytes
    "#]]
    .assert_eq(&applied(&two(), &with(9, 7)).0);
    let hole = tar().pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"9000000000000000000")]);
    expect![[r#"
        error: layer holds more than 1099511627776 bytes
    "#]]
    .assert_eq(&applied(&hole.file("x", "1").end(), &ApplyOptions::default()).0);
}

#[test]
fn a_plain_archive_joins_what_is_there() {
    if !is_root() {
        return;
    }
    let target = tempfile::tempdir().unwrap();
    let options = ApplyOptions { whiteouts: Whiteouts::Literal, ..ApplyOptions::default() };
    let first =
        tar().dir("d").file("d/kept", "1").file("d/old", "1").file("f", "1").dir("e").file("e/x", "1");
    apply(&first.end()[..], target.path(), &options).unwrap();
    let second =
        tar().dir("d").file("d/old", "2").file(".wh.f", "").dir("f").file("e", "2").symlink("l", "d");
    apply(&second.file("l/via", "2").entry(b'3', "zero", "", b"").end()[..], target.path(), &options)
        .unwrap();
    expect![[r#"
        f 0755 0:0 1000 .wh.f "" x1
        d 0755 0:0 1000 d
        f 0755 0:0 1000 d/kept "1" x1
        f 0755 0:0 1000 d/old "2" x1
        f 0755 0:0 1000 d/via "2" x1
        f 0755 0:0 1000 e "2" x1
        d 0755 0:0 1000 f
        l 0777 0:0 1000 l -> d
    "#]]
    .assert_eq(&listing(target.path()));
}

#[test]
fn a_bomb_is_stopped_before_it_fills_the_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let bomb = zstd::encode_all(&tar().entry(b'0', "zeros", "", &vec![0; 8 << 20]).end()[..], 19).unwrap();
    assert!(bomb.len() < 2000);
    let options = UnpackOptions { uncompressed_bytes_max: 1 << 20, ..UnpackOptions::default() };
    let error = unpack(&bomb[..], scratch.path(), &options).unwrap_err();
    assert_eq!(error.to_string(), "layer decompresses to more than 1048576 bytes");
    assert!(fs::metadata(scratch.path().join("zeros")).map_or(0, |file| file.len()) <= 1 << 20);
}

#[test]
fn attributes_of_overlayfs_itself_are_left_out() {
    if !is_root() {
        return;
    }
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.kept", b"yes"),
    ];
    let tar = tar().pax(records).dir("d").end();
    let (listing, applied) = applied(&tar, &ApplyOptions::default());
    expect![[r#"
        d 0755 0:0 1000 d user.kept=yes
    "#]]
    .assert_eq(&listing);
    let overlay = |name: &str| Skipped::OverlayXattr { path: "d".into(), name: name.into() };
    let skipped = [overlay("trusted.overlay.redirect"), overlay("user.overlay.opaque")];
    assert_eq!(applied.unwrap().skipped, skipped);
}

#[test]
fn devices_can_be_left_out() {
    let options = ApplyOptions {
        devices: Devices::Skip,
        owner: dhow_layer::Ownership::Ignore,
        ..ApplyOptions::default()
    };
    let (listing, applied) = applied(&tar().entry(b'4', "sda", "", b"").file("f", "").end(), &options);
    assert_eq!(listing.lines().count(), 1, "{listing}");
    assert_eq!(applied.unwrap().skipped, [Skipped::Device { path: "sda".into() }]);
}

#[test]
fn implied_directories_are_reported_until_they_are_listed() {
    let report = |tar: Forger| {
        let options = ApplyOptions { owner: dhow_layer::Ownership::Ignore, ..ApplyOptions::default() };
        let applied = applied(&tar.end(), &options).1.unwrap();
        (applied.implied_dirs, applied.lists_root)
    };
    assert_eq!(report(tar().file("a/b/c", "")), (vec!["a".into(), "a/b".into()], false));
    assert_eq!(report(tar().file("a/b/c", "").dir("a/").dir("./")), (vec!["a/b".into()], true));
    assert_eq!(report(tar().file("a/b/c", "").file("a", "")), (vec![], false));
    assert_eq!(report(tar().dir("a").dir("a/b").file("a/b/c", "")), (vec![], false));
}

#[test]
fn one_broken_side_of_the_pipeline_does_not_hang_the_other() {
    let scratch = tempfile::tempdir().unwrap();
    let tar = tar().file("../x", "").entry(b'0', "big", "", &vec![7; 16 << 20]).end();
    let error = unpack(&tar[..], scratch.path(), &UnpackOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "../x: path leaves the layer through `..`");
    let good = Forger::default().entry(b'0', "big", "", &vec![7; 16 << 20]).end();
    let cut = zstd::encode_all(&good[..], 1).unwrap();
    let error = unpack(&cut[..cut.len() / 2], scratch.path(), &UnpackOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read layer");
}

#[test]
fn names_are_as_long_as_a_file_system_bears() {
    if !is_root() {
        return;
    }
    let pax = |path: &[u8]| tar().pax(&[("path", path)]).file("short", "deep");
    let applied = |tar: Forger| applied(&tar.end(), &ApplyOptions::default());
    // The kernel takes less than PATH_MAX at a time.
    let deep = ["n".repeat(255).as_str(); 15].join("/");
    let (listing, _) = applied(pax(deep.as_bytes()));
    assert!(listing.ends_with(&format!("{deep} \"deep\" x1\n")), "{listing}");
    for path in [[deep.as_str(); 2].join("/"), "n".repeat(4096), "n".repeat(256)] {
        let (said, done) = applied(pax(path.as_bytes()));
        let is_told =
            ["File name too long", "path is longer than 4096 bytes"].iter().any(|why| said.contains(why));
        assert!(done.is_none() && is_told, "{said}");
        assert!(said.len() < 1000, "an error is for people: {said}");
    }
    let (said, _) = applied(tar().pax(&[("linkpath", &[b'l'; 5000])]).symlink("link", "x"));
    assert!(said.contains("File name too long") && said.len() < 1000, "{said}");
    let (said, _) = applied(pax(b"a\0b"));
    assert!(said.contains("NUL"), "{said}");
}

#[test]
fn a_hundred_thousand_entries_are_no_matter() {
    let entries =
        (0..100_000).fold(tar(), |tar, number| tar.file(&format!("d{}/f{number}", number % 100), ""));
    let scratch = tempfile::tempdir().unwrap();
    let options = ApplyOptions { owner: dhow_layer::Ownership::Ignore, ..ApplyOptions::default() };
    apply(&entries.end()[..], scratch.path(), &options).unwrap();
    let made = fs::read_dir(scratch.path().join("d7")).unwrap().count();
    assert_eq!(made, 1000);
}
