//! Steps that others built: caches in registries, folders and images, in BuildKit's own format.
//!
//! ```text
//!            keys (llb, content) ──┐
//! import ── chains ── find ────────┼── a step whose layers need not be here ── bring ── rootfs
//!                                  └── export (a registry, a folder, the image)
//! ```
//! A cache elsewhere names steps as BuildKit does ([`llb`], [`content`], [`keys`]), so each side hits what the
//! other wrote. Which step a vertex is follows from its operation and from which records its inputs are:
//! layers are fetched only when something has to look into them.
//!
//! Whatever is wrong with a cache, the build goes on without it. Digests and diff ids of all that is fetched
//! are verified; a cache that fails the test after its steps were taken is left out and the build begins anew.

mod attributes;
mod chains;
mod config;
mod content;
mod export;
mod files;
mod import;
mod keys;
mod llb;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use dhow_image::{Images, InstallError, PullEvent};
use dhow_oci::{Descriptor, DiffId, Digest, Platform};
use dhow_registry::Client;
use dhow_solver::{Facts, VertexId};
use dhow_store::Lease;

pub use attributes::{
    CacheAttributeError, CacheElsewhere, CacheForm, CacheFrom, CacheMode, CachePlace, CacheTo, LocalCache,
};
pub use export::CacheExportError;
pub(crate) use export::Outcome;
pub(crate) use files::Sources;
pub use import::ImportError;
pub(crate) use keys::destination;
pub(crate) use llb::base64;

use chains::{Chains, Found, Input};
use import::Place;
use keys::{From, Key, KeyInput, Keys, Way};

use crate::cache::Step;
use crate::error::{StepError, StoreFailure, chain, while_doing};
use crate::execute::Rootfs;
use crate::plan::{Layer, Op, Plan};

/// The caches elsewhere of one build.
pub(crate) struct Elsewhere<'a> {
    images: &'a Images,
    lease: &'a Lease,
    plan: &'a Plan,
    caches: Vec<Cache<'a>>,
    /// Whether keys are wanted though there is no cache to look into.
    is_exported: bool,
    state: Mutex<State>,
    /// One at a time fetches layers: others may want the same.
    fetching: Mutex<()>,
}

/// A cache that was read.
struct Cache<'a> {
    name: String,
    place: Place<'a>,
    chains: Vec<Chains>,
    /// Whether something in it turned out to be wrong.
    is_broken: AtomicBool,
}

/// For each operation of a vertex, the records that mean it.
type Located = HashMap<VertexId, Vec<Vec<usize>>>;

#[derive(Default)]
struct State {
    keys: HashMap<VertexId, Key>,
    /// Per cache, and per part of a cache.
    records: HashMap<(usize, usize), Located>,
    /// The cache that a step was found in.
    origins: HashMap<VertexId, usize>,
    /// Layers that were found, by what they unpack to: their cache, and how they travel.
    layers: HashMap<DiffId, (usize, Descriptor)>,
    /// Whether a cache has turned out to be wrong.
    has_broken: bool,
}

/// A cache that cannot be used, and why.
pub(crate) struct Unusable {
    pub name: String,
    pub why: String,
}

