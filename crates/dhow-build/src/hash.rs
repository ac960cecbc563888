//! What the files of a selection are, as a cache key sees them.
//!
//! A file's content is read once: its hash is remembered by device, inode, size and both times, so an
//! unchanged tree costs one `stat` a file. A change that keeps size and modification time still moves the
//! time of last status change, which nobody can set back; so does a change of its extended attributes, which
//! are part of what is remembered.

use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_oci::{Digest, Digester};
use dhow_solver::{Tree, TreeEntry};
use dhow_store::{FileHash, FileStat, Store};
use dhow_sys::beneath::{Root, list_xattrs, read_xattr};
use rustix::fs::FileType;

use crate::chmod::Chmod;
use crate::copy::{CopyError, is_copied};
use crate::error::{StepError, StoreFailure, while_doing};
use crate::select::{Entry, Found, Selected};

/// A file, and the tree it is in.
type File<'a> = (&'a Root, &'a Entry);

const BUFFER_BYTES: usize = 256 * 1024;
const READERS_MAX: usize = 8;

/// What of a file's attributes counts.
pub(crate) struct Counts<'a> {
    /// Whether the owner comes along, as it does from another stage.
    pub owner: bool,
    /// A fixed mode makes the source's meaningless.
    pub chmod: Option<&'a Chmod>,
}

/// Why files were not hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

impl HashError {
    /// What it means for the instruction that wants to know.
    pub(crate) fn into_step(self, instruction: &'static str) -> StepError {
        match self {
            HashError::Read { path, source } => {
                StepError::Copy { instruction, source: CopyError::Read { path, source } }
            }
            HashError::Store(failure) => failure.into(),
        }
    }
}

/// Lists the files of `selection`, which are in one tree, by the names they are copied under. `now_ns` is the
/// time, in nanoseconds since 1970.
pub(crate) fn tree(
    store: &Store,
    root: &Root,
    selection: &[Selected],
    counts: &Counts<'_>,
    now_ns: i64,
) -> Result<Tree, HashError> {
    let sources: Vec<(&Root, &Selected)> = selection.iter().map(|selected| (root, selected)).collect();
    list(store, &sources, counts, now_ns)
}

/// The same for sources that each are in a tree of their own.
pub(crate) fn tree_of(
    store: &Store,
    found: &[Found],
    counts: &Counts<'_>,
    now_ns: i64,
) -> Result<Tree, HashError> {
    let sources: Vec<(&Root, &Selected)> =
        found.iter().map(|found| (&*found.root, &found.selected)).collect();
    list(store, &sources, counts, now_ns)
}

fn list(
    store: &Store,
    sources: &[(&Root, &Selected)],
    counts: &Counts<'_>,
    now_ns: i64,
) -> Result<Tree, HashError> {
    let entries: Vec<(&Root, &Selected, &Entry)> = sources
        .iter()
        .flat_map(|(root, source)| source.entries.iter().map(move |entry| (*root, *source, entry)))
        .collect();
    let files: Vec<File<'_>> = entries
        .iter()
        .map(|(root, _, entry)| (*root, *entry))
        .filter(|(_, entry)| entry.kind() == FileType::RegularFile)
        .collect();
    let mut hashes = content_of(store, &files, now_ns)?.into_iter();
    let is_only = sources.len() == 1;
    let mut tree = Tree::new();
    for (root, source, entry) in entries {
        let content = match entry.kind() {
            FileType::RegularFile => hashes.next().expect("one hash for every regular file"),
            FileType::Symlink => {
                let target = root.read_link(&entry.path).map_err(|source| read_error(entry, source))?;
                Digest::sha256_of(target.as_os_str().as_encoded_bytes())
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                Digest::sha256_of(&entry.stat.st_rdev.to_le_bytes())
            }
            FileType::Directory => directory(root, entry).map_err(|source| read_error(entry, source))?,
            _ => Digest::sha256_of(b""),
        };
        let owner = counts.owner.then_some((entry.stat.st_uid, entry.stat.st_gid));
        tree.insert(
            free_name(&tree, name(source, entry, is_only)),
            TreeEntry { mode: mode(entry, counts), owner, content },
        );
    }
    Ok(tree)
}

fn read_error(entry: &Entry, source: io::Error) -> HashError {
    HashError::Read { path: entry.path.clone(), source }
}

/// The name a file is copied under. The only source, if it is a directory, goes without its name.
fn name(source: &Selected, entry: &Entry, is_only: bool) -> String {
    let path = match (source.is_dir(), is_only) {
        _ if source.keeps_parents => entry.relative.clone(),
        (true, true) => entry.relative.clone(),
        (true, false) => Path::new(&source.name).join(&entry.relative),
        (false, _) => PathBuf::from(&source.name),
    };
    match path.to_str() {
        Some(text) => text.to_owned(),
        // Two names that look alike must not become one.
        None => format!("{} {:x?}", path.to_string_lossy(), path.as_os_str().as_encoded_bytes()),
    }
}

