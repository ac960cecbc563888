//! What a store holds, to be compared before and after something that must not change it.

use std::fs;
use std::path::Path;

use super::Rig;

impl Rig {
    /// Does something, and fails the test if the store is not as it was or no longer whole.
    #[track_caller]
    pub(crate) fn unchanged<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = self.holdings();
        let result = act();
        let after = self.holdings();
        assert!(before == after, "the store has changed from\n{before}\nto\n{after}");
        self.ok("docker system check");
        result
    }

    /// Images and containers as listed, and the names of the blobs and folders that lie there.
    #[track_caller]
    pub(crate) fn holdings(&self) -> String {
        // Without ages, which change by themselves.
        let mut text = self.ok("docker images --all --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'");
        text = text + "\n" + &self.ok("docker ps --all --no-trunc --format '{{.ID}} {{.Names}}'");
        for folder in ["root/blobs/sha256", "root/snapshots", "root/ingest", "root/containers"] {
            text = format!("{text}\n{folder}: {}", names(&self.path(folder)).join(" "));
        }
        text
    }
}

/// The names in a folder, without that of its lock; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "lock");
    names.sort_unstable();
    names
}
