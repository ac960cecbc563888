//! What is told of containers in the store's log of events, in docker's words.
//!
//! An event that cannot be written is no reason for anything to fail: nothing but the telling is lost.

use std::collections::BTreeMap;

use dhow_runtime::ExitStatus;
use dhow_store::Event;
use jiff::Timestamp;

use crate::containers::{Containers, KIND};
use crate::networks::membership_events;
use crate::record::{Container, State};

impl Containers {
    /// Tells of something that happened to a container just now.
    pub(crate) fn tell(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        self.write(&[event(container, action, (self.clock)(), more)]);
    }

    /// Tells that a container was started. Its shim may have told already, or that it ended.
    pub(crate) fn tell_start(&self, container: &Container, started_at: &str) {
        self.tell_volumes(container, "mount", started_at);
        self.write(&start(container, started_at));
    }

    /// Tells how a container ended. That it was started comes first, whoever tells it.
    pub(crate) fn tell_end(&self, id: &str) {
        let Ok(container) = self.find(id) else { return };
        let (State::Exited { status, started_at } | State::Restarting { status, started_at }) =
            &container.state
        else {
            return;
        };
        let mut events: Vec<Event> =
            started_at.iter().flat_map(|started_at| start(&container, started_at)).collect();
        events.extend(end(&container, status, started_at.as_deref()));
        self.write(&events);
        self.tell_volumes(&container, "unmount", &status.finished_at);
        // What stays mounted is found by the next `sweep`.
        let _ = self.release_volumes(&container);
    }

    fn write(&self, events: &[Event]) {
        let _ = self.store().events().append(events);
    }
}

/// It joins its networks first.
fn start(container: &Container, started_at: &str) -> Vec<Event> {
    let Ok(time) = started_at.parse() else { return Vec::new() };
    let mut events = membership_events(container, "connect", time);
    events.push(event(container, "start", time, &[]));
    events
}

fn end(container: &Container, status: &ExitStatus, started_at: Option<&str>) -> Vec<Event> {
    let Ok(finished) = status.finished_at.parse::<Timestamp>() else { return Vec::new() };
    let started = started_at.and_then(|text| text.parse::<Timestamp>().ok());
    let seconds = started.map_or(0, |started| finished.as_second() - started.as_second());
    let oom = status.oom_killed.then(|| event(container, "oom", finished, &[]));
    let more = [("exitCode", status.exit_code.to_string()), ("execDuration", seconds.to_string())];
    let mut events: Vec<Event> = oom.into_iter().chain([event(container, "die", finished, &more)]).collect();
    events.extend(membership_events(container, "disconnect", finished));
    events
}

fn event(container: &Container, action: &str, time: Timestamp, more: &[(&str, String)]) -> Event {
    let mut attributes: BTreeMap<String, String> = container.record.config.labels.clone();
    attributes.insert("image".to_owned(), container.record.image_name.clone());
    attributes.insert("name".to_owned(), container.name.clone());
    attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Event {
        kind: KIND.to_owned(),
        action: action.to_owned(),
        id: container.id.clone(),
        attributes,
        time_ns: i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX),
    }
}
