//! The control group of a container, as its configuration names it.

use std::io;

use dhow_sys::cgroup::Cgroup;

pub(crate) fn group(id: &str) -> io::Result<Cgroup> {
    Cgroup::new(&format!("/dhow/{id}"))
}

/// Removes what a shim that was killed at a bad moment left of its container's group.
pub(crate) fn remove_group(id: &str) -> io::Result<()> {
    let group = group(id)?;
    group.kill()?;
    group.remove()
}

/// Whether all processes of a container are held.
pub(crate) fn is_frozen(id: &str) -> bool {
    group(id).is_ok_and(|group| group.is_frozen())
}

/// Holds the processes of a container. False: this host cannot.
pub(crate) fn freeze(id: &str) -> io::Result<bool> {
    group(id)?.freeze()
}

/// Lets them go on.
pub(crate) fn thaw(id: &str) -> io::Result<()> {
    group(id)?.thaw()
}
