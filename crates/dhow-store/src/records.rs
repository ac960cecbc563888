//! Records: what other rooms keep in the store. A record has a kind, a key, perhaps a name, and a body that
//! only its owner reads.

use std::io;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::database::{DatabaseError, Durability, from_sqlite};
use crate::refs::{self, Holder, Holders, IMAGE, LEASE, ResolveError};
use crate::{Ref, Store};

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is found by, unique within its kind.
    pub key: String,
    /// What people call it, unique within its kind.
    pub name: Option<String>,
    /// JSON of its owner's making.
    pub body: String,
}

/// Why a record was not written. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum PutRecordError {
    /// Another record has the name.
    #[error("the {kind} name {name} is already in use by {holder}")]
    NameTaken {
        /// The kind of both records.
        kind: &'static str,
        /// The name.
        name: String,
        /// The key of the record that has it.
        holder: String,
    },
    /// What the record refers to is not there.
    #[error("{missing}, which {kind} {key} refers to, is not in the store")]
    Missing {
        /// The record's kind.
        kind: &'static str,
        /// The record's key.
        key: String,
        /// What is missing.
        missing: Box<Ref>,
    },
    /// The blobs it refers to could not be made to survive a power cut.
    #[error("cannot sync {}", path.display())]
    Sync {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}

/// Why a record was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError<E> {
    /// There is no such record.
    #[error("no such {kind}: {key}")]
    NotFound {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// The caller's function declined.
    #[error(transparent)]
    Declined(E),
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}

impl<E> From<rusqlite::Error> for UpdateError<E> {
    fn from(error: rusqlite::Error) -> Self {
        UpdateError::Database(error.into())
    }
}

/// Why a record was not renamed.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    /// There is no such record.
    #[error("no such {kind}: {key}")]
    NotFound {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// Another record has the name.
    #[error("the {kind} name {name} is already in use by {holder}")]
    NameTaken {
        /// The kind of both records.
        kind: &'static str,
        /// The name.
        name: String,
        /// The key of the record that has it.
        holder: String,
    },
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}

/// Why a record was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveRecordError {
    /// Other records refer to it.
    #[error("{kind} {key} is in use by {holders}")]
    InUse {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: String,
        /// Who refers to it.
        holders: Holders,
    },
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}
from_sqlite!(PutRecordError, RenameError, RemoveRecordError);

/// The records of one kind.
#[derive(Clone, Copy, Debug)]
pub struct RecordStore<'s> {
    store: &'s Store,
    kind: &'static str,
}

