//! The device nodes of this machine, for containers that are to see them all.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::container::{DeviceAccess, DeviceNode};

const DEV: &str = "/dev";
/// What a container has of its own, and what is of a terminal or process and not of the machine.
const OWN: [&str; 16] = [
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
    "stdout", "tty", "urandom", "zero",
];
/// Folders below folders that are looked into.
const DEPTH_MAX: usize = 8;
const MODE_BITS: u32 = 0o7777;

/// A node in the words of the runtime configuration.
pub(super) fn node(device: &DeviceNode) -> Value {
    json!({
        "path": device.path, "type": device.kind.to_string(), "major": device.major, "minor": device.minor,
        "fileMode": device.mode, "uid": device.uid, "gid": device.gid,
    })
}

/// What may be used, in the same words.
pub(super) fn rule(device: &DeviceAccess) -> Value {
    let mut rule = json!({ "allow": true, "type": device.kind.to_string(), "access": device.access });
    for (key, number) in [("major", device.major), ("minor", device.minor)] {
        if let Some(number) = number {
            rule[key] = number.into();
        }
    }
    rule
}

/// All of them, in the order of their names.
pub(super) fn of_host() -> io::Result<Vec<Value>> {
    let mut found = BTreeMap::new();
    look(Path::new(DEV), 0, &mut found)?;
    Ok(found.into_values().collect())
}

fn look(folder: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Value>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if depth == 0 && name.is_none_or(|name| OWN.contains(&name)) {
            continue;
        }
        // What is unplugged meanwhile is not there.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let file_type = metadata.file_type();
        let kind = if file_type.is_char_device() {
            "c"
        } else if file_type.is_block_device() {
            "b"
        } else {
            if file_type.is_dir() && depth < DEPTH_MAX {
                look(&path, depth + 1, found)?;
            }
            continue;
        };
        let number = metadata.rdev();
        let node = json!({
            "path": path, "type": kind,
            "major": rustix::fs::major(number), "minor": rustix::fs::minor(number),
            "fileMode": metadata.mode() & MODE_BITS, "uid": metadata.uid(), "gid": metadata.gid(),
        });
        found.insert(path, node);
    }
    Ok(())
}
