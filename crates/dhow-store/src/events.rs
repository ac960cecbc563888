//! What happened: an append-only log that any process writes and any number of processes follow.
//!
//! The log is a table, bounded, in the order of commits. Whoever follows it waits for a bell: a file whose times
//! are set after each commit, which inotify tells about. A writer that dies in between rings no bell, so that
//! who waits looks for itself once in a while.
//!
//! An event is told by its object, action and time, and is in the log once, however many processes write it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rusqlite::params;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use crate::Store;
use crate::database::{DatabaseError, Durability};

/// Events that are kept; the oldest go first.
pub const EVENTS_MAX: i64 = 10_000;
/// How long a follower waits for the bell before it looks for itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rung after each commit.
const BELL: &str = "events";

/// Something that happened to an image, a container or the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What kind of object: `image`, `container`, `volume`.
    pub kind: String,
    /// What happened to it.
    pub action: String,
    /// The object.
    pub id: String,
    /// What else there is to say.
    pub attributes: BTreeMap<String, String>,
    /// When, in nanoseconds since 1970.
    pub time_ns: i64,
}

/// The events of a store.
#[derive(Clone, Copy, Debug)]
pub struct EventLog<'s> {
    store: &'s Store,
}

/// Why nobody can wait for events.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The bell cannot be made or heard.
    #[error("cannot wait for events")]
    Bell(#[from] io::Error),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl<'s> EventLog<'s> {
    pub(crate) fn new(store: &'s Store) -> EventLog<'s> {
        EventLog { store }
    }

    /// Writes events, without waiting for the disk. One that is there already is not written again.
    pub fn append(&self, events: &[Event]) -> Result<(), DatabaseError> {
        self.store.database().write(Durability::Soon, |transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO events (kind, action, object, attributes, time_ns) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for event in events {
                let attributes = serde_json::to_string(&event.attributes).expect("texts are JSON");
                insert.execute(params![event.kind, event.action, event.id, attributes, event.time_ns])?;
            }
            transaction
                .prepare_cached("DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?1")?
                .execute([EVENTS_MAX])?;
            Ok::<_, DatabaseError>(())
        })?;
        // Who waits looks by itself if the bell is broken.
        let _ = self.ring();
        Ok(())
    }

    /// The events with numbers above `after`, in order, each with its number.
    pub fn after(&self, after: i64) -> Result<Vec<(i64, Event)>, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT number, kind, action, object, attributes, time_ns FROM events WHERE number > ?1 ORDER BY number",
            )?;
            let events = query.query_map([after], |row| {
                let attributes = row.get_ref(4)?.as_str()?;
                let event = Event {
                    kind: row.get(1)?,
                    action: row.get(2)?,
                    id: row.get(3)?,
                    // We wrote it; what is unreadable is as good as nothing.
                    attributes: serde_json::from_str(attributes).unwrap_or_default(),
                    time_ns: row.get(5)?,
                };
                Ok((row.get(0)?, event))
            })?;
            Ok(events.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The number of the latest event, 0 if there is none.
    pub fn last(&self) -> Result<i64, DatabaseError> {
        self.store.database().read(|connection| {
            let mut query = connection.prepare_cached("SELECT coalesce(max(number), 0) FROM events")?;
            Ok(query.query_row([], |row| row.get(0))?)
        })
    }

    /// Follows the log from after the event `after`.
    pub fn follow(&self, after: i64) -> Result<Follower<'s>, FollowError> {
        let bell = self.store.root().join(BELL);
        fs::OpenOptions::new().create(true).append(true).open(&bell)?;
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        let inotify = inotify.map_err(io::Error::from)?;
        inotify::add_watch(&inotify, &bell, inotify::WatchFlags::ATTRIB).map_err(io::Error::from)?;
        Ok(Follower { log: *self, inotify, after })
    }

    fn ring(&self) -> io::Result<()> {
        let bell = fs::OpenOptions::new().create(true).append(true).open(self.store.root().join(BELL))?;
        bell.set_modified(std::time::SystemTime::UNIX_EPOCH)
    }
}

/// Somebody who waits for events.
#[derive(Debug)]
pub struct Follower<'s> {
    log: EventLog<'s>,
    inotify: OwnedFd,
    after: i64,
}

impl Follower<'_> {
    /// The events since the last call. If there are none, waits up to `wait` for some.
    pub fn next(&mut self, wait: Duration) -> Result<Vec<Event>, FollowError> {
        let mut left = wait;
        loop {
            let found = self.log.after(self.after)?;
            if let Some((number, _)) = found.last() {
                self.after = *number;
                return Ok(found.into_iter().map(|(_, event)| event).collect());
            }
            if left.is_zero() {
                return Ok(Vec::new());
            }
            let turn = left.min(LOOK_EVERY);
            self.listen(turn)?;
            left -= turn;
        }
    }

    /// Waits until the bell rings. It may have rung for what was found already.
    fn listen(&self, wait: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while reader.next().is_ok() {}
        Ok(())
    }
}
