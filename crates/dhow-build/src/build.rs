//! One build from request to image.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, OnceLock};

use dhow_dockerfile::{Diagnostic, Severity, Span};
use dhow_image::{EnsurePolicy, Images, Layout, PullEvent};
use dhow_oci::{Digest, ImageConfig, Platform, Reference};
use dhow_registry::Client;
use dhow_snapshot::{SnapshotKey, Snapshotter as _};
use dhow_solver::{Event, Lookup, Solver, VertexId};
use dhow_store::Lease;
use dhow_sys::userns::IdMap;

use crate::cache::{Neighbours, StepCache};
use crate::context::{Context, DockerfileText};
use crate::date::{self, Dates};
use crate::debug::Sessions;
use crate::elsewhere::{CachePlace, Elsewhere, Outcome};
use crate::error::{BuildError, StepError, StepFailure, StoreFailure, chain, while_doing};
use crate::event::{BuildEvent, Built, StepId, StepInfo, StepResult};
use crate::execute::{Executor, Rootfs};
use crate::export::{self, Export, Made};
use crate::history::{History, Recorder};
use crate::log::{Logs, StepLog};
use crate::lower::{self, NamedContext, Reach, World};
use crate::parsed::Parsed;
use crate::place::Place;
use crate::plan::{BaseImage, Layer, Plan, PlannedHistory, PlannedStage, PlannedStep, Target};
use crate::remote::Remote;
use crate::request::{BuildRequest, ContextSource, DockerfileSource};
use crate::run::{CacheMounts, Kept, NetworkRequest, RunSteps};
use crate::stop::Stop;

/// Images of the last build of a Dockerfile, step by step: what tells a configuration step that is new from
/// one that was there before.
const LAST_BUILD: &str = "build";

/// Begins the keys of all active snapshots of builds.
pub(crate) const SNAPSHOT_PREFIX: &str = "build-";

/// Builds images.
pub struct Builder<'a> {
    /// Where images and layers are.
    pub images: &'a Images,
    /// The registry client, asked for only when something must be pulled.
    pub registry: &'a (dyn Fn() -> &'a Client + Sync),
    /// Folder for run-time state.
    pub run_dir: &'a Path,
    /// The default network for `RUN`.
    pub network: NetworkRequest<'a>,
    /// Becomes readable when the build is to stop.
    pub cancel: Option<BorrowedFd<'a>>,
    /// The time.
    pub clock: fn() -> jiff::Timestamp,
}

/// Bytes of the files in the build context that are not left out; 0 if it is no folder of this machine.
pub fn context_bytes(request: &BuildRequest) -> Result<u64, BuildError> {
    let ContextSource::Folder(folder) = &request.context else { return Ok(0) };
    // A Dockerfile that is not a file has no ignore file of its own.
    let dockerfile = match &request.dockerfile {
        DockerfileSource::Default => Some(folder.join("Dockerfile")),
        DockerfileSource::File(path) => Some(path.clone()),
        DockerfileSource::Text(_) | DockerfileSource::Url(_) => None,
    };
    let context = Context::of_folder(folder, dockerfile.as_deref(), request.sources.modes)?;
    context
        .size_bytes()
        .map_err(|error| BuildError::Context { path: folder.clone(), source: std::io::Error::other(error) })
}

