//! `--chown` and `USER`: names and numbers in an image's own tables.

use std::io::Read as _;
use std::path::Path;

use dhow_sys::beneath::{Owner, Root};

/// The largest `/etc/passwd` or `/etc/group` that is read.
const TABLE_BYTES_MAX: u64 = 16 << 20;

/// Finds the owner that `user[:group]` means in a root file system. A user without a group is in the group
/// with the user's number if the user is a number, else in the user's own; nothing at all is root.
pub(crate) fn find_owner(root: &Root, text: &str) -> Result<Owner, String> {
    if text.is_empty() {
        return Ok(Owner { uid: 0, gid: 0 });
    }
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, own_gid) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        // `:group`, and `:` where both come from variables without a value.
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => find_user(root, user)?,
    };
    let gid = match group {
        None | Some("") => own_gid,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => find_group(root, group)?,
        },
    };
    Ok(Owner { uid, gid })
}

fn find_user(root: &Root, name: &str) -> Result<(u32, u32), String> {
    let table = read_table(root, "etc/passwd");
    let row = table.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|row| row[0] == name);
    let ids = row.as_ref().and_then(|row| Some((row.get(2)?.parse().ok()?, row.get(3)?.parse().ok()?)));
    // The one name that means something without a table, as in an image made from nothing.
    let ids = ids.or((name == "root").then_some((0, 0)));
    ids.ok_or_else(|| format!("unable to find user {name}: no matching entries in passwd file"))
}

fn find_group(root: &Root, name: &str) -> Result<u32, String> {
    let table = read_table(root, "etc/group");
    let row = table.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|row| row[0] == name);
    let id = row.as_ref().and_then(|row| row.get(2)?.parse().ok()).or((name == "root").then_some(0));
    id.ok_or_else(|| format!("unable to find group {name}: no matching entries in group file"))
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
            assert_eq!(find_owner(&root, text), Ok(Owner { uid, gid }), "{text}");
        }
        assert!(find_owner(&root, "nobody").is_err());
        assert!(find_owner(&root, "me:nogroup").is_err());
    }
}
