//! Files of containers, out and in.

use std::io::{Read, Write};
use std::path::Path;

use crate::Engine;
use crate::containers::{ArchiveError, ArchiveIn, Change, CopyOptions, PathStat};

impl Engine {
    /// What is at a path of a container, running or not.
    pub fn archive_stat(&self, container: &str, path: &str) -> Result<PathStat, ArchiveError> {
        self.containers().archive_stat(container, path)
    }

    /// Writes what is at a path of a container as an archive. Its top is called `name`, or as the path's last part.
    pub fn archive_out(
        &self,
        container: &str,
        path: &str,
        name: Option<&str>,
        output: impl Write + Send,
    ) -> Result<PathStat, ArchiveError> {
        self.containers().archive_out(container, path, name, output)
    }

    /// Unpacks an archive, compressed or not, in a directory of a container.
    pub fn archive_in(
        &self,
        container: &str,
        path: &str,
        archive: impl Read + Send,
        how: ArchiveIn,
    ) -> Result<(), ArchiveError> {
        self.containers().archive_in(container, path, archive, how)
    }

    /// Copies files of a container to this host by docker's rules. Returns the bytes that went over.
    pub fn copy_from_container(
        &self,
        container: &str,
        path: &str,
        destination: &Path,
        options: CopyOptions,
    ) -> Result<u64, ArchiveError> {
        self.containers().copy_out(container, path, destination, options)
    }

    /// Copies files of this host into a container by docker's rules. Returns the bytes that went over.
    pub fn copy_to_container(
        &self,
        source: &Path,
        container: &str,
        path: &str,
        options: CopyOptions,
    ) -> Result<u64, ArchiveError> {
        self.containers().copy_in(source, container, path, options)
    }

    /// Unpacks an archive from a stream in a directory of a container, links at its end followed.
    pub fn copy_stream_to_container(
        &self,
        archive: impl Read + Send,
        container: &str,
        path: &str,
        options: CopyOptions,
    ) -> Result<(), ArchiveError> {
        self.containers().copy_stream_in(archive, container, path, options)
    }

    /// What a container wrote over its image.
    pub fn container_changes(&self, container: &str) -> Result<Vec<Change>, ArchiveError> {
        self.containers().changes(container)
    }
}
