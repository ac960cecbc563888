//! The process that stays with a container.
//!
//! It is this program, executed again by [`spawn_shim`](crate::spawn_shim), which left its parent at once. It
//! makes the container, copies its output to the log and to attached clients, asks for its health, and when the
//! container ends records that, cleans up, and goes, or executes itself [again] and starts the container anew.
//! Its life is its lock: whoever finds the lock free and no exit recorded knows that the shim was killed.

mod again;
mod clients;
mod log;
mod probe;
mod record;
mod serve;
mod traffic;

use std::os::fd::BorrowedFd;
use std::time::SystemTime;

use crate::launch::{Created, Step};
use crate::spawn::Role;
use crate::{ExitStatus, HealthStatus, StartError, Started, exec, once};

pub(crate) use record::{InitRecord, lock_is_held, read_json, remove, wait_for_lock, write_json};
pub(crate) use serve::Reply;

/// What a helper exits with when it could not do its work. Nobody waits for it but its logs may.
const EXIT_FAILURE: i32 = 125;

/// Connects a container to its network and takes it off again.
///
/// Made by [`ShimHooks::network`] inside the shim. `connect` is called once, after the container's network
/// namespace exists and before its program runs; it may start threads and keep sockets, the shim lives as
/// long as the container. `update` is called whenever a command has asked for it. `disconnect` is called once after
/// the container ended.
pub trait NetworkSetup {
    /// Gives the namespace its interfaces, routes, published ports and names.
    fn connect(&mut self, netns: BorrowedFd<'_>) -> Result<(), String>;
    /// Does what has changed in what is wanted, which whoever asked has left where it is looked for.
    fn update(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// Undoes what outlives the namespace.
    fn disconnect(&mut self);
}

/// What the helper processes need of the rooms above this one.
#[derive(Clone, Copy)]
pub struct ShimHooks {
    /// Makes the network from [`ShimRequest::network`](crate::ShimRequest).
    pub network: fn(&serde_json::Value) -> Result<Box<dyn NetworkSetup>, String>,
    /// Called with [`ShimRequest::on_exit`](crate::ShimRequest) when something happened that others may want to hear.
    pub told: fn(&serde_json::Value, &Told),
    /// Called last, with the same, when the container is gone and recorded.
    pub exited: fn(&serde_json::Value, &ExitStatus),
    /// The time.
    pub now: fn() -> SystemTime,
}

/// What a shim tells while its container goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The program ended, and will be started again.
    Ended(ExitStatus),
    /// It was started again.
    Started(Started),
    /// The verdict on its health has changed.
    Health(HealthStatus),
}

/// Does the work of a helper and ends the process, if this process was started as one.
///
/// To be the first call of `main`: a helper must not have threads, and no argument of it is for others.
pub fn main_if_requested(hooks: ShimHooks) {
    let Some(role) = std::env::args_os().next().and_then(|argv0| Role::of(&argv0)) else { return };
    let result = match role {
        Role::Shim => serve::shim(hooks),
        Role::ShimAgain => serve::shim_again(hooks),
        Role::Once => once::helper(hooks),
        Role::Exec => exec::helper(),
    };
    std::process::exit(if result.is_ok() { 0 } else { EXIT_FAILURE });
}

/// Connects a created container to the network that was asked for.
pub(crate) fn connect(
    created: &dyn Created,
    request: Option<&serde_json::Value>,
    hooks: ShimHooks,
) -> Result<Option<Box<dyn NetworkSetup>>, StartError> {
    use std::os::fd::AsFd;
    let Some(request) = request else { return Ok(None) };
    let mut network = (hooks.network)(request).map_err(StartError::Setup)?;
    let netns = created.network_namespace()?;
    if let Err(error) = network.connect(netns.as_fd()) {
        network.disconnect();
        return Err(StartError::Setup(error));
    }
    Ok(Some(network))
}

/// A time as Docker writes it.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    // A clock set to before year -9999 or after 9999 is not worth an error path.
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}

/// Opens the null device.
pub(crate) fn null() -> Result<std::os::fd::OwnedFd, StartError> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null");
    null.map(Into::into).step("cannot open /dev/null")
}
