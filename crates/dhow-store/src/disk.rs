//! The few operations that publish a blob, so that a test can make each of them fail.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// What publishing needs of a disk. `path` is the file's present name.
pub(crate) trait Disk: Debug + Send + Sync {
    fn write(&self, file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize>;
    fn sync_file(&self, file: &File, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, mut file: &File, _path: &Path, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn sync_file(&self, file: &File, _path: &Path) -> io::Result<()> {
        // `fdatasync` includes the size, which is the only metadata that matters here.
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
