//! Taking BuildKit's hash of what a `COPY` reads.

use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_dockerfile::glob;
use dhow_oci::Digest;
use dhow_sys::beneath::{Root, list_xattrs, read_xattr};
use rustix::fs::{FileType, major, minor};

use super::content::{self, Files, Header, Kind};
use super::keys::clean;
use crate::select::{Entry, Found, Selected};

const BUFFER_BYTES: usize = 256 * 1024;
const READERS_MAX: usize = 8;

/// The files that a `COPY` found.
pub(crate) struct Sources<'a> {
    /// Whether that is the build context, where owners do not count.
    pub is_context: bool,
    /// As written.
    pub patterns: Vec<&'a str>,
    /// What they found, in order.
    pub found: &'a [Found],
}

/// The paths of one source that count, and their hash.
struct Hashed {
    path: String,
    is_wildcard: bool,
    digest: Digest,
    /// As Docker 20.10 takes it.
    digest_20: Digest,
}

impl Sources<'_> {
    /// The hashes of everything, in each way they have been taken. An error if a file is not any more what it
    /// was when it was found.
    pub(super) fn hash(&self) -> io::Result<Vec<Digest>> {
        let mut digests = self.file_digests()?.into_iter();
        let mut hashed = Vec::with_capacity(self.patterns.len());
        for (number, pattern) in self.patterns.iter().enumerate() {
            let found = self.found.iter().filter(|found| found.source == number);
            let found: Vec<&Selected> = found.map(|found| &found.selected).collect();
            let mut files = Vec::with_capacity(found.len());
            for selected in &found {
                let mut tree = Files::default();
                for entry in &selected.entries {
                    let digest = digests.next().expect("one hash for every entry");
                    let is_dir = entry.kind() == FileType::Directory;
                    tree.insert(entry.relative.as_os_str().as_bytes(), digest, is_dir);
                }
                files.push(tree);
            }
            let path = clean(pattern);
            let is_wildcard = glob::is_pattern(&path);
            let (digest, digest_20) = match files.as_slice() {
                [file] if !is_wildcard => {
                    let digest = file.digest();
                    let digest = digest.ok_or_else(|| io::Error::other("a source lists all but itself"))?;
                    (digest, digest)
                }
                _ => {
                    let found = below_prefix(&path, &found, files);
                    (content::list(&found), content::list_20(&found))
                }
            };
            hashed.push(Hashed { path, is_wildcard, digest, digest_20 });
        }
        let chosen = chosen(hashed);
        let join = |digest: fn(&Hashed) -> Digest| {
            content::join(&chosen.iter().map(digest).collect::<Vec<Digest>>())
        };
        let mut hashes = vec![join(|source| source.digest), join(|source| source.digest_20)];
        hashes.dedup();
        Ok(hashes)
    }

    /// The hash of each entry by itself, in order.
    fn file_digests(&self) -> io::Result<Vec<Digest>> {
        let entries: Vec<(&Root, &Entry)> = self
            .found
            .iter()
            .flat_map(|found| found.selected.entries.iter().map(|entry| (&*found.root, entry)))
            .collect();
        let next = AtomicUsize::new(0);
        let done = Mutex::new(vec![None; entries.len()]);
        let failure = Mutex::new(None);
        let work = || {
            let mut buffer = vec![0; BUFFER_BYTES];
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((root, entry)) = entries.get(index) else { return };
                match self.digest(root, entry, &mut buffer) {
                    Ok(digest) => done.lock().expect("no reader panics")[index] = Some(digest),
                    Err(error) => {
                        next.store(entries.len(), Ordering::Relaxed);
                        failure.lock().expect("no reader panics").get_or_insert(error);
                    }
                }
            }
        };
        let readers = std::thread::available_parallelism().map_or(1, |n| n.get());
        std::thread::scope(|scope| {
            for _ in 1..readers.min(READERS_MAX).min(entries.len()) {
                scope.spawn(work);
            }
            work();
        });
        match failure.into_inner().expect("no reader panics") {
            Some(error) => Err(error),
            None => Ok(done.into_inner().expect("no reader panics").into_iter().flatten().collect()),
        }
    }

    fn digest(&self, root: &Root, entry: &Entry, buffer: &mut [u8]) -> io::Result<Digest> {
        let kind = match entry.kind() {
            FileType::RegularFile => Kind::Regular,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharacterDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            _ => Kind::Fifo,
        };
        // BuildKit is never sent the root of a context and hashes nothing for it.
        if self.is_context && entry.path.as_os_str().is_empty() {
            return Ok(Digest::sha256_of(b""));
        }
        let target = match kind {
            Kind::Symlink => root.read_link(&entry.path)?,
            _ => PathBuf::new(),
        };
        let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
        let mut file = None;
        let xattrs = match kind {
            Kind::Regular => xattrs(file.insert(root.open_file(&entry.path)?))?,
            Kind::Directory => xattrs(&root.open_dir(&entry.path)?)?,
            _ => Vec::new(),
        };
        let stat = &entry.stat;
        let header = Header {
            mode: stat.st_mode & 0o7777,
            owner: if self.is_context { (0, 0) } else { (stat.st_uid, stat.st_gid) },
            size: if kind == Kind::Regular { stat.st_size as u64 } else { 0 },
            kind,
            target: target.as_os_str().as_bytes(),
            device: if is_device { (major(stat.st_rdev), minor(stat.st_rdev)) } else { (0, 0) },
            xattrs: &xattrs,
        };
        let mut digester = header.digester();
        if let Some(mut file) = file {
            loop {
                match file.read(buffer)? {
                    0 => break,
                    count => digester.update(&buffer[..count]),
                }
            }
            let now = rustix::fs::fstat(&file)?;
            let what = |stat: &rustix::fs::Stat| {
                (
                    stat.st_ino,
                    stat.st_size,
                    stat.st_mtime,
                    stat.st_mtime_nsec,
                    stat.st_ctime,
                    stat.st_ctime_nsec,
                )
            };
            if what(&now) != what(&entry.found) {
                return Err(io::Error::other(format!("{} is being written to", entry.path.display())));
            }
        }
        Ok(digester.finish())
    }
}

