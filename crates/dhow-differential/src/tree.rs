//! Layers flattened to a tree of files, as image-spec says that they are applied.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::io::Read;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::CONTEXT_TIME;

/// Content up to here is kept as it is, longer one as its digest.
const TEXT_BYTES_MAX: usize = 80;
const DIGEST_BYTES: usize = 8;
/// What containers get from their runtime is nobody's result; docker leaves its mount points in layers.
const NOT_THE_BUILDS: [&str; 7] =
    ["proc", "sys", "dev", "etc/hosts", "etc/resolv.conf", "etc/hostname", "run/secrets"];

/// A file system by path, without leading slash.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
    inodes: u64,
}

/// A file.
#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    xattrs: BTreeMap<String, String>,
    /// Whether it has the time that files of contexts have.
    kept_time: bool,
    /// Names of one file share it.
    inode: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Dir,
    /// Its content, or how long it is and its digest.
    File(String),
    Symlink(String),
    Device(&'static str, u32, u32),
    Fifo,
    /// A hard link to what is not there.
    Broken(String),
}

impl Tree {
    /// Lays a layer over the tree.
    pub(crate) fn apply(&mut self, layer: impl Read) -> anyhow::Result<()> {
        let mut fresh = HashSet::new();
        for entry in tar::Archive::new(layer).entries()? {
            let mut entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if matches!(path.as_str(), "" | ".") {
                continue;
            }
            if name == ".wh..wh..opq" {
                let is_below = |path: &str| folder.is_empty() || path.starts_with(&format!("{folder}/"));
                self.nodes.retain(|path, _| fresh.contains(path) || !is_below(path));
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                let hidden = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
                self.remove(&hidden);
            } else {
                let node = self.node(&mut entry).with_context(|| format!("at {path}"))?;
                if node.kind != Kind::Dir || self.nodes.get(&path).is_some_and(|old| old.kind != Kind::Dir) {
                    self.remove(&path);
                }
                self.nodes.insert(path.clone(), node);
                fresh.insert(path);
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.nodes.retain(|held, _| held != path && !held.starts_with(&below));
    }

    fn node(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> anyhow::Result<Node> {
        let xattrs = xattrs(entry)?;
        let header = entry.header().clone();
        let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
        let target = target.unwrap_or_default();
        let device = |kind| -> anyhow::Result<Kind> {
            let (major, minor) = (header.device_major()?, header.device_minor()?);
            Ok(Kind::Device(kind, major.unwrap_or_default(), minor.unwrap_or_default()))
        };
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Dir,
            tar::EntryType::Symlink => Kind::Symlink(target),
            tar::EntryType::Link => {
                let held = self.nodes.get(target.trim_start_matches("./").trim_matches('/'));
                if let Some(node) = held {
                    return Ok(node.clone());
                }
                Kind::Broken(target)
            }
            tar::EntryType::Char => device("char")?,
            tar::EntryType::Block => device("block")?,
            tar::EntryType::Fifo => Kind::Fifo,
            _ => Kind::File(content(entry)?),
        };
        self.inodes += 1;
        Ok(Node {
            mode: header.mode()? & 0o7777,
            owner: (header.uid()?, header.gid()?),
            kept_time: header.mtime()?.cast_signed() == CONTEXT_TIME,
            kind,
            xattrs,
            inode: self.inodes,
        })
    }

    /// A line for everything in which this tree is not `base`.
    pub(crate) fn changes_from(&self, base: &Tree) -> Vec<String> {
        let mut lines = Vec::new();
        let mut first_names: BTreeMap<u64, &str> = BTreeMap::new();
        let mut gone: Option<String> = None;
        let paths: std::collections::BTreeSet<&String> = self.nodes.keys().chain(base.nodes.keys()).collect();
        for path in paths.into_iter().filter(|path| !is_not_the_builds(path)) {
            match (self.nodes.get(path), base.nodes.get(path)) {
                (Some(node), old) => {
                    let first = *first_names.entry(node.inode).or_insert(path);
                    let is_same = old.is_some_and(|old| node.is_same(old));
                    if first != path && node.kind != Kind::Dir {
                        lines.push(format!("{} = /{first}", shown(path)));
                    } else if !is_same {
                        lines.push(format!("{}{node}", shown(path)));
                    }
                }
                (None, _) => {
                    if gone.as_ref().is_some_and(|folder| path.starts_with(&format!("{folder}/"))) {
                        continue;
                    }
                    lines.push(format!("{} is gone", shown(path)));
                    gone = Some(path.clone());
                }
            }
        }
        lines
    }
}

impl Node {
    fn is_same(&self, other: &Node) -> bool {
        (&self.kind, self.mode, self.owner, &self.xattrs)
            == (&other.kind, other.mode, other.owner, &other.xattrs)
    }
}

/// What follows the path.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Dir => write!(f, "/")?,
            Kind::Symlink(target) => write!(f, " -> {target}")?,
            Kind::Device(kind, major, minor) => write!(f, " {kind} {major}:{minor}")?,
            Kind::Fifo => write!(f, " fifo")?,
            Kind::Broken(target) => write!(f, " = /{target}, which is not there")?,
            Kind::File(_) => {}
        }
        if !matches!(self.kind, Kind::Symlink(_)) {
            write!(f, " {:o}", self.mode)?;
        }
        if self.owner != (0, 0) {
            write!(f, " {}:{}", self.owner.0, self.owner.1)?;
        }
        for (name, value) in &self.xattrs {
            write!(f, " {name}={value}")?;
        }
        // Old dockers lose the times of directories on the way from the client.
        if self.kept_time && self.kind != Kind::Dir {
            f.write_str(" with its time")?;
        }
        if let Kind::File(content) = &self.kind {
            write!(f, " {content}")?;
        }
        Ok(())
    }
}

