//! Layers on their way in, from a registry or an archive.
//!
//! Each layer is read once: the bytes go into an ingest, which digests them, and into the unpacker, which
//! fills a bare folder and digests the tar stream. All folders then become visible together, after one sync.
//! A command that dies in between leaves the bytes it had, and the next one continues after them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dhow_layer::{Applied, UnpackError, UnpackOptions, Unpacked, unpack};
use dhow_oci::{ChainId, Descriptor, DiffId, Digest, chain_ids};
use dhow_registry::RegistryError;
use dhow_snapshot::{
    OverlaySnapshotter, Prepared, SnapshotError, SnapshotKey, SnapshotName, Snapshotter as _,
    Sync as SyncHow, fix_implied_dirs,
};
use dhow_store::{
    Begun, CommitError, DatabaseError, Expected, IngestError, LayerBlob, LayerRecord, Lease, LeaseError,
    ReadError, Ref, Sealed, SyncBefore,
};

use crate::images::chain_name;
use crate::tee::{Tee, TeeFailure};
use crate::{Images, PullEvent, PullObserver, snapshot_name};

/// Layers that are fetched and unpacked at once.
const LAYERS_AT_ONCE_MAX: usize = 4;
/// How long another process may take to fetch a layer that both want.
const OTHER_PROCESS_WAIT: Duration = Duration::from_secs(60 * 60);
/// The same for a layer that is begun a second time, out of turn.
const OUT_OF_TURN_WAIT: Duration = Duration::from_secs(5);
/// Folders of dead processes that may stand in the way of a new one for the same layer.
const ABANDONED_FOLDERS_MAX: u32 = 1000;
/// What a root that no layer lists looks like.
const ROOT_DEFAULT: (u32, u32, u32) = (0o755, 0, 0);

/// Opens a layer's travelling bytes from an offset on.
pub type OpenLayer<'a> = dyn Fn(&Descriptor, u64) -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// Why a layer did not become a folder.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its bytes did not come.
    #[error("cannot fetch it")]
    Source(#[source] io::Error),
    /// Its bytes are not those promised.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It could not be stored.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It is not the layer that the configuration speaks of.
    #[error("it unpacks to {actual}, the image's configuration expects {expected}")]
    DiffId {
        /// What the configuration says.
        expected: DiffId,
        /// What came.
        actual: Box<DiffId>,
    },
    /// What is in the store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It has no folder.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It is not there though it was just put there.
    #[error("its folder has disappeared")]
    Disappeared,
}

/// Why an image's layers were not installed. None of them became visible.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A registry's own words about a layer.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// One layer failed.
    #[error("layer {digest}")]
    Layer {
        /// As it travels.
        digest: Digest,
        /// Why.
        source: Box<LayerError>,
    },
    /// Their folders could not be made visible.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Their bytes could not be made visible.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// They could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The layers of one image, lowest first.
pub(crate) struct Stack<'a> {
    pub(crate) layers: &'a [Descriptor],
    pub(crate) diff_ids: &'a [DiffId],
    chain: Vec<ChainId>,
}

impl<'a> Stack<'a> {
    /// There are as many `layers` as `diff_ids`.
    pub(crate) fn new(layers: &'a [Descriptor], diff_ids: &'a [DiffId]) -> Stack<'a> {
        assert_eq!(layers.len(), diff_ids.len(), "the caller has compared manifest and configuration");
        Stack { layers, diff_ids, chain: chain_ids(diff_ids) }
    }

    /// The names under which the layer at `position` may be found.
    fn names(&self, position: usize) -> [SnapshotName; 2] {
        [snapshot_name(&self.diff_ids[position]), chain_name(&self.chain[position])]
    }
}

/// The installation of one image's layers.
pub(crate) struct Install<'a> {
    pub(crate) images: &'a Images,
    pub(crate) lease: &'a Lease,
    pub(crate) open: &'a OpenLayer<'a>,
    pub(crate) observer: &'a PullObserver<'a>,
}

/// A layer that is unpacked and not yet visible.
struct Arrived<'a> {
    position: usize,
    folder: Folder<'a>,
    applied: Applied,
    /// Its travelling bytes, unless they were in the store before.
    sealed: Option<Sealed>,
}

