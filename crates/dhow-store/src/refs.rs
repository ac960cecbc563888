//! References: what images, records and leases keep alive.

use std::fmt;
use std::path::Path;

use dhow_oci::Digest;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::database::{DatabaseError, from_sqlite};
use crate::{Store, images, records};

/// The holder kind of images in the `refs` table. Records cannot use it.
pub(crate) const IMAGE: &str = "image";
/// The holder kind of leases in the `refs` table. Records cannot use it.
pub(crate) const LEASE: &str = "lease";

/// The target kinds in the `refs` table.
pub(crate) const BLOB_TARGET: &str = "blob";
pub(crate) const IMAGE_TARGET: &str = "image";
pub(crate) const SNAPSHOT_TARGET: &str = "snapshot";
pub(crate) const RECORD_TARGET: &str = "record";

/// Something a record or a lease keeps alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ref {
    /// A blob.
    Blob(Digest),
    /// An image and all it keeps alive. A record's reference also stops the image from being removed.
    Image(Digest),
    /// A snapshot, by the name the snapshotter gave it.
    Snapshot(String),
    /// Another record, which cannot be removed while this one stands: a container's volume.
    Record {
        /// Its kind.
        kind: String,
        /// Its key.
        key: String,
    },
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ref::Blob(digest) => write!(f, "blob {digest}"),
            Ref::Image(id) => write!(f, "image {id}"),
            Ref::Snapshot(name) => write!(f, "snapshot {name}"),
            Ref::Record { kind, key } => write!(f, "{kind} {key}"),
        }
    }
}

impl Ref {
    fn target(&self) -> (&'static str, String) {
        match self {
            Ref::Blob(digest) => (BLOB_TARGET, digest.to_string()),
            Ref::Image(id) => (IMAGE_TARGET, id.to_string()),
            Ref::Snapshot(name) => (SNAPSHOT_TARGET, name.clone()),
            // A kind is one of our own words, so the first slash ends it.
            Ref::Record { kind, key } => (RECORD_TARGET, format!("{kind}/{key}")),
        }
    }

    /// Reads two columns, of which the first is at `index`.
    pub(crate) fn from_row(row: &Row<'_>, index: usize) -> rusqlite::Result<Ref> {
        let target: String = row.get(index + 1)?;
        Ok(match row.get_ref(index)?.as_str()? {
            BLOB_TARGET => Ref::Blob(crate::database::parsed(row, index + 1)?),
            IMAGE_TARGET => Ref::Image(crate::database::parsed(row, index + 1)?),
            SNAPSHOT_TARGET => Ref::Snapshot(target),
            _ => {
                let (kind, key) = target.split_once('/').unwrap_or(("", &target));
                Ref::Record { kind: kind.to_owned(), key: key.to_owned() }
            }
        })
    }

    /// Whether the target is there. Only the answer given inside a write transaction lasts.
    ///
    /// Snapshots are taken on trust: the store cannot see them, a lease has to protect them.
    pub(crate) fn exists(&self, connection: &Connection, store: &Store) -> rusqlite::Result<bool> {
        match self {
            Ref::Blob(digest) => Ok(is_file(&store.blob_path(digest))),
            Ref::Image(id) => images::exists(connection, id),
            Ref::Snapshot(_) => Ok(true),
            Ref::Record { kind, key } => records::exists(connection, kind, key),
        }
    }
}

/// A blob that cannot even be looked at cannot be relied on, so an error counts as absence.
fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Adds references of one holder.
pub(crate) fn add(
    connection: &Connection,
    holder_kind: &str,
    holder: &str,
    refs: &[Ref],
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO refs VALUES (?1, ?2, ?3, ?4)")?;
    for reference in refs {
        let (target_kind, target) = reference.target();
        insert.execute(params![holder_kind, holder, target_kind, target])?;
    }
    Ok(())
}

/// Removes all references of one holder.
pub(crate) fn clear(connection: &Connection, holder_kind: &str, holder: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM refs WHERE holder_kind = ?1 AND holder = ?2")?
        .execute([holder_kind, holder])?;
    Ok(())
}

/// The references of one holder.
pub(crate) fn of(connection: &Connection, holder_kind: &str, holder: &str) -> rusqlite::Result<Vec<Ref>> {
    connection
        .prepare_cached("SELECT target_kind, target FROM refs WHERE holder_kind = ?1 AND holder = ?2")?
        .query_map([holder_kind, holder], |row| Ref::from_row(row, 0))?
        .collect()
}

/// The first of `refs` whose target is missing.
pub(crate) fn first_missing(
    connection: &Connection,
    store: &Store,
    refs: &[Ref],
) -> rusqlite::Result<Option<Ref>> {
    for reference in refs {
        if !reference.exists(connection, store)? {
            return Ok(Some(reference.clone()));
        }
    }
    Ok(None)
}

/// An image or a record that refers to something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `image` or the kind of the record.
    pub kind: String,
    /// The image's ID or the record's key.
    pub key: String,
    /// The record's name, if it has one.
    pub name: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name.as_ref().unwrap_or(&self.key))
    }
}

/// Images and records, printed with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders(pub Vec<Holder>);

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, holder) in self.0.iter().enumerate() {
            write!(f, "{}{holder}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Store {
    /// The images and records that keep `target` alive. Leases are left out: they come and go.
    pub fn holders(&self, target: &Ref) -> Result<Holders, DatabaseError> {
        self.database().read(|connection| Ok(holders(connection, target)?))
    }
}

pub(crate) fn holders(connection: &Connection, target: &Ref) -> rusqlite::Result<Holders> {
    let (target_kind, target) = target.target();
    let mut query = connection.prepare_cached(
        "SELECT refs.holder_kind, refs.holder, records.name FROM refs
         LEFT JOIN records ON records.kind = refs.holder_kind AND records.key = refs.holder
         WHERE refs.target_kind = ?1 AND refs.target = ?2 AND refs.holder_kind <> ?3 ORDER BY 1, 2",
    )?;
    let holders = query.query_map(params![target_kind, target, LEASE], |row| {
        Ok(Holder { kind: row.get(0)?, key: row.get(1)?, name: row.get(2)? })
    })?;
    holders.collect::<rusqlite::Result<_>>().map(Holders)
}

/// Why a text does not name one thing.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nothing goes by it.
    #[error("no such {kind}: {text}")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// What the user wrote.
        text: String,
    },
    /// More than one thing starts with it.
    #[error("more than one {kind} has an ID that starts with {text}")]
    Ambiguous {
        /// What was looked for.
        kind: &'static str,
        /// What the user wrote.
        text: String,
    },
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}
from_sqlite!(ResolveError);

/// Runs a query for at most two keys and expects one.
pub(crate) fn one_of(
    kind: &'static str,
    text: &str,
    keys: impl Iterator<Item = rusqlite::Result<String>>,
) -> Result<String, ResolveError> {
    let mut keys = keys.collect::<rusqlite::Result<Vec<_>>>()?;
    match (keys.pop(), keys.pop()) {
        (Some(key), None) => Ok(key),
        (None, _) => Err(ResolveError::NotFound { kind, text: text.to_owned() }),
        (Some(_), Some(_)) => Err(ResolveError::Ambiguous { kind, text: text.to_owned() }),
    }
}

/// Whether a query has a row.
pub(crate) fn any(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached(sql)?.query_row(params, |_| Ok(())).optional()?.is_some())
}
