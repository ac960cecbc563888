//! What happened, for whoever wants to know.

use std::collections::BTreeMap;
use std::time::Duration;

use dhow_oci::Reference;
use dhow_store::DatabaseError;

pub use dhow_store::{Event, FollowError};

use crate::Engine;

/// The kind of object of events about images.
const IMAGE: &str = "image";
/// How often it is asked whether anybody still listens.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Which events are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventRange {
    /// Those from this time on, in nanoseconds since 1970; without it only what happens from now on.
    pub since_ns: Option<i64>,
    /// Those up to this time; without it there is no end.
    pub until_ns: Option<i64>,
}

impl Engine {
    /// Calls `tell` for each event, those that were and then those that come, until the end of the range or
    /// until it says no.
    pub fn events(&self, range: EventRange, tell: &mut dyn FnMut(&Event) -> bool) -> Result<(), FollowError> {
        self.events_while(range, &|| true, tell)
    }

    /// The same, with somebody who is asked now and then whether it shall go on.
    pub fn events_while(
        &self,
        range: EventRange,
        goes_on: &dyn Fn() -> bool,
        tell: &mut dyn FnMut(&Event) -> bool,
    ) -> Result<(), FollowError> {
        let mut follower = self.store().events().follow(0)?;
        let mut past = follower.next(Duration::ZERO)?;
        // Processes write in another order than things happened.
        past.sort_by_key(|event| event.time_ns);
        let since = range.since_ns.unwrap_or(i64::MAX);
        let until = range.until_ns.unwrap_or(i64::MAX);
        let is_meant = |event: &&Event| (since..=until).contains(&event.time_ns);
        if !past.iter().filter(is_meant).all(&mut *tell) {
            return Ok(());
        }
        loop {
            let left = until.saturating_sub(self.now_ns());
            if left <= 0 || !goes_on() {
                return Ok(());
            }
            let coming = follower.next(Duration::from_nanos(left.unsigned_abs()).min(ASK_EVERY))?;
            if !coming.iter().filter(|event| event.time_ns <= until).all(&mut *tell) {
                return Ok(());
            }
        }
    }

    /// The time, in nanoseconds since 1970.
    fn now_ns(&self) -> i64 {
        i64::try_from((self.settings.clock)().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// Tells of something that happened to an image. `id` is what docker calls it by in that event, and `name`
    /// the same for people.
    pub(crate) fn tell_image(&self, action: &str, id: &str, name: &str, labels: BTreeMap<String, String>) {
        let mut attributes = labels;
        if !name.is_empty() {
            attributes.insert("name".to_owned(), name.to_owned());
        }
        let (kind, action, id) = (IMAGE.to_owned(), action.to_owned(), id.to_owned());
        let event = Event { kind, action, id, attributes, time_ns: self.now_ns() };
        // Nothing but the telling is lost if it cannot be written.
        let _: Result<(), DatabaseError> = self.store().events().append(&[event]);
    }

    /// The same for what is known by its name: pull and push.
    pub(crate) fn tell_reference(
        &self,
        action: &str,
        reference: &Reference,
        labels: BTreeMap<String, String>,
    ) {
        self.tell_image(action, &reference.familiar(), &reference.familiar_name(), labels);
    }

    /// The same for what is known by its ID.
    pub(crate) fn tell_id(&self, action: &str, id: &str, labels: BTreeMap<String, String>) {
        self.tell_image(action, id, id, labels);
    }
}
