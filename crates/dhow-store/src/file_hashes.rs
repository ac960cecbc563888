//! The digests of files seen in build contexts, so that an unchanged tree costs one `stat` a file.

use rusqlite::{OptionalExtension, Row, Statement, params};

use crate::Store;
use crate::database::{DatabaseError, Durability};

/// Rows kept; beyond that the ones written longest ago go, and their files are read again.
pub const FILE_HASH_ROWS_MAX: i64 = 1_000_000;

/// A file changed this shortly before it was hashed is not remembered: its time stamps are too coarse to
/// tell a further change from the one seen.
pub const RACY_WINDOW_NS: i64 = 2_000_000_000;

/// What `stat` says about a file. If all of it is as it was, so is the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStat {
    /// The device.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// The size in bytes.
    pub size: u64,
    /// When the content was changed, in unix nanoseconds.
    pub mtime_ns: i64,
    /// When the inode was changed, in unix nanoseconds. It also changes when an inode number is used again.
    pub ctime_ns: i64,
}

/// A file and the SHA-256 of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHash {
    /// The file, as it was before it was read.
    pub stat: FileStat,
    /// The hash of its content.
    pub sha256: [u8; 32],
}

/// The digests of files a store remembers.
#[derive(Clone, Copy, Debug)]
pub struct FileHashes<'s> {
    store: &'s Store,
}

impl<'s> FileHashes<'s> {
    pub(crate) fn new(store: &'s Store) -> FileHashes<'s> {
        FileHashes { store }
    }

    /// The hash of each of `files` that has not changed since it was remembered, in the same order.
    pub fn find(&self, files: &[FileStat]) -> Result<Vec<Option<[u8; 32]>>, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT size, mtime_ns, ctime_ns, sha256 FROM file_hashes WHERE dev = ?1 AND ino = ?2",
            )?;
            let hashes = files.iter().map(|file| find_one(&mut query, file));
            Ok(hashes.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Remembers `files`, which were read at or after `now_ns` (unix nanoseconds). One whose stat is not
    /// older than that by [`RACY_WINDOW_NS`] is left out.
    pub fn put(&self, files: &[FileHash], now_ns: i64) -> Result<(), DatabaseError> {
        let settled = |file: &&FileHash| {
            now_ns.saturating_sub(file.stat.mtime_ns.max(file.stat.ctime_ns)) >= RACY_WINDOW_NS
        };
        self.store.database().write(Durability::Soon, |transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT OR REPLACE INTO file_hashes (dev, ino, size, mtime_ns, ctime_ns, sha256)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for FileHash { stat, sha256 } in files.iter().filter(settled) {
                insert.execute(params![
                    stat.dev.cast_signed(),
                    stat.ino.cast_signed(),
                    stat.size.cast_signed(),
                    stat.mtime_ns,
                    stat.ctime_ns,
                    sha256
                ])?;
            }
            // Ids only grow, so this keeps at most that many rows without counting them.
            transaction
                .prepare_cached("DELETE FROM file_hashes WHERE id <= (SELECT max(id) FROM file_hashes) - ?1")?
                .execute([FILE_HASH_ROWS_MAX])?;
            Ok(())
        })
    }
}

fn find_one(query: &mut Statement<'_>, file: &FileStat) -> rusqlite::Result<Option<[u8; 32]>> {
    let same = |row: &Row<'_>| {
        let known = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?);
        let hash = row.get::<_, [u8; 32]>(3)?;
        Ok((known == (file.size.cast_signed(), file.mtime_ns, file.ctime_ns)).then_some(hash))
    };
    Ok(query.query_row([file.dev.cast_signed(), file.ino.cast_signed()], same).optional()?.flatten())
}
