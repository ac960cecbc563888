//! `dhow debug`: a shell where a step of a build stood.

mod sessions;
mod surroundings;

use std::collections::BTreeMap;

use dhow_runtime::{ExecStreams, ExitStatus, StartError};
use dhow_snapshot::{SnapshotError, SnapshotName, Snapshotter as _};
use dhow_store::Ref;

use crate::agents::{AgentError, Agents};
use crate::build::{Builder, SNAPSHOT_PREFIX, scratch_dir};
use crate::error::{StoreFailure, while_doing};
use crate::history::{FindBuildError, FindStepError, History, StepOutcome};
use crate::plan::{EnvVar, RunOp};
use crate::request::StepNetwork;
use crate::run::{MountRemains, RunError, RunSteps};
use crate::run_options::RunOptions;
use crate::stop::Stop;

use sessions::{After, Session};
pub(crate) use sessions::{SessionMount, Sessions};

/// Where to stand, and with what.
#[derive(Clone, Debug, Default)]
pub struct DebugRequest {
    /// The build, as [`History::find`] takes it.
    pub build: Option<String>,
    /// The step, as [`BuildRecord::step`](crate::BuildRecord::step) takes it; `None` is the one that failed, or the
    /// last of a build that did not.
    pub step: Option<String>,
    /// Before it ran, not after.
    pub before: bool,
    /// Secrets and agents, given again.
    pub options: RunOptions,
    /// Variables of the user's, such as proxies.
    pub env: BTreeMap<String, String>,
    /// With a terminal.
    pub terminal: bool,
}

/// A step that was entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugStep {
    /// Its instruction.
    pub text: String,
    /// Its line in the Dockerfile.
    pub line: usize,
    /// Whether it failed.
    pub has_failed: bool,
    /// What it had and this session has not, for people.
    pub missing: Vec<String>,
}

/// Why there is no shell.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// No such build.
    #[error(transparent)]
    Build(#[from] FindBuildError),
    /// No such step.
    #[error(transparent)]
    Step(#[from] FindStepError),
    /// The build has no steps.
    #[error("build {0} failed before its first step")]
    NoSteps(String),
    /// It is not remembered where the steps of the build stood.
    #[error("the steps of build {0} are not remembered any more")]
    Forgotten(String),
    /// The build ended before the step.
    #[error("the build did not reach `{0}`")]
    NotReached(String),
    /// What the step left was removed, by gc or by a later build.
    #[error("the file system of `{0}` is gone: a later build or a clean-up has removed it")]
    Gone(String),
    /// What the step needs was not given.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Keys were given that cannot be used.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The shell did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

impl DebugError {
    /// Something the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            DebugError::Run(error) => error.hint(),
            DebugError::Agent(error) => error.hint(),
            _ => None,
        }
    }
}

