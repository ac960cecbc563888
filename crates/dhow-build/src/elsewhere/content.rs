//! The hash BuildKit takes of files: per file a header as in Docker's old tar sums and the bytes, per
//! directory the hashes of what is in it. Names are left out of a file's hash and times count nowhere.

use std::collections::BTreeMap;

use dhow_oci::{Digest, Digester};

/// What of a file's attributes is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// Permissions, set-id and sticky bits.
    pub mode: u32,
    pub owner: (u32, u32),
    /// Bytes of a regular file; 0 for all others.
    pub size: u64,
    pub kind: Kind,
    /// Where a symbolic link points.
    pub target: &'a [u8],
    pub device: (u32, u32),
    /// Names and values, in any order.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    Directory,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Fifo,
}

impl Header<'_> {
    /// A hasher that has taken the header in; the bytes of a regular file go next.
    pub(super) fn digester(&self) -> Digester {
        let flag = match self.kind {
            Kind::Regular => '0',
            Kind::Symlink => '2',
            Kind::CharacterDevice => '3',
            Kind::BlockDevice => '4',
            Kind::Directory => '5',
            Kind::Fifo => '6',
        };
        // Links have no permissions of their own.
        let mode = if self.kind == Kind::Symlink { self.mode | 0o777 } else { self.mode };
        let (uid, gid) = self.owner;
        let (major, minor) = self.device;
        let size = self.size;
        let mut digester = Digester::sha256();
        digester.update(format!("namemode{mode}uid{uid}gid{gid}size{size}typeflag{flag}linkname").as_bytes());
        digester.update(self.target);
        digester.update(format!("unamegnamedevmajor{major}devminor{minor}").as_bytes());
        let mut xattrs: Vec<_> = self.xattrs.iter().filter(|(name, _)| is_hashed(name)).collect();
        xattrs.sort();
        for (name, value) in xattrs {
            digester.update(name);
            digester.update(value);
        }
        digester
    }
}

/// Capabilities, and whatever does not belong to the machine.
fn is_hashed(xattr: &[u8]) -> bool {
    xattr == b"security.capability" || !(xattr.starts_with(b"security.") || xattr.starts_with(b"system."))
}

/// The files of one source: the source itself, and what is below it by path.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// Relative paths with `/` replaced by NUL, which sorts a directory right before what is in it. The
    /// source itself is the empty path.
    by_key: BTreeMap<Vec<u8>, File>,
}

#[derive(Clone, Debug)]
struct File {
    digest: Digest,
    is_dir: bool,
}

impl Files {
    /// Adds a file with the hash of its header and bytes.
    pub(super) fn insert(&mut self, relative: &[u8], digest: Digest, is_dir: bool) {
        self.by_key.insert(key(relative), File { digest, is_dir });
    }

    /// The hash of the source: of its bytes, or of all in it.
    pub(super) fn digest(&self) -> Option<Digest> {
        let root = self.by_key.get(&Vec::new())?;
        Some(if root.is_dir { self.directory(&[], root) } else { root.digest })
    }

    fn directory(&self, at: &[u8], dir: &File) -> Digest {
        let mut digester = Digester::sha256();
        digester.update(b"\0");
        digester.update(dir.digest.to_string().as_bytes());
        for (key, child) in self.children(at) {
            digester.update(&key[at.len()..]);
            let digest = if child.is_dir { self.directory(key, child) } else { child.digest };
            digester.update(digest.to_string().as_bytes());
        }
        digester.finish()
    }

    fn children<'a>(&'a self, at: &'a [u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a File)> {
        let mut prefix = at.to_vec();
        prefix.push(0);
        let below = self.by_key.range(prefix.clone()..);
        let below = below.take_while({
            let prefix = prefix.clone();
            move |(key, _)| key.starts_with(&prefix)
        });
        below.filter(move |(key, _)| !key[prefix.len()..].contains(&0))
    }

    /// Everything one by one, as `list` takes it.
    fn each<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = (Vec<u8>, Digest)> + 'a {
        self.by_key.iter().map(move |(below, file)| {
            let mut at = path.to_vec();
            at.extend_from_slice(below);
            if file.is_dir {
                at.push(0);
            }
            (at, file.digest)
        })
    }
}

/// The hash of the sources that a wildcard found. `found` has each one's path below the part of the pattern
/// that has no wildcard.
pub(super) fn list(found: &[(Vec<u8>, Files)]) -> Digest {
    let mut entries = BTreeMap::new();
    for (path, files) in found {
        let path = key(path);
        entries.extend(files.each(&path).map(|(mut at, digest)| {
            // A directory is sorted by its name with a NUL at the end, and written without.
            let is_dir = at.last() == Some(&0);
            let sorted = at.clone();
            if is_dir {
                at.pop();
            }
            (sorted, (at, digest))
        }));
    }
    let mut digester = Digester::sha256();
    for (at, digest) in entries.values() {
        digester.update(if at.is_empty() { b"\0" } else { at });
        digester.update(digest.to_string().as_bytes());
    }
    digester.finish()
}

/// The same as Docker 20.10 takes it: last names alone, and directories as one.
pub(super) fn list_20(found: &[(Vec<u8>, Files)]) -> Digest {
    let sorted: BTreeMap<Vec<u8>, &Files> = found.iter().map(|(path, files)| (key(path), files)).collect();
    let mut digester = Digester::sha256();
    for (number, (path, files)) in sorted.iter().enumerate() {
        if number > 0 {
            digester.update(b"\0");
        }
        digester.update(path.rsplit(|byte| *byte == 0).next().unwrap_or_default());
        let digest = files.digest().map(|digest| digest.to_string());
        digester.update(digest.unwrap_or_default().as_bytes());
    }
    digester.finish()
}

/// The hash of several sources, in the order of their paths.
pub(super) fn join(digests: &[Digest]) -> Digest {
    let texts: Vec<String> = digests.iter().map(Digest::to_string).collect();
    Digest::sha256_of(texts.join("\0").as_bytes())
}

/// `/` before every part, as NUL.
fn key(relative: &[u8]) -> Vec<u8> {
    if relative.is_empty() {
        return Vec::new();
    }
    let mut key = Vec::with_capacity(relative.len() + 1);
    key.push(0);
    key.extend(relative.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }));
    key
}
