//! What stays of a step that failed, for `dhow debug`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use dhow_runtime::MountSpec as ContainerMount;
use dhow_snapshot::{Prepared, SnapshotKey, Snapshotter as _};
use dhow_solver::VertexId;

use super::mounts::{Aside, Ready};
use crate::execute::Executor;

/// The file system of a step that failed, and what of its mounts would be gone. All of it goes with the value
/// unless it [stays](Kept::stay).
pub(crate) struct Kept<'a> {
    /// The step.
    pub vertex: VertexId,
    /// Folders that it had mounted, by where.
    pub folders: HashMap<String, PathBuf>,
    key: SnapshotKey,
    snapshot: Option<Aside<'a>>,
    copies: Vec<Arc<Aside<'a>>>,
}

impl Kept<'_> {
    /// The snapshot of its file system.
    pub(crate) fn key(&self) -> &SnapshotKey {
        &self.key
    }

    /// All snapshots that belong to it.
    pub(crate) fn keys(&self) -> Vec<String> {
        let copies = self.copies.iter().map(|copy| copy.key.to_string());
        copies.chain([self.key.to_string()]).collect()
    }

    /// Outlives the build.
    pub(crate) fn stay(&self) {
        self.snapshot.iter().for_each(Aside::stay);
        self.copies.iter().for_each(|copy| copy.stay());
    }
}

impl<'a> Executor<'a> {
    /// Remembers what a program that failed had around it. Of several that fail at once the first is kept.
    pub(crate) fn note_failure(&self, vertex: VertexId, key: &SnapshotKey, ready: &Ready<'a>) {
        let folders = ready.container.iter().filter_map(|mount| match mount {
            ContainerMount::Bind { source, target, .. } => Some((target.clone(), source.clone())),
            _ => None,
        });
        let kept = Kept {
            vertex,
            folders: folders.collect(),
            key: key.clone(),
            snapshot: None,
            copies: ready.copies.clone(),
        };
        self.kept.lock().expect("no thread panics while it holds the lock").get_or_insert(kept);
    }

    /// Takes the snapshot of a failed step, if it is the one that is kept; else it is removed.
    pub(crate) fn keep_or_remove(&self, key: SnapshotKey, prepared: Prepared) {
        let snapshots = self.images.snapshots();
        let mut kept = self.kept.lock().expect("no thread panics while it holds the lock");
        match &mut *kept {
            Some(kept) if kept.key == key => kept.snapshot = Some(Aside::new(snapshots, key, prepared)),
            // What is left of a failed step is garbage; if it cannot be removed now, gc will.
            _ => drop(snapshots.remove(&key)),
        }
    }
}