impl Builder<'_> {
    /// Opens a shell where a step stood, and returns how it ended. `entering` is told before it begins. What the
    /// shell changes is thrown away.
    pub fn debug(
        &self,
        request: &DebugRequest,
        streams: ExecStreams<'_>,
        entering: &mut dyn FnMut(&DebugStep),
    ) -> Result<ExitStatus, DebugError> {
        let store = self.images.store();
        let build = History::new(store).find(request.build.as_deref())?;
        let failed = build.steps.iter().find(|step| step.outcome == StepOutcome::Failed);
        let (_agents, options) = Agents::start(&request.options, self.run_dir)?;
        let request = &DebugRequest { options, ..request.clone() };
        let step = match &request.step {
            Some(text) => build.step(text)?,
            None => {
                let last = failed.or(build.steps.last());
                last.ok_or_else(|| DebugError::NoSteps(build.id.clone()))?
            }
        };
        let index = build.steps.iter().position(|known| std::ptr::eq(known, step)).unwrap_or_default();
        let sessions = Sessions { store, snapshots: self.images.snapshots() };
        let steps = sessions.read(&build.id)?.ok_or_else(|| DebugError::Forgotten(build.id.clone()))?;
        let session = steps.into_iter().nth(index).flatten();
        let session = session.ok_or_else(|| DebugError::NotReached(step.text.clone()))?;
        let has_failed = step.outcome == StepOutcome::Failed;
        let mut told =
            DebugStep { text: step.text.clone(), line: step.line, has_failed, missing: Vec::new() };
        self.enter(&session, request, streams, &mut told, entering)
    }

    fn enter(
        &self,
        session: &Session,
        request: &DebugRequest,
        streams: ExecStreams<'_>,
        told: &mut DebugStep,
        entering: &mut dyn FnMut(&DebugStep),
    ) -> Result<ExitStatus, DebugError> {
        let text = told.text.clone();
        let gone = |error: SnapshotError| match error {
            SnapshotError::NoSuchSnapshot { .. } | SnapshotError::NoSuchKey { .. } => {
                DebugError::Gone(text.clone())
            }
            error => StoreFailure::new("cannot mount what the step left", error).into(),
        };
        let snapshots = self.images.snapshots();
        let lease = self.images.store().lease("debug").map_err(while_doing("cannot take a lease"))?;
        let kept = match &session.after {
            After::Kept(key) if !request.before => {
                Some(key.parse().map_err(while_doing("a step is recorded wrongly"))?)
            }
            _ => None,
        };
        let layers = match &session.after {
            After::Layers(layers) if !request.before => layers,
            _ => &session.before,
        };
        let refs: Vec<Ref> = layers.iter().cloned().map(Ref::Snapshot).collect();
        lease.add_all(&refs).map_err(while_doing("cannot protect the layers"))?;
        // While this lives, the snapshot of the failed step stays.
        let _held = kept.as_ref().map(|key| snapshots.hold(key)).transpose().map_err(gone)?;
        let name =
            format!("{SNAPSHOT_PREFIX}{}-{}-debug", std::process::id(), (self.clock)().as_nanosecond());
        let key = name.parse().map_err(while_doing("cannot name a snapshot"))?;
        let prepared = snapshots.prepare(&key, &names(layers)?).map_err(gone)?;
        let mut entered = || -> Result<ExitStatus, DebugError> {
            let mut spec = snapshots.mount_spec(&key).map_err(gone)?;
            if let Some(kept) = &kept {
                spec.lowers.insert(0, snapshots.upper_path(kept).map_err(gone)?);
            }
            let stop = Stop::new(self.cancel).map_err(while_doing("cannot watch for a sign to stop"))?;
            let runs = RunSteps {
                run_dir: scratch_dir(self.run_dir),
                network: self.network,
                ids: self.images.user_namespace(),
                stop: &stop,
                started: &|_, _| {},
                output: &|_, _, _| {},
            };
            let scratch = runs.scratch(&key)?;
            let remains = MountRemains {
                images: self.images,
                name: &name,
                options: &request.options,
                mounts: &session.mounts,
                scratch: scratch.path(),
            };
            let (ready, missing) = remains.ready()?;
            told.missing = missing;
            entering(told);
            let run = program(session, request);
            runs.interactive(&run, &key, &spec, &scratch, &ready, (request.terminal, streams))
        };
        let ended = entered();
        drop(prepared);
        // If it cannot be removed now, the next build or gc does it.
        let _ = snapshots.remove(&key);
        ended
    }
}

/// The shell as a program of the step.
fn program(session: &Session, request: &DebugRequest) -> RunOp {
    let env = session.env.iter().map(|(name, value)| EnvVar {
        name: name.clone(),
        value: value.clone(),
        is_arg: false,
    });
    RunOp {
        args: vec![session.shell.clone()],
        script: None,
        env: env.collect(),
        proxies: request.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: session.cwd.clone(),
        user: session.user.clone(),
        network: match session.network.as_str() {
            "host" => StepNetwork::Host,
            "none" => StepNetwork::None,
            _ => StepNetwork::Default,
        },
        foreign: None,
        mounts: Vec::new(),
        sandbox: session.surroundings.sandbox(&session.hostname, session.is_insecure),
    }
}

/// Snapshots by name, topmost first.
pub(crate) fn names(layers: &[String]) -> Result<Vec<SnapshotName>, StoreFailure> {
    let parse = |name: &String| name.parse().map_err(while_doing("a layer is recorded wrongly"));
    layers.iter().rev().map(parse).collect()
}