/// `name`, or, where another source has a file of this name, one that nothing has. What is copied later
/// meets what is there, so both count.
fn free_name(tree: &Tree, name: String) -> String {
    if !tree.contains(&name) {
        return name;
    }
    let numbered = (2_u64..).map(|number| format!("{name} ({number})"));
    numbered.into_iter().find(|name| !tree.contains(name)).expect("there is no end of numbers")
}

/// A directory is its extended attributes; what is in it is listed by itself.
fn directory(root: &Root, entry: &Entry) -> io::Result<Digest> {
    let dir = root.open_dir(&entry.path)?;
    with_xattrs(Digest::sha256_of(b""), &dir)
}

/// `content`, and the extended attributes that would be copied, if there are any.
fn with_xattrs(content: Digest, file: &impl AsFd) -> io::Result<Digest> {
    let names = list_xattrs(|buffer| rustix::fs::flistxattr(file, buffer))?;
    let mut digester: Option<Digester> = None;
    for name in names.iter().filter(|name| is_copied(name)) {
        let Some(value) = read_xattr(|buffer| rustix::fs::fgetxattr(file, name.as_slice(), buffer))? else {
            continue;
        };
        let digester = digester.get_or_insert_with(|| {
            let mut digester = Digester::sha256();
            digester.update(content.as_bytes());
            digester
        });
        for part in [name, &value] {
            digester.update(&(part.len() as u64).to_le_bytes());
            digester.update(part);
        }
    }
    Ok(digester.map_or(content, Digester::finish))
}

/// Type and permissions, the latter as they will be in the image.
fn mode(entry: &Entry, counts: &Counts<'_>) -> u32 {
    let kind = entry.stat.st_mode & !0o7777;
    let mode = entry.stat.st_mode & 0o7777;
    match (entry.kind(), counts.chmod) {
        (FileType::Symlink, _) => kind | 0o777,
        (FileType::Directory, Some(chmod)) => kind | chmod.apply(mode, true),
        (_, Some(chmod)) => kind | chmod.apply(mode, false),
        (_, None) => kind | mode,
    }
}

/// The digest of the content of each file, remembered or computed.
fn content_of(store: &Store, files: &[File<'_>], now_ns: i64) -> Result<Vec<Digest>, HashError> {
    let stats: Vec<FileStat> = files.iter().map(|(_, entry)| file_stat(entry)).collect();
    let known =
        store.file_hashes().find(&stats).map_err(while_doing("cannot look up the hashes of files"))?;
    let mut digests: Vec<Option<Digest>> =
        known.into_iter().map(|hash| hash.map(Digest::from_sha256)).collect();
    let missing: Vec<usize> = (0..files.len()).filter(|index| digests[*index].is_none()).collect();
    if missing.is_empty() {
        return Ok(digests.into_iter().flatten().collect());
    }
    let computed = hash_all(files, &missing)?;
    let mut learned = Vec::with_capacity(computed.len());
    for (index, digest) in computed {
        digests[index] = Some(digest);
        let sha256 = digest.as_bytes().try_into().expect("a SHA-256 has 32 bytes");
        learned.push(FileHash { stat: stats[index], sha256 });
    }
    store.file_hashes().put(&learned, now_ns).map_err(while_doing("cannot remember the hashes of files"))?;
    Ok(digests.into_iter().flatten().collect())
}

fn file_stat(entry: &Entry) -> FileStat {
    let nanoseconds =
        |seconds: i64, rest: u64| seconds.saturating_mul(1_000_000_000).saturating_add(rest as i64);
    FileStat {
        dev: entry.found.st_dev,
        ino: entry.found.st_ino,
        size: entry.found.st_size as u64,
        mtime_ns: nanoseconds(entry.found.st_mtime, entry.found.st_mtime_nsec),
        ctime_ns: nanoseconds(entry.found.st_ctime, entry.found.st_ctime_nsec),
    }
}

/// Reads the files at `indices`, on every processor.
fn hash_all(files: &[File<'_>], indices: &[usize]) -> Result<Vec<(usize, Digest)>, HashError> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(indices.len()));
    let failure = Mutex::new(None);
    let work = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(index) = indices.get(next.fetch_add(1, Ordering::Relaxed)) {
            match hash_file(files[*index], &mut buffer) {
                Ok(digest) => results.lock().expect("no reader panics").push((*index, digest)),
                Err(error) => {
                    next.store(indices.len(), Ordering::Relaxed);
                    failure.lock().expect("no reader panics").get_or_insert(error);
                }
            }
        }
    };
    let readers =
        std::thread::available_parallelism().map_or(1, |n| n.get()).min(READERS_MAX).min(indices.len());
    std::thread::scope(|scope| {
        for _ in 1..readers {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().expect("no reader panics") {
        Some(error) => Err(error),
        None => Ok(results.into_inner().expect("no reader panics")),
    }
}

fn hash_file((root, entry): File<'_>, buffer: &mut [u8]) -> Result<Digest, HashError> {
    let mut file = root.open_file(&entry.path).map_err(|source| read_error(entry, source))?;
    let mut digester = Digester::sha256();
    loop {
        match file.read(buffer).map_err(|source| read_error(entry, source))? {
            0 => break,
            count => digester.update(&buffer[..count]),
        }
    }
    with_xattrs(digester.finish(), &file).map_err(|source| read_error(entry, source))
}
