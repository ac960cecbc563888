//! Turns a layer's folder back into the one tar stream that stands for it.
//!
//! Entries come parents first, each directory's names in byte order. Times are whole seconds. The first path
//! of a hard-linked file carries the data. Overlayfs's marks become `.wh.` entries again. The root itself is
//! not listed, as in Docker's layers; sockets are left out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use dhow_oci::{DiffId, Digest, Digester};
use dhow_sys::beneath::{PATH_BYTES_MAX, Time};
use dhow_sys::node;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use crate::header::{Entry, EntryKind, Xattr};
use crate::owner::Ownership;
use crate::path::Shown;
use crate::reader::EXTENSION_BYTES_MAX;
use crate::ring::ring;
use crate::writer::TarWriter;
use crate::{OPAQUE_NAME, WHITEOUT_PREFIX};

/// How much of a file is read at a time.
const READ_BYTES: usize = 256 * 1024;

/// How a folder is turned into a tar stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// What files' owners are called in the layer.
    pub owner: Ownership,
    /// No time later than this (seconds since 1970): `SOURCE_DATE_EPOCH`.
    pub mtime_max: Option<i64>,
}

/// What a tar stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TarSummary {
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Length of the stream.
    pub size_bytes: u64,
    /// Bytes of all regular files, each once.
    pub content_bytes: u64,
}

/// Two names for what a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerDigests {
    /// Of the tar stream that [`write_tar`] would write.
    pub diff_id: DiffId,
    /// Of the same without times: two runs of one command give different `diff_id`s, but one `content` if
    /// they made the same files.
    pub content: Digest,
    /// What the stream holds.
    pub summary: TarSummary,
}

/// Why a folder was not turned into a layer.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A file cannot be read.
    #[error("cannot read {}", Shown(path))]
    Read {
        /// Relative to the folder, or the folder itself.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The stream cannot be written.
    #[error("cannot write layer")]
    Write(#[source] io::Error),
    /// A file's size changed while it was read.
    #[error("{} changed while it was being read", Shown(path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A name that a layer cannot hold, since it would mean "gone".
    #[error("{}: names that begin with `.wh.` cannot be stored in a layer", Shown(path))]
    Reserved {
        /// The file.
        path: PathBuf,
    },
    /// A path or an extended attribute too long to be unpacked again.
    #[error("{}: path or extended attributes are too long for a layer", Shown(path))]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// An owner without a translation.
    #[error("{}: owner {id} has no place in the id map", Shown(path))]
    Unmapped {
        /// The file.
        path: PathBuf,
        /// The user or group id.
        id: u32,
    },
    /// Overlayfs moved data elsewhere, so the folder is not whole without its lower layers.
    #[error("{}: layer was made by an overlay with redirect_dir or metacopy", Shown(path))]
    NotWhole {
        /// The file.
        path: PathBuf,
    },
}

/// Writes the folder `dir` (an overlay's upper) as a tar stream.
pub fn write_tar(dir: &Path, output: impl Write, options: &DiffOptions) -> Result<TarSummary, DiffError> {
    let output = BufWriter::with_capacity(READ_BYTES, output);
    Ok(Differ::new(output, options, false).run(dir)?.1)
}

/// A file system that becomes part of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarTree {
    /// The folder in the archive that it is put into; empty for none.
    pub folder: PathBuf,
    /// Where it is; `None` if nothing is in it.
    pub dir: Option<PathBuf>,
    /// A file that comes along and is not of it: its name and content.
    pub beside: Option<(String, Vec<u8>)>,
}

/// Writes several file systems as one plain archive, each into its folder.
pub fn write_tar_of(
    trees: &[TarTree],
    output: impl Write,
    options: &DiffOptions,
) -> Result<TarSummary, DiffError> {
    let output = BufWriter::with_capacity(READ_BYTES, output);
    let mut differ = Differ::new(output, options, false);
    for tree in trees {
        differ.tree(tree)?;
    }
    Ok(differ.finish()?.1)
}

