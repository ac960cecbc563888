use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::select::Source;

struct Case {
    from: tempfile::TempDir,
    to: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        Case { from: tempfile::tempdir().expect("a folder"), to: tempfile::tempdir().expect("a folder") }
    }

    fn select(&self, path: &str) -> (Root, Vec<Selected>) {
        let root = Root::open(self.from.path()).expect("a root");
        let found = Source::whole(&root).select(path, "test").expect("a source");
        (root, found)
    }

    fn copy(&self, path: &str, dest: &str, chmod: Option<&str>) -> Result<(), CopyError> {
        let (from, found) = self.select(path);
        self.copy_found(&from, &found, dest, chmod)
    }

    fn copy_found(
        &self,
        from: &Root,
        found: &[Selected],
        dest: &str,
        chmod: Option<&str>,
    ) -> Result<(), CopyError> {
        let to = Root::open(self.to.path()).expect("a root");
        let options = CopyOptions {
            owner: None,
            chmod: chmod.map(|text| Chmod::parse(text).expect("a mode")),
            made_at: Time { seconds: 1_000_000, nanoseconds: 0 },
            replace: false,
        };
        found.iter().try_for_each(|source| Destination::find(&to, dest)?.copy(from, source, &options))
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.to.path().join(path)).expect(path).permissions().mode() & 0o7777
    }
}

#[test]
fn files_go_under_their_name_or_a_new_one() {
    for (dest, ends_at) in [
        ("/f", "f"),
        ("/new/f", "new/f"),
        ("/new/", "new/a"),
        ("/dir", "dir/a"),
        ("/link", "dir/a"),
        ("/d", "gone"),
    ] {
        let case = Case::new();
        fs::write(case.from.path().join("a"), "a").expect("a file");
        fs::create_dir(case.to.path().join("dir")).expect("a folder");
        symlink("/dir", case.to.path().join("link")).expect("a link");
        symlink("gone", case.to.path().join("d")).expect("a link");
        case.copy("a", dest, None).expect(dest);
        assert_eq!(fs::read_to_string(case.to.path().join(ends_at)).expect(dest), "a");
    }
}

#[test]
fn a_directory_that_is_there_takes_mode_and_time_unless_it_is_the_destination() {
    let case = Case::new();
    fs::create_dir_all(case.from.path().join("tree/etc")).expect("a folder");
    fs::write(case.from.path().join("tree/etc/new"), "").expect("a file");
    fs::set_permissions(case.from.path().join("tree/etc"), fs::Permissions::from_mode(0o700))
        .expect("a mode");
    fs::create_dir(case.to.path().join("etc")).expect("a folder");
    fs::set_permissions(case.to.path().join("etc"), fs::Permissions::from_mode(0o1755)).expect("a mode");
    case.copy("tree", "/", None).expect("a copy");
    assert_eq!(case.mode("etc"), 0o700);
    let time = |dir: &Path| fs::metadata(dir).expect("a folder").mtime_nsec();
    assert_eq!(time(&case.to.path().join("etc")), time(&case.from.path().join("tree/etc")));
    case.copy("tree", "/made/deep", None).expect("a copy");
    assert_eq!((case.mode("made"), case.mode("made/deep/etc")), (0o755, 0o700));
    assert_eq!(fs::metadata(case.to.path().join("made")).expect("a folder").mtime(), 1_000_000);
    case.copy("tree/etc", "/etc", Some("u=rw,go=r")).expect("a copy");
    assert_eq!((case.mode("etc"), case.mode("etc/new")), (0o700, 0o644));
    case.copy("tree/etc", "/on/the/way", Some("750")).expect("a copy");
    assert_eq!(
        (case.mode("on"), case.mode("on/the/way"), case.mode("on/the/way/new")),
        (0o750, 0o750, 0o750)
    );
}

#[test]
fn links_stay_links_and_names_of_one_file_stay_one() {
    let case = Case::new();
    let at = |path: &str| case.from.path().join(path);
    fs::create_dir(at("tree")).expect("a folder");
    fs::write(at("tree/one"), "1").expect("a file");
    fs::hard_link(at("tree/one"), at("tree/two")).expect("a link");
    symlink("/etc/passwd", at("tree/out")).expect("a link");
    case.copy("tree", "/copy", None).expect("a copy");
    let to = case.to.path().join("copy");
    assert_eq!(fs::read_link(to.join("out")).expect("a link"), Path::new("/etc/passwd"));
    let inode = |name: &str| fs::metadata(to.join(name)).expect(name).ino();
    assert_eq!(inode("one"), inode("two"));
}

