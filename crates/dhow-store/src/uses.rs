//! When records were used, for those that may be made again and are removed when they were not used for long.

use std::collections::HashMap;

use rusqlite::params;

use crate::database::{DatabaseError, Durability};
use crate::refs::LEASE;
use crate::{LeaseError, RecordStore, Ref, Store, lease, records};

/// How a record was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// When it was first used, in unix seconds.
    pub first: i64,
    /// When it was last used.
    pub last: i64,
    /// How often.
    pub count: u64,
}

impl RecordStore<'_> {
    /// Notes that records were used at `now`, in unix seconds. Whether they exist does not matter.
    pub fn touch<'k>(&self, keys: impl IntoIterator<Item = &'k str>, now: i64) -> Result<(), DatabaseError> {
        let kind = self.kind();
        self.store().database().write(Durability::Soon, |transaction| {
            let mut touch = transaction.prepare_cached(
                "INSERT INTO record_uses VALUES (?1, ?2, ?3, ?3, 1)
                 ON CONFLICT (kind, key) DO UPDATE SET last = ?3, count = count + 1",
            )?;
            for key in keys {
                touch.execute(params![kind, key, now])?;
            }
            Ok(())
        })
    }

    /// How records were used, by key.
    pub fn uses(&self) -> Result<HashMap<String, Use>, DatabaseError> {
        self.store().database().read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT key, first, last, count FROM record_uses WHERE kind = ?1")?;
            let uses = query.query_map([self.kind()], |row| {
                let (first, last, count) = (row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?);
                Ok((row.get(0)?, Use { first, last, count: count.cast_unsigned() }))
            })?;
            Ok(uses.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Removes records and what is noted of their use, without waiting for the disk. Nothing may refer to them.
    pub fn remove_soon<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Result<(), DatabaseError> {
        let kind = self.kind();
        self.store().database().write(Durability::Soon, |transaction| {
            for key in keys {
                records::delete(transaction, kind, key)?;
            }
            Ok(())
        })
    }
}

impl Store {
    /// What living leases protect at this moment.
    pub fn leased(&self) -> Result<Vec<Ref>, LeaseError> {
        self.database().write(Durability::Soon, |transaction| {
            lease::sweep(transaction, self)?;
            let mut query = transaction
                .prepare_cached("SELECT DISTINCT target_kind, target FROM refs WHERE holder_kind = ?1")?;
            let leased = query.query_map([LEASE], |row| Ref::from_row(row, 0))?;
            Ok(leased.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Bytes of the unpacked layers that records of `kind` keep and nothing else does.
    pub fn layer_bytes_kept_by(&self, kind: &str) -> Result<u64, DatabaseError> {
        self.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT coalesce(sum(size_bytes), 0) FROM layers
                 WHERE EXISTS (SELECT 1 FROM refs
                     WHERE target_kind = 'snapshot' AND target = layers.snapshot AND holder_kind = ?1)
                 AND NOT EXISTS (SELECT 1 FROM refs
                     WHERE target_kind = 'snapshot' AND target = layers.snapshot AND holder_kind NOT IN (?1, ?2))",
            )?;
            Ok(query.query_row([kind, LEASE], |row| row.get::<_, i64>(0))?.cast_unsigned())
        })
    }
}
