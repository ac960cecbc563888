//! Checks that the store is whole: `dhow system check`, and the judge of the tests.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;

use dhow_oci::{Digest, Digester};
use rusqlite::Connection;

use crate::database::{DatabaseError, Durability, from_sqlite, parsed};
use crate::refs::LEASE;
use crate::{ReadError, Ref, SnapshotSet, Store};

const BUFFER_BYTES: usize = 1 << 20;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A blob's bytes do not hash to its name.
    Damaged {
        /// The blob.
        digest: Digest,
        /// What its bytes hash to.
        actual: Digest,
    },
    /// An image or a record refers to something that is not there.
    Missing {
        /// The kind of the holder: `image` or a kind of record.
        holder_kind: String,
        /// The image's ID or the record's key.
        holder: String,
        /// What is missing.
        target: Ref,
    },
    /// A name or a repository digest points to an image that is not there.
    Dangling {
        /// The name.
        reference: String,
        /// The image.
        image: Digest,
    },
    /// SQLite finds its file broken.
    Database(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Damaged { digest, actual } => {
                write!(f, "blob {digest} is damaged: its bytes hash to {actual}")
            }
            Problem::Missing { holder_kind, holder, target } => {
                write!(f, "{holder_kind} {holder} refers to {target}, which is not there")
            }
            Problem::Dangling { reference, image } => {
                write!(f, "{reference} points to image {image}, which is not there")
            }
            Problem::Database(finding) => write!(f, "database: {finding}"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Blobs read.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// References followed.
    pub refs: u64,
    /// What is wrong, empty if the store is whole.
    pub problems: Vec<Problem>,
}

/// Why the check could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// A blob could not be read.
    #[error(transparent)]
    Blob(#[from] ReadError),
    /// The blobs could not be listed.
    #[error("cannot read {}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The snapshots could not be listed.
    #[error("cannot list snapshots")]
    Snapshots(#[source] io::Error),
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}
from_sqlite!(FsckError);

impl Store {
    /// Reads every blob and follows every reference. Other processes may go on working meanwhile.
    ///
    /// References to snapshots are followed if `snapshots` is given.
    pub fn fsck(&self, snapshots: Option<&dyn SnapshotSet>) -> Result<FsckReport, FsckError> {
        let mut report = FsckReport::default();
        check_blobs(self, &mut report)?;
        // A write transaction, though nothing is written: it keeps gc from removing what we look for.
        self.database().write(Durability::Soon, |transaction| {
            check_refs(transaction, self, snapshots, &mut report)?;
            check_names(transaction, &mut report)?;
            check_database(transaction, &mut report)
        })?;
        Ok(report)
    }
}

fn check_blobs(store: &Store, report: &mut FsckReport) -> Result<(), FsckError> {
    let digests = store
        .content()
        .list()
        .map_err(|source| FsckError::Io { path: store.root().join("blobs"), source })?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for digest in digests {
        let reader = match store.content().open(&digest) {
            Ok(reader) => reader,
            // Collected since we listed it. If somebody needs it the check of references will tell.
            Err(ReadError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        report.blobs += 1;
        report.blob_bytes += reader.size_bytes();
        let actual = hash(reader, &digest, &mut buffer).map_err(|source| ReadError::Io { digest, source })?;
        if actual != digest {
            report.problems.push(Problem::Damaged { digest, actual });
        }
    }
    Ok(())
}

fn hash(mut reader: impl Read, like: &Digest, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut digester = Digester::new(like.algorithm());
    loop {
        match reader.read(buffer)? {
            0 => return Ok(digester.finish()),
            count => digester.update(&buffer[..count]),
        }
    }
}

fn check_refs(
    connection: &Connection,
    store: &Store,
    snapshots: Option<&dyn SnapshotSet>,
    report: &mut FsckReport,
) -> Result<(), FsckError> {
    let present: Option<HashSet<String>> = match snapshots {
        Some(snapshots) => Some(snapshots.list().map_err(FsckError::Snapshots)?.into_iter().collect()),
        None => None,
    };
    // A lease may name what is yet to be fetched.
    let mut query = connection.prepare_cached(
        "SELECT holder_kind, holder, target_kind, target FROM refs WHERE holder_kind <> ?1",
    )?;
    let mut rows = query.query([LEASE])?;
    while let Some(row) = rows.next()? {
        report.refs += 1;
        let target = Ref::from_row(row, 2)?;
        let there = match (&target, &present) {
            (Ref::Snapshot(name), Some(present)) => present.contains(name),
            _ => target.exists(connection, store)?,
        };
        if !there {
            report.problems.push(Problem::Missing { holder_kind: row.get(0)?, holder: row.get(1)?, target });
        }
    }
    Ok(())
}

fn check_names(connection: &Connection, report: &mut FsckReport) -> Result<(), FsckError> {
    let mut query = connection.prepare_cached(
        "SELECT reference, image FROM image_names WHERE image NOT IN (SELECT id FROM images)
         UNION ALL
         SELECT repository || '@' || digest, image FROM repo_digests WHERE image NOT IN (SELECT id FROM images)",
    )?;
    let dangling = query
        .query_map([], |row| Ok(Problem::Dangling { reference: row.get(0)?, image: parsed(row, 1)? }))?;
    for problem in dangling {
        report.problems.push(problem?);
    }
    Ok(())
}

fn check_database(connection: &Connection, report: &mut FsckReport) -> Result<(), FsckError> {
    let mut query = connection.prepare_cached("PRAGMA quick_check")?;
    let findings = query.query_map([], |row| row.get::<_, String>(0))?;
    for finding in findings {
        let finding = finding?;
        if finding != "ok" {
            report.problems.push(Problem::Database(finding));
        }
    }
    Ok(())
}
