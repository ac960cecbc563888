//! The layer cache: steps by key, in the store's records.
//!
//! A record of kind `cache` is a step with what it was made of, and keeps the step's layer and log alive. What a
//! miss is compared with is found through the history of builds, which names the keys of their steps.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock};

use dhow_image::Images;
use dhow_oci::Digest;
use dhow_snapshot::Snapshotter as _;
use dhow_solver::{Cache, CacheKey, Earlier, FactKind, FactValue, Facts, Input, Past, Site, Tree, VertexId};
use dhow_store::{Lease, Ref};
use serde::{Deserialize, Serialize};

use crate::error::{StepError, StoreFailure, while_doing};
use crate::event::StepInfo;
use crate::history::{Attempt, History, attempts};
use crate::log::StepLog;
use crate::plan::Layer;

pub(crate) const STEPS: &str = "cache";
/// The largest list of files that is read back.
const TREE_BYTES_MAX: u64 = 256 << 20;

/// What a step yields: the layer it adds, if it changed anything, or the layers it starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub layers: Vec<Layer>,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// What its program printed.
    #[serde(default)]
    pub log: Option<StepLog>,
    /// Whether `layers` are the whole file system and not what comes on top of the input: so it is with some
    /// results that others made on layers other than ours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_whole: bool,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    facts: Facts,
    step: Step,
    /// The text of the step.
    #[serde(default)]
    title: String,
    #[serde(default)]
    inputs: Vec<Input>,
}

/// The cache of one build.
pub(crate) struct StepCache<'a> {
    images: &'a Images,
    lease: &'a Lease,
    /// Where claims are locked; one file a key being worked on.
    locks: PathBuf,
    /// Keys this process works on, since a file lock does not keep threads of one process apart.
    working: Mutex<HashMap<CacheKey, ()>>,
    freed: std::sync::Condvar,
    /// Lists of files by digest, until their steps are recorded.
    trees: Mutex<HashMap<Digest, String>>,
    neighbours: Neighbours<'a>,
    /// Keys that this build has found or made.
    used: Mutex<BTreeSet<String>>,
    /// Steps whose layers were not here when they were found elsewhere.
    later: Mutex<Vec<Later>>,
}

type Later = (Past, Step);

/// A key that this build works on.
pub(crate) struct Claim<'a> {
    cache: &'a StepCache<'a>,
    key: CacheKey,
    path: PathBuf,
    _file: File,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // The name goes while the lock is held, so whoever waits for it sees that it waited for a stale file
        // and starts over. Left behind it would do no harm.
        let _ = fs::remove_file(&self.path);
        self.cache.working().remove(&self.key);
        self.cache.freed.notify_all();
    }
}

/// Earlier builds beside the present one. They are looked for when first something has to be explained.
pub(crate) struct Neighbours<'a> {
    pub history: History<'a>,
    /// The steps of the present build, and which of them each vertex does the work of.
    pub steps: Vec<StepInfo>,
    pub places: HashMap<VertexId, usize>,
    /// Tells the Dockerfile from all others on this machine.
    pub identity: String,
    /// The present build, which has a record as well.
    pub build: String,
    pub found: OnceLock<Vec<Vec<Attempt>>>,
}

impl Neighbours<'_> {
    fn attempts(&self, id: VertexId) -> Result<Vec<Attempt>, StoreFailure> {
        let Some(place) = self.places.get(&id) else { return Ok(Vec::new()) };
        let found = match self.found.get() {
            Some(found) => found,
            None => {
                let mut builds = self.history.list()?;
                builds.retain(|build| build.id != self.build);
                self.found.get_or_init(|| attempts(&self.steps, &self.identity, &builds))
            }
        };
        let mut own: Vec<Attempt> = Vec::new();
        for attempt in &found[*place] {
            if !own.iter().any(|known| known.key() == attempt.key()) {
                own.push(attempt.clone());
            }
        }
        Ok(own)
    }
}

