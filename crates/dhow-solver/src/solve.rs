use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use dhow_oci::Digest;

use crate::miss::{Archive, explain};
use crate::{CacheKey, CachePolicy, Earlier, Facts, Graph, MissReason, Past, Site, Tree, Vertex, VertexId};

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

    /// A step that somebody else did and that is not in the [`Cache`]. Asked first without facts, for a vertex
    /// whose facts cost more than they are worth if its step is known by its place; then with them.
    fn elsewhere(
        &self,
        _id: VertexId,
        _inputs: &[Self::Output],
        _facts: Option<&Facts>,
    ) -> Result<Option<Self::Step>, Self::Error> {
        Ok(None)
    }

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

    /// A vertex failed: what others are doing is not needed any more, and may be given up with an error.
    fn give_up(&self) {}
}

/// Remembers steps across builds and processes.
pub trait Cache<Step, Error>: Sync {
    /// Held while a key is being worked on; dropping it lets the next one in.
    type Claim;

    /// Waits until no other thread or process works on `key`.
    fn claim(&self, key: &CacheKey) -> Result<Self::Claim, Error>;

    /// The step kept under `key`. One that has lost a part of itself is not there.
    fn lookup(&self, key: &CacheKey) -> Result<Option<Step>, Error>;

    /// Keeps a step and what it was made of.
    fn record(&self, past: &Past, step: &Step) -> Result<(), Error>;

    /// Earlier attempts at this vertex, the latest first; a handful is enough.
    fn earlier(&self, id: VertexId, site: &Site) -> Result<Vec<Earlier>, Error>;

    /// What the step with this key was made of.
    fn past(&self, key: &CacheKey) -> Option<Past>;

    /// A list of files by its digest.
    fn tree(&self, digest: &Digest) -> Option<Tree>;
}

/// What the cache said about a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The result was there.
    Hit,
    /// Somebody else had it.
    Elsewhere,
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
    /// What the result depends on is known, and this is its name. Not told of vertices that bypass the cache.
    Keyed(VertexId, CacheKey),
    /// The cache has answered.
    LookedUp(VertexId, Lookup),
    /// The result is there.
    Finished(VertexId),
    /// The vertex failed; nothing that needs it will start.
    Failed(VertexId),
    /// The vertex was given up because another one had failed.
    GivenUp(VertexId),
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
    /// Whether a worker panicked, which no other may wait for.
    is_broken: bool,
}

/// What the threads of one solve share.
struct Run<Output, Error> {
    progress: Mutex<Progress<Output, Error>>,
    changed: Condvar,
    /// What this solve refreshed already: equal vertices run once.
    refreshed: Mutex<HashSet<CacheKey>>,
    /// What the vertices are made of that were looked at so far.
    present: Mutex<HashMap<VertexId, Past>>,
}

/// Tells the other threads when this one panics, so that the panic is seen and not waited for.
struct Alarm<'r, Output, Error>(&'r Run<Output, Error>);

