use std::collections::BTreeMap;
use std::fmt::Write as _;

use dhow_oci::Digest;

/// The files a step reads from a context, by path.
///
/// Its text form, one line a file and sorted, is what its digest is taken of; keeping the text under that
/// digest is what lets a later build name the file that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, TreeEntry>);

/// One file as a cache key sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// Type and permission bits as in `st_mode`.
    pub mode: u32,
    /// User and group, where the owner comes along with the file.
    pub owner: Option<(u32, u32)>,
    /// Digest of the content, of the target for a symbolic link, of nothing for a directory.
    pub content: Digest,
}

/// Why a text is not a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the list of files is malformed")]
pub struct ParseTreeError {
    line: usize,
}

impl Tree {
    /// No files.
    pub fn new() -> Tree {
        Tree::default()
    }

    /// Adds a file; the last word on a path wins.
    pub fn insert(&mut self, path: impl Into<String>, entry: TreeEntry) {
        self.0.insert(path.into(), entry);
    }

    /// The files, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TreeEntry)> {
        self.0.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&TreeEntry> {
        self.0.get(path)
    }

    /// Whether a file of this path is listed.
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The text form: `MODE OWNER DIGEST PATH` a line, with backslash and line feed escaped in the path. An
    /// owner that does not count is `-`.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.0.len() * 112);
        for (path, entry) in &self.0 {
            let path = path.replace('\\', "\\\\").replace('\n', "\\n");
            write!(text, "{:o} ", entry.mode).expect("a String takes all text");
            match entry.owner {
                Some((user, group)) => write!(text, "{user}:{group}"),
                None => write!(text, "-"),
            }
            .expect("a String takes all text");
            writeln!(text, " {} {path}", entry.content).expect("a String takes all text");
        }
        text
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Tree, ParseTreeError> {
        let mut tree = Tree::new();
        for (index, line) in text.split_terminator('\n').enumerate() {
            let (path, entry) = parse_line(line).ok_or(ParseTreeError { line: index + 1 })?;
            tree.insert(path, entry);
        }
        Ok(tree)
    }

    /// The digest of the text form.
    pub fn digest(&self) -> Digest {
        Digest::sha256_of(self.to_text().as_bytes())
    }
}

fn parse_line(line: &str) -> Option<(String, TreeEntry)> {
    let mut parts = line.splitn(4, ' ');
    let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
    let owner = parse_owner(parts.next()?)?;
    let content = parts.next()?.parse().ok()?;
    Some((unescape(parts.next()?), TreeEntry { mode, owner, content }))
}

fn parse_owner(text: &str) -> Option<Option<(u32, u32)>> {
    if text == "-" {
        return Some(None);
    }
    let (user, group) = text.split_once(':')?;
    Some(Some((user.parse().ok()?, group.parse().ok()?)))
}

fn unescape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_survives_its_text_form() {
        let mut tree = Tree::new();
        let entry = TreeEntry { mode: 0o100644, owner: None, content: Digest::sha256_of(b"1") };
        for path in ["a b", "new\nline", "back\\slash", "back\\nslash", "", "return\r"] {
            tree.insert(path, entry);
        }
        tree.insert("owned", TreeEntry { owner: Some((7, 8)), ..entry });
        assert_eq!(Tree::parse(&tree.to_text()), Ok(tree));
        assert!(Tree::parse("what").is_err());
    }
}