#[test]
fn a_directory_does_not_replace_a_file_nor_a_file_a_directory() {
    let case = Case::new();
    fs::create_dir_all(case.from.path().join("tree/name")).expect("a folder");
    fs::create_dir_all(case.from.path().join("other")).expect("a folder");
    fs::write(case.from.path().join("other/name"), "").expect("a file");
    fs::write(case.to.path().join("name"), "").expect("a file");
    assert!(
        matches!(case.copy("tree", "/", None), Err(CopyError::NotADirectory { path }) if path == Path::new("/name"))
    );
    fs::remove_file(case.to.path().join("name")).expect("it is there");
    case.copy("tree", "/", None).expect("a copy");
    assert!(
        matches!(case.copy("other", "/", None), Err(CopyError::Write { path, .. }) if path == Path::new("/name"))
    );
    // Nor does it go where a link leads that is in its way.
    let dir = case.to.path().join("dir");
    fs::create_dir(&dir).expect("a folder");
    symlink(&dir, case.to.path().join("dir/name")).expect("a link");
    assert!(matches!(case.copy("tree", "/dir", None), Err(CopyError::NotADirectory { .. })));
}

#[test]
fn a_source_that_changes_after_it_was_looked_at_is_not_copied() {
    let changes: [fn(&Path); 4] = [
        |file| fs::write(file, "two").expect("a file"),
        |file| fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("a mode"),
        |file| fs::rename(file.with_file_name("other"), file).expect("a file"),
        |file| {
            fs::remove_file(file).expect("it is there");
            symlink("/etc/passwd", file).expect("a link");
        },
    ];
    for change in changes {
        let case = Case::new();
        let file = case.from.path().join("file");
        for name in ["file", "other"] {
            fs::write(case.from.path().join(name), "one").expect("a file");
        }
        let (from, found) = case.select("file");
        // Until the clock of the file system has moved on.
        std::thread::sleep(std::time::Duration::from_millis(20));
        change(&file);
        let outcome = case.copy_found(&from, &found, "/", None);
        assert!(matches!(outcome, Err(CopyError::Changed { .. } | CopyError::Read { .. })), "{outcome:?}");
    }
}

#[test]
fn many_files_come_out_as_few_do() {
    const FILES: usize = 500;
    let case = Case::new();
    for number in 0..FILES {
        let dir = case.from.path().join(format!("tree/{}", number % 7));
        fs::create_dir_all(&dir).expect("a folder");
        let file = dir.join(format!("f{number}"));
        // Some larger than the buffer of small ones.
        let bytes = if number % 100 == 0 { 200_000 } else { number };
        fs::write(&file, vec![number as u8; bytes]).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600 | number as u32 & 0o77)).expect("a mode");
    }
    fs::hard_link(case.from.path().join("tree/0/f0"), case.from.path().join("tree/1/again")).expect("a link");
    case.copy("tree", "/copy", None).expect("a copy");
    let to = case.to.path().join("copy");
    for number in 0..FILES {
        let name = format!("{}/f{number}", number % 7);
        let [from, to] = [case.from.path().join("tree"), to.clone()].map(|dir| dir.join(&name));
        assert!(fs::read(&from).expect("a file") == fs::read(&to).expect("a copy"), "{name}");
        let [from, to] = [from, to].map(|path| fs::metadata(path).expect("a file"));
        assert_eq!((from.mode(), from.mtime_nsec()), (to.mode(), to.mtime_nsec()), "{name}");
    }
    let inode = |name: &str| fs::metadata(to.join(name)).expect(name).ino();
    assert_eq!(inode("0/f0"), inode("1/again"));
}

#[test]
fn one_failure_among_many_files_is_told() {
    let case = Case::new();
    fs::create_dir(case.from.path().join("tree")).expect("a folder");
    for number in 0..300 {
        fs::write(case.from.path().join(format!("tree/f{number}")), "x").expect("a file");
    }
    fs::create_dir_all(case.to.path().join("copy/f77")).expect("a folder");
    let outcome = case.copy("tree", "/copy", None);
    assert!(
        matches!(&outcome, Err(CopyError::Write { path, .. }) if path == Path::new("/copy/f77")),
        "{outcome:?}"
    );
}

#[test]
fn with_parents_the_destination_is_made_and_the_base_is_not_copied() {
    let case = Case::new();
    fs::create_dir_all(case.from.path().join("base/sub")).expect("a folder");
    fs::write(case.from.path().join("base/sub/f"), "f").expect("a file");
    for (dir, mode) in [("base", 0o700), ("base/sub", 0o710)] {
        fs::set_permissions(case.from.path().join(dir), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let from = Root::open(case.from.path()).expect("a root");
    let found = Source::whole(&from).select_with_parents("base/./sub/f", "test").expect("a source");
    case.copy_found(&from, &found, "/new", None).expect("a copy");
    assert_eq!((case.mode("new"), case.mode("new/sub"), case.mode("new/sub/f")), (0o755, 0o710, 0o644));
}