impl<Output, Error> Drop for Alarm<'_, Output, Error> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).is_broken = true;
            self.0.changed.notify_all();
        }
    }
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
    /// is started, and those already running are told to give up and waited for.
    pub fn solve(&self, graph: &Graph<W::Op>, target: VertexId) -> Result<W::Output, SolveError<W::Error>> {
        let waiting = graph.needed(target);
        let threads = self.jobs.get().min(graph.width_max(&waiting));
        let progress = Progress { waiting, outputs: HashMap::new(), failure: None, is_broken: false };
        let run = Run {
            progress: Mutex::new(progress),
            changed: Condvar::new(),
            refreshed: Mutex::new(HashSet::new()),
            present: Mutex::new(HashMap::new()),
        };
        // The caller's thread is one of the workers: a chain of steps starts no thread.
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.work(graph, &run));
            }
            self.work(graph, &run);
        });
        let mut progress = run.progress.into_inner().expect("no worker panics while it holds the lock");
        match progress.failure {
            Some(failure) => Err(failure),
            None => Ok(progress.outputs.remove(&target).expect("every needed vertex was solved")),
        }
    }

    fn work(&self, graph: &Graph<W::Op>, run: &Run<W::Output, W::Error>) {
        let _alarm = Alarm(run);
        let mut state = run.lock();
        loop {
            if state.waiting.is_empty() || state.failure.is_some() || state.is_broken {
                return;
            }
            let Some((id, inputs)) = take_ready(graph, &mut state) else {
                state = run.changed.wait(state).expect("no worker panics while it holds the lock");
                continue;
            };
            drop(state);
            let result = self.solve_one(graph, id, &inputs, run);
            state = self.report(run, id, result);
            run.changed.notify_all();
        }
    }

    /// Tells how a vertex ended; the first failure is the one that counts.
    fn report<'r>(
        &self,
        run: &'r Run<W::Output, W::Error>,
        id: VertexId,
        result: Result<W::Output, W::Error>,
    ) -> MutexGuard<'r, Progress<W::Output, W::Error>> {
        match result {
            Ok(output) => {
                // Before others build upon it, so that it is told of first.
                (self.observer)(Event::Finished(id));
                let mut state = run.lock();
                state.outputs.insert(id, output);
                state
            }
            Err(error) => {
                let mut state = run.lock();
                let is_first = state.failure.is_none();
                state.failure.get_or_insert(SolveError { vertex: id, error });
                drop(state);
                if is_first {
                    self.worker.give_up();
                }
                (self.observer)(if is_first { Event::Failed(id) } else { Event::GivenUp(id) });
                run.lock()
            }
        }
    }

    fn solve_one(
        &self,
        graph: &Graph<W::Op>,
        id: VertexId,
        inputs: &[W::Output],
        run: &Run<W::Output, W::Error>,
    ) -> Result<W::Output, W::Error> {
        let vertex = graph.vertex(id);
        (self.observer)(Event::Started(id));
        let step = if vertex.cache == CachePolicy::Bypass {
            let facts = self.worker.facts(id, vertex, inputs)?;
            run.note(graph, id, facts);
            (self.observer)(Event::LookedUp(id, Lookup::Bypassed));
            self.worker.run(id, vertex, inputs)?
        } else {
            self.reuse_or_run(graph, id, inputs, run)?
        };
        Ok(self.worker.join(id, vertex, inputs, step))
    }

    fn reuse_or_run(
        &self,
        graph: &Graph<W::Op>,
        id: VertexId,
        inputs: &[W::Output],
        run: &Run<W::Output, W::Error>,
    ) -> Result<W::Step, W::Error> {
        let vertex = graph.vertex(id);
        if vertex.cache == CachePolicy::Use
            && let Some(step) = self.worker.elsewhere(id, inputs, None)?
        {
            (self.observer)(Event::LookedUp(id, Lookup::Elsewhere));
            return Ok(step);
        }
        let past = run.note(graph, id, self.worker.facts(id, vertex, inputs)?);
        let key = past.key;
        (self.observer)(Event::Keyed(id, key));
        let may_reuse = || vertex.cache == CachePolicy::Use || run.refreshed().contains(&key);
        if may_reuse()
            && let Some(step) = self.reuse(id, &key)?
        {
            return Ok(step);
        }
        let _claim = self.cache.claim(&key)?;
        // Whoever held the claim before may have done this very work.
        if may_reuse()
            && let Some(step) = self.reuse(id, &key)?
        {
            return Ok(step);
        }
        if vertex.cache == CachePolicy::Use
            && let Some(step) = self.worker.elsewhere(id, inputs, Some(&past.facts))?
        {
            (self.observer)(Event::LookedUp(id, Lookup::Elsewhere));
            self.cache.record(&past, &step)?;
            return Ok(step);
        }
        let reason = match vertex.cache {
            CachePolicy::Refresh => MissReason::Refresh,
            _ => self.explain(&past, &self.cache.earlier(id, &vertex.site)?, run),
        };
        (self.observer)(Event::LookedUp(id, Lookup::Miss(reason)));
        let step = self.worker.run(id, vertex, inputs)?;
        self.cache.record(&past, &step)?;
        run.refreshed().insert(key);
        Ok(step)
    }

    fn explain(&self, past: &Past, earlier: &[Earlier], run: &Run<W::Output, W::Error>) -> MissReason {
        let archive = Archive {
            tree: &|digest| self.cache.tree(digest),
            past: &|key| self.cache.past(key),
            present: &|key| run.present().values().find(|past| past.key == *key).cloned(),
        };
        explain(past, earlier, &archive)
    }

    fn reuse(&self, id: VertexId, key: &CacheKey) -> Result<Option<W::Step>, W::Error> {
        let found = self.cache.lookup(key)?;
        if found.is_some() {
            (self.observer)(Event::LookedUp(id, Lookup::Hit));
        }
        Ok(found)
    }
}

impl<Output, Error> Run<Output, Error> {
    fn lock(&self) -> MutexGuard<'_, Progress<Output, Error>> {
        self.progress.lock().expect("no worker panics while it holds the lock")
    }

    fn present(&self) -> MutexGuard<'_, HashMap<VertexId, Past>> {
        self.present.lock().expect("no worker panics while it holds the lock")
    }

    /// Notes what a vertex is made of; its inputs were noted before it.
    fn note<O>(&self, graph: &Graph<O>, id: VertexId, facts: Facts) -> Past {
        let vertex = graph.vertex(id);
        let mut present = self.present();
        let inputs = vertex.inputs.iter().filter_map(|input| {
            let is_recorded = graph.vertex(*input).cache != CachePolicy::Bypass;
            Some(present.get(input)?.as_input(!is_recorded))
        });
        let (key, step, inputs) = (facts.key(), vertex.site.instruction.clone(), inputs.collect());
        let past = Past { key, step, facts, inputs };
        present.insert(id, past.clone());
        past
    }

    fn refreshed(&self) -> MutexGuard<'_, HashSet<CacheKey>> {
        self.refreshed.lock().expect("no worker panics while it holds the lock")
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