type Observer<'a> = &'a (dyn Fn(BuildEvent<'_>) + Sync);

impl Builder<'_> {
    /// Builds an image and tells `observer` what happens, from several threads.
    pub fn build(&self, request: &BuildRequest, observer: Observer<'_>) -> Result<Built, BuildError> {
        let lease = self.images.store().lease("build").map_err(while_doing("cannot take a lease"))?;
        let recorder = Recorder::new(self.clock);
        let observe = |event: BuildEvent<'_>| {
            recorder.event(&event);
            observer(event);
        };
        let result = self.build_recorded(request, &lease, &recorder, &observe);
        if let Some(record) = recorder.finish(request, &result) {
            if let Err(error) = History::new(self.images.store()).put(&record) {
                // The image is made, or is not, all the same.
                observer(BuildEvent::Note(&format!("the build is not in the history: {}", chain(&error))));
            }
            observer(BuildEvent::Recorded(&record));
        }
        result
    }

    fn build_recorded(
        &self,
        request: &BuildRequest,
        lease: &Lease,
        recorder: &Recorder,
        observer: Observer<'_>,
    ) -> Result<Built, BuildError> {
        self.sweep();
        let remote = self.remote("context", lease, self.cancel);
        let place = Place::find(&request.context, &remote, &locks_dir(self.run_dir))?;
        let file = DockerfileText::read(&place, &request.dockerfile, &remote)?;
        recorder.source(&file.name, &file.identity);
        let parsed = Parsed::new(&file, request)?;
        for diagnostic in
            parsed.warnings.iter().filter(|one| one.rule.is_some() || parsed.mistakes.is_empty())
        {
            observer(BuildEvent::Warning { file: &file.name, source: &parsed.text, diagnostic });
        }
        if !parsed.mistakes.is_empty() {
            return Err(parsed.into_error(&file.name));
        }
        let context_time = place.time;
        let context = Context::new(place, &file, request.sources.modes)?;
        let named = named_folders(request)?;
        // What makes no sense is told before anything runs.
        let epoch = export::check(request)?;
        let locks = locks_dir(self.run_dir);
        let dates = Dates { request, context: context_time, remote: &remote, locks: &locks, observer };
        let epoch = dates.resolve(epoch)?;
        let request = &*date::resolved(request, epoch);
        let world = self.world(request, &context, lease, observer, &file, &parsed.text);
        let source = lower::Source {
            name: &file.name,
            text: &parsed.text,
            dockerfile: &parsed.dockerfile,
            identity: &file.identity,
        };
        let plan = lower::lower(&source, request, Reach::Target, &world)?;
        refuse_findings(&parsed, &world.into_found())?;
        let build = Build {
            builder: self,
            request,
            observer,
            recorder,
            lease,
            context: &context,
            named: &named,
            plan: &plan,
            source: &source,
            epoch,
        };
        build.run()
    }

    pub(crate) fn remote<'r>(
        &'r self,
        purpose: &str,
        lease: &'r Lease,
        stop: Option<BorrowedFd<'r>>,
    ) -> Remote<'r> {
        Remote {
            images: self.images,
            download: Box::new(|request| (self.registry)().download(request)),
            lease,
            scratch: scratch_dir(self.run_dir),
            name: format!("{}-{purpose}", self.snapshot_name()),
            counter: AtomicUsize::new(0),
            stop,
            clock: self.clock,
        }
    }

    /// Begins the names of the active snapshots of one build.
    fn snapshot_name(&self) -> String {
        format!("{SNAPSHOT_PREFIX}{}-{}", std::process::id(), (self.clock)().as_nanosecond())
    }

    /// Removes what steps left whose process was killed. That no folder of a step is there, as after every
    /// build that ended by itself, is quickly seen.
    fn sweep(&self) {
        let scratch = scratch_dir(self.run_dir);
        if !std::fs::read_dir(&scratch).is_ok_and(|mut folders| folders.next().is_some()) {
            return;
        }
        let sessions = Sessions { store: self.images.store(), snapshots: self.images.snapshots() };
        // If that cannot be read, nothing is swept.
        let Ok(kept) = sessions.kept_keys() else { return };
        let is_somebody_elses =
            |key: &SnapshotKey| !key.as_str().starts_with(SNAPSHOT_PREFIX) || kept.contains(key.as_str());
        // What cannot be removed takes room and does no harm; gc will complain about it.
        let collected = self.images.snapshots().collect(&is_somebody_elses).unwrap_or_default();
        for key in collected.active {
            let _ = std::fs::remove_dir_all(scratch.join(key.as_str()));
        }
    }
}

