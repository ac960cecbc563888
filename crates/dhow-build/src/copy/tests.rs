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
        let found =
            Source { root: &root, ignored: None, excluded: None }.select(path, "test").expect("a source");
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
            merge_dirs: false,
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
fn a_directory_that_is_there_keeps_its_mode_and_takes_the_time() {
    let case = Case::new();
    fs::create_dir_all(case.from.path().join("tree/etc")).expect("a folder");
    fs::write(case.from.path().join("tree/etc/new"), "").expect("a file");
    fs::set_permissions(case.from.path().join("tree/etc"), fs::Permissions::from_mode(0o700))
        .expect("a mode");
    fs::create_dir(case.to.path().join("etc")).expect("a folder");
    fs::set_permissions(case.to.path().join("etc"), fs::Permissions::from_mode(0o1755)).expect("a mode");
    case.copy("tree", "/", None).expect("a copy");
    assert_eq!(case.mode("etc"), 0o1755);
    let time = |dir: &Path| fs::metadata(dir).expect("a folder").mtime_nsec();
    assert_eq!(time(&case.to.path().join("etc")), time(&case.from.path().join("tree/etc")));
    case.copy("tree", "/made/deep", None).expect("a copy");
    assert_eq!((case.mode("made"), case.mode("made/deep/etc")), (0o755, 0o700));
    assert_eq!(fs::metadata(case.to.path().join("made")).expect("a folder").mtime(), 1_000_000);
    case.copy("tree/etc", "/etc", Some("u=rw,go=r")).expect("a copy");
    assert_eq!((case.mode("etc"), case.mode("etc/new")), (0o1755, 0o644));
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