fn xattrs(file: &impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = list_xattrs(|buffer| rustix::fs::flistxattr(file, buffer))?;
    let mut xattrs = Vec::new();
    for name in names {
        if let Some(value) = read_xattr(|buffer| rustix::fs::fgetxattr(file, name.as_slice(), buffer))? {
            xattrs.push((name.clone(), value));
        }
    }
    Ok(xattrs)
}

/// What a wildcard found, by its path below the part of the pattern that is plain.
fn below_prefix(pattern: &str, found: &[&Selected], files: Vec<Files>) -> Vec<(Vec<u8>, Files)> {
    let prefix: PathBuf = Path::new(pattern.trim_start_matches('/'))
        .components()
        .take_while(|part| !glob::is_pattern(&part.as_os_str().to_string_lossy()))
        .collect();
    let relative = |selected: &Selected| {
        let path = selected.path.strip_prefix(&prefix).unwrap_or(&selected.path);
        path.as_os_str().as_bytes().to_vec()
    };
    let whole = |selected: &Selected, files: Files| {
        // A link stands for all it leads to.
        match files.digest().filter(|_| selected.path != selected.entries[0].path) {
            Some(digest) => {
                let mut file = Files::default();
                file.insert(b"", digest, false);
                file
            }
            None => files,
        }
    };
    found.iter().zip(files).map(|(selected, files)| (relative(selected), whole(selected, files))).collect()
}

/// The sources that count, in the order of their paths: what is within another source counts with that.
fn chosen(hashed: Vec<Hashed>) -> Vec<Hashed> {
    let plain: Vec<String> =
        hashed.iter().filter(|source| !source.is_wildcard).map(|source| source.path.clone()).collect();
    let is_within = |path: &str, other: &String| {
        path != other && path.starts_with(&format!("{}/", other.trim_end_matches('/')))
    };
    let mut chosen: Vec<Hashed> = Vec::new();
    for source in hashed {
        let is_covered = plain.iter().any(|other| is_within(&source.path, other));
        let is_twice = chosen.iter().any(|held| held.path == source.path);
        if source.is_wildcard || !(is_covered || is_twice) {
            chosen.push(source);
        }
    }
    chosen.sort_by(|a, b| a.path.cmp(&b.path));
    chosen
}