impl<'s> RecordStore<'s> {
    pub(crate) fn new(store: &'s Store, kind: &'static str) -> RecordStore<'s> {
        let reserved = kind.is_empty() || kind == IMAGE || kind == LEASE || kind.contains('/');
        assert!(!reserved, "{kind:?} is not a kind of record");
        RecordStore { store, kind }
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(crate) fn store(&self) -> &'s Store {
        self.store
    }

    /// Writes a record, or writes over the one with the same key. `refs` is all it keeps alive from now on.
    pub fn put(&self, key: &str, name: Option<&str>, body: &str, refs: &[Ref]) -> Result<(), PutRecordError> {
        self.write(Durability::Now, key, name, body, refs)
    }

    /// As [`put`](Self::put) without a name, for what can be made again: the disk is not waited for, so a
    /// power cut may take the record back. It never takes back a part of it.
    pub fn put_soon(&self, key: &str, body: &str, refs: &[Ref]) -> Result<(), PutRecordError> {
        self.write(Durability::Soon, key, None, body, refs)
    }

    /// As [`put_soon`](Self::put_soon), and removes all but the `max` records whose keys sort last.
    pub fn put_latest(&self, key: &str, body: &str, refs: &[Ref], max: usize) -> Result<(), PutRecordError> {
        self.put_soon(key, body, refs)?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let old = self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT key FROM records WHERE kind = ?1 ORDER BY key DESC LIMIT -1 OFFSET ?2",
            )?;
            let old = query.query_map(params![self.kind, max], |row| row.get::<_, String>(0))?;
            Ok::<_, PutRecordError>(old.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        if old.is_empty() {
            return Ok(());
        }
        self.store.database().write(Durability::Soon, |transaction| {
            old.iter().try_for_each(|key| delete(transaction, self.kind, key))?;
            Ok(())
        })
    }

    fn write(
        &self,
        durability: Durability,
        key: &str,
        name: Option<&str>,
        body: &str,
        refs: &[Ref],
    ) -> Result<(), PutRecordError> {
        let kind = self.kind;
        let sync_failed = |(path, source)| PutRecordError::Sync { path, source };
        self.store.database().write(durability, |transaction| {
            if let Some(holder) = taken(transaction, kind, key, name)? {
                let name = name.unwrap_or_default().to_owned();
                return Err(PutRecordError::NameTaken { kind, name, holder });
            }
            if let Some(missing) = refs::first_missing(transaction, self.store, refs)? {
                return Err(PutRecordError::Missing {
                    kind,
                    key: key.to_owned(),
                    missing: Box::new(missing),
                });
            }
            let blobs = refs.iter().filter_map(|target| match target {
                Ref::Blob(digest) => Some(digest),
                _ => None,
            });
            self.store.sync_blob_names(blobs).map_err(sync_failed)?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO records VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![kind, key, name, body])?;
            refs::clear(transaction, kind, key)?;
            Ok(refs::add(transaction, kind, key, refs)?)
        })
    }

    /// The record with this key.
    pub fn get(&self, key: &str) -> Result<Option<Record>, DatabaseError> {
        self.store.database().read(|connection| Ok(get(connection, self.kind, key)?))
    }

    /// The record with this name.
    pub fn by_name(&self, name: &str) -> Result<Option<Record>, DatabaseError> {
        self.store.database().read(|connection| match key_of(connection, self.kind, name)? {
            Some(key) => Ok(get(connection, self.kind, &key)?),
            None => Ok(None),
        })
    }

    /// The record a user means: by key, else by name, else the only one whose key starts with `text`.
    pub fn resolve(&self, text: &str) -> Result<Record, ResolveError> {
        let kind = self.kind;
        self.store.database().read(|connection| {
            if let Some(record) = get(connection, kind, text)? {
                return Ok(record);
            }
            let key = match key_of(connection, kind, text)? {
                Some(key) => key,
                None => only_key_with_prefix(connection, kind, text)?,
            };
            get(connection, kind, &key)?.ok_or_else(|| ResolveError::NotFound { kind, text: text.to_owned() })
        })
    }

    /// All records, by key.
    pub fn list(&self) -> Result<Vec<Record>, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT key, name, body FROM records WHERE kind = ?1 ORDER BY key")?;
            let records = query.query_map([self.kind], record_from)?;
            Ok(records.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The `max` records whose keys sort last, the last one first.
    pub fn latest(&self, max: usize) -> Result<Vec<Record>, DatabaseError> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT key, name, body FROM records WHERE kind = ?1 ORDER BY key DESC LIMIT ?2",
            )?;
            let records = query.query_map(params![self.kind, max], record_from)?;
            Ok(records.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// What a record keeps alive.
    pub fn refs(&self, key: &str) -> Result<Vec<Ref>, DatabaseError> {
        self.store.database().read(|connection| Ok(refs::of(connection, self.kind, key)?))
    }

    /// Changes a body while nobody else can: `change` is given the present one and returns the new one.
    ///
    /// It runs inside the write transaction of the whole store. It should be quick and must not use the store.
    pub fn update<E>(
        &self,
        key: &str,
        change: impl FnOnce(&Record) -> Result<String, E>,
    ) -> Result<Record, UpdateError<E>> {
        let kind = self.kind;
        self.store.database().write(Durability::Now, |transaction| {
            let Some(mut record) = get(transaction, kind, key)? else {
                return Err(UpdateError::NotFound { kind, key: key.to_owned() });
            };
            record.body = change(&record).map_err(UpdateError::Declined)?;
            transaction
                .prepare_cached("UPDATE records SET body = ?3 WHERE kind = ?1 AND key = ?2")?
                .execute([kind, key, &record.body])?;
            Ok(record)
        })
    }

    /// Gives a record another name, or none.
    pub fn rename(&self, key: &str, name: Option<&str>) -> Result<(), RenameError> {
        let kind = self.kind;
        self.store.database().write(Durability::Now, |transaction| {
            if let Some(holder) = taken(transaction, kind, key, name)? {
                let name = name.unwrap_or_default().to_owned();
                return Err(RenameError::NameTaken { kind, name, holder });
            }
            match set_name(transaction, kind, key, name)? {
                0 => Err(RenameError::NotFound { kind, key: key.to_owned() }),
                _ => Ok(()),
            }
        })
    }

    /// Removes a record unless others refer to it. Returns it as it was; one that is gone is success.
    pub fn remove(&self, key: &str) -> Result<Option<Record>, RemoveRecordError> {
        let kind = self.kind;
        self.store.database().write(Durability::Now, |transaction| {
            let itself = Ref::Record { kind: kind.to_owned(), key: key.to_owned() };
            let holders = refs::holders(transaction, &itself)?;
            if !holders.0.iter().all(|holder| is(holder, kind, key)) {
                return Err(RemoveRecordError::InUse { kind, key: key.to_owned(), holders });
            }
            let record = get(transaction, kind, key)?;
            delete(transaction, kind, key)?;
            Ok(record)
        })
    }
}

