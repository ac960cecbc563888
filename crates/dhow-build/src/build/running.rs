//! A plan that is carried out: the graph is solved, again without a cache elsewhere that turned out wrong, and the
//! layers of the targets are brought here.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, OnceLock};

use dhow_dockerfile::Span;
use dhow_oci::Digest;
use dhow_solver::{Event, Solver, VertexId};
use dhow_sys::userns::IdMap;

use super::{Build, locks_dir, scratch_dir};
use crate::cache::{Neighbours, StepCache};
use crate::elsewhere::Elsewhere;
use crate::error::{BuildError, StepError, StepFailure, chain, while_doing};
use crate::event::{BuildEvent, StepId};
use crate::execute::{Executor, Rootfs};
use crate::history::History;
use crate::log::{Logs, StepLog};
use crate::plan::PlannedStep;
use crate::provenance::Material;
use crate::run::{CacheMounts, Kept, RunSteps};
use crate::stop::Stop;

/// What is known of the steps done so far.
#[derive(Default)]
pub(super) struct Done {
    pub rootfs: HashMap<VertexId, Rootfs>,
    pub images: HashMap<StepId, Digest>,
    pub logs: HashMap<VertexId, StepLog>,
    /// What came from elsewhere.
    pub materials: HashMap<VertexId, Material>,
}