/// A path as an outcome has it: absolute, and in quotes if it is an odd one.
fn shown(path: &str) -> String {
    let path = format!("/{path}");
    let is_plain = path.chars().all(|c| c.is_ascii_graphic());
    if is_plain { path } else { serde_json::Value::from(path).to_string() }
}

fn is_not_the_builds(path: &str) -> bool {
    NOT_THE_BUILDS
        .iter()
        .any(|not| path.strip_prefix(not).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn xattrs(entry: &mut tar::Entry<'_, impl Read>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut xattrs = BTreeMap::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        if let Some(name) = record.key()?.strip_prefix("SCHILY.xattr.") {
            let value = String::from_utf8_lossy(record.value_bytes()).into_owned();
            xattrs.insert(name.to_owned(), serde_json::Value::from(value).to_string());
        }
    }
    Ok(xattrs)
}

fn content(entry: &mut impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.len() <= TEXT_BYTES_MAX => Ok(serde_json::Value::from(text).to_string()),
        _ => {
            let mut line = format!("{} bytes sha256:", bytes.len());
            for byte in &Sha256::digest(&bytes)[..DIGEST_BYTES] {
                write!(line, "{byte:02x}")?;
            }
            Ok(line)
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn layer(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            if kind.is_file() {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes()).unwrap();
            } else if kind.is_dir() {
                header.set_size(0);
                builder.append_data(&mut header, path, std::io::empty()).unwrap();
            } else {
                header.set_size(0);
                builder.append_link(&mut header, path, text).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn changes_are_told_with_whiteouts_and_hard_links() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let base = layer(&[
            ("a/x", Regular, "1"),
            ("b", Directory, ""),
            ("b/y", Regular, "2"),
            ("c", Directory, ""),
            ("c/z", Regular, "3"),
            ("same", Regular, "4"),
        ]);
        let top = layer(&[
            ("a/.wh.x", Regular, ""),
            (".wh.b", Regular, ""),
            ("c/.wh..wh..opq", Regular, ""),
            ("c/new", Regular, "5"),
            ("d", Link, "c/new"),
            ("e f", Symlink, "d"),
            ("same", Regular, "4"),
        ]);
        let (mut below, mut tree) = (Tree::default(), Tree::default());
        below.apply(&base[..]).unwrap();
        tree.apply(&base[..]).unwrap();
        tree.apply(&top[..]).unwrap();
        expect![[r#"
            /a/x is gone
            /b is gone
            /c/new 644 "5"
            /c/z is gone
            /d = /c/new
            "/e f" -> d"#]]
        .assert_eq(&tree.changes_from(&below).join("\n"));
    }
}
