//! Connections to `db.sqlite`: how they are opened, shared by threads, and how a transaction is made.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior};

use crate::OpenError;
use crate::schema::{MIGRATIONS, SCHEMA_VERSION};

/// Write transactions are short, in every process (gc only renames in one), so waiting this long means that
/// a process was stopped inside one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections kept for the next caller; more threads than this at once pay for opening one.
const IDLE_MAX: usize = 8;

/// Different statements a process is likely to use again.
const STATEMENTS_MAX: usize = 64;

/// The database could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the store's database")]
pub struct DatabaseError(#[from] rusqlite::Error);

/// Lets `?` lift SQLite's errors into the errors of operations that have a `Database` variant.
macro_rules! from_sqlite {
    ($($error:ty),+ $(,)?) => {
        $(impl From<rusqlite::Error> for $error {
            fn from(error: rusqlite::Error) -> Self {
                Self::Database(error.into())
            }
        })+
    };
}
pub(crate) use from_sqlite;

/// When a commit must be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Before the caller is told. Names and records: they are promises.
    Now,
    /// With the next commit that is. Losing it to a power cut costs work, or protects a dead process.
    Soon,
}

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    idle: Mutex<Vec<Pooled>>,
}

#[derive(Debug)]
struct Pooled {
    connection: Connection,
    durability: Durability,
}

impl Database {
    /// Opens the database in `root`. The usual case is one `open` and one read of the format number.
    pub(crate) fn open(root: &Path) -> Result<Database, OpenError> {
        let path = root.join("db.sqlite");
        let in_database =
            |source: rusqlite::Error| OpenError::Database { path: path.clone(), source: source.into() };
        let found = connect(&path).and_then(|connection| Ok((format_of(&connection)?, connection)));
        let pooled = match found {
            Ok((SCHEMA_VERSION, connection)) => connection,
            Ok((found, _)) if found > SCHEMA_VERSION => {
                return Err(OpenError::TooNew { path: root.to_owned(), found });
            }
            // Missing, older, half made, or broken: the slow path finds out which.
            Ok(_) | Err(_) => {
                let _lock = prepare_folders(root, &path)?;
                let mut connection = connect(&path).map_err(in_database)?;
                migrate(&mut connection).map_err(in_database)?;
                connection
            }
        };
        let pooled = Pooled { connection: pooled, durability: Durability::Now };
        Ok(Database { path, idle: Mutex::new(vec![pooled]) })
    }

    /// Runs `queries` on one consistent view of the database.
    pub(crate) fn read<T, E: From<rusqlite::Error>>(
        &self,
        queries: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut pooled = self.take()?;
        let transaction = pooled.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let result = queries(&transaction);
        transaction.finish()?;
        self.give_back(pooled);
        result
    }

    /// Runs `changes` while no other process or thread writes. An error undoes them all.
    pub(crate) fn write<T, E: From<rusqlite::Error>>(
        &self,
        durability: Durability,
        changes: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut pooled = self.take()?;
        pooled.promise(durability)?;
        let transaction = pooled.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = match changes(&transaction) {
            Ok(value) => transaction.commit().map(|()| value).map_err(E::from),
            Err(error) => {
                transaction.rollback()?;
                Err(error)
            }
        };
        self.give_back(pooled);
        result
    }

    fn take(&self) -> rusqlite::Result<Pooled> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(pooled) => Ok(pooled),
            None => Ok(Pooled { connection: connect(&self.path)?, durability: Durability::Now }),
        }
    }

    fn give_back(&self, pooled: Pooled) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(pooled);
        }
    }
}

impl Pooled {
    /// SQLite's own default is `FULL`; in WAL mode `NORMAL` leaves out the sync at commit and nothing else,
    /// and the next `FULL` commit syncs the same log, so a weak commit is never lost behind a strong one.
    fn promise(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if self.durability != durability {
            self.connection.execute_batch(match durability {
                Durability::Now => "PRAGMA synchronous = FULL",
                Durability::Soon => "PRAGMA synchronous = NORMAL",
            })?;
            self.durability = durability;
        }
        Ok(())
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // A command is usually the last to close: without this each would copy the log back, sync and delete it,
    // and a command that writes one record would take 15 ms instead of 0.8.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn format_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Makes the folders and an empty database file. The lock it returns lets one process at a time migrate.
fn prepare_folders(root: &Path, database: &Path) -> Result<fs::File, OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    // Others may pass through the root to a container's files they were given, but not look around.
    make_folder(root, 0o711).map_err(at(root))?;
    let lock_path = root.join("lock");
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(&lock_path).map_err(at(&lock_path))?;
    lock.lock().map_err(at(&lock_path))?;
    for name in ["blobs", "blobs/sha256", "blobs/sha512", "ingest", "leases"] {
        let path = root.join(name);
        make_folder(&path, 0o700).map_err(at(&path))?;
    }
    create_once(database).map_err(at(database))?;
    for folder in [root, &root.join("blobs")] {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
    }
    Ok(lock)
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Makes an empty private file. One that exists is not even opened: closing it would drop the locks that
/// SQLite, in another thread, has on it (POSIX locks belong to the process).
fn create_once(path: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    // Kept in the file from now on. It cannot be changed inside a transaction.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = usize::try_from(format_of(&transaction)?).unwrap_or(0);
    for script in MIGRATIONS.iter().skip(found) {
        transaction.execute_batch(script)?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {SCHEMA_VERSION}"))?;
    transaction.commit()
}

/// Reads a column that holds the text of a `T`.
pub(crate) fn parsed<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(index)?.as_str()?;
    text.parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}

/// Reads a column that may be NULL and else holds the text of a `T`.
pub(crate) fn parsed_or_null<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match row.get_ref(index)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => parsed(row, index).map(Some),
    }
}

/// Reads a column that holds a number that is never negative.
pub(crate) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(index)?.cast_unsigned())
}
