//! The control group of a container, as its configuration names it.

use std::fs;
use std::io;

use dhow_runtime::Bundle;
use dhow_sys::cgroup::Cgroup;

/// The file in a container's folder that names the parent of its group; there if it is not the usual one.
const PARENT: &str = "cgroup-parent";

pub(crate) fn group(bundle: &Bundle) -> io::Result<Cgroup> {
    let id = bundle.dir().file_name().unwrap_or_default().to_string_lossy();
    match fs::read_to_string(bundle.dir().join(PARENT)) {
        Ok(parent) => Cgroup::new(&format!("{}/{id}", parent.trim_end_matches('/'))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Cgroup::new(&format!("/dhow/{id}")),
        Err(error) => Err(error),
    }
}

/// Writes down that a container's group is below another one than usual.
pub(crate) fn write_parent(bundle: &Bundle, parent: &str) -> io::Result<()> {
    fs::write(bundle.dir().join(PARENT), parent)
}

/// Removes what a shim that was killed at a bad moment left of its container's group.
pub(crate) fn remove_group(bundle: &Bundle) -> io::Result<()> {
    let group = group(bundle)?;
    group.kill()?;
    group.remove()
}

/// Whether all processes of a container are held.
pub(crate) fn is_frozen(bundle: &Bundle) -> bool {
    group(bundle).is_ok_and(|group| group.is_frozen())
}

/// Holds the processes of a container. False: this host cannot.
pub(crate) fn freeze(bundle: &Bundle) -> io::Result<bool> {
    group(bundle)?.freeze()
}

/// Lets them go on.
pub(crate) fn thaw(bundle: &Bundle) -> io::Result<()> {
    group(bundle)?.thaw()
}
