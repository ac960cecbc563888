//! Files from elsewhere: HTTP, git, and archives that come as a stream.

mod credentials;
mod git;
mod git_ref;
mod http;

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_image::Images;
use dhow_oci::Digest;
use dhow_registry::{Download, DownloadError, DownloadRequest};
use dhow_snapshot::{Prepared, SnapshotKey, Snapshotter as _};
use dhow_store::Lease;

pub(crate) use credentials::Credentials;
pub(crate) use git::Commit;
pub(crate) use git_ref::{GitSource, WrittenBy, check_commit};
pub(crate) use http::{Fetched, HttpSource, is_http};

use crate::error::{StoreFailure, while_doing};

/// Fetches one file.
pub(crate) type Downloader<'a> = dyn Fn(&DownloadRequest<'_>) -> Result<Download, DownloadError> + Sync + 'a;

/// Gets what is not on this machine.
pub(crate) struct Remote<'a> {
    pub images: &'a Images,
    pub download: Box<Downloader<'a>>,
    pub lease: &'a Lease,
    /// Where the folders of living builds are noted.
    pub scratch: PathBuf,
    /// Begins the names of its active snapshots.
    pub name: String,
    pub counter: AtomicUsize,
    pub stop: Option<BorrowedFd<'a>>,
    pub credentials: Credentials<'a>,
    pub clock: fn() -> jiff::Timestamp,
}

/// Why something was not got.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The server could not be reached or does not give it.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The connection broke, and trying again did not help.
    #[error("cannot fetch {url}: the connection broke")]
    Body {
        /// What was being fetched.
        url: String,
        /// What happened.
        source: io::Error,
    },
    /// Fewer or more bytes came than were announced.
    #[error("cannot fetch {url}: {actual} bytes came of {expected} announced")]
    Length {
        /// What was being fetched.
        url: String,
        /// What the server announced.
        expected: u64,
        /// What it sent.
        actual: u64,
    },
    /// It is larger than is reasonable, or does not end.
    #[error("cannot fetch {url}: it is larger than {max} bytes ({limit})")]
    TooLarge {
        /// What was being fetched.
        url: String,
        /// The limit.
        max: u64,
        /// Its name.
        limit: &'static str,
    },
    /// The content is not what the Dockerfile says.
    #[error("{url}: digest is {actual}, expected {expected}")]
    Checksum {
        /// What was fetched.
        url: String,
        /// What the Dockerfile says.
        expected: Box<Digest>,
        /// What it is.
        actual: Box<Digest>,
    },
    /// `git` is not installed.
    #[error("cannot fetch {source_text}: the program `git` is not installed")]
    NoGit {
        /// What was to be fetched.
        source_text: String,
    },
    /// `git` failed.
    #[error("cannot fetch {source_text}: {why}")]
    Git {
        /// What was to be fetched.
        source_text: String,
        /// What git said.
        why: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("repository {url} does not contain {name}")]
    Reference {
        /// The repository.
        url: String,
        /// What was looked for.
        name: String,
    },
    /// The repository has no such folder.
    #[error("repository {url} has no folder {}", path.display())]
    Folder {
        /// The repository.
        url: String,
        /// The folder.
        path: PathBuf,
    },
    /// The commit is another one than the Dockerfile says.
    #[error("{source_text}: commit is {actual}, expected {expected}")]
    Commit {
        /// What was looked up.
        source_text: String,
        /// What the Dockerfile says.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// A secret that is for the server cannot be used.
    #[error("cannot use secret {id} for {url}: {why}")]
    Credential {
        /// Which one.
        id: String,
        /// What was to be fetched.
        url: String,
        /// Why.
        why: String,
    },
    /// The repository is on another server than the one the credentials are for.
    #[error("{url} leads to {to}, where its credentials must not go")]
    LeadsAway {
        /// The repository.
        url: String,
        /// Where it is.
        to: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

impl SourceError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            SourceError::NoGit { .. } => {
                Some("install git, or copy the files into the build context".to_owned())
            }
            SourceError::Download(DownloadError::Status { url, status: 401 | 403, .. }) => {
                let host = dhow_registry::Url::parse(url).map_or_else(|_| "HOST".to_owned(), host_of);
                Some(format!("give a token with --secret id=HTTP_AUTH_TOKEN_{host},env=NAME"))
            }
            SourceError::Git { why, .. } => git::hint(why),
            SourceError::LeadsAway { to, .. } => Some(format!("name {to}, and give credentials for it")),
            _ => None,
        }
    }
}

fn host_of(url: dhow_registry::Url) -> String {
    url.host().to_owned()
}

/// A folder on the disk of the store that is gone with the value, or, if the process is killed, with the next
/// build.
pub(crate) struct Aside {
    images: Images,
    key: SnapshotKey,
    prepared: Prepared,
    /// Tells the next build that there may be something to sweep up.
    note: PathBuf,
}

impl Remote<'_> {
    /// An empty folder.
    pub(crate) fn aside(&self) -> Result<Aside, StoreFailure> {
        const DOING: &str = "cannot make a folder for files from elsewhere";
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let key: SnapshotKey = format!("{}-from-{number}", self.name).parse().map_err(while_doing(DOING))?;
        let note = self.scratch.join(key.as_str());
        fs::create_dir_all(&note).map_err(while_doing(DOING))?;
        let prepared = self.images.snapshots().prepare_layer(&key).map_err(while_doing(DOING))?;
        Ok(Aside { images: self.images.clone(), key, prepared, note })
    }
}

impl Aside {
    pub(crate) fn path(&self) -> &Path {
        self.prepared.path()
    }

    pub(crate) fn key(&self) -> &SnapshotKey {
        &self.key
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // One that became a layer is not there any more. What cannot be removed now is removed by the next build.
        if self.images.snapshots().remove(&self.key).is_ok() {
            let _ = fs::remove_dir(&self.note);
        }
    }
}