impl<'b> Builder<'b> {
    /// The world as lowering sees it.
    pub(crate) fn world<'a>(
        &'a self,
        request: &'a BuildRequest,
        context: &'a Context,
        lease: &'a Lease,
        observer: Observer<'a>,
        file: &'a DockerfileText,
        text: &'a str,
    ) -> BuildWorld<'a, 'b> {
        let found = RefCell::default();
        BuildWorld { builder: self, request, context, lease, observer, file, text, only_asking: false, found }
    }
}

/// With `# check=error=true` a finding is an error.
fn refuse_findings(parsed: &Parsed, found: &[Diagnostic]) -> Result<(), BuildError> {
    let rules: BTreeSet<_> = parsed.warnings.iter().chain(found).filter_map(|found| found.rule).collect();
    if parsed.dockerfile.directives.check.error && !rules.is_empty() {
        return Err(BuildError::Lint { rules });
    }
    Ok(())
}

/// Where steps keep what they need while they run.
pub(crate) fn scratch_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("build")
}

/// Where those who work on a step are known.
pub(crate) fn locks_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("build-locks")
}

/// The world as lowering sees it.
pub(crate) struct BuildWorld<'a, 'b> {
    builder: &'a Builder<'b>,
    request: &'a BuildRequest,
    context: &'a Context,
    lease: &'a Lease,
    observer: Observer<'a>,
    file: &'a DockerfileText,
    text: &'a str,
    /// Nothing will be built: of base images the configuration is enough.
    only_asking: bool,
    found: RefCell<Vec<Diagnostic>>,
}

impl BuildWorld<'_, '_> {
    /// Without layers of base images.
    pub(crate) fn only_asking(self) -> Self {
        BuildWorld { only_asking: true, ..self }
    }

    /// What the rules have found.
    pub(crate) fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }

    fn base_config(&self, reference: &Reference, platform: &Platform) -> Result<BaseImage, StepError> {
        let client = &self.builder.registry;
        let config = self.builder.images.config_of(client, reference, platform, self.lease)?;
        Ok(BaseImage { layers: Vec::new(), config })
    }
}

impl World for BuildWorld<'_, '_> {
    fn base(&self, reference: &Reference, platform: &Platform) -> Result<BaseImage, StepError> {
        if self.only_asking {
            return self.base_config(reference, platform);
        }
        let images = self.builder.images;
        (self.observer)(BuildEvent::Resolving(reference));
        let policy = if self.request.pull { EnsurePolicy::Newer } else { EnsurePolicy::Missing };
        let now = (self.builder.clock)().as_second();
        let told = |event: &PullEvent| (self.observer)(BuildEvent::Pulling(reference, event));
        let image =
            images.ensure(&self.builder.registry, reference, platform, policy, self.lease, now, &told)?;
        let config = images.config(&image.record.id).map_err(while_doing("cannot read the base image"))?;
        base_image(images, config)
    }

    fn layout(&self, layout: &Layout, platform: &Platform) -> Result<BaseImage, StepError> {
        let images = self.builder.images;
        let config = images.read_layout(layout, platform, self.lease)?;
        base_image(images, config)
    }

    fn context_has(&self, name: &str) -> bool {
        self.context.has(name)
    }

    fn left_out(&self, source: &str) -> Option<String> {
        self.context.ignored.rules.leaves_out(source)
    }

    fn only_asks(&self) -> bool {
        self.only_asking
    }

    fn lint(&self, diagnostic: Diagnostic) {
        (self.observer)(BuildEvent::Warning {
            file: &self.file.name,
            source: self.text,
            diagnostic: &diagnostic,
        });
        self.found.borrow_mut().push(diagnostic);
    }

    fn warn(&self, span: Span, message: String, hint: Option<String>) {
        let diagnostic = Diagnostic { severity: Severity::Warning, rule: None, message, span, hint };
        (self.observer)(BuildEvent::Warning {
            file: &self.file.name,
            source: self.text,
            diagnostic: &diagnostic,
        });
    }
}