impl<'a> StepCache<'a> {
    pub(crate) fn new(
        images: &'a Images,
        lease: &'a Lease,
        locks: PathBuf,
        neighbours: Neighbours<'a>,
    ) -> Result<StepCache<'a>, StoreFailure> {
        fs::create_dir_all(&locks).map_err(while_doing("cannot make the folder of build locks"))?;
        let (working, trees) = (Mutex::new(HashMap::new()), Mutex::new(HashMap::new()));
        Ok(StepCache {
            images,
            lease,
            locks,
            working,
            freed: std::sync::Condvar::new(),
            trees,
            neighbours,
            used: Mutex::default(),
            later: Mutex::default(),
        })
    }

    /// Notes that the steps of this build were used at `now`, in unix seconds.
    pub(crate) fn touch(&self, now: i64) -> Result<(), StoreFailure> {
        let used = self.used.lock().expect("no thread panics while it holds the lock");
        if used.is_empty() {
            return Ok(());
        }
        let records = self.images.store().records(STEPS);
        records
            .touch(used.iter().map(String::as_str), now)
            .map_err(while_doing("cannot write the build cache"))
    }

    fn use_of(&self, key: &CacheKey) {
        self.used.lock().expect("no thread panics while it holds the lock").insert(key.to_string());
    }

    fn working(&self) -> MutexGuard<'_, HashMap<CacheKey, ()>> {
        self.working.lock().expect("no thread panics while it holds the lock")
    }

    /// Notes a list of files. It is kept with the step it leads to, so that a later build can say which of
    /// them changed; a step that is found or fails needs no list.
    pub(crate) fn note_tree(&self, tree: &Tree) -> Digest {
        let text = tree.to_text();
        let digest = Digest::sha256_of(text.as_bytes());
        self.trees().insert(digest, text);
        digest
    }

    fn trees(&self) -> MutexGuard<'_, HashMap<Digest, String>> {
        self.trees.lock().expect("no thread panics while it holds the lock")
    }

    fn later(&self) -> MutexGuard<'_, Vec<Later>> {
        self.later.lock().expect("no thread panics while it holds the lock")
    }

    /// Records the steps that were found elsewhere and whose layers are here by now.
    pub(crate) fn settle(&self) -> Result<(), StepError> {
        let later = std::mem::take(&mut *self.later());
        for (past, mut step) in later {
            for layer in &mut step.layers {
                // One that takes attributes from those below it has another name, and is looked for elsewhere
                // again the next time.
                let name = dhow_image::snapshot_name(&layer.diff_id);
                let path = self.images.snapshots().layer_path(&name);
                layer.snapshot = layer.snapshot.take().or(path.map(|_| name.to_string()));
            }
            if self.is_whole(&step)? {
                self.record(&past, &step)?;
            } else {
                self.later().push((past, step));
            }
        }
        Ok(())
    }

    /// Steps that were found elsewhere and are not recorded here, since their layers were not fetched.
    pub(crate) fn left_elsewhere(&self) -> BTreeSet<CacheKey> {
        self.later().iter().map(|(past, _)| past.key).collect()
    }

    /// Keeps a list that was noted.
    fn keep_tree(&self, digest: &Digest) -> Result<(), StoreFailure> {
        let content = self.images.store().content();
        let there =
            content.acquire(self.lease, digest).map_err(while_doing("cannot look for a list of files"))?;
        // Two steps may have read the same files, so the text stays noted.
        let text = self.trees().get(digest).cloned();
        if let (None, Some(text)) = (there, text) {
            content.put(self.lease, text.as_bytes()).map_err(while_doing("cannot keep a list of files"))?;
        }
        Ok(())
    }

    /// Whether everything a step is made of is there, protected from now on.
    fn is_whole(&self, step: &Step) -> Result<bool, StoreFailure> {
        let Some(refs) = snapshots(step) else { return Ok(false) };
        if refs.is_empty() {
            return Ok(true);
        }
        self.lease.add_all(&refs).map_err(while_doing("cannot protect a cached layer"))?;
        let there = |layer: &Layer| {
            let name = layer.snapshot.as_ref().and_then(|name| name.parse().ok());
            name.is_some_and(|name| self.images.snapshots().layer_path(&name).is_some())
        };
        Ok(step.layers.iter().all(there))
    }

    fn kept(&self, key: &CacheKey) -> Result<Option<Kept>, StoreFailure> {
        let record = self.images.store().records(STEPS).get(&key.to_string());
        let record = record.map_err(while_doing("cannot read the build cache"))?;
        // Written by a newer dhow perhaps; then it is simply not there for us.
        Ok(record.and_then(|record| serde_json::from_str::<Kept>(&record.body).ok()))
    }
}

/// What a step keeps alive; `None` if something of it is not here.
fn snapshots(step: &Step) -> Option<Vec<Ref>> {
    step.layers.iter().map(|layer| layer.snapshot.clone().map(Ref::Snapshot)).collect()
}