/// Removes a record with its references and what is noted of its use.
pub(crate) fn delete(transaction: &Transaction<'_>, kind: &str, key: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM record_uses WHERE kind = ?1 AND key = ?2")?
        .execute([kind, key])?;
    transaction.prepare_cached("DELETE FROM records WHERE kind = ?1 AND key = ?2")?.execute([kind, key])?;
    refs::clear(transaction, kind, key)
}

fn is(holder: &Holder, kind: &str, key: &str) -> bool {
    holder.kind == kind && holder.key == key
}

pub(crate) fn exists(connection: &Connection, kind: &str, key: &str) -> rusqlite::Result<bool> {
    refs::any(connection, "SELECT 1 FROM records WHERE kind = ?1 AND key = ?2", [kind, key])
}

fn get(connection: &Connection, kind: &str, key: &str) -> rusqlite::Result<Option<Record>> {
    connection
        .prepare_cached("SELECT key, name, body FROM records WHERE kind = ?1 AND key = ?2")?
        .query_row([kind, key], record_from)
        .optional()
}

fn record_from(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record { key: row.get(0)?, name: row.get(1)?, body: row.get(2)? })
}

fn key_of(connection: &Connection, kind: &str, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT key FROM records WHERE kind = ?1 AND name = ?2")?
        .query_row([kind, name], |row| row.get(0))
        .optional()
}

/// The key of another record that has the name.
fn taken(
    connection: &Connection,
    kind: &str,
    key: &str,
    name: Option<&str>,
) -> rusqlite::Result<Option<String>> {
    let Some(name) = name else { return Ok(None) };
    Ok(key_of(connection, kind, name)?.filter(|holder| holder != key))
}

fn set_name(
    transaction: &Transaction<'_>,
    kind: &str,
    key: &str,
    name: Option<&str>,
) -> rusqlite::Result<usize> {
    transaction
        .prepare_cached("UPDATE records SET name = ?3 WHERE kind = ?1 AND key = ?2")?
        .execute(params![kind, key, name])
}

fn only_key_with_prefix(
    connection: &Connection,
    kind: &'static str,
    text: &str,
) -> Result<String, ResolveError> {
    if text.is_empty() {
        return Err(ResolveError::NotFound { kind, text: String::new() });
    }
    // No text sorts behind the last code point.
    let mut query = connection.prepare_cached(
        "SELECT key FROM records WHERE kind = ?1 AND key >= ?2 AND key < ?2 || char(1114111) LIMIT 2",
    )?;
    refs::one_of(kind, text, query.query_map([kind, text], |row| row.get(0))?)
}