/// A folder being filled. It goes with its owner unless it was committed.
struct Folder<'a> {
    snapshots: &'a OverlaySnapshotter,
    key: SnapshotKey,
    prepared: Prepared,
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        // After a commit there is nothing to remove; a folder that cannot be removed is found by gc.
        let _ = self.snapshots.remove(&self.key);
    }
}

impl<'a> Install<'a> {
    /// Sees to it that every layer is unpacked, and stores the travelling bytes of those it had to fetch.
    pub(crate) fn run(&self, stack: &Stack<'_>) -> Result<(), InstallError> {
        self.protect(stack)?;
        let missing = self.missing(stack);
        self.announce(stack, &missing);
        let mut missing = missing;
        // Each round completes at least the lowest missing layer.
        for _ in 0..=stack.layers.len() {
            if missing.is_empty() {
                return Ok(());
            }
            self.round(stack, &missing)?;
            missing = self.missing(stack);
        }
        let digest = stack.layers[missing[0]].digest;
        Err(InstallError::Layer { digest, source: Box::new(LayerError::Disappeared) })
    }

    fn protect(&self, stack: &Stack<'_>) -> Result<(), InstallError> {
        let blobs = stack.layers.iter().map(|layer| Ref::Blob(layer.digest));
        let names = (0..stack.layers.len()).flat_map(|position| stack.names(position));
        let refs: Vec<Ref> = blobs.chain(names.map(|name| Ref::Snapshot(name.to_string()))).collect();
        Ok(self.lease.add_all(&refs)?)
    }

    fn missing(&self, stack: &Stack<'_>) -> Vec<usize> {
        (0..stack.layers.len()).filter(|position| self.path(stack, *position).is_none()).collect()
    }

    /// Where the layer at `position` is unpacked.
    fn path(&self, stack: &Stack<'_>, position: usize) -> Option<PathBuf> {
        stack.names(position).iter().find_map(|name| self.images.snapshots().layer_path(name))
    }

    fn announce(&self, stack: &Stack<'_>, missing: &[usize]) {
        let mut told = BTreeSet::new();
        for (position, layer) in stack.layers.iter().enumerate() {
            let digest = layer.digest;
            if told.insert(digest) {
                (self.observer)(&match missing.contains(&position) {
                    true => PullEvent::LayerStarted { digest, size_bytes: layer.size },
                    false => PullEvent::LayerExists { digest },
                });
            }
        }
    }

    /// Installs each missing layer, once if it is there several times.
    fn round(&self, stack: &Stack<'_>, missing: &[usize]) -> Result<(), InstallError> {
        let (mut arrived, failed) = self.fetch_all(stack, self.begin_all(stack, missing)?);
        arrived.sort_by_key(|arrived| arrived.position);
        match failed {
            None => self.commit(stack, arrived),
            Some(error) => {
                // What came whole need not come again, at least until gc passes by.
                let sealed = arrived.iter_mut().filter_map(|arrived| arrived.sealed.take()).collect();
                let published = self.images.store().content().publish(sealed, SyncBefore::Files);
                published.map_err(InstallError::from).and(Err(error))
            }
        }
    }

    /// Begins the layers that a round is to bring, each once. What is begun is held until the end of the round,
    /// so all processes begin in the order of digests: nobody waits for one while holding a later one.
    fn begin_all(
        &self,
        stack: &Stack<'_>,
        missing: &[usize],
    ) -> Result<VecDeque<(usize, Begun)>, InstallError> {
        let by_digest: BTreeMap<Digest, usize> =
            missing.iter().rev().map(|position| (stack.layers[*position].digest, *position)).collect();
        let mut begun = Vec::with_capacity(by_digest.len());
        for (digest, position) in by_digest {
            let layer =
                self.begin(stack, position, OTHER_PROCESS_WAIT).map_err(|error| named(digest, error))?;
            begun.push((position, layer));
        }
        begun.sort_by_key(|(position, _)| *position);
        Ok(begun.into())
    }

    fn begin(&self, stack: &Stack<'_>, position: usize, wait: Duration) -> Result<Begun, LayerError> {
        let expected = Expected::from(&stack.layers[position]);
        Ok(self.images.store().content().ingest_expected(self.lease, expected, wait)?)
    }

