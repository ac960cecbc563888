use std::fs;

use super::*;

/// A tree with a little of everything.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |path: &str| dir.path().join(path);
    for folder in ["app/lib/deep", "docs", "empty", "target"] {
        fs::create_dir_all(at(folder)).expect("a folder");
    }
    for file in
        ["a.txt", "b.txt", "app/main.py", "app/lib/x.py", "app/lib/deep/y.pyc", "docs/keep.md", "docs/z.md"]
    {
        fs::write(at(file), file).expect("a file");
    }
    std::os::unix::fs::symlink("app/lib", at("link")).expect("a link");
    std::os::unix::fs::symlink("../../..", at("app/out")).expect("a link");
    std::os::unix::fs::symlink("nowhere", at("dangling")).expect("a link");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("app/fifo"),
        FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("a fifo");
    drop(std::os::unix::net::UnixListener::bind(at("app/socket")).expect("a socket"));
    dir
}

/// What `pattern` finds: `name: file file`, or the error.
fn find(ignore: &str, exclude: &[&str], pattern: &str) -> String {
    let dir = tree();
    let root = Root::open(dir.path()).expect("a root");
    let rules = IgnoreRules::parse(ignore).expect("rules");
    let ignored = Ignored { file: ".dockerignore".to_owned(), rules };
    let excluded = IgnoreRules::from_patterns(exclude.iter().copied()).expect("rules");
    let source = Source { ignored: Some(&ignored), excluded: Some(&excluded), ..Source::whole(&root) };
    let found = match pattern.strip_prefix("--parents ") {
        Some(pattern) => source.select_with_parents(pattern, "build context"),
        None => source.select(pattern, "build context"),
    };
    match found {
        Ok(found) => found.iter().map(show).collect::<Vec<_>>().join("; "),
        Err(SelectError::NotFound { ignored_by: Some(by), .. }) => format!("line {} {}", by.line, by.pattern),
        Err(error) => error.to_string(),
    }
}

fn show(selected: &Selected) -> String {
    let entries = selected.entries.iter().map(|entry| entry.relative.display().to_string());
    let entries: Vec<String> = entries.filter(|path| !path.is_empty()).collect();
    format!("{}: {}", selected.name.display(), entries.join(" "))
}

#[test]
fn sources_are_found_inside_the_context() {
    for (pattern, found) in [
        ("a.txt", "a.txt: "),
        ("/a.txt", "a.txt: "),
        ("../../a.txt", "a.txt: "),
        ("./app/../a.txt", "a.txt: "),
        ("empty", "empty: "),
        ("app", "app: fifo lib lib/deep lib/deep/y.pyc lib/x.py main.py out"),
        ("link", "link: deep deep/y.pyc x.py"),
        ("link/deep", "deep: y.pyc"),
        ("app/out/docs", "docs: keep.md z.md"),
        ("*.txt", "a.txt: ; b.txt: "),
        ("[ab].txt", "a.txt: ; b.txt: "),
        ("app/*/x.py", "x.py: "),
        ("none*", ""),
        ("none", "none is not in the build context"),
        ("a.txt/b", "a.txt/b is not in the build context"),
        ("dangling", "dangling is not in the build context"),
        ("app/socket", "app/socket is not in the build context"),
        ("[", "malformed pattern `[`"),
    ] {
        assert_eq!(find("", &[], pattern), found, "{pattern}");
    }
}

#[test]
fn what_is_ignored_is_not_there_and_its_line_is_named() {
    for (ignore, pattern, found) in [
        ("# note\n*.txt\n", "a.txt", "line 2 *.txt"),
        ("*.txt\n!b.txt\n", "*.txt", "b.txt: "),
        ("docs\n", "docs/z.md", "line 1 docs"),
        ("docs\n!docs/keep.md\n", "docs", "docs: keep.md"),
        ("docs/*\n!docs/keep.md\n", "docs", "docs: keep.md"),
        ("**/*.pyc\n", "app/lib", "lib: deep x.py"),
        ("app/lib\n", "link", "line 1 app/lib"),
        ("*\n", ".", ": "),
        ("*\n!app/lib/x.py\n", ".", ": app app/lib app/lib/x.py"),
    ] {
        assert_eq!(find(ignore, &[], pattern), found, "{ignore:?} {pattern}");
    }
}

#[test]
fn one_instruction_can_leave_out_more() {
    assert_eq!(find("", &["lib/**", "fifo"], "app"), "app: lib main.py out");
    assert_eq!(find("docs/z.md\n", &["keep.md"], "docs"), "docs: ");
}

#[test]
fn sources_can_keep_the_directories_they_are_in() {
    for (ignore, exclude, pattern, found) in [
        ("", &[] as &[&str], "app/lib/x.py", ": app app/lib app/lib/x.py"),
        ("", &[], "./app/lib/deep", ": app app/lib app/lib/deep app/lib/deep/y.pyc"),
        ("", &[], "/app/./lib/deep/.", ": lib lib/deep lib/deep/y.pyc"),
        ("", &[], "app/./lib/./deep", ": lib lib/deep lib/deep/y.pyc"),
        ("", &[], "app/l*/x.py", ": app app/lib app/lib/x.py"),
        ("", &[], "**/*.py*", ": app app/lib app/lib/deep app/lib/deep/y.pyc app/lib/x.py app/main.py"),
        ("", &[], "app/**/y.pyc", ": app app/lib app/lib/deep app/lib/deep/y.pyc"),
        ("", &[], "*/./*.md", ": keep.md z.md"),
        ("", &[], "docs/*.txt", ""),
        ("", &[], "[ab].txt", ": a.txt b.txt"),
        ("", &[], "none", "none is not in the build context"),
        ("", &["**/*.pyc"], "app/lib", ": app app/lib app/lib/deep app/lib/x.py"),
        ("", &["app/lib/x.py"], "app/l*", ": app app/lib app/lib/deep app/lib/deep/y.pyc"),
        ("", &["deep"], "app/lib/./", ": x.py"),
        ("app\n!app/lib/x.py\n", &[], "app", ": app app/lib app/lib/x.py"),
        ("docs\n", &[], "docs/z.md", "line 1 docs"),
        ("", &[], "[", "malformed pattern `[`"),
    ] {
        assert_eq!(find(ignore, exclude, &format!("--parents {pattern}")), found, "{pattern}");
    }
}

#[test]
fn a_wildcard_does_not_find_what_is_excluded_and_a_name_does() {
    assert_eq!(find("", &["b*"], "*.txt"), "a.txt: ");
    assert_eq!(find("", &["b*"], "b.txt"), "b.txt: ");
    assert_eq!(find("", &["*", "!a*"], "*.txt"), "a.txt: ");
}

#[test]
fn modes_can_be_those_that_git_keeps() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tree();
    for (path, mode) in [("a.txt", 0o600), ("b.txt", 0o4710), ("docs", 0o700)] {
        fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let root = Root::open(dir.path()).expect("a root");
    let source = Source { modes: Modes::Git, ..Source::whole(&root) };
    for (path, mode) in [("a.txt", 0o644), ("b.txt", 0o755), ("docs", 0o755)] {
        let found = source.select(path, "test").expect(path);
        assert_eq!(found[0].entries[0].stat.st_mode & 0o7777, mode, "{path}");
    }
}