impl<'a> Elsewhere<'a> {
    /// Reads the caches that `request` names. Those that cannot be read are told to `unusable`.
    pub(crate) fn open(
        request: &'a CacheElsewhere,
        images: &'a Images,
        lease: &'a Lease,
        plan: &'a Plan,
        client: &dyn Fn() -> &'a Client,
        unusable: &dyn Fn(&Unusable),
    ) -> Elsewhere<'a> {
        let mut caches = Vec::new();
        for from in &request.from {
            let (name, place) = (from.to_string(), Place::new(from, client));
            match import::import(from, &place) {
                Ok(chains) => caches.push(Cache { name, place, chains, is_broken: AtomicBool::new(false) }),
                Err(error) => unusable(&Unusable { name, why: chain(&error) }),
            }
        }
        Elsewhere {
            images,
            lease,
            plan,
            caches,
            is_exported: !request.to.is_empty(),
            state: Mutex::new(State::default()),
            fetching: Mutex::new(()),
        }
    }

    /// Whether anybody wants to know what steps are called elsewhere.
    pub(crate) fn is_active(&self) -> bool {
        self.is_exported || self.has_caches()
    }

    fn has_caches(&self) -> bool {
        self.living().next().is_some()
    }

    fn living(&self) -> impl Iterator<Item = (usize, &Cache<'a>)> {
        self.caches.iter().enumerate().filter(|(_, cache)| !cache.is_broken.load(Ordering::Relaxed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }

    /// Whether a cache has turned out to be wrong during this attempt.
    pub(crate) fn has_broken(&self) -> bool {
        self.state().has_broken
    }

    /// Forgets what was found, for another attempt.
    pub(crate) fn forget(&self) {
        *self.state() = State::default();
    }

    /// The cache a step was found in.
    pub(crate) fn origin(&self, vertex: VertexId) -> Option<String> {
        let origin = self.state().origins.get(&vertex).copied()?;
        Some(self.caches[origin].name.clone())
    }

    /// Notes what a vertex is, once its facts are known. `sources` are the files it copies.
    pub(crate) fn note(&self, id: VertexId, facts: &Facts, sources: Option<&Sources<'_>>) {
        if !self.is_active() {
            return;
        }
        // Files that cannot be read, or change under our eyes, only lose their place in the cache here;
        // whoever copies them complains.
        let content = sources.and_then(|sources| sources.hash().ok()).unwrap_or_default();
        self.note_key(id, &content, Some(facts));
    }

    fn note_key(&self, id: VertexId, content: &[Digest], facts: Option<&Facts>) {
        let platform = |vertex: VertexId| self.platform(vertex);
        let keys = Keys { graph: &self.plan.graph, platform: &platform };
        let mut state = self.state();
        // Images are looked up by nobody, so they are noted by who stands on them.
        for input in &self.plan.graph.vertex(id).inputs {
            let is_image = matches!(self.plan.graph.vertex(*input).op, Op::Base { .. });
            if is_image
                && !state.keys.contains_key(input)
                && let Some(key) = keys.key(*input, &[], None)
            {
                self.locate(&mut state, *input, key);
            }
        }
        if let Some(key) = keys.key(id, content, facts) {
            self.locate(&mut state, id, key);
        }
    }

    /// Finds the records that mean a vertex, in all caches.
    fn locate(&self, state: &mut State, id: VertexId, key: Key) {
        for (number, cache) in self.living() {
            for (part, chains) in cache.chains.iter().enumerate() {
                let known = state.records.entry((number, part)).or_default();
                let mut own: Vec<Vec<usize>> = Vec::with_capacity(key.operations.len());
                for operation in &key.operations {
                    let of = |input: &'_ KeyInput| match input.from {
                        From::Vertex(vertex) => {
                            known.get(&vertex).and_then(|held| held.last()).cloned().unwrap_or_default()
                        }
                        From::Operation(at) => own[at].clone(),
                        From::Files => Vec::new(),
                    };
                    let find = |way: &Way| {
                        let records: Vec<Vec<usize>> = way.inputs.iter().map(of).collect();
                        let inputs = way.inputs.iter().zip(&records).map(|(input, records)| Input {
                            records,
                            selector: input.selector.as_ref(),
                            content: &input.content,
                        });
                        chains.find(&way.record, &inputs.collect::<Vec<_>>())
                    };
                    let found = operation.ways.iter().flat_map(find).collect();
                    own.push(found);
                }
                known.insert(id, own);
            }
        }
        state.keys.insert(id, key);
    }

    fn platform(&self, vertex: VertexId) -> Platform {
        let step = self.plan.steps.iter().find(|step| step.vertex == Some(vertex));
        step.map_or_else(Platform::host, |step| step.config.platform())
    }

    /// The step of a vertex that was noted, if somebody built it. Its layers need not be here.
    pub(crate) fn find(&self, id: VertexId, inputs: &[Rootfs]) -> Result<Option<Step>, StoreFailure> {
        let mut state = self.state();
        for (number, cache) in self.living() {
            let found = cache.chains.iter().enumerate().find_map(|(part, chains)| {
                let records = state.records.get(&(number, part))?.get(&id)?.last()?;
                chains.result(records)
            });
            let Some(found) = found else { continue };
            state.origins.insert(id, number);
            for layer in &found.layers {
                let place = || (number, layer.descriptor.clone());
                state.layers.entry(layer.diff_id).or_insert_with(place);
            }
            drop(state);
            return Ok(Some(self.step(&found, inputs.first())?));
        }
        Ok(None)
    }

    /// The same for a vertex whose facts cannot be known without layers that are not here.
    pub(crate) fn find_unseen(&self, id: VertexId, inputs: &[Rootfs]) -> Result<Option<Step>, StoreFailure> {
        if !self.has_caches() || inputs.iter().all(Rootfs::is_here) {
            return Ok(None);
        }
        self.note_key(id, &[], None);
        self.find(id, inputs)
    }

    fn step(&self, found: &Found, below: Option<&Rootfs>) -> Result<Step, StoreFailure> {
        let diff_ids: Vec<DiffId> = found.layers.iter().map(|layer| layer.diff_id).collect();
        let here = self
            .images
            .unpacked_layers(&diff_ids, self.lease)
            .map_err(while_doing("cannot protect the layers of a cache elsewhere"))?;
        // What it unpacks to is all that is known of a layer that is not here, and enough: steps that stand
        // on it are keyed by that, as they are on a base image's.
        let layers = diff_ids.iter().zip(here).map(|(diff_id, snapshot)| Layer {
            diff_id: *diff_id,
            content: diff_id.digest(),
            size_bytes: 0,
            snapshot: snapshot.map(|name| name.to_string()),
        });
        let mut layers: Vec<Layer> = layers.collect();
        let is_on_top = below.is_some_and(|below| {
            below.layers.len() <= diff_ids.len()
                && below.layers.iter().zip(&diff_ids).all(|(layer, diff_id)| layer.diff_id == *diff_id)
        });
        if let Some(below) = below.filter(|_| is_on_top) {
            layers.drain(..below.layers.len());
        }
        Ok(Step { layers, created: found.created.clone(), log: None, is_whole: !is_on_top })
    }

    /// The layers of a file system, fetched if they are not here. When they cannot be had, their cache is
    /// not used any more.
    pub(crate) fn bring(&self, layers: &[Layer]) -> Result<Vec<Layer>, StepError> {
        if layers.iter().all(Layer::is_here) {
            return Ok(layers.to_vec());
        }
        let _fetching = self.fetching.lock().expect("no thread panics while it holds the lock");
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
        let known = self.state().layers.clone();
        let descriptors = diff_ids.iter().map(|diff_id| match known.get(diff_id) {
            Some((_, descriptor)) => descriptor.clone(),
            // It is here, and so how it travels does not matter.
            None => Descriptor::new("", diff_id.digest(), 0),
        });
        let descriptors: Vec<Descriptor> = descriptors.collect();
        let caches: BTreeMap<Digest, usize> =
            known.values().map(|(cache, descriptor)| (descriptor.digest, *cache)).collect();
        let open = |layer: &Descriptor, offset| {
            let cache = caches.get(&layer.digest).ok_or_else(|| std::io::Error::other("nobody has it"))?;
            self.caches[*cache].place.open(layer, offset)
        };
        let quiet = |_: &PullEvent| {};
        let fetched = self.images.fetch_layers(&descriptors, &diff_ids, self.lease, &open, &quiet);
        fetched.map_err(|error| self.broken(layers, &known, error))?;
        let names = self
            .images
            .layer_snapshots(&diff_ids)
            .map_err(while_doing("cannot find the layers of a cache elsewhere"))?;
        let named = layers.iter().zip(names);
        Ok(named.map(|(layer, name)| Layer { snapshot: Some(name.to_string()), ..layer.clone() }).collect())
    }

    fn broken(
        &self,
        layers: &[Layer],
        known: &HashMap<DiffId, (usize, Descriptor)>,
        error: InstallError,
    ) -> StepError {
        let missing = layers.iter().filter(|layer| !layer.is_here());
        let blamed: Vec<usize> =
            missing.filter_map(|layer| known.get(&layer.diff_id)).map(|(cache, _)| *cache).collect();
        let Some(first) = blamed.first() else {
            return StoreFailure::new("cannot fetch layers", error).into();
        };
        self.state().has_broken = true;
        blamed.iter().for_each(|cache| self.caches[*cache].is_broken.store(true, Ordering::Relaxed));
        StepError::CacheElsewhere { name: self.caches[*first].name.clone(), source: Box::new(error) }
    }
}

#[cfg(test)]
mod tests;