/// An image that is here, to build upon.
fn base_image(images: &Images, config: ImageConfig) -> Result<BaseImage, StepError> {
    let snapshots = images
        .layer_snapshots(&config.rootfs.diff_ids)
        .map_err(while_doing("cannot find the layers of the base image"))?;
    let layers = config.rootfs.diff_ids.iter().zip(&snapshots).map(|(diff_id, snapshot)| Layer {
        diff_id: *diff_id,
        content: diff_id.digest(),
        size_bytes: 0,
        snapshot: Some(snapshot.to_string()),
    });
    Ok(BaseImage { layers: layers.collect(), config })
}

/// The folders among the named contexts.
fn named_folders(request: &BuildRequest) -> Result<BTreeMap<String, Context>, BuildError> {
    let mut folders = BTreeMap::new();
    for (name, context) in NamedContext::parse_all(&request.sources.named)? {
        if let NamedContext::Folder(path) = context {
            let context = Context::of_folder(&path, None, request.sources.modes)?;
            folders.insert(name, context);
        }
    }
    Ok(folders)
}

/// A build whose plan is made.
struct Build<'a, 'b> {
    builder: &'a Builder<'b>,
    request: &'a BuildRequest,
    observer: Observer<'a>,
    recorder: &'a Recorder,
    lease: &'a Lease,
    context: &'a Context,
    named: &'a BTreeMap<String, Context>,
    plan: &'a Plan,
    source: &'a lower::Source<'a>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    epoch: Option<i64>,
}

/// What is known of the steps done so far.
#[derive(Default)]
struct Done {
    rootfs: HashMap<VertexId, Rootfs>,
    images: HashMap<StepId, Digest>,
    logs: HashMap<VertexId, StepLog>,
}

impl Build<'_, '_> {
    fn run(&self) -> Result<Built, BuildError> {
        let infos: Vec<StepInfo> = self.plan.steps.iter().map(|step| step.info.clone()).collect();
        (self.observer)(BuildEvent::Planned(&infos));
        let known = self.last_build()?;
        self.sessions().forget(&self.record_key())?;
        let elsewhere = self.elsewhere();
        // Each attempt but the last leaves out one more cache.
        let done = loop {
            match self.attempt(&elsewhere, &known) {
                Err(error) if error.is_of_a_cache_elsewhere() => self.leave_out(&elsewhere, &error),
                result => break result?,
            }
        };
        self.finish(&elsewhere, &done, &known)
    }

