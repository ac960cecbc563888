//! Many files at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_sys::beneath::Root;

use super::CopyError;
use crate::select::Entry;

/// Threads that copy.
const THREADS_MAX: usize = 8;
/// Fewer files than this for each thread are not worth starting it.
const FILES_PER_THREAD_MIN: usize = 64;
/// Files that a thread takes at once: neighbours share a directory, which is then looked up once.
const FILES_AT_ONCE: usize = 32;

/// Does `copy` for each entry. Of several failures the one of the first entry is told.
pub(super) fn each(
    from: &Root,
    to: &Root,
    entries: &[&Entry],
    copy: &(dyn Fn(&Root, &Root, &Entry) -> Result<(), CopyError> + Sync),
) -> Result<(), CopyError> {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let threads = processors.min(THREADS_MAX).min(entries.len() / FILES_PER_THREAD_MIN);
    if threads < 2 {
        return entries.iter().try_for_each(|entry| copy(from, to, entry));
    }
    let work = Work { entries, copy, next: AtomicUsize::new(0), failure: Mutex::new(None) };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Without a descriptor more there is a thread less.
            if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                let work = &work;
                scope.spawn(move || work.run(&from, &to));
            }
        }
        work.run(from, to);
    });
    match work.failure.into_inner().expect("no copier panics while it holds the lock") {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

struct Work<'a> {
    entries: &'a [&'a Entry],
    copy: &'a (dyn Fn(&Root, &Root, &Entry) -> Result<(), CopyError> + Sync),
    next: AtomicUsize,
    failure: Mutex<Option<(usize, CopyError)>>,
}

impl Work<'_> {
    fn run(&self, from: &Root, to: &Root) {
        loop {
            let start = self.next.fetch_add(FILES_AT_ONCE, Ordering::Relaxed);
            let end = self.entries.len().min(start.saturating_add(FILES_AT_ONCE));
            let Some(entries) = self.entries.get(start..end).filter(|entries| !entries.is_empty()) else {
                return;
            };
            for (offset, entry) in entries.iter().enumerate() {
                if let Err(error) = (self.copy)(from, to, entry) {
                    self.failed(start + offset, error);
                    return;
                }
            }
        }
    }

    fn failed(&self, index: usize, error: CopyError) {
        // Nobody starts on further files.
        self.next.store(self.entries.len(), Ordering::Relaxed);
        let mut failure = self.failure.lock().expect("no copier panics while it holds the lock");
        if failure.as_ref().is_none_or(|(first, _)| index < *first) {
            *failure = Some((index, error));
        }
    }
}