impl Kept {
    /// The text of the step, and the keys of those it was done on.
    pub(crate) fn into_title_and_inputs(self) -> (String, Vec<String>) {
        let recorded = self.inputs.into_iter().filter(|input| input.facts.is_none());
        (self.title, recorded.map(|input| input.key.to_string()).collect())
    }

    fn past(self, key: CacheKey) -> Past {
        Past { key, step: self.title, facts: self.facts, inputs: self.inputs }
    }
}

impl<'a> Cache<Step, StepError> for &'a StepCache<'a> {
    type Claim = Claim<'a>;

    fn claim(&self, key: &CacheKey) -> Result<Claim<'a>, StepError> {
        let mut working = self.working();
        while working.contains_key(key) {
            working = self.freed.wait(working).expect("no thread panics while it holds the lock");
        }
        working.insert(*key, ());
        drop(working);
        let path = self.locks.join(key.digest().hex());
        match lock(&path) {
            Ok(file) => Ok(Claim { cache: self, key: *key, path, _file: file }),
            Err(error) => {
                self.working().remove(key);
                self.freed.notify_all();
                Err(StoreFailure::new(format!("cannot lock {}", path.display()), error).into())
            }
        }
    }

    fn lookup(&self, key: &CacheKey) -> Result<Option<Step>, StepError> {
        let Some(kept) = self.kept(key)? else { return Ok(None) };
        if !self.is_whole(&kept.step)? {
            return Ok(None);
        }
        self.use_of(key);
        Ok(Some(kept.step))
    }

    fn record(&self, past: &Past, step: &Step) -> Result<(), StepError> {
        let Past { key, step: title, facts, inputs } = past;
        let Some(layers) = snapshots(step) else {
            self.later().push((past.clone(), step.clone()));
            return Ok(());
        };
        let trees = facts.iter().filter_map(|fact| match (fact.kind, &fact.value) {
            (FactKind::Files, FactValue::Content(digest)) => Some(digest),
            _ => None,
        });
        let trees: Vec<&Digest> = trees.collect();
        trees.iter().try_for_each(|digest| self.keep_tree(digest))?;
        let logs = step.log.iter().map(|log| &log.blob);
        let blobs = trees.into_iter().chain(logs).map(|digest| Ref::Blob(*digest));
        let refs: Vec<Ref> = layers.into_iter().chain(blobs).collect();
        let (title, inputs) = (title.clone(), inputs.clone());
        let kept = Kept { facts: facts.clone(), step: step.clone(), title, inputs };
        let body = serde_json::to_string(&kept).expect("facts and layers are JSON");
        let records = self.images.store().records(STEPS);
        records
            .put_soon(&key.to_string(), &body, &refs)
            .map_err(while_doing("cannot write the build cache"))?;
        self.use_of(key);
        Ok(())
    }

    fn earlier(&self, id: VertexId, _: &Site) -> Result<Vec<Earlier>, StepError> {
        let mut earlier: Vec<Earlier> = Vec::new();
        for attempt in self.neighbours.attempts(id)? {
            let kept = match attempt.key() {
                Some(key) => self.kept(&key)?.map(|kept| kept.past(key)),
                None => None,
            };
            earlier.push(match (attempt, kept) {
                (Attempt::Failed(key), _) => Earlier::Failed(key),
                // Another build has fetched it, or made it.
                (Attempt::Done(_) | Attempt::Elsewhere(..), Some(past)) => Earlier::Known(past),
                (Attempt::Done(key), None) => Earlier::Removed(key),
                (Attempt::Elsewhere(key, cache), None) => Earlier::Elsewhere(key, cache),
            });
        }
        Ok(earlier)
    }

    fn past(&self, key: &CacheKey) -> Option<Past> {
        // It explains something; when it cannot be read there is nothing to explain with.
        self.kept(key).ok().flatten().map(|kept| kept.past(*key))
    }

    fn tree(&self, digest: &Digest) -> Option<Tree> {
        if let Some(text) = self.trees().get(digest) {
            return Tree::parse(text).ok();
        }
        let bytes = self.images.store().content().read_bounded(digest, TREE_BYTES_MAX).ok()?;
        Tree::parse(std::str::from_utf8(&bytes).ok()?).ok()
    }
}

/// Waits for the file at `path` to be ours. One that was removed while we waited is nobody's lock any more.
fn lock(path: &PathBuf) -> io::Result<File> {
    use std::os::unix::fs::MetadataExt as _;
    loop {
        let file = File::create(path)?;
        file.lock()?;
        let ours = file.metadata()?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}