/// Writes the file or folder `file` in `dir` as a plain archive in which it is called `name`: no name in it means "gone",
/// and a link is written as one.
pub fn write_tar_as(
    dir: &OwnedFd,
    file: &OsStr,
    name: &OsStr,
    output: impl Write,
    options: &DiffOptions,
) -> Result<TarSummary, DiffError> {
    let output = BufWriter::with_capacity(READ_BYTES, output);
    let mut differ = Differ::new(output, options, false);
    differ.plain = true;
    differ.in_child(name.as_bytes(), |differ| differ.visit(dir, file))?;
    Ok(differ.finish()?.1)
}

/// Computes what the folder's stream is called, without storing it. Reading and hashing overlap.
pub fn digests(dir: &Path, options: &DiffOptions) -> Result<LayerDigests, DiffError> {
    let (writer, mut reader) = ring();
    thread::scope(|scope| {
        let hasher = thread::Builder::new()
            .name("diff-id".into())
            .spawn_scoped(scope, move || {
                let mut digester = Digester::sha256();
                io::copy(&mut reader, &mut HashInto(&mut digester)).map(|_| digester.finish())
            })
            .map_err(DiffError::Write)?;
        let walked = Differ::new(writer, options, true).run(dir);
        let (writer, summary, content) = match walked {
            Ok((Walked { output, content }, summary)) => (output, summary, content),
            Err(error) => return Err(error),
        };
        writer.finish().map_err(DiffError::Write)?;
        let hashed = hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let diff_id = DiffId::new(hashed.map_err(DiffError::Write)?);
        Ok(LayerDigests { diff_id, content: content.finish(), summary })
    })
}

struct HashInto<'a>(&'a mut Digester);

impl Write for HashInto<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Differ<'a, W: Write> {
    tar: TarWriter<W>,
    content: Content,
    options: &'a DiffOptions,
    /// The first path of every file with more than one name.
    links: HashMap<(u64, u64), Vec<u8>>,
    path: Vec<u8>,
    buffer: Vec<u8>,
    entries: u64,
    content_bytes: u64,
    /// The files are as they are seen, not a layer of them.
    plain: bool,
}

struct Walked<W> {
    output: W,
    content: Content,
}

impl<'a, W: Write> Differ<'a, W> {
    fn new(output: W, options: &'a DiffOptions, content: bool) -> Self {
        Self {
            tar: TarWriter::new(output),
            content: Content(content.then(Digester::sha256)),
            options,
            links: HashMap::new(),
            path: Vec::new(),
            buffer: vec![0; READ_BYTES],
            entries: 0,
            content_bytes: 0,
            plain: false,
        }
    }

    fn run(mut self, dir: &Path) -> Result<(Walked<W>, TarSummary), DiffError> {
        self.directory_contents(&open_dir(dir)?)?;
        self.finish()
    }

    fn tree(&mut self, tree: &TarTree) -> Result<(), DiffError> {
        let root = tree.dir.as_deref().map(open_dir).transpose()?;
        self.links.clear();
        self.path.clear();
        for part in &tree.folder {
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(part.as_bytes());
            let folder = Entry { kind: EntryKind::Directory, mode: 0o755, ..Entry::mark(&self.path) };
            self.emit(&Entry { raw_path: [&self.path[..], b"/"].concat(), ..folder })?;
        }
        if let Some((name, bytes)) = &tree.beside {
            self.in_child(name.as_bytes(), |differ| differ.whole_file(bytes))?;
        }
        root.map_or(Ok(()), |root| self.directory_contents(&root))
    }

    /// A file whose content is here. It is as old as anything may be.
    fn whole_file(&mut self, bytes: &[u8]) -> Result<(), DiffError> {
        let size = bytes.len() as u64;
        let mtime = Time { seconds: self.options.mtime_max.unwrap_or(0), nanoseconds: 0 };
        self.emit(&Entry { mode: 0o644, size, mtime, ..Entry::mark(&self.path) })?;
        self.content.data(bytes);
        self.tar.data(bytes).map_err(DiffError::Write)?;
        self.content_bytes += size;
        self.tar.end_data(size).map_err(DiffError::Write)
    }

    fn finish(self) -> Result<(Walked<W>, TarSummary), DiffError> {
        let (output, size_bytes) = self.tar.finish().map_err(DiffError::Write)?;
        let summary = TarSummary { entries: self.entries, size_bytes, content_bytes: self.content_bytes };
        Ok((Walked { output, content: self.content }, summary))
    }

