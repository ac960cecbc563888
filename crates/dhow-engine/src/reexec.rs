//! This binary in its other roles: the small processes that start and keep containers.

use std::time::SystemTime;

use dhow_runtime::shim::{self, ShimHooks};

/// Does the work of a helper process if this process was started as one, and never returns then.
///
/// Call it first thing in `main`: a helper clones, and may do that only while it has a single thread.
pub fn main_if_requested() {
    shim::main_if_requested(ShimHooks {
        network: dhow_container::set_up_network,
        told: |ending, told| dhow_container::told(ending, told, jiff::Timestamp::now),
        exited: |removal, status| dhow_container::exited(removal, status, jiff::Timestamp::now),
        now: SystemTime::now,
    });
}