impl Build<'_, '_> {
    /// The caches elsewhere, read as far as they can be.
    pub(super) fn elsewhere(&self) -> Elsewhere<'_> {
        let request = &self.request.cache;
        for from in &request.from {
            (self.observer)(BuildEvent::Importing(&from.to_string()));
        }
        let builder = self.builder;
        Elsewhere::open(request, builder.images, self.lease, self.plan, &|| (builder.registry)(), &|cache| {
            (self.observer)(BuildEvent::CacheUnusable(&cache.name, &cache.why));
        })
    }

    /// Solves the graph and fetches what the images are made of. Each attempt but the last leaves out one more
    /// cache elsewhere.
    pub(super) fn solve(
        &self,
        elsewhere: &Elsewhere<'_>,
        known: &HashSet<String>,
    ) -> Result<Done, BuildError> {
        loop {
            match self.attempt(elsewhere, known) {
                Err(error) if error.is_of_a_cache_elsewhere() => self.leave_out(elsewhere, &error),
                result => return result,
            }
        }
    }

    fn leave_out(&self, elsewhere: &Elsewhere<'_>, error: &BuildError) {
        if let BuildError::Step { failure } = error
            && let StepError::CacheElsewhere { name, source } = &failure.cause
        {
            (self.observer)(BuildEvent::CacheUnusable(name, &chain(source)));
        }
        elsewhere.forget();
    }

    fn attempt(&self, elsewhere: &Elsewhere<'_>, known: &HashSet<String>) -> Result<Done, BuildError> {
        let done = Mutex::new(Done::default());
        let steps = self.vertex_steps();
        let name = self.builder.snapshot_name();
        let neighbours = Neighbours {
            history: History::new(self.builder.images.store()),
            steps: self.plan.steps.iter().map(|step| step.info.clone()).collect(),
            places: steps.iter().map(|(vertex, step)| (*vertex, step.info.id.0)).collect(),
            identity: self.source.identity.to_owned(),
            build: self.recorder.id().to_owned(),
            found: OnceLock::new(),
        };
        let locks = locks_dir(self.builder.run_dir);
        let cache = StepCache::new(self.builder.images, self.lease, locks, neighbours)?;
        let step_id = |vertex: VertexId| steps.get(&vertex).map(|step| step.info.id);
        let stop = Stop::new(self.cancel).map_err(while_doing("cannot watch for a sign to stop"))?;
        let logs = Logs::new(self.builder.images.store(), self.lease, self.builder.clock);
        let executor = Executor {
            images: self.builder.images,
            cache: &cache,
            context: self.context,
            named: self.named,
            remote: self.builder.remote("step", self.lease, Some(stop.as_fd()), &self.request.run),
            fetched: Mutex::new(HashMap::new()),
            commits: Mutex::new(HashMap::new()),
            runs: RunSteps {
                run_dir: scratch_dir(self.builder.run_dir),
                network: self.builder.network,
                ids: self.builder.images.user_namespace(),
                stop: &stop,
                started: &|vertex, name| {
                    if let Some(id) = step_id(vertex) {
                        (self.observer)(BuildEvent::Container(id, name));
                    }
                },
                output: &|vertex, stream, bytes| {
                    logs.push(vertex, stream, bytes);
                    if let Some(id) = step_id(vertex) {
                        (self.observer)(BuildEvent::Output(id, stream, bytes));
                    }
                },
            },
            lease: self.lease,
            logs: &logs,
            clock: self.builder.clock,
            name,
            counter: AtomicUsize::new(0),
            selections: Mutex::new(HashMap::new()),
            bounds: Mutex::new(HashMap::new()),
            context_copies: Mutex::new(HashMap::new()),
            caches: CacheMounts {
                store: self.builder.images.store(),
                stop: &stop,
                clock: self.builder.clock,
                has_one_id: self.builder.images.user_namespace().is_some_and(IdMap::has_one_id),
                emptied: Mutex::new(HashSet::new()),
            },
            options: &self.request.run,
            kept: Mutex::new(None),
            finished: &|vertex, rootfs, log| {
                let mut done = done.lock().expect("no observer panics");
                done.rootfs.insert(vertex, rootfs.clone());
                done.logs.extend(log.map(|log| (vertex, log)));
            },
            elsewhere,
        };
        let observe = |event: Event| self.observe(&event, &steps, &done, known, elsewhere);
        let shared = &cache;
        let solver = Solver::new(&executor, &shared, self.request.jobs, &observe);
        let solved = solver.solve(&self.plan.graph, self.plan.vertex);
        self.finish_logs(&logs, &steps);
        let blamed = solved.as_ref().err().map(|error| error.vertex);
        self.keep_remains(&executor, blamed, &done);
        let materials = executor.materials(self.plan);
        // The copies it made of the build context go with it.
        drop(executor);
        let solved = solved.map_err(|error| self.failed(self.blamed(error.vertex, &steps), error.error));
        let done = Done { materials, ..done.into_inner().expect("no observer panics") };
        let fetched = solved.and_then(|_| self.bring(elsewhere, &cache, &done.rootfs, &steps));
        self.recorder.left_elsewhere(&cache.left_elsewhere());
        let touched = cache.touch(self.now());
        fetched?;
        touched?;
        Ok(done)
    }

    /// Logs of steps that did not come to a result.
    fn finish_logs(&self, logs: &Logs<'_>, steps: &HashMap<VertexId, &PlannedStep>) {
        for (vertex, step) in steps {
            match logs.finish(*vertex) {
                Ok(None) => {}
                Ok(log) => self.recorder.log(step.info.id, log),
                // What kept the step from its result is the error to tell.
                Err(error) => (self.observer)(BuildEvent::Note(&chain(&error))),
            }
        }
    }

    /// Keeps what `dhow debug` wants to know: what the steps stood on, and what is left of the one that failed.
    fn keep_remains(&self, executor: &Executor<'_>, failed: Option<VertexId>, done: &Mutex<Done>) {
        let kept = executor.kept.lock().expect("no thread panics while it holds the lock").take();
        // Another step may have failed at the same time.
        let kept = kept.filter(|kept| failed == Some(kept.vertex));
        let done = done.lock().expect("no observer panics");
        let (build, dockerfile) = (self.recorder.id(), self.record_key());
        match self.sessions().write(build, &dockerfile, self.plan, &done.rootfs, kept.as_ref()) {
            Ok(()) => kept.iter().for_each(Kept::stay),
            // The image is made, or is not, all the same.
            Err(error) => {
                let note = format!("dhow debug will not know this build: {}", chain(&error));
                (self.observer)(BuildEvent::Note(&note));
            }
        }
    }

    /// Fetches what the images are made of, and records the steps it came from.
    fn bring(
        &self,
        elsewhere: &Elsewhere<'_>,
        cache: &StepCache<'_>,
        done: &HashMap<VertexId, Rootfs>,
        steps: &HashMap<VertexId, &PlannedStep>,
    ) -> Result<(), BuildError> {
        for target in &self.plan.targets {
            let vertex = self.plan.target(target).vertex;
            let fetched = elsewhere.bring(&done[&vertex].layers);
            fetched.map_err(|error| self.failed(steps.get(&vertex).copied(), error))?;
        }
        cache.settle().map_err(|error| self.failed(None, error))
    }

    /// The step that each vertex does the work of. A stage that builds on another begins with the last vertex
    /// of that one, whose work it is not: the earlier step counts.
    fn vertex_steps(&self) -> HashMap<VertexId, &PlannedStep> {
        let mut steps = HashMap::new();
        for step in &self.plan.steps {
            if let Some(vertex) = step.vertex {
                steps.entry(vertex).or_insert(step);
            }
        }
        steps
    }

    /// The step that a vertex fails for: the one it does the work of, or else the first that needs it.
    fn blamed<'s>(
        &'s self,
        vertex: VertexId,
        steps: &HashMap<VertexId, &'s PlannedStep>,
    ) -> Option<&'s PlannedStep> {
        let needs = |step: &&PlannedStep| {
            step.vertex.is_some_and(|user| self.plan.graph.needed(user).contains(&vertex))
        };
        steps.get(&vertex).copied().or_else(|| self.plan.steps.iter().find(needs))
    }

    pub(super) fn failed(&self, step: Option<&PlannedStep>, cause: StepError) -> BuildError {
        let failure = StepFailure {
            file: self.source.name.to_owned(),
            text: self.source.text.to_owned(),
            span: step.map_or_else(Span::default, |step| step.span),
            cause,
        };
        BuildError::Step { failure: Box::new(failure) }
    }
}
