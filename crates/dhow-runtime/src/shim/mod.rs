//! The process that stays with a container.

use std::os::fd::BorrowedFd;
use std::time::SystemTime;

use crate::ExitStatus;

/// Connects a container to its network and takes it off again.
///
/// Made by [`ShimHooks::network`] inside the shim. `connect` is called once, after the container's network
/// namespace exists and before its program runs; it may start threads and keep sockets, the shim lives as
/// long as the container. `disconnect` is called once after the container ended.
pub trait NetworkSetup {
    /// Gives the namespace its interfaces, routes, published ports and names.
    fn connect(&mut self, netns: BorrowedFd<'_>) -> Result<(), String>;
    /// Undoes what outlives the namespace.
    fn disconnect(&mut self);
}

/// What the shim needs of the rooms above it.
#[derive(Clone, Copy)]
pub struct ShimHooks {
    /// Makes the network from [`ShimRequest::network`](crate::ShimRequest).
    pub network: fn(&serde_json::Value) -> Result<Box<dyn NetworkSetup>, String>,
    /// Called last, with [`ShimRequest::on_exit`](crate::ShimRequest), when the container is gone and recorded.
    pub exited: fn(&serde_json::Value, &ExitStatus),
    /// The time.
    pub now: fn() -> SystemTime,
}