    fn sessions(&self) -> Sessions<'_> {
        Sessions { store: self.builder.images.store(), snapshots: self.builder.images.snapshots() }
    }

    /// The caches elsewhere, read as far as they can be.
    fn elsewhere(&self) -> Elsewhere<'_> {
        let request = &self.request.cache;
        for from in &request.from {
            (self.observer)(BuildEvent::Importing(&from.to_string()));
        }
        let builder = self.builder;
        Elsewhere::open(request, builder.images, self.lease, self.plan, &|| (builder.registry)(), &|cache| {
            (self.observer)(BuildEvent::CacheUnusable(&cache.name, &cache.why));
        })
    }

    fn leave_out(&self, elsewhere: &Elsewhere<'_>, error: &BuildError) {
        if let BuildError::Step { failure } = error
            && let StepError::CacheElsewhere { name, source } = &failure.cause
        {
            (self.observer)(BuildEvent::CacheUnusable(name, &chain(source)));
        }
        elsewhere.forget();
    }

    /// Solves the graph and fetches what the images are made of.
    fn attempt(&self, elsewhere: &Elsewhere<'_>, known: &HashSet<String>) -> Result<Done, BuildError> {
        let done = Mutex::new(Done::default());
        let steps = self.vertex_steps();
        let name = self.builder.snapshot_name();
        let neighbours = Neighbours {
            history: History::new(self.builder.images.store()),
            steps: self.plan.steps.iter().map(|step| step.info.clone()).collect(),
            places: steps.iter().map(|(vertex, step)| (*vertex, step.info.id.0)).collect(),
            identity: self.source.identity.to_owned(),
            found: OnceLock::new(),
        };
        let locks = locks_dir(self.builder.run_dir);
        let cache = StepCache::new(self.builder.images, self.lease, locks, neighbours)?;
        let step_id = |vertex: VertexId| steps.get(&vertex).map(|step| step.info.id);
        let stop = Stop::new(self.builder.cancel).map_err(while_doing("cannot watch for a sign to stop"))?;
        let logs = Logs::new(self.builder.images.store(), self.lease, self.builder.clock);
        let executor = Executor {
            images: self.builder.images,
            cache: &cache,
            context: self.context,
            named: self.named,
            remote: self.builder.remote("step", self.lease, Some(stop.as_fd())),
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
        for (vertex, step) in &steps {
            // Of steps that did not come to a result, and what kept them from it is the error to tell.
            match logs.finish(*vertex) {
                Ok(None) => {}
                Ok(log) => self.recorder.log(step.info.id, log),
                Err(error) => (self.observer)(BuildEvent::Note(&chain(&error))),
            }
        }
        let kept = executor.kept.lock().expect("no thread panics while it holds the lock").take();
        // Another step may have failed at the same time.
        let kept = kept.filter(|kept| solved.as_ref().is_err_and(|error| error.vertex == kept.vertex));
        {
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
        drop(kept);
        // The copies it made of the build context go with it.
        drop(executor);
        let solved = solved.map_err(|error| self.failed(self.blamed(error.vertex, &steps), error.error));
        let done = done.into_inner().expect("no observer panics");
        let fetched = solved.and_then(|_| self.bring(elsewhere, &cache, &done.rootfs, &steps));
        let touched = cache.touch(self.now());
        fetched?;
        touched?;
        Ok(done)
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

    fn finish(
        &self,
        elsewhere: &Elsewhere<'_>,
        done: &Done,
        known: &HashSet<String>,
    ) -> Result<Built, BuildError> {
        let now = (self.builder.clock)().to_string();
        let targets = &self.plan.targets;
        let made = targets.iter().map(|target| self.made(target, &done.rootfs, elsewhere, &now)).collect();
        let built = self.export(made)?;
        self.remember(&done.images, known)?;
        let targets: Vec<VertexId> = targets.iter().map(|target| self.plan.target(target).vertex).collect();
        let outcome = Outcome { targets: &targets, rootfs: &done.rootfs, now: &now };
        self.export_caches(elsewhere, &outcome)?;
        Ok(built)
    }

    /// What came of a target.
    fn made(
        &self,
        target: &Target,
        done: &HashMap<VertexId, Rootfs>,
        elsewhere: &Elsewhere<'_>,
        now: &str,
    ) -> Made {
        let stage = self.plan.target(target);
        let rootfs = &done[&stage.vertex];
        let mut config = self.assemble(stage, &stage.config, stage.history.len(), rootfs, done);
        if self.request.cache.is_inline()
            && let Some((field, records)) =
                elsewhere.inline(&Outcome { targets: &[stage.vertex], rootfs: done, now })
        {
            config.other.insert(field.to_owned(), records.into());
        }
        Made {
            platform: target.platform.clone().unwrap_or_else(|| config.platform()),
            config,
            base_layers: done.get(&stage.base).map_or(0, |base| base.layers.len()),
            base_history: stage.history.iter().filter(|entry| entry.vertex.is_none()).count(),
        }
    }

    fn export(&self, made: Vec<Made>) -> Result<Built, BuildError> {
        let export = Export {
            images: self.builder.images,
            registry: self.builder.registry,
            request: &self.request.output,
            names: &self.request.names,
            is_multi: export::is_multi(self.request),
            epoch: self.epoch,
            lease: self.lease,
            observer: self.observer,
            now: self.now(),
            build: self.recorder.id().to_owned(),
        };
        Ok(export.run(made)?)
    }

    /// Writes the caches that others are to read. The image is there by now, whatever happens to them.
    fn export_caches(&self, elsewhere: &Elsewhere<'_>, outcome: &Outcome<'_>) -> Result<(), BuildError> {
        for to in self.request.cache.to.iter().filter(|to| to.place != CachePlace::Inline) {
            let name = to.to_string();
            (self.observer)(BuildEvent::ExportingCache(&name));
            match elsewhere.export(to, outcome, &|| (self.builder.registry)()) {
                Ok(()) => {}
                Err(error) if to.ignore_error => {
                    (self.observer)(BuildEvent::CacheUnusable(&name, &chain(&error)));
                }
                Err(source) => return Err(BuildError::CacheExport { to: name, source: Box::new(source) }),
            }
        }
        Ok(())
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

    fn now(&self) -> i64 {
        (self.builder.clock)().as_second()
    }

    /// Passes events on as steps, and fills in the steps that only change the configuration: they are done as
    /// soon as the vertex before them is.
    fn observe(
        &self,
        event: &Event,
        steps: &HashMap<VertexId, &PlannedStep>,
        done: &Mutex<Done>,
        known: &HashSet<String>,
        elsewhere: &Elsewhere<'_>,
    ) {
        let id = |vertex: &VertexId| steps.get(vertex).map(|step| step.info.id);
        match event {
            Event::Started(vertex) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Started(id)))
            }
            Event::Keyed(vertex, key) => {
                id(vertex).into_iter().for_each(|id| self.recorder.keyed(id, *key));
            }
            Event::LookedUp(vertex, Lookup::Hit) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Cached(id)));
            }
            Event::LookedUp(vertex, Lookup::Elsewhere) => {
                let name = elsewhere.origin(*vertex).unwrap_or_default();
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::CachedFrom(id, &name)));
            }
            Event::LookedUp(vertex, Lookup::Miss(reason)) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Running(id, reason)));
            }
            // A base image is here by now, so there is nothing left to do about it.
            Event::LookedUp(vertex, Lookup::Bypassed) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Cached(id)));
            }
            Event::Finished(vertex) => self.finished(*vertex, steps, done, known),
            // It was taken from a cache that turned out to be wrong: the build begins anew.
            Event::Failed(_) if elsewhere.has_broken() => {}
            Event::Failed(vertex) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Failed(id)))
            }
            Event::GivenUp(vertex) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::GivenUp(id)))
            }
        }
    }

    /// Tells of the step that `vertex` did the work of, and of those that are done with it.
    fn finished(
        &self,
        vertex: VertexId,
        steps: &HashMap<VertexId, &PlannedStep>,
        done: &Mutex<Done>,
        known: &HashSet<String>,
    ) {
        let mut done = done.lock().expect("no observer panics");
        let Some(rootfs) = done.rootfs.get(&vertex).cloned() else { return };
        let own = steps.get(&vertex).map(|step| step.info.id);
        let mut below: Option<&PlannedStep> = None;
        for step in &self.plan.steps {
            let belongs = match (step.vertex, below) {
                (Some(own), _) => own == vertex,
                (None, Some(before)) => before.stage == step.stage,
                (None, None) => false,
            };
            below = if belongs { Some(step) } else { None };
            if !belongs {
                continue;
            }
            let image = self.image_id(step, &rootfs, &done.rootfs);
            done.images.insert(step.info.id, image);
            let is_own = own == Some(step.info.id);
            if !is_own {
                (self.observer)(BuildEvent::Started(step.info.id));
                // Where a stage begins with another there is never anything to do.
                if step.vertex.is_some() || known.contains(&image.to_string()) {
                    (self.observer)(BuildEvent::Cached(step.info.id));
                }
            }
            let layer_bytes = self.layer_bytes(step, &rootfs, &done.rootfs).filter(|_| is_own);
            let log = done.logs.get(&vertex).copied().filter(|_| is_own);
            let result = StepResult { image, layer_bytes, log };
            (self.observer)(BuildEvent::Finished(step.info.id, &result));
        }
    }

    fn assemble(
        &self,
        stage: &PlannedStage,
        config: &ImageConfig,
        history_count: usize,
        rootfs: &Rootfs,
        done: &HashMap<VertexId, Rootfs>,
    ) -> ImageConfig {
        let base_layers = done.get(&stage.base).map_or(0, |base| base.layers.len());
        assemble(config, &stage.history[..history_count], base_layers, rootfs, done)
    }

    /// The ID of the image that ends with `step`.
    fn image_id(&self, step: &PlannedStep, rootfs: &Rootfs, done: &HashMap<VertexId, Rootfs>) -> Digest {
        let stage = self.plan.stages[step.stage].as_ref().expect("a step belongs to a needed stage");
        let is_last = step.history_count == stage.history.len() && self.plan.is_target(step.stage);
        let config = if is_last { &stage.config } else { &step.config };
        let config = self.assemble(stage, config, step.history_count, rootfs, done);
        Digest::sha256_of(&serde_json::to_vec(&config).expect("a configuration has only text for keys"))
    }

    /// Bytes of the layer that a step added, if it added one.
    fn layer_bytes(
        &self,
        step: &PlannedStep,
        rootfs: &Rootfs,
        done: &HashMap<VertexId, Rootfs>,
    ) -> Option<u64> {
        let vertex = self.plan.graph.vertex(step.vertex?);
        let below = done.get(vertex.inputs.first()?)?;
        let added = rootfs.layers.get(below.layers.len()..)?;
        added.last().map(|layer| layer.size_bytes)
    }

    fn failed(&self, step: Option<&PlannedStep>, cause: StepError) -> BuildError {
        let failure = StepFailure {
            file: self.source.name.to_owned(),
            text: self.source.text.to_owned(),
            span: step.map_or_else(Span::default, |step| step.span),
            cause,
        };
        BuildError::Step { failure: Box::new(failure) }
    }

    fn record_key(&self) -> String {
        let target = self.request.target.as_deref().unwrap_or_default();
        Digest::sha256_of(format!("{}\0{target}", self.source.identity).as_bytes()).hex()
    }

    /// The images that the steps of the last build of this Dockerfile ended in.
    fn last_build(&self) -> Result<HashSet<String>, StoreFailure> {
        if self.request.no_cache {
            return Ok(HashSet::new());
        }
        let record = self.builder.images.store().records(LAST_BUILD).get(&self.record_key());
        let record = record.map_err(while_doing("cannot read the record of the last build"))?;
        // One that cannot be read knows nothing.
        Ok(record.and_then(|record| serde_json::from_str(&record.body).ok()).unwrap_or_default())
    }

    fn remember(
        &self,
        images: &HashMap<StepId, Digest>,
        known: &HashSet<String>,
    ) -> Result<(), StoreFailure> {
        let now: BTreeSet<String> = images.values().map(Digest::to_string).collect();
        if now.len() == known.len() && now.iter().all(|image| known.contains(image)) {
            return Ok(());
        }
        let body = serde_json::to_string(&now).expect("a list of texts is JSON");
        let records = self.builder.images.store().records(LAST_BUILD);
        records.put_soon(&self.record_key(), &body, &[]).map_err(while_doing("cannot record the build"))
    }
}

/// The image's configuration: what was planned, with the layers there are and when they were made.
fn assemble(
    config: &ImageConfig,
    history: &[PlannedHistory],
    base_layers: usize,
    rootfs: &Rootfs,
    done: &HashMap<VertexId, Rootfs>,
) -> ImageConfig {
    let mut config = config.clone();
    config.rootfs.diff_ids = rootfs.layers.iter().map(|layer| layer.diff_id).collect();
    config.created = rootfs.created.clone();
    config.history.clear();
    let mut layers = base_layers;
    for planned in history {
        let mut entry = planned.entry.clone();
        if let Some(rootfs) = planned.vertex.and_then(|vertex| done.get(&vertex)) {
            entry.created = rootfs.created.clone();
            // A step that changed no file makes no layer.
            entry.empty_layer = planned.is_config || rootfs.layers.len() == layers;
            layers = rootfs.layers.len();
        }
        config.history.push(entry);
    }
    config
}
