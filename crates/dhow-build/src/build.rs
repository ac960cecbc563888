//! One build from request to image.

mod assembling;
mod attesting;
mod canceling;
mod exporting;
mod last_build;
mod planning;
mod running;
mod telling;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use dhow_image::Images;
use dhow_registry::Client;
use dhow_snapshot::{SnapshotKey, Snapshotter as _};
use dhow_store::Lease;

use crate::agents::Agents;
use crate::context::{Context, DockerfileText};
use crate::date::{self, Dates};
use crate::debug::Sessions;
use crate::elsewhere::CacheTo;
use crate::error::{BuildError, chain, while_doing};
use crate::event::{BuildEvent, Built, StepInfo};
use crate::export::{self, EpochError};
use crate::history::{History, Recorder};
use crate::lower::{self, Reach};
use crate::parsed::Parsed;
use crate::place::Place;
use crate::plan::Plan;
use crate::provenance::Material;
use crate::remote::{Credentials, Remote};
use crate::request::{BuildRequest, ContextSource, DockerfileSource};
use crate::run::NetworkRequest;
use crate::run_options::RunOptions;

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
    /// Becomes readable when the build is to stop: it is told of, then what runs is ended.
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
        let recorder = Recorder::new(self.images.store(), &lease, request, self.clock);
        let observe = |event: BuildEvent<'_>| {
            recorder.event(&event);
            observer(event);
        };
        let told = || {
            recorder.cancel();
            observer(BuildEvent::Canceled);
        };
        let result = canceling::watched(self.cancel, &told, |cancel| {
            let (_agents, run) = Agents::start(&request.run, self.run_dir)?;
            let request = BuildRequest { run, ..request.clone() };
            self.build_recorded(&request, &lease, &recorder, &observe, cancel)
        })?;
        if let Some(record) = recorder.finish(&result) {
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
        recorder: &Recorder<'_>,
        observer: Observer<'_>,
        cancel: Option<BorrowedFd<'_>>,
    ) -> Result<Built, BuildError> {
        self.sweep();
        let remote = self.remote("context", lease, cancel, &request.run);
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
        let (context_time, material) = (place.time, place.material.clone());
        let context = Context::new(place, &file, request.sources.modes)?;
        let named = planning::named_folders(request)?;
        // What makes no sense is told before anything runs.
        let epoch = export::check(request)?;
        if request.cache.is_inline() && !export::has_image(&request.output) {
            let name = CacheTo::inline().to_string();
            observer(BuildEvent::CacheUnusable(&name, "no output of this build is an image"));
        }
        let locks = locks_dir(self.run_dir);
        let source = lower::Source {
            name: &file.name,
            text: &parsed.text,
            dockerfile: &parsed.dockerfile,
            identity: &file.identity,
        };
        let stage = |name: &str| {
            let index = source.dockerfile.stage_index(name).ok_or_else(|| EpochError::new(name))?;
            let mut request = request.clone();
            request.target = Some(name.to_owned());
            request.platforms.clear();
            request.build_args.remove(export::EPOCH);
            let world = self.world(&request, &context, lease, observer, &file, &parsed.text).only_asking();
            let lower = || lower::lower(&source, &request, Reach::Target, &world);
            date::added_by(name, &source.dockerfile.stages[index], lower)
        };
        let dates =
            Dates { request, context: context_time, remote: &remote, locks: &locks, observer, stage: &stage };
        let epoch = dates.resolve(epoch)?;
        let request = &*date::resolved(request, epoch);
        let world = self.world(request, &context, lease, observer, &file, &parsed.text);
        let plan = lower::lower(&source, request, Reach::Target, &world)?;
        planning::refuse_findings(&parsed, &world.into_found())?;
        let build = Build {
            builder: self,
            cancel,
            request,
            observer,
            recorder,
            lease,
            context: &context,
            named: &named,
            plan: &plan,
            source: &source,
            epoch,
            material,
        };
        build.run()
    }

    pub(crate) fn remote<'r>(
        &'r self,
        purpose: &str,
        lease: &'r Lease,
        stop: Option<BorrowedFd<'r>>,
        options: &'r RunOptions,
    ) -> Remote<'r> {
        Remote {
            images: self.images,
            download: Box::new(|request| (self.registry)().download(request)),
            lease,
            scratch: scratch_dir(self.run_dir),
            name: format!("{}-{purpose}", self.snapshot_name()),
            counter: AtomicUsize::new(0),
            stop,
            credentials: Credentials(options),
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

/// Where steps keep what they need while they run.
pub(crate) fn scratch_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("build")
}

/// Where those who work on a step are known.
pub(crate) fn locks_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("build-locks")
}

/// A build whose plan is made.
struct Build<'a, 'b> {
    builder: &'a Builder<'b>,
    /// Becomes readable when what runs is to end.
    cancel: Option<BorrowedFd<'a>>,
    request: &'a BuildRequest,
    observer: Observer<'a>,
    recorder: &'a Recorder<'a>,
    lease: &'a Lease,
    context: &'a Context,
    named: &'a BTreeMap<String, Context>,
    plan: &'a Plan,
    source: &'a lower::Source<'a>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    epoch: Option<i64>,
    /// What the build context is, if it came from elsewhere.
    material: Option<Material>,
}

impl Build<'_, '_> {
    fn run(&self) -> Result<Built, BuildError> {
        let infos: Vec<StepInfo> = self.plan.steps.iter().map(|step| step.info.clone()).collect();
        (self.observer)(BuildEvent::Planned(&infos));
        let known = self.last_build()?;
        self.sessions().forget(&self.record_key())?;
        let elsewhere = self.elsewhere();
        let done = self.solve(&elsewhere, &known)?;
        self.finish(&elsewhere, &done, &known)
    }

    fn sessions(&self) -> Sessions<'_> {
        Sessions { store: self.builder.images.store(), snapshots: self.builder.images.snapshots() }
    }

    fn now(&self) -> i64 {
        (self.builder.clock)().as_second()
    }
}
