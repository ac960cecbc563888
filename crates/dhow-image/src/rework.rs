//! Layers made of layers: the same files with other times, several layers as one.

use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dhow_layer::{
    ApplyError, DiffError, DiffOptions, UnpackError, Unpacked, apply, digests, unpack, write_tar,
};
use dhow_oci::{DiffId, Digest};
use dhow_snapshot::{Prepared, SnapshotError, SnapshotKey, Snapshotter as _, Sync};
use dhow_store::{DatabaseError, LayerRecord, Lease, LeaseError, PutRecordError, Ref};
use dhow_sys::beneath::Root;
use dhow_sys::{node, overlay};

use crate::{FreezeError, FrozenLayer, Images, ReadImageError, snapshot_name};

/// Records of layers whose times were cut, under a digest of the layer and the time.
const CUT: &str = "layer-epoch";

/// Why no layer was made of others.
#[derive(Debug, thiserror::Error)]
pub enum ReworkError {
    /// A layer cannot be read.
    #[error("cannot read layer {diff_id}")]
    Diff {
        /// The layer.
        diff_id: DiffId,
        /// Why.
        source: DiffError,
    },
    /// The new layer cannot be written.
    #[error("cannot write a layer")]
    Unpack(#[from] UnpackError),
    /// The new layer cannot be written.
    #[error("cannot write a layer")]
    Apply(#[from] ApplyError),
    /// The new layer cannot be written.
    #[error("cannot write a layer at {}", path.display())]
    Io {
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A layer is missing.
    #[error(transparent)]
    Missing(#[from] ReadImageError),
    /// The layers below cannot be looked at.
    #[error("cannot look at the layers below")]
    Mount(#[from] overlay::OverlayError),
    /// The new layer has no folder.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The new layer was not frozen.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// It could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// It could not be recorded.
    #[error(transparent)]
    Record(#[from] PutRecordError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Folders of dead processes that may stand in the way of a new one.
const ABANDONED_FOLDERS_MAX: usize = 100_000;

/// Tells folders of this process apart.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Images {
    /// The layer at `position` of a stack with no time later than `epoch`, in seconds since 1970: the layer
    /// itself, or one made of it. What was made before is found again.
    pub fn cut_times(
        &self,
        stack: &[DiffId],
        position: usize,
        epoch: i64,
        lease: &Lease,
    ) -> Result<DiffId, ReworkError> {
        let diff_id = stack[position];
        let key = Digest::sha256_of(format!("{diff_id} {epoch}").as_bytes()).hex();
        let held = self.store().records(CUT).get(&key)?;
        if let Some(known) = held.and_then(|record| record.body.parse::<DiffId>().ok())
            && self.is_layer(&known, lease)?
        {
            return Ok(known);
        }
        let folder = self.folder_of(stack, position)?;
        let options = DiffOptions { mtime_max: Some(epoch), ..DiffOptions::default() };
        let wanted =
            digests(&folder, &options).map_err(|source| ReworkError::Diff { diff_id, source })?.diff_id;
        if wanted != diff_id && !self.is_layer(&wanted, lease)? {
            self.copy_layer(diff_id, &folder, &options, wanted, lease)?;
        }
        self.store().records(CUT).put_soon(&key, &wanted.to_string(), &[])?;
        Ok(wanted)
    }

    /// Whether a layer is unpacked here, from now on protected.
    fn is_layer(&self, diff_id: &DiffId, lease: &Lease) -> Result<bool, LeaseError> {
        let name = snapshot_name(diff_id);
        lease.add(Ref::Snapshot(name.to_string()))?;
        Ok(self.snapshots().layer_path(&name).is_some())
    }

    fn folder_of(&self, stack: &[DiffId], position: usize) -> Result<PathBuf, ReadImageError> {
        let snapshots = self.layer_snapshots(&stack[..=position])?;
        let folder = self.snapshots().layer_path(&snapshots[position]);
        folder.ok_or(ReadImageError::LayerMissing { diff_id: stack[position] })
    }

    /// Unpacks what `folder` is as a tar into a snapshot of its own.
    fn copy_layer(
        &self,
        diff_id: DiffId,
        folder: &Path,
        options: &DiffOptions,
        wanted: DiffId,
        lease: &Lease,
    ) -> Result<(), ReworkError> {
        let name = snapshot_name(&wanted);
        lease.add(Ref::Snapshot(name.to_string()))?;
        self.in_new_folder(|key, prepared| {
            let unpacked = self.through_a_pipe(diff_id, folder, options, |pipe| {
                Ok(unpack(pipe, prepared.path(), &self.unpack_options())?)
            })?;
            copy_root(folder, prepared.path())
                .map_err(|source| ReworkError::Io { path: prepared.path().to_owned(), source })?;
            let Unpacked { diff_id: made, applied, .. } = unpacked;
            if made != wanted {
                let path = folder.to_owned();
                let source = io::Error::other("the layer changed while it was read");
                return Err(ReworkError::Io { path, source });
            }
            self.snapshots().commit(key, &name, Sync::FileSystem)?;
            let record =
                LayerRecord { snapshot: name.to_string(), diff_id: wanted, size_bytes: applied.size_bytes };
            Ok(self.store().layers().put(&[record])?)
        })
    }

    /// Makes one layer of those of `stack` from position `from` on. `None` if together they change nothing.
    pub fn squash(
        &self,
        stack: &[DiffId],
        from: usize,
        lease: &Lease,
    ) -> Result<Option<FrozenLayer>, ReworkError> {
        self.in_new_folder(|key, prepared| {
            let failed = |source| ReworkError::Io { path: prepared.path().to_owned(), source };
            for position in from..stack.len() {
                let folder = self.folder_of(stack, position)?;
                let root = Root::open(prepared.path()).map_err(failed)?;
                clear_hidden(&folder, Path::new(""), &root).map_err(failed)?;
                self.through_a_pipe(stack[position], &folder, &DiffOptions::default(), |pipe| {
                    Ok(apply(BufReader::new(pipe), prepared.path(), &self.apply_options())?)
                })?;
                copy_root(&folder, prepared.path()).map_err(failed)?;
            }
            let root = Root::open(prepared.path()).map_err(failed)?;
            let below = self.below(&stack[..from])?;
            drop_idle_whiteouts(&root, Path::new(""), below.as_ref()).map_err(failed)?;
            Ok(self.freeze(key, lease)?)
        })
    }

    /// The file system of a stack, to look at. Nothing is not a file system.
    fn below(&self, stack: &[DiffId]) -> Result<Option<Root>, ReworkError> {
        if stack.is_empty() {
            return Ok(None);
        }
        let mut names = self.layer_snapshots(stack)?;
        names.reverse();
        let mounted = self.snapshots().view(&names)?.mount(overlay::Options::default())?;
        Ok(Some(Root::from_fd(mounted.into())))
    }

    /// Lets `fill` fill and commit a bare folder; what is left of a failure is removed.
    fn in_new_folder<T>(
        &self,
        fill: impl FnOnce(&SnapshotKey, &Prepared) -> Result<T, ReworkError>,
    ) -> Result<T, ReworkError> {
        let (key, prepared) = self.new_folder()?;
        fill(&key, &prepared).inspect_err(|_| {
            // If it cannot be removed now, gc will.
            let _ = self.snapshots().remove(&key);
        })
    }

    /// A folder under a key that no earlier process of the same number has left behind.
    fn new_folder(&self) -> Result<(SnapshotKey, Prepared), SnapshotError> {
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let key: SnapshotKey = format!("rework-{}-{number}", std::process::id())
                .parse()
                .expect("letters, digits and dashes are a snapshot key");
            match self.snapshots().prepare_layer(&key) {
                Ok(prepared) => return Ok((key, prepared)),
                Err(SnapshotError::KeyTaken { .. }) if number < ABANDONED_FOLDERS_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn through_a_pipe<T>(
        &self,
        diff_id: DiffId,
        folder: &Path,
        options: &DiffOptions,
        read: impl FnOnce(io::PipeReader) -> Result<T, ReworkError>,
    ) -> Result<T, ReworkError> {
        let piped = |source| ReworkError::Io { path: folder.to_owned(), source };
        let (reader, mut writer) = io::pipe().map_err(piped)?;
        thread::scope(|scope| {
            let written = scope.spawn(move || {
                let summary = write_tar(folder, &mut writer, options)?;
                writer.flush().map_err(DiffError::Write)?;
                Ok(summary)
            });
            let result = read(reader);
            let written = written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match (result, written) {
                // Who reads too little makes the writer fail: the reader knows why.
                (Err(error), _) => Err(error),
                (Ok(_), Err(source)) => Err(ReworkError::Diff { diff_id, source }),
                (Ok(value), Ok(_)) => Ok(value),
            }
        })
    }
}

/// A layer's tar does not list its root; a layer made of one looks like it even so.
fn copy_root(from: &Path, to: &Path) -> io::Result<()> {
    let root = std::fs::symlink_metadata(from)?;
    // Without the right to give files away all are ours, here as everywhere.
    if let Err(error) = std::os::unix::fs::chown(to, Some(root.uid()), Some(root.gid()))
        && error.kind() != io::ErrorKind::PermissionDenied
    {
        return Err(error);
    }
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(root.mode() & 0o7777))
}

/// Removes from `target` what the layer in `folder` hides.
fn clear_hidden(folder: &Path, relative: &Path, target: &Root) -> io::Result<()> {
    let dir = Root::open(&folder.join(relative))?.open_dir(Path::new(""))?;
    if node::is_opaque(&dir)? {
        for entry in held(target, relative)? {
            target.remove_tree(&relative.join(entry))?;
        }
    }
    for entry in node::read_dir(&dir)? {
        let path = relative.join(&entry.name);
        let stat = rustix::fs::statat(&dir, &entry.name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        if node::is_whiteout(&stat) {
            target.remove_tree(&path)?;
        } else if is_dir(stat.st_mode) && target.try_stat(&path)?.is_some_and(|held| is_dir(held.st_mode)) {
            clear_hidden(folder, &path, target)?;
        }
    }
    Ok(())
}

/// Removes whiteouts of what the layers below do not have.
fn drop_idle_whiteouts(layer: &Root, relative: &Path, below: Option<&Root>) -> io::Result<()> {
    for name in held(layer, relative)? {
        let path = relative.join(name);
        let stat = layer.stat(&path)?;
        if node::is_whiteout(&stat) {
            let hides = match below {
                Some(below) => exists(below, &path)?,
                None => false,
            };
            if !hides {
                layer.unlink(&path)?;
            }
        } else if is_dir(stat.st_mode) {
            drop_idle_whiteouts(layer, &path, below)?;
        }
    }
    Ok(())
}

fn exists(root: &Root, path: &Path) -> io::Result<bool> {
    match root.try_stat(path) {
        Ok(stat) => Ok(stat.is_some()),
        // One of its parents is a file down there.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error),
    }
}

/// The names in a directory; what is not there or no directory holds none.
fn held(root: &Root, path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    match root.try_stat(path)? {
        Some(stat) if is_dir(stat.st_mode) => {}
        _ => return Ok(Vec::new()),
    }
    let dir = root.open_dir(path)?;
    Ok(node::read_dir(&dir)?.into_iter().map(|entry| entry.name).collect())
}

fn is_dir(mode: u32) -> bool {
    rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Directory
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use dhow_snapshot::OverlaySnapshotter;
    use dhow_store::Store;

    use super::*;

    const EPOCH: i64 = 1_000_000_000;

    fn images(folder: &Path) -> Images {
        let store = Store::open(folder).expect("a store");
        let snapshots = OverlaySnapshotter::open(&folder.join("snapshots")).expect("snapshots");
        Images::new(store, Arc::new(snapshots))
    }

    /// A layer of files, each with the time of its last change in seconds since 1970.
    fn layer(images: &Images, lease: &Lease, files: &[(&str, i64)]) -> DiffId {
        let frozen = images.in_new_folder(|key, prepared| {
            for (path, seconds) in files {
                let path = prepared.path().join(path);
                fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
                fs::write(&path, "x").expect("a file");
                let time = UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
                fs::File::open(&path).and_then(|file| file.set_modified(time)).expect("a time");
            }
            Ok(images.freeze(key, lease)?)
        });
        frozen.expect("a layer").expect("files").diff_id
    }

    fn seconds(images: &Images, diff_id: &DiffId, path: &str) -> i64 {
        let folder = images.folder_of(&[*diff_id], 0).expect("a layer");
        fs::symlink_metadata(folder.join(path)).expect("a file").mtime()
    }

    #[test]
    fn later_times_are_cut_and_earlier_ones_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let images = images(folder.path());
        let lease = images.store().lease("test").expect("a lease");
        let made = layer(&images, &lease, &[("dir/new", EPOCH + 5), ("old", EPOCH - 5)]);
        let cut = images.cut_times(&[made], 0, EPOCH, &lease).expect("a layer");
        assert_ne!(cut, made);
        assert_eq!(seconds(&images, &cut, "dir/new"), EPOCH);
        assert_eq!(seconds(&images, &cut, "dir"), EPOCH);
        assert_eq!(seconds(&images, &cut, "old"), EPOCH - 5);
        assert_eq!(seconds(&images, &made, "dir/new"), EPOCH + 5, "the layer itself is as it was");
        // Its own digest is what its folder says, and there is nothing left to cut.
        assert_eq!(images.cut_times(&[made], 0, EPOCH, &lease).expect("the same layer"), cut);
        assert_eq!(images.cut_times(&[cut], 0, EPOCH, &lease).expect("the same layer"), cut);
    }

    #[test]
    fn the_times_of_two_builds_of_the_same_files_do_not_matter() {
        let cut = |seconds| {
            let folder = tempfile::tempdir().expect("a folder");
            let images = images(folder.path());
            let lease = images.store().lease("test").expect("a lease");
            let made = layer(&images, &lease, &[("a/b", seconds), ("c", seconds + 1)]);
            images.cut_times(&[made], 0, EPOCH, &lease).expect("a layer")
        };
        assert_eq!(cut(EPOCH + 1), cut(EPOCH + 1_000));
    }

    #[test]
    fn of_several_layers_the_last_word_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let images = images(folder.path());
        let lease = images.store().lease("test").expect("a lease");
        let base = layer(&images, &lease, &[("base", EPOCH)]);
        let stack = [
            base,
            layer(&images, &lease, &[("a", EPOCH), ("dir/b", EPOCH)]),
            layer(&images, &lease, &[("dir/b", EPOCH + 1), ("dir/c", EPOCH)]),
        ];
        let squashed = images.squash(&stack, 1, &lease).expect("a layer").expect("files");
        assert_eq!(seconds(&images, &squashed.diff_id, "dir/b"), EPOCH + 1);
        for path in ["a", "dir/c"] {
            assert_eq!(seconds(&images, &squashed.diff_id, path), EPOCH);
        }
        let folder = images.folder_of(&[squashed.diff_id], 0).expect("a layer");
        assert!(!folder.join("base").exists());
    }
}
