//! Clients that attached to containers before these were started.
//!
//! `docker run` attaches first and starts then, so that nothing is missed. Until the start such a client is nothing but an
//! open connection, and it is this that is kept here: when the server goes, it goes.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dhow_engine::containers::{Attached, WindowSize};

/// Who waits for which container.
#[derive(Default)]
pub(crate) struct Pending(Mutex<HashMap<String, Vec<Waiting>>>);

/// Where to hand the attachment, and the size of the terminal as far as it was told.
type Waiting = (Sender<Attached>, Option<WindowSize>);

impl Pending {
    /// Waits for the start of a container, known by its id.
    pub(crate) fn wait(&self, id: &str) -> Receiver<Attached> {
        let (sender, receiver) = channel();
        self.lock().entry(id.to_owned()).or_default().push((sender, None));
        receiver
    }

    /// Everybody who waits for a container, which is about to be started.
    pub(crate) fn take(&self, id: &str) -> Vec<Waiting> {
        self.lock().remove(id).unwrap_or_default()
    }

    /// Remembers the size of a terminal. False: nobody waits.
    pub(crate) fn resize(&self, id: &str, size: WindowSize) -> bool {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.get_mut(id) else { return false };
        waiting.iter_mut().for_each(|(_, known)| *known = Some(size));
        true
    }

    /// A panic elsewhere leaves the map whole: it is only inserted into and removed from.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