    fn fetch_all(
        &self,
        stack: &Stack<'_>,
        jobs: VecDeque<(usize, Begun)>,
    ) -> (Vec<Arrived<'a>>, Option<InstallError>) {
        let workers = jobs.len().min(LAYERS_AT_ONCE_MAX);
        let (jobs, arrived) = (Mutex::new(jobs), Mutex::new(Vec::new()));
        let (failed, stop) = (Mutex::new(None), AtomicBool::new(false));
        let work = || {
            while let Some((position, begun)) = next(&jobs, &stop) {
                match self.fetch(stack, position, begun, &stop) {
                    Ok(layer) => locked(&arrived).extend(layer),
                    Err(error) => {
                        // Others fail because they are told to stop; the first error is the reason.
                        if !stop.swap(true, Ordering::Relaxed) {
                            *locked(&failed) = Some(named(stack.layers[position].digest, error));
                        }
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
        let into = PoisonError::into_inner;
        (
            arrived.into_inner().unwrap_or_else(into),
            failed.into_inner().unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Brings one layer. `None` if another process has brought it meanwhile.
    fn fetch(
        &self,
        stack: &Stack<'_>,
        position: usize,
        begun: Begun,
        stop: &AtomicBool,
    ) -> Result<Option<Arrived<'a>>, LayerError> {
        let descriptor = &stack.layers[position];
        // Bytes that an earlier command left may be damaged; then there is a second attempt from nothing.
        let first = self.attempt(stack, position, begun, stop);
        let arrived = match first {
            Err(LayerError::Commit(CommitError::DigestMismatch { resumed_at: 1.., .. })) => {
                let begun = self.begin(stack, position, OUT_OF_TURN_WAIT)?;
                self.attempt(stack, position, begun, stop)?
            }
            first => first?,
        };
        (self.observer)(&PullEvent::LayerDone { digest: descriptor.digest });
        Ok(arrived)
    }

    fn attempt(
        &self,
        stack: &Stack<'_>,
        position: usize,
        begun: Begun,
        stop: &AtomicBool,
    ) -> Result<Option<Arrived<'a>>, LayerError> {
        let (descriptor, diff_id) = (&stack.layers[position], stack.diff_ids[position]);
        let content = self.images.store().content();
        if matches!(begun, Begun::Present(_)) && self.path(stack, position).is_some() {
            return Ok(None);
        }
        let folder = self.folder(&diff_id)?;
        let (unpacked, sealed) = match begun {
            Begun::Present(_) => {
                let blob = content.open(&descriptor.digest)?;
                (unpack(blob, folder.prepared.path(), &self.images.unpack_options())?, None)
            }
            Begun::Ingest(ingest) => {
                let tee = Tee::new(*ingest, descriptor, self.open, self.observer, stop);
                let (unpacked, sealed) =
                    through(tee?, folder.prepared.path(), &self.images.unpack_options())?;
                (unpacked, Some(sealed))
            }
        };
        if unpacked.diff_id != diff_id {
            let actual = Box::new(unpacked.diff_id);
            return Err(LayerError::DiffId { expected: diff_id, actual });
        }
        Ok(Some(Arrived { position, folder, applied: unpacked.applied, sealed }))
    }

    fn folder(&self, diff_id: &DiffId) -> Result<Folder<'a>, SnapshotError> {
        let snapshots = self.images.snapshots();
        let mut number = 0;
        loop {
            let key: SnapshotKey = format!("pull-{}-{number}", diff_id.digest().short())
                .parse()
                .expect("letters, digits and dashes are a snapshot key");
            match snapshots.prepare_layer(&key) {
                Ok(prepared) => return Ok(Folder { snapshots, key, prepared }),
                Err(SnapshotError::KeyTaken { .. }) if number < ABANDONED_FOLDERS_MAX => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes folders visible, then blobs: who waits for a blob finds its folder.
    fn commit(&self, stack: &Stack<'_>, arrived: Vec<Arrived<'a>>) -> Result<(), InstallError> {
        let mut named = self.name(stack, &arrived)?;
        let commits: Vec<(SnapshotKey, SnapshotName)> =
            named.iter().map(|(at, name)| (arrived[*at].folder.key.clone(), name.clone())).collect();
        self.images.snapshots().commit_all(&commits, SyncHow::FileSystem)?;
        let mut arrived = arrived;
        let sealed = arrived.iter_mut().filter_map(|arrived| arrived.sealed.take()).collect();
        // Their bytes went to disk with those of the folders, so that this finds nothing to write.
        self.images.store().content().publish(sealed, SyncBefore::Files)?;
        let facts = named.drain(..).map(|(at, name)| LayerRecord {
            snapshot: name.to_string(),
            diff_id: stack.diff_ids[arrived[at].position],
            size_bytes: arrived[at].applied.size_bytes,
        });
        self.images.store().layers().put(&facts.collect::<Vec<_>>())?;
        let travelling = arrived.iter().map(|arrived| {
            let (layer, diff_id) = (&stack.layers[arrived.position], stack.diff_ids[arrived.position]);
            let (digest, size_bytes) = (layer.digest, layer.size);
            LayerBlob { digest, diff_id, media_type: layer.media_type.clone(), size_bytes }
        });
        self.images.store().layers().put_blobs(&travelling.collect::<Vec<_>>())?;
        Ok(())
    }

    /// Decides what each folder is called. One that takes attributes from the layers below is named by the
    /// chain; if one of those is yet to come, it gets no name and comes again in the next round.
    fn name(
        &self,
        stack: &Stack<'_>,
        arrived: &[Arrived<'a>],
    ) -> Result<Vec<(usize, SnapshotName)>, InstallError> {
        let mut named = Vec::with_capacity(arrived.len());
        let mut paths: BTreeMap<usize, PathBuf> =
            (0..stack.layers.len()).filter_map(|at| Some((at, self.path(stack, at)?))).collect();
        for (index, layer) in arrived.iter().enumerate() {
            let (position, path) = (layer.position, layer.folder.prepared.path());
            let diff_id = stack.diff_ids[position];
            let lowers: Option<Vec<PathBuf>> =
                (0..position).rev().map(|at| paths.get(&at).cloned()).collect();
            let takes_root = !layer.applied.lists_root && lowers.as_deref().is_none_or(has_other_root);
            if layer.applied.implied_dirs.is_empty() && !takes_root {
                // It serves wherever it lies.
                let same = (position..stack.layers.len()).filter(|at| stack.diff_ids[*at] == diff_id);
                paths.extend(same.map(|at| (at, path.to_owned())));
                named.push((index, snapshot_name(&diff_id)));
            } else if let Some(lowers) = lowers {
                let root = takes_root.then(PathBuf::new);
                let dirs: Vec<PathBuf> = layer.applied.implied_dirs.iter().cloned().chain(root).collect();
                fix_implied_dirs(path, &dirs, &lowers)?;
                paths.insert(position, path.to_owned());
                named.push((index, chain_name(&stack.chain[position])));
            }
        }
        Ok(named)
    }
}

/// Whether the root of the topmost layer is other than what a layer gets that does not list it.
fn has_other_root(lowers: &[PathBuf]) -> bool {
    let look = |path: &PathBuf| {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        Some((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()))
    };
    lowers.first().is_some_and(|top| look(top) != Some(ROOT_DEFAULT))
}

/// Unpacks what comes through a tee. Whatever fails, the bytes are judged first: a layer that does not unpack
/// because it was tampered with is a wrong digest.
fn through(
    mut tee: Tee<'_>,
    folder: &Path,
    options: &UnpackOptions,
) -> Result<(Unpacked, Sealed), LayerError> {
    let unpacked = unpack(&mut tee, folder, options);
    if unpacked.is_err() {
        tee.drain();
    }
    let (ingest, failure) = tee.into_parts();
    match failure {
        Some(TeeFailure::Source(error)) => {
            ingest.keep_partial();
            return Err(LayerError::Source(error));
        }
        Some(TeeFailure::Store(error)) => {
            return Err(UnpackError::Read(error).into());
        }
        None => {}
    }
    let sealed = ingest.seal()?;
    Ok((unpacked?, sealed))
}

fn next<T>(jobs: &Mutex<VecDeque<T>>, stop: &AtomicBool) -> Option<T> {
    if stop.load(Ordering::Relaxed) { None } else { locked(jobs).pop_front() }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A registry says itself which layer of what it is about.
fn named(digest: Digest, error: LayerError) -> InstallError {
    match error {
        LayerError::Source(error) => match error.downcast::<RegistryError>() {
            Ok(error) => InstallError::Registry(error),
            Err(error) => InstallError::Layer { digest, source: Box::new(LayerError::Source(error)) },
        },
        source => InstallError::Layer { digest, source: Box::new(source) },
    }
}
