//! What snapshots are called. Both kinds of names become folder names, so they are checked once, here.

use std::fmt;
use std::str::FromStr;

/// The longest name: with prefixes and suffixes it stays below the 255 bytes of a file name.
const NAME_BYTES_MAX: usize = 160;
/// Folder names that the snapshotter keeps for itself.
const RESERVED_PREFIXES: [&str; 3] = ["active-", "trash-", "new-"];
const RESERVED_NAMES: [&str; 2] = ["empty", "lock"];

/// A text cannot name a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a snapshot name: {reason}", text.escape_debug())]
pub struct ParseNameError {
    text: String,
    reason: &'static str,
}

/// The name of a committed snapshot, e.g. `sha256-<hex>` for the layer with that diff id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotName(String);

/// The key of an active snapshot, chosen by its owner, e.g. a container's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotKey(String);

fn check(text: &str) -> Result<String, ParseNameError> {
    let fail = |reason| Err(ParseNameError { text: text.to_owned(), reason });
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match text {
        "" => fail("it is empty"),
        _ if text.len() > NAME_BYTES_MAX => fail("it is too long"),
        _ if !text.bytes().all(allowed) => fail("only letters, digits, `-`, `_` and `.` are allowed"),
        _ if !text.as_bytes()[0].is_ascii_alphanumeric() => fail("it must begin with a letter or digit"),
        _ => Ok(text.to_owned()),
    }
}

impl FromStr for SnapshotName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        if RESERVED_NAMES.contains(&text) || RESERVED_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(ParseNameError { text: text.to_owned(), reason: "it is reserved" });
        }
        check(text).map(Self)
    }
}

impl FromStr for SnapshotKey {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        check(text).map(Self)
    }
}

impl SnapshotName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SnapshotKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_folder_names() {
        for bad in ["", ".", "..", "a/b", "active-x", "trash-1", "lock", "a b", "ü", "-a", &"a".repeat(161)]
        {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad} was accepted");
        }
        let name = format!("sha256-{}", "0".repeat(64));
        assert_eq!(name.parse::<SnapshotName>().map(|name| name.to_string()), Ok(name));
        let error = "a/b".parse::<SnapshotKey>().unwrap_err().to_string();
        assert_eq!(error, "`a/b` is not a snapshot name: only letters, digits, `-`, `_` and `.` are allowed");
    }
}
