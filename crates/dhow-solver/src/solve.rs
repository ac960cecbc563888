use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex};

use dhow_oci::Digest;

use crate::miss::explain;
use crate::{CacheKey, CachePolicy, Facts, Graph, MissReason, Site, Tree, Vertex, VertexId};

/// Does the work of vertices. Called from several threads at once.
pub trait Worker: Sync {
    /// What a vertex is to do.
    type Op: Sync;
    /// What a vertex adds by itself, and so what is cached.
    type Step;
    /// What its dependents build upon: its step on top of its inputs. Cheap to clone.
    type Output: Clone + Send;
    /// What can go wrong.
    type Error: Send;

    /// What the step depends on. Inputs that matter as a whole enter by the digest of their content, as
    /// [`FactKind::Input`](crate::FactKind::Input); of others only the files read enter. May read files.
    fn facts(
        &self,
        id: VertexId,
        vertex: &Vertex<Self::Op>,
        inputs: &[Self::Output],
    ) -> Result<Facts, Self::Error>;

    /// Does the work.
    fn run(
        &self,
        id: VertexId,
        vertex: &Vertex<Self::Op>,
        inputs: &[Self::Output],
    ) -> Result<Self::Step, Self::Error>;

    /// Puts a step, new or cached, on top of its inputs.
    fn join(
        &self,
        id: VertexId,
        vertex: &Vertex<Self::Op>,
        inputs: &[Self::Output],
        step: Self::Step,
    ) -> Self::Output;
}

/// Remembers steps across builds and processes.
pub trait Cache<Step, Error>: Sync {
    /// Held while a key is being worked on; dropping it lets the next one in.
    type Claim;

    /// Waits until no other thread or process works on `key`.
    fn claim(&self, key: &CacheKey) -> Result<Self::Claim, Error>;

    /// The step kept under `key`. One that has lost a part of itself is not there.
    fn lookup(&self, key: &CacheKey) -> Result<Option<Step>, Error>;

    /// Keeps a step and the facts that led to it.
    fn record(&self, key: &CacheKey, facts: &Facts, site: &Site, step: &Step) -> Result<(), Error>;

    /// Facts of earlier steps at this site, the latest first; a handful is enough.
    fn earlier(&self, site: &Site) -> Result<Vec<Facts>, Error>;

    /// A list of files by its digest.
    fn tree(&self, digest: &Digest) -> Option<Tree>;
}

/// What the cache said about a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The result was there.
    Hit,
    /// It was not, because of this.
    Miss(MissReason),
    /// The cache was not asked.
    Bypassed,
}

/// What happens during a solve, in the order it happens; vertices interleave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Inputs are ready and the vertex is being looked at.
    Started(VertexId),
    /// The cache has answered.
    LookedUp(VertexId, Lookup),
    /// The result is there.
    Finished(VertexId),
    /// The vertex failed; nothing that needs it will start.
    Failed(VertexId),
}

/// Which vertex failed, and how.
#[derive(Debug, thiserror::Error)]
#[error("vertex {} failed", vertex.index())]
pub struct SolveError<E> {
    /// The vertex.
    pub vertex: VertexId,
    /// What its worker or the cache said.
    pub error: E,
}

/// Runs graphs.
pub struct Solver<'a, W: Worker, C> {
    worker: &'a W,
    cache: &'a C,
    observer: &'a (dyn Fn(Event) + Sync),
    jobs: NonZeroUsize,
}

struct Progress<Output, Error> {
    waiting: BTreeSet<VertexId>,
    outputs: HashMap<VertexId, Output>,
    failure: Option<SolveError<Error>>,
}

