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

    /// The text form: `MODE DIGEST PATH` a line, with backslash and line feed escaped in the path.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.0.len() * 112);
        for (path, entry) in &self.0 {
            let path = path.replace('\\', "\\\\").replace('\n', "\\n");
            writeln!(text, "{:o} {} {path}", entry.mode, entry.content).expect("a String takes all text");
        }
        text
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Tree, ParseTreeError> {
        let mut tree = Tree::new();
        for (index, line) in text.lines().enumerate() {
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
    let mut parts = line.splitn(3, ' ');
    let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
    let content = parts.next()?.parse().ok()?;
    Some((unescape(parts.next()?), TreeEntry { mode, content }))
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
        let entry = TreeEntry { mode: 0o100644, content: Digest::sha256_of(b"1") };
        for path in ["a b", "new\nline", "back\\slash", "back\\nslash", ""] {
            tree.insert(path, entry);
        }
        assert_eq!(Tree::parse(&tree.to_text()), Ok(tree));
        assert!(Tree::parse("what").is_err());
    }
}
