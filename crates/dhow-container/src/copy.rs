//! `cp`: docker's table of what a source and a destination mean together.
//!
//! The top of an archive is given the name it is to have at the destination when it is written, so that nothing has to be
//! renamed on the way. Links at the end of a destination in a container are followed, at the end of a source only if asked.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use dhow_layer::{ApplyOptions, DiffOptions, Ownership, Whiteouts};

use crate::archive::{ArchiveIn, base, locate_local};
use crate::containers::Containers;
use crate::error::ArchiveError;

const BUFFER_BYTES: usize = 256 * 1024;

/// How files are copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyOptions {
    /// Owners stay what they are at the source; in a container they become its user.
    pub archive: bool,
    /// Copy what a link as source leads to.
    pub follow_link: bool,
}

/// What is known of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    File,
    Directory,
}

/// Which directory the archive is unpacked in, and what its top is called; `None` keeps its name.
fn arrange(
    source_is_dir: bool,
    destination: &str,
    there: There,
) -> Result<(String, Option<String>), ArchiveError> {
    let asserts_directory = destination.ends_with('/') || destination.ends_with("/.");
    let rule = |text: &str| Err(ArchiveError::Rule(text.into()));
    match there {
        There::Directory => Ok((destination.into(), None)),
        There::File if source_is_dir => rule("cannot copy directory"),
        There::File if asserts_directory => rule("not a directory"),
        There::Nothing if asserts_directory && !source_is_dir => rule("no such directory"),
        There::File | There::Nothing => {
            let trimmed = destination.trim_end_matches("/.").trim_end_matches('/');
            let (folder, name) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
            let folder = if folder.is_empty() { "/" } else { folder };
            Ok((folder.into(), Some(name.into())))
        }
    }
}

