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
    let source = Source { root: &root, ignored: Some(&ignored), excluded: Some(&excluded) };
    match source.select(pattern, "build context") {
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
