//! A registry in a folder.
//!
//! ```text
//! version                    the number of this layout
//! blobs/sha256/ab/abcd…      content, by digest
//! uploads/<name>/data state  content that arrives, and how far it is
//! records/…                  records, a file each
//! temp/                      files being written
//! ```
//!
//! Every file is written in `temp`, synced, and renamed to its place, and then the folder is synced. Content is linked
//! from `uploads`, whose data was synced. A process that dies leaves files in `temp` and in `uploads`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dhow_oci::Digest;
use futures_util::StreamExt as _;
use rustix::fs::FlockOperation;

use super::{ByteStream, Content, Entry, Note, Storage, StorageError, Upload, content_key, content_of};

const LAYOUT_VERSION: &str = "1\n";
/// How much of content is read at a time.
const READ_BYTES: u64 = 1 << 20;
/// How long to wait for another request to let go of an upload: that of a client which has gone notices soon.
const BUSY_WAITS_MAX: u32 = 50;
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// A registry in a folder, which several servers may share.
#[derive(Clone, Debug)]
pub struct Folder {
    root: Arc<Path>,
    /// How many more steps it takes before it is as if the process had been killed.
    #[cfg(test)]
    fuse: Arc<std::sync::atomic::AtomicI64>,
}

impl Folder {
    /// Opens or makes it.
    pub fn open(root: &Path) -> Result<Folder, StorageError> {
        let failed = |source: io::Error| StorageError::failed("open the registry", show(root), source);
        for name in ["blobs", "uploads", "records", "temp"] {
            fs::create_dir_all(root.join(name)).map_err(failed)?;
        }
        let folder = Folder {
            root: root.into(),
            #[cfg(test)]
            fuse: Arc::new(i64::MAX.into()),
        };
        let version = root.join("version");
        match fs::read_to_string(&version) {
            Ok(text) if text == LAYOUT_VERSION => {}
            Ok(text) => {
                let text = format!("its layout has version {}, this program knows 1", text.trim());
                return Err(StorageError::failed("open the registry", show(root), text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.publish_file(&version, LAYOUT_VERSION.as_bytes(), Place::Replace).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(folder)
    }

    /// The same, dying after some steps. What is left of them is counted at the end of the story.
    #[cfg(test)]
    pub(crate) fn dying_after(self, steps: i64) -> Folder {
        self.fuse.store(steps, std::sync::atomic::Ordering::SeqCst);
        self
    }

    #[cfg(test)]
    pub(crate) fn is_dead(&self) -> bool {
        self.fuse.load(std::sync::atomic::Ordering::SeqCst) < 0
    }

    /// Comes before everything that changes the disk.
    fn step(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.fuse.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) <= 0 {
            self.fuse.store(-1, std::sync::atomic::Ordering::SeqCst);
            return Err(io::Error::other("killed"));
        }
        Ok(())
    }

    fn record(&self, key: &str) -> PathBuf {
        self.root.join("records").join(key)
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs").join(content_key(digest))
    }

    fn upload(&self, upload: &str) -> PathBuf {
        self.root.join("uploads").join(upload)
    }

    /// Writes a whole file. Returns whether it did.
    fn publish_file(&self, path: &Path, bytes: &[u8], place: Place) -> io::Result<bool> {
        let temporary = self.root.join("temp").join(crate::registry::random_name());
        let is_secret = path.starts_with(self.root.join("records/keys"));
        let mode = if is_secret { 0o600 } else { 0o644 };
        self.step()?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        let outcome = (|| {
            self.step()?;
            file.write_all(bytes)?;
            file.sync_data()?;
            let parent = path.parent().expect("files lie in folders");
            self.step()?;
            create_folders(parent)?;
            self.step()?;
            match place {
                Place::Replace => fs::rename(&temporary, path)?,
                Place::Create => match fs::hard_link(&temporary, path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                    linked => linked?,
                },
            }
            sync_folder(parent)?;
            Ok(true)
        })();
        if !matches!((&outcome, place), (Ok(true), Place::Replace)) && self.step().is_ok() {
            // What cannot be removed now is swept later.
            let _ = fs::remove_file(&temporary);
        }
        outcome
    }

    /// Does work that blocks, elsewhere.
    async fn run<T: Send + 'static>(
        &self,
        act: &'static str,
        what: &str,
        work: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let folder = self.clone();
        blocking(move || work(&folder)).await.map_err(|error| StorageError::failed(act, what, error))
    }
}

/// What to do with a file that is in the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Replace,
    Create,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Makes folders that a power cut does not take away.
fn create_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().expect("the root exists");
    create_folders(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => {
            made?;
            sync_folder(parent)
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// `None` for what is not there.
fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    match result {
        Ok(value) => Ok(Some(value)),
        // The others: a file where a folder would have to be, and the reverse.
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | IsADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A stream of the bytes of a file.
fn stream(file: File, range: Range<u64>, what: String) -> ByteStream {
    let file = Arc::new(file);
    let pieces = futures_util::stream::unfold(range.start, move |at| {
        let (file, what) = (Arc::clone(&file), what.clone());
        let end = range.end;
        async move {
            if at >= end {
                return None;
            }
            let piece = blocking(move || read_piece(&file, at, READ_BYTES.min(end - at))).await;
            let piece = piece.map_err(|error| StorageError::failed("read", what, error));
            let next = piece.as_ref().map_or(end, |piece| at + piece.len() as u64);
            Some((piece, next))
        }
    });
    // The next piece is read while this one is sent.
    pieces.map(std::future::ready).buffered(2).boxed()
}

fn read_piece(file: &File, at: u64, bytes: u64) -> io::Result<Bytes> {
    let mut piece = BytesMut::zeroed(usize::try_from(bytes).expect("pieces are small"));
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.freeze())
}

#[async_trait]
impl Storage for Folder {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StorageError> {
        let path = self.record(key);
        self.run("read", key, move |_| Ok(optional(fs::read(path))?.map(Bytes::from))).await
    }

    async fn written(&self, key: &str) -> Result<Option<SystemTime>, StorageError> {
        let path = self.record(key);
        let read = move || optional(fs::metadata(path).and_then(|metadata| metadata.modified()));
        self.run("look at", key, move |_| read()).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        let path = self.record(key);
        self.run("write", key, move |folder| folder.publish_file(&path, &bytes, Place::Replace)).await?;
        Ok(())
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, StorageError> {
        let path = self.record(key);
        self.run("write", key, move |folder| folder.publish_file(&path, &bytes, Place::Create)).await
    }

    async fn delete(&self, key: &str) -> Result<bool, StorageError> {
        let path = self.record(key);
        self.run("remove", key, move |folder| {
            folder.step()?;
            remove_file(&path)
        })
        .await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let (start, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.run("list", prefix, move |folder| {
            let mut walk = Walk { after: after.as_deref(), limit, found: Vec::new() };
            walk.folder(&folder.root.join("records").join(&start), &start)?;
            Ok(walk.found)
        })
        .await
    }

    async fn size(&self, digest: Digest) -> Result<Option<u64>, StorageError> {
        let path = self.blob(digest);
        let size = move || Ok(optional(fs::metadata(path))?.map(|metadata| metadata.len()));
        self.run("look at", &digest.to_string(), move |_| size()).await
    }

    async fn read(&self, digest: Digest, range: Range<u64>) -> Result<Option<ByteStream>, StorageError> {
        let path = self.blob(digest);
        let file = self.run("read", &digest.to_string(), move |_| optional(File::open(path))).await?;
        Ok(file.map(|file| stream(file, range, digest.to_string())))
    }

    async fn contents(&self) -> Result<Vec<Content>, StorageError> {
        self.run("list", "blobs", |folder| {
            let root = folder.root.join("blobs");
            let mut walk = Walk { after: None, limit: usize::MAX, found: Vec::new() };
            walk.folder(&root, "")?;
            let content =
                |entry: Entry| Some(Content { digest: content_of(&entry.key)?, written: entry.written });
            Ok(walk.found.into_iter().filter_map(content).collect())
        })
        .await
    }

    async fn remove(&self, digest: Digest) -> Result<(), StorageError> {
        let path = self.blob(digest);
        let remove = move |folder: &Folder| {
            folder.step()?;
            remove_file(&path)
        };
        self.run("remove", &digest.to_string(), remove).await?;
        Ok(())
    }

    async fn begin(&self, upload: &str, note: &Note) -> Result<(), StorageError> {
        let (path, note) = (self.upload(upload), note.clone());
        self.run("begin upload", upload, move |folder| {
            folder.step()?;
            fs::create_dir(&path)?;
            folder.step()?;
            File::create_new(path.join("data"))?;
            write_note(folder, &path, &note)
        })
        .await
    }

    async fn resume(&self, upload: &str) -> Result<Option<Box<dyn Upload>>, StorageError> {
        for _ in 0..BUSY_WAITS_MAX {
            let path = self.upload(upload);
            match self.run("go on with upload", upload, move |folder| resume(folder, path)).await? {
                Resumed::None => return Ok(None),
                Resumed::Upload(upload) => return Ok(Some(upload)),
                Resumed::Busy => tokio::time::sleep(BUSY_WAIT).await,
            }
        }
        Err(StorageError::Busy(upload.to_owned()))
    }

    async fn uploads(&self) -> Result<Vec<(String, SystemTime)>, StorageError> {
        self.run("list", "uploads", |folder| {
            let mut found = Vec::new();
            for entry in fs::read_dir(folder.root.join("uploads"))? {
                let entry = entry?;
                // It may go meanwhile; one that lacks its state was killed at its begin.
                let state = fs::metadata(entry.path().join("state")).or_else(|_| entry.metadata());
                if let Ok(written) = state.and_then(|state| state.modified()) {
                    found.push((entry.file_name().to_string_lossy().into_owned(), written));
                }
            }
            Ok(found)
        })
        .await
    }

    async fn sweep(&self, before: SystemTime) -> Result<u64, StorageError> {
        self.run("sweep", "temp", move |folder| {
            let mut swept = 0;
            for entry in fs::read_dir(folder.root.join("temp"))? {
                let entry = entry?;
                let is_old = entry
                    .metadata()
                    .and_then(|metadata| metadata.modified())
                    .is_ok_and(|written| written < before);
                swept += u64::from(is_old && remove_file(&entry.path())?);
            }
            for entry in fs::read_dir(folder.root.join("uploads"))? {
                let path = entry?.path();
                let is_old = fs::metadata(&path)
                    .and_then(|metadata| metadata.modified())
                    .is_ok_and(|written| written < before);
                // Killed at its begin, or at its end.
                if is_old && !path.join("state").exists() {
                    fs::remove_dir_all(&path)?;
                    swept += 1;
                }
            }
            Ok(swept)
        })
        .await
    }
}

fn remove_file(path: &Path) -> io::Result<bool> {
    if optional(fs::remove_file(path))?.is_none() {
        return Ok(false);
    }
    sync_folder(path.parent().expect("files lie in folders"))?;
    Ok(true)
}

/// Walks folders in the order of the keys they stand for.
struct Walk<'a> {
    after: Option<&'a str>,
    limit: usize,
    found: Vec<Entry>,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, prefix: &str) -> io::Result<()> {
        let Some(entries) = optional(fs::read_dir(path))? else { return Ok(()) };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
            names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
        }
        names.sort_unstable();
        for name in names {
            if self.found.len() >= self.limit {
                break;
            }
            let key = format!("{prefix}{name}");
            let is_behind = self.after.is_none_or(|after| key.as_str() > after);
            if name.ends_with('/') {
                if is_behind || self.after.is_some_and(|after| after.starts_with(&key)) {
                    self.folder(&path.join(&name), &key)?;
                }
            } else if is_behind {
                // It may go meanwhile.
                let written = fs::metadata(path.join(&name)).and_then(|metadata| metadata.modified());
                if let Some(written) = optional(written)? {
                    self.found.push(Entry { key, written });
                }
            }
        }
        Ok(())
    }
}

/// A file that grows. Holding its lock makes us the only writer.
struct FolderUpload {
    folder: Folder,
    path: PathBuf,
    data: Arc<File>,
    note: Note,
    /// Where the next byte goes.
    at: u64,
}

enum Resumed {
    None,
    Busy,
    Upload(Box<dyn Upload>),
}

fn resume(folder: &Folder, path: PathBuf) -> io::Result<Resumed> {
    let data = OpenOptions::new().read(true).write(true).open(path.join("data"));
    let Some(data) = optional(data)? else { return Ok(Resumed::None) };
    match rustix::fs::flock(&data, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Resumed::Busy),
        locked => locked?,
    }
    if data.metadata()?.nlink() > 1 {
        // Its server died when it had become content, which must not be written to again. All that is left to do is
        // what that server would have done next.
        forget(folder, &path)?;
        return Ok(Resumed::None);
    }
    let Some(state) = optional(fs::read(path.join("state")))? else { return Ok(Resumed::None) };
    // A state cut short by a power cut: the client has to begin again.
    let Ok(note) = serde_json::from_slice::<Note>(&state) else { return Ok(Resumed::None) };
    if data.metadata()?.len() < note.bytes {
        return Ok(Resumed::None);
    }
    data.set_len(note.bytes)?;
    let at = note.bytes;
    Ok(Resumed::Upload(Box::new(FolderUpload {
        folder: folder.clone(),
        path,
        data: Arc::new(data),
        note,
        at,
    })))
}

/// Removes an upload. Without a state it cannot be resumed; the rest is swept if we are killed.
fn forget(folder: &Folder, path: &Path) -> io::Result<()> {
    for name in ["state", "data"] {
        folder.step()?;
        optional(fs::remove_file(path.join(name)))?;
    }
    folder.step()?;
    optional(fs::remove_dir(path)).map(drop)
}

/// Not synced: a state older than its data only makes a client send more again.
fn write_note(folder: &Folder, path: &Path, note: &Note) -> io::Result<()> {
    let temporary = folder.root.join("temp").join(crate::registry::random_name());
    folder.step()?;
    fs::write(&temporary, serde_json::to_vec(note)?)?;
    folder.step()?;
    fs::rename(&temporary, path.join("state"))
}

impl FolderUpload {
    fn failed(&self, act: &'static str) -> impl Fn(io::Error) -> StorageError {
        let what = show(&self.path);
        move |error| StorageError::failed(act, what.clone(), error)
    }
}

#[async_trait]
impl Upload for FolderUpload {
    fn note(&self) -> &Note {
        &self.note
    }

    async fn write(&mut self, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        let (folder, data, start) = (self.folder.clone(), Arc::clone(&self.data), self.at);
        let write = move || {
            folder.step()?;
            let mut at = start;
            for piece in pieces {
                data.write_all_at(&piece, at)?;
                at += piece.len() as u64;
            }
            Ok(at)
        };
        self.at = blocking(write).await.map_err(self.failed("write upload"))?;
        Ok(())
    }

    async fn save(&mut self, note: &Note) -> Result<(), StorageError> {
        assert_eq!(note.bytes, self.at, "a note is about what was written");
        let (folder, path, data) = (self.folder.clone(), self.path.clone(), Arc::clone(&self.data));
        self.note = note.clone();
        let note = note.clone();
        let save = move || {
            data.sync_data()?;
            write_note(&folder, &path, &note)
        };
        blocking(save).await.map_err(self.failed("save upload"))
    }

    async fn seal(&mut self, _digest: Digest) -> Result<(), StorageError> {
        let data = Arc::clone(&self.data);
        blocking(move || data.sync_data()).await.map_err(self.failed("save upload"))
    }

    async fn read(&self) -> Result<ByteStream, StorageError> {
        let path = self.path.join("data");
        let file = blocking(move || File::open(path)).await.map_err(self.failed("read upload"))?;
        Ok(stream(file, 0..self.at, show(&self.path)))
    }

    async fn publish(&mut self, digest: Digest) -> Result<(), StorageError> {
        let (folder, data) = (self.folder.clone(), self.path.join("data"));
        let path = self.folder.blob(digest);
        let publish = move || {
            let parent = path.parent().expect("blobs lie in folders");
            folder.step()?;
            create_folders(parent)?;
            folder.step()?;
            match fs::hard_link(&data, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => linked?,
            }
            // Also if another did it: it may not have come to this yet.
            sync_folder(parent)
        };
        blocking(publish).await.map_err(self.failed("publish upload"))
    }

    async fn discard(self: Box<Self>) -> Result<(), StorageError> {
        let (folder, path) = (self.folder.clone(), self.path.clone());
        let failed = self.failed("remove upload");
        blocking(move || forget(&folder, &path)).await.map_err(failed)
    }
}