impl Containers {
    /// Copies files of a container to this host. Returns the bytes that went over.
    pub fn copy_out(
        &self,
        text: &str,
        path: &str,
        destination: &Path,
        options: CopyOptions,
    ) -> Result<u64, ArchiveError> {
        let mut source = path.to_owned();
        let mut name = base(path);
        let mut stat = self.archive_stat(text, path)?;
        if options.follow_link && stat.is_link() {
            source.clone_from(&stat.link_target);
            stat = self.archive_stat(text, &source)?;
        }
        if name == "/" {
            name = ".".into();
        }
        let there = match fs::metadata(destination) {
            Ok(metadata) if metadata.is_dir() => There::Directory,
            Ok(_) => There::File,
            Err(_) => There::Nothing,
        };
        let (folder, rename) = arrange(stat.is_dir(), &destination.to_string_lossy(), there)?;
        let folder = PathBuf::from(folder);
        if !folder.is_dir() {
            return Err(ArchiveError::Rule(format!(
                "invalid output path: directory {:?} does not exist",
                folder
            )));
        }
        let name = rename.unwrap_or(name);
        let unpack = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            owner: if options.archive { Ownership::Keep } else { Ownership::Ignore },
            keep_kinds: true,
            ..self.images.apply_options()
        };
        let (reader, writer) = io::pipe()?;
        let counted = Counted { inner: writer, bytes: 0 };
        std::thread::scope(|scope| {
            let unpacked = scope.spawn(move || {
                let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
                dhow_layer::apply(reader, &folder, &unpack)
            });
            let mut counted = counted;
            let written = self.archive_out(text, &source, Some(&name), &mut counted).map(drop);
            let bytes = counted.bytes;
            drop(counted);
            let unpacked = unpacked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            settle(written, unpacked.map(drop).map_err(ArchiveError::from)).map(|()| bytes)
        })
    }

    /// Copies files of this host into a container. Returns the bytes that went over.
    pub fn copy_in(
        &self,
        source: &Path,
        text: &str,
        path: &str,
        options: CopyOptions,
    ) -> Result<u64, ArchiveError> {
        let shown = source.display().to_string();
        let asserts_directory = shown.ends_with('/') || shown.ends_with("/.");
        let follows = options.follow_link || asserts_directory;
        let metadata = if follows { fs::metadata(source) } else { fs::symlink_metadata(source) };
        let metadata =
            metadata.map_err(|error| ArchiveError::Rule(format!("lstat {shown}: {}", plain(&error))))?;
        if asserts_directory && !metadata.is_dir() {
            return Err(ArchiveError::Rule("not a directory".into()));
        }
        let real = if options.follow_link { fs::canonicalize(source)? } else { source.to_owned() };
        let real = if shown.ends_with("/.") { real.join(".") } else { real };
        let own_name = match (shown.ends_with("/."), source.file_name()) {
            (false, Some(name)) => name.to_string_lossy().into_owned(),
            _ => ".".into(),
        };
        let (path, there) = self.destination(text, path)?;
        let (folder, rename) = arrange(metadata.is_dir(), &path, there)?;
        let name = rename.unwrap_or(own_name);
        let (dir, file) = match (shown.ends_with("/."), shown.ends_with('/')) {
            (true, _) | (_, true) => (locate_local(&real.join("."))?.0, ".".to_owned()),
            _ => locate_local(&real)?,
        };
        let (reader, writer) = io::pipe()?;
        std::thread::scope(|scope| {
            let written = scope.spawn(move || {
                let mut counted = Counted { inner: writer, bytes: 0 };
                let options = DiffOptions::default();
                dhow_layer::write_tar_as(&dir, OsStr::new(&file), OsStr::new(&name), &mut counted, &options)?;
                Ok::<_, ArchiveError>(counted.bytes)
            });
            let how = ArchiveIn { keep_kinds: true, to_user: options.archive };
            let unpacked = self.archive_in(text, &folder, reader, how);
            let written = written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let (written, bytes) = match written {
                Ok(bytes) => (Ok(()), bytes),
                Err(error) => (Err(error), 0),
            };
            settle(written, unpacked).map(|()| bytes)
        })
    }

    /// Unpacks an archive from a stream in a directory of a container.
    pub fn copy_stream_in(
        &self,
        archive: impl Read + Send,
        text: &str,
        path: &str,
        options: CopyOptions,
    ) -> Result<(), ArchiveError> {
        let (path, there) = self.destination(text, path)?;
        if there != There::Directory {
            return Err(ArchiveError::Rule(format!("destination \"{text}:{path}\" must be a directory")));
        }
        self.archive_in(text, &path, archive, ArchiveIn { keep_kinds: true, to_user: options.archive })
    }

    /// A destination in a container, where a link at its end leads, and what is there.
    fn destination(&self, text: &str, path: &str) -> Result<(String, There), ArchiveError> {
        let mut path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut stat = match self.archive_stat(text, &path) {
            Err(ArchiveError::NotFound { .. }) => return Ok((path, There::Nothing)),
            stat => stat?,
        };
        if stat.is_link() {
            path.clone_from(&stat.link_target);
            stat = match self.archive_stat(text, &path) {
                Err(ArchiveError::NotFound { .. }) => return Ok((path, There::Nothing)),
                stat => stat?,
            };
        }
        Ok((path, if stat.is_dir() { There::Directory } else { There::File }))
    }
}

/// If both sides failed, the one that could no longer write is the consequence.
fn settle(written: Result<(), ArchiveError>, unpacked: Result<(), ArchiveError>) -> Result<(), ArchiveError> {
    match (written, unpacked) {
        (Err(ArchiveError::Write(dhow_layer::DiffError::Write(_))), Err(error)) => Err(error),
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// The words of an error without Rust's number.
fn plain(error: &io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(data)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_and_destination_mean_what_dockers_table_says() {
        let check = |is_dir, destination: &str, there| {
            arrange(is_dir, destination, there).map_err(|error| error.to_string())
        };
        let into = |folder: &str| Ok((folder.to_owned(), None));
        let as_name = |folder: &str, name: &str| Ok((folder.to_owned(), Some(name.to_owned())));
        // A file: created, refused, overwritten, put into.
        assert_eq!(check(false, "/a/new", There::Nothing), as_name("/a", "new"));
        assert_eq!(check(false, "/a/new/", There::Nothing), Err("no such directory".into()));
        assert_eq!(check(false, "/a/old", There::File), as_name("/a", "old"));
        assert_eq!(check(false, "/a", There::Directory), into("/a"));
        // A directory: created, refused, put into.
        assert_eq!(check(true, "/a/new/", There::Nothing), as_name("/a", "new"));
        assert_eq!(check(true, "/top", There::Nothing), as_name("/", "top"));
        assert_eq!(check(true, "/a/old", There::File), Err("cannot copy directory".into()));
        assert_eq!(check(true, "/a/.", There::Directory), into("/a/."));
        assert_eq!(check(true, "here", There::Nothing), as_name(".", "here"));
    }
}