    fn directory_contents(&mut self, dir: &OwnedFd) -> Result<(), DiffError> {
        if !self.plain && node::is_opaque(dir).map_err(|error| self.read_error(error))? {
            self.in_child(OPAQUE_NAME.as_bytes(), |differ| differ.emit(&Entry::mark(&differ.path)))?;
        }
        for entry in node::read_dir(dir).map_err(|error| self.read_error(error))? {
            self.in_child(entry.name.as_bytes(), |differ| differ.visit(dir, &entry.name))?;
        }
        Ok(())
    }

    fn in_child(
        &mut self,
        name: &[u8],
        act: impl FnOnce(&mut Self) -> Result<(), DiffError>,
    ) -> Result<(), DiffError> {
        let length = self.path.len();
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let result = act(self);
        self.path.truncate(length);
        result
    }

    fn visit(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<(), DiffError> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.read_error(error.into()))?;
        // Before anything looks at links: overlayfs makes many whiteouts as names of one inode.
        if !self.plain && node::is_whiteout(&stat) {
            return self.whiteout(name);
        }
        if !self.plain && name.as_bytes().starts_with(WHITEOUT_PREFIX.as_bytes()) {
            return Err(DiffError::Reserved { path: self.shown() });
        }
        let Some(kind) = kind(&stat) else { return Ok(()) };
        if self.path.len() >= PATH_BYTES_MAX {
            return Err(DiffError::TooLong { path: self.shown() });
        }
        let mut entry = self.describe(dir, name, kind, &stat)?;
        if kind != EntryKind::Directory && stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| self.path.clone());
            if *first != self.path {
                (entry.kind, entry.link) = (EntryKind::HardLink, first.clone());
                (entry.size, entry.device, entry.xattrs) = (0, (0, 0), Vec::new());
            }
        }
        self.emit(&entry)?;
        match entry.kind {
            EntryKind::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.directory_contents(&self.open(dir, name, flags)?)
            }
            EntryKind::File => self.file_data(dir, name, entry.size),
            _ => Ok(()),
        }
    }

    fn whiteout(&mut self, name: &OsStr) -> Result<(), DiffError> {
        let parent = self.path.len() - name.len();
        let mut path = self.path[..parent].to_vec();
        path.extend_from_slice(WHITEOUT_PREFIX.as_bytes());
        path.extend_from_slice(name.as_bytes());
        self.emit(&Entry::mark(&path))
    }

    fn describe(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        kind: EntryKind,
        stat: &Stat,
    ) -> Result<Entry, DiffError> {
        let owner = self.options.owner.to_layer(stat.st_uid, stat.st_gid);
        let (uid, gid) = owner.map_err(|id| DiffError::Unmapped { path: self.shown(), id })?;
        let seconds = self.options.mtime_max.map_or(stat.st_mtime, |max| stat.st_mtime.min(max));
        let mut raw_path = self.path.clone();
        if kind == EntryKind::Directory {
            raw_path.push(b'/');
        }
        let device = match kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => {
                (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            }
            _ => (0, 0),
        };
        Ok(Entry {
            raw_path,
            link: self.link_text(dir, name, kind)?,
            kind,
            mode: if kind == EntryKind::Symlink { 0o777 } else { stat.st_mode & 0o7777 },
            uid: uid.into(),
            gid: gid.into(),
            size: if kind == EntryKind::File { stat.st_size.cast_unsigned() } else { 0 },
            mtime: Time { seconds, nanoseconds: 0 },
            xattrs: self.xattrs(dir, name)?,
            device,
            extents: None,
        })
    }

    fn link_text(&self, dir: &OwnedFd, name: &OsStr, kind: EntryKind) -> Result<Vec<u8>, DiffError> {
        if kind != EntryKind::Symlink {
            return Ok(Vec::new());
        }
        let text = rustix::fs::readlinkat(dir, name, Vec::new());
        Ok(text.map_err(|error| self.read_error(error.into()))?.into_bytes())
    }

    fn xattrs(&self, dir: &OwnedFd, name: &OsStr) -> Result<Vec<Xattr>, DiffError> {
        let mut xattrs = node::entry_xattrs(dir, name).map_err(|error| self.read_error(error))?;
        if xattrs
            .iter()
            .any(|(name, _)| name.ends_with(b".overlay.redirect") || name.ends_with(b".overlay.metacopy"))
        {
            return Err(DiffError::NotWhole { path: self.shown() });
        }
        xattrs.retain(|(name, _)| !node::is_overlay_xattr(name));
        let size: usize = xattrs.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        match (size + 4 * PATH_BYTES_MAX) as u64 > EXTENSION_BYTES_MAX {
            true => Err(DiffError::TooLong { path: self.shown() }),
            false => Ok(xattrs),
        }
    }

    fn emit(&mut self, entry: &Entry) -> Result<(), DiffError> {
        self.entries += 1;
        self.content.entry(entry);
        self.tar.entry(entry).map_err(DiffError::Write)
    }

    fn file_data(&mut self, dir: &OwnedFd, name: &OsStr, size: u64) -> Result<(), DiffError> {
        if size == 0 {
            return Ok(());
        }
        // NONBLOCK: should a fifo have taken the file's place, this must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(self.open(dir, name, flags)?);
        let mut left = size;
        while left > 0 {
            let step = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = file.read(&mut self.buffer[..step]).map_err(|error| self.read_error(error))?;
            if length == 0 {
                return Err(DiffError::Changed { path: self.shown() });
            }
            self.content.data(&self.buffer[..length]);
            self.tar.data(&self.buffer[..length]).map_err(DiffError::Write)?;
            left -= length as u64;
        }
        self.content_bytes += size;
        self.tar.end_data(size).map_err(DiffError::Write)
    }

    fn open(&self, dir: &OwnedFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, DiffError> {
        rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|error| self.read_error(error.into()))
    }

    fn read_error(&self, source: io::Error) -> DiffError {
        DiffError::Read { path: self.shown(), source }
    }

    fn shown(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.path))
    }
}

