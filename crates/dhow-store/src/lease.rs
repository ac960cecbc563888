//! Leases: what a living process needs and no record names yet.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::database::{DatabaseError, Durability, from_sqlite};
use crate::lock::{self, Claim, LockedFile};
use crate::refs::{self, IMAGE, LEASE};
use crate::{Ref, Store};

/// Protects what is added to it from gc while the process lives, and no longer than it lasts.
///
/// Clones share one lease; dropping the last one ends it. A process that is killed needs no clean-up: the
/// kernel unlocks the lease's file, and gc takes a lease with an unlocked file for dead.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    store: Store,
    id: String,
    lock: LockedFile,
}

/// Why something could not be protected.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The lease's file could not be made or locked.
    #[error("cannot take a lease at {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Database(DatabaseError),
}
from_sqlite!(LeaseError);

impl Store {
    /// Takes an empty lease. `purpose` is for people: `pull docker.io/library/alpine:latest`.
    pub fn lease(&self, purpose: &str) -> Result<Lease, LeaseError> {
        let dir = self.leases_dir();
        let lock = lock::create_unique(&dir, "").map_err(|source| LeaseError::Io { path: dir, source })?;
        let id = lock.name();
        // The file is locked before the row is seen: a row without a living owner is a dead lease.
        self.database().write(Durability::Soon, |transaction| {
            transaction
                .prepare_cached("INSERT INTO leases VALUES (?1, ?2)")?
                .execute(params![id, purpose])?;
            Ok::<_, LeaseError>(())
        })?;
        Ok(Lease(Arc::new(Held { store: self.clone(), id, lock })))
    }

    /// Whether a lease lasts, and so the process that took it.
    pub fn has_lease(&self, id: &str) -> Result<bool, LeaseError> {
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(false);
        }
        let path = self.leases_dir().join(id);
        match LockedFile::claim(&path).map_err(|source| LeaseError::Io { path, source })? {
            Claim::Taken => Ok(true),
            // What a dead one left is swept by gc.
            Claim::Ours(_) | Claim::Gone => Ok(false),
        }
    }
}

impl Lease {
    /// Protects `target` from now on. Look for it after this, not before.
    pub fn add(&self, target: Ref) -> Result<(), LeaseError> {
        self.add_all(&[target])
    }

    /// Protects all of `targets` from now on, in one transaction.
    ///
    /// An image is protected with what it keeps alive at this moment, even if it is removed later.
    pub fn add_all(&self, targets: &[Ref]) -> Result<(), LeaseError> {
        self.0.store.database().write(Durability::Soon, |transaction| {
            for target in targets {
                if let Ref::Image(id) = target {
                    let kept = refs::of(transaction, IMAGE, &id.to_string())?;
                    refs::add(transaction, LEASE, &self.0.id, &kept)?;
                }
            }
            refs::add(transaction, LEASE, &self.0.id, targets)?;
            Ok(())
        })
    }

    /// Its name, by which others can ask whether it lasts: [`Store::has_lease`].
    pub fn id(&self) -> &str {
        &self.0.id
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // If either fails the lease is merely dead instead of gone, and the next gc sweeps it.
        let _ = self.store.database().write(Durability::Soon, |transaction| forget(transaction, &self.id));
        let _ = self.lock.remove();
    }
}

fn forget(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM leases WHERE id = ?1")?.execute([id])?;
    refs::clear(connection, LEASE, id)
}

/// Removes the leases whose owners are dead, inside a write transaction, and says how many.
pub(crate) fn sweep(connection: &Connection, store: &Store) -> Result<usize, LeaseError> {
    let mut query = connection.prepare_cached("SELECT id FROM leases")?;
    let ids = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let mut dead = 0;
    for id in ids {
        let path = store.leases_dir().join(&id);
        match LockedFile::claim(&path).map_err(|source| LeaseError::Io { path, source })? {
            Claim::Taken => continue,
            // The file goes in `sweep_files`, after the commit: without a file the row means the same.
            Claim::Ours(_) | Claim::Gone => forget(connection, &id)?,
        }
        dead += 1;
    }
    Ok(dead)
}

/// Removes the files of dead leases. A file whose owner has yet to write its row is locked, so it stays.
pub(crate) fn sweep_files(store: &Store) -> Result<(), LeaseError> {
    let dir = store.leases_dir();
    let at = |path: &PathBuf| {
        let path = path.clone();
        move |source| LeaseError::Io { path, source }
    };
    for entry in fs::read_dir(&dir).map_err(at(&dir))? {
        let path = entry.map_err(at(&dir))?.path();
        if let Claim::Ours(locked) = LockedFile::claim(&path).map_err(at(&path))? {
            locked.remove().map_err(at(&path))?;
        }
    }
    Ok(())
}
