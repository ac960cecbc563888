//! `--chown` and `USER`: names and numbers in an image's own tables.

use std::io::Read as _;
use std::path::Path;

use dhow_sys::beneath::{Owner, Root};

/// The largest `/etc/passwd` or `/etc/group` that is read.
const TABLE_BYTES_MAX: u64 = 16 << 20;

/// Whom a text names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub owner: Owner,
    /// What to say of names that are in no table: they mean root, as they do for BuildKit.
    pub unknown: Option<String>,
}

/// Whether `user[:group]` is not all numbers.
pub(crate) fn has_names(owner: &str) -> bool {
    !owner.split(':').all(|part| part.bytes().all(|c| c.is_ascii_digit()))
}

/// Finds the owner that `user[:group]` means in a root file system. A user without a group is in the group
/// with the user's number if the user is a number, else in the user's own; nothing at all is root.
pub(crate) fn find_owner(root: &Root, text: &str) -> Found {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, group),
        None => (text, ""),
    };
    let mut unknown = Vec::new();
    let (uid, own_gid) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        // `:group`, and `:` where both come from variables without a value.
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => find_user(root, user).unwrap_or_else(|| {
            unknown.push(format!("user {user} is not in /etc/passwd"));
            (0, 0)
        }),
    };
    let gid = match group.parse() {
        Ok(gid) => gid,
        Err(_) if group.is_empty() => own_gid,
        Err(_) => find_group(root, group).unwrap_or_else(|| {
            unknown.push(format!("group {group} is not in /etc/group"));
            own_gid
        }),
    };
    Found { owner: Owner { uid, gid }, unknown: (!unknown.is_empty()).then(|| unknown.join(", ")) }
}

fn find_user(root: &Root, name: &str) -> Option<(u32, u32)> {
    let row = find_row(root, "etc/passwd", name);
    let ids = row.and_then(|row| Some((row.get(2)?.parse().ok()?, row.get(3)?.parse().ok()?)));
    // The one name that means something without a table, as in an image made from nothing.
    ids.or((name == "root").then_some((0, 0)))
}

fn find_group(root: &Root, name: &str) -> Option<u32> {
    let id = find_row(root, "etc/group", name).and_then(|row| row.get(2)?.parse().ok());
    id.or((name == "root").then_some(0))
}

fn find_row(root: &Root, table: &str, name: &str) -> Option<Vec<String>> {
    let table = read_table(root, table);
    let rows = table.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    rows.into_iter().find(|row| row[0] == name)
}

/// A table that is not there has no entries.
fn read_table(root: &Root, path: &str) -> String {
    let mut text = Vec::new();
    if let Ok(file) = root.open_file(Path::new(path)) {
        // What cannot be read is not found, and the error says what was looked for.
        let _ = file.take(TABLE_BYTES_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_by_name_and_number() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("etc")).expect("a folder");
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nme:x:7:8::/:\n")
            .expect("a file");
        std::fs::write(dir.path().join("etc/group"), "staff:x:50:\n").expect("a file");
        let root = Root::open(dir.path()).expect("a root");
        for (text, uid, gid) in [
            ("", 0, 0),
            ("me", 7, 8),
            ("5", 5, 5),
            ("5:6", 5, 6),
            ("me:staff", 7, 50),
            ("me:", 7, 8),
            (":staff", 0, 50),
            (":", 0, 0),
        ] {
            let found = Found { owner: Owner { uid, gid }, unknown: None };
            assert_eq!(find_owner(&root, text), found, "{text}");
        }
        let unknown = Some("user no is not in /etc/passwd, group one is not in /etc/group".to_owned());
        assert_eq!(find_owner(&root, "no:one"), Found { owner: Owner { uid: 0, gid: 0 }, unknown });
        assert_eq!(find_owner(&root, "me:one").owner, Owner { uid: 7, gid: 8 });
    }
}