fn open_dir(dir: &Path) -> Result<OwnedFd, DiffError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, dir, flags, Mode::empty())
        .map_err(|error| DiffError::Read { path: dir.to_path_buf(), source: error.into() })
}

impl Entry {
    /// A whiteout or opaque marker: an empty file about which only the name matters.
    fn mark(path: &[u8]) -> Entry {
        Entry {
            raw_path: path.to_vec(),
            link: Vec::new(),
            kind: EntryKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
            device: (0, 0),
            extents: None,
        }
    }
}

/// The digest of everything but times. Each field is preceded by its length, so that no two different
/// folders run together into the same bytes.
struct Content(Option<Digester>);

impl Content {
    fn entry(&mut self, entry: &Entry) {
        let Some(digester) = &mut self.0 else { return };
        let mut record = Vec::with_capacity(128);
        let mut field = |bytes: &[u8]| {
            record.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            record.extend_from_slice(bytes);
        };
        field(&[entry.kind as u8]);
        field(&entry.raw_path);
        field(&entry.link);
        for number in [entry.mode.into(), entry.uid, entry.gid, entry.device.0.into(), entry.device.1.into()]
        {
            field(&u64::to_le_bytes(number));
        }
        field(&(entry.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &entry.xattrs {
            field(name);
            field(value);
        }
        field(&entry.size.to_le_bytes());
        digester.update(&record);
    }

    fn data(&mut self, data: &[u8]) {
        if let Some(digester) = &mut self.0 {
            digester.update(data);
        }
    }

    fn finish(self) -> Digest {
        self.0.unwrap_or_else(Digester::sha256).finish()
    }
}

/// `None` for sockets, which mean nothing without the process behind them.
fn kind(stat: &Stat) -> Option<EntryKind> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(EntryKind::File),
        FileType::Directory => Some(EntryKind::Directory),
        FileType::Symlink => Some(EntryKind::Symlink),
        FileType::CharacterDevice => Some(EntryKind::CharDevice),
        FileType::BlockDevice => Some(EntryKind::BlockDevice),
        FileType::Fifo => Some(EntryKind::Fifo),
        FileType::Socket | FileType::Unknown => None,
    }
}