impl<'a, W, C> Solver<'a, W, C>
where
    W: Worker,
    C: Cache<W::Step, W::Error>,
{
    /// A solver that runs at most `jobs` vertices at a time and tells `observer` what happens.
    pub fn new(
        worker: &'a W,
        cache: &'a C,
        jobs: NonZeroUsize,
        observer: &'a (dyn Fn(Event) + Sync),
    ) -> Self {
        Solver { worker, cache, observer, jobs }
    }

    /// Makes the result of `target`, and of everything it needs and nothing else. After a failure no vertex
    /// is started, and those already running are waited for.
    pub fn solve(&self, graph: &Graph<W::Op>, target: VertexId) -> Result<W::Output, SolveError<W::Error>> {
        let waiting = graph.needed(target);
        let threads = self.jobs.get().min(waiting.len());
        let progress = Mutex::new(Progress { waiting, outputs: HashMap::new(), failure: None });
        let changed = Condvar::new();
        // The caller's thread is one of the workers: a chain of cached steps starts no thread.
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.work(graph, &progress, &changed));
            }
            self.work(graph, &progress, &changed);
        });
        let mut progress = progress.into_inner().expect("no worker panics while it holds the lock");
        match progress.failure {
            Some(failure) => Err(failure),
            None => Ok(progress.outputs.remove(&target).expect("every needed vertex was solved")),
        }
    }

    fn work(&self, graph: &Graph<W::Op>, progress: &Mutex<Progress<W::Output, W::Error>>, changed: &Condvar) {
        let lock = || progress.lock().expect("no worker panics while it holds the lock");
        let mut state = lock();
        loop {
            if state.waiting.is_empty() || state.failure.is_some() {
                return;
            }
            let Some((id, inputs)) = take_ready(graph, &mut state) else {
                state = changed.wait(state).expect("no worker panics while it holds the lock");
                continue;
            };
            drop(state);
            let result = self.solve_one(graph, id, &inputs);
            (self.observer)(if result.is_ok() { Event::Finished(id) } else { Event::Failed(id) });
            state = lock();
            match result {
                Ok(output) => drop(state.outputs.insert(id, output)),
                // The first failure is the one reported.
                Err(error) => drop(state.failure.get_or_insert(SolveError { vertex: id, error })),
            }
            changed.notify_all();
        }
    }

    fn solve_one(
        &self,
        graph: &Graph<W::Op>,
        id: VertexId,
        inputs: &[W::Output],
    ) -> Result<W::Output, W::Error> {
        let vertex = graph.vertex(id);
        (self.observer)(Event::Started(id));
        let step = if vertex.cache == CachePolicy::Bypass {
            (self.observer)(Event::LookedUp(id, Lookup::Bypassed));
            self.worker.run(id, vertex, inputs)?
        } else {
            self.reuse_or_run(id, vertex, inputs)?
        };
        Ok(self.worker.join(id, vertex, inputs, step))
    }

    fn reuse_or_run(
        &self,
        id: VertexId,
        vertex: &Vertex<W::Op>,
        inputs: &[W::Output],
    ) -> Result<W::Step, W::Error> {
        let facts = self.worker.facts(id, vertex, inputs)?;
        let key = facts.key();
        if let Some(step) = self.reuse(vertex, id, &key)? {
            return Ok(step);
        }
        let _claim = self.cache.claim(&key)?;
        // Whoever held the claim before may have done this very work.
        if let Some(step) = self.reuse(vertex, id, &key)? {
            return Ok(step);
        }
        let reason = match vertex.cache {
            CachePolicy::Refresh => MissReason::Refresh,
            _ => explain(&facts, &self.cache.earlier(&vertex.site)?, &|digest| self.cache.tree(digest)),
        };
        (self.observer)(Event::LookedUp(id, Lookup::Miss(reason)));
        let step = self.worker.run(id, vertex, inputs)?;
        self.cache.record(&key, &facts, &vertex.site, &step)?;
        Ok(step)
    }

    fn reuse(
        &self,
        vertex: &Vertex<W::Op>,
        id: VertexId,
        key: &CacheKey,
    ) -> Result<Option<W::Step>, W::Error> {
        if vertex.cache == CachePolicy::Refresh {
            return Ok(None);
        }
        let found = self.cache.lookup(key)?;
        if found.is_some() {
            (self.observer)(Event::LookedUp(id, Lookup::Hit));
        }
        Ok(found)
    }
}

/// The first waiting vertex whose inputs are all there.
fn take_ready<O, Output: Clone, E>(
    graph: &Graph<O>,
    state: &mut Progress<Output, E>,
) -> Option<(VertexId, Vec<Output>)> {
    let ready =
        |id: &&VertexId| graph.vertex(**id).inputs.iter().all(|input| state.outputs.contains_key(input));
    let id = *state.waiting.iter().find(ready)?;
    state.waiting.remove(&id);
    let inputs = graph.vertex(id).inputs.iter().map(|input| state.outputs[input].clone()).collect();
    Some((id, inputs))
}
