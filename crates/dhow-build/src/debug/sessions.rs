//! What `dhow debug` needs to stand where a step of a build stood.
//!
//! A record of kind `debug-steps` under the build's id says for each step what it started from, what it led to, and
//! with what environment and mounts its program ran. It keeps nothing alive: layers that gc has taken are gone.
//! The file system of a step that failed is an active snapshot that outlives its build. A record of kind
//! `debug-kept` under the Dockerfile's key names it, so that other builds leave it alone; the next build of the
//! Dockerfile removes it, or gc.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use dhow_dockerfile::Sharing;
use dhow_snapshot::{OverlaySnapshotter, SnapshotKey, Snapshotter as _};
use dhow_solver::VertexId;
use dhow_store::Store;
use serde::{Deserialize, Serialize};

use super::surroundings::Surroundings;
use crate::configure;
use crate::error::{StoreFailure, while_doing};
use crate::execute::Rootfs;
use crate::facts::is_secret;
use crate::mount::{MountFrom, MountKind, RunMount};
use crate::plan::{Layer, Op, Plan, PlannedStep, RunOp};
use crate::run::{Kept, cache_name};

const STEPS: &str = "debug-steps";
const KEPT: &str = "debug-kept";
/// Builds whose steps can be entered.
const BUILDS_MAX: usize = 20;

/// One step of a build, to be entered again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Snapshots of the layers it started from, lowest first.
    pub before: Vec<String>,
    pub after: After,
    pub env: Vec<(String, String)>,
    pub user: String,
    pub cwd: String,
    pub hostname: String,
    /// `default`, `host` or `none`.
    pub network: String,
    pub is_insecure: bool,
    #[serde(default)]
    pub surroundings: Surroundings,
    /// The shell of the image.
    pub shell: String,
    pub mounts: Vec<SessionMount>,
}

/// What a step led to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum After {
    /// These snapshots, lowest first.
    Layers(Vec<String>),
    /// It failed; what it had changed so far is in this active snapshot.
    Kept(String),
}

/// A mount of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SessionMount {
    Tmpfs {
        target: String,
        size_bytes: Option<u64>,
    },
    /// A folder: files of the build context as they were.
    Folder {
        target: String,
        path: PathBuf,
        readonly: bool,
    },
    /// What is in layers, lowest first.
    Layers {
        target: String,
        snapshots: Vec<String>,
        path: String,
        #[serde(default = "yes")]
        readonly: bool,
    },
    /// A cache: its folder in the store, with its lock.
    Cache {
        target: String,
        id: String,
        folder: PathBuf,
        readonly: bool,
        is_shared: bool,
    },
    Secret {
        target: String,
        id: String,
        env: Option<String>,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Ssh {
        target: String,
        id: String,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    /// Files of the build context, which are kept for the step that failed only.
    Gone {
        target: String,
    },
}

#[derive(Serialize, Deserialize)]
struct KeptRecord {
    keys: Vec<String>,
}

/// The sessions of one store.
pub(crate) struct Sessions<'a> {
    pub store: &'a Store,
    pub snapshots: &'a OverlaySnapshotter,
}

impl Sessions<'_> {
    /// Writes down the steps of a build, as far as they were reached. What `kept` holds outlives the build.
    pub(crate) fn write(
        &self,
        build: &str,
        dockerfile: &str,
        plan: &Plan,
        done: &HashMap<VertexId, Rootfs>,
        kept: Option<&Kept<'_>>,
    ) -> Result<(), StoreFailure> {
        const DOING: &str = "cannot record the steps of the build";
        if let Some(kept) = kept {
            let body = serde_json::to_string(&KeptRecord { keys: kept.keys() }).expect("texts are JSON");
            self.store.records(KEPT).put_soon(dockerfile, &body, &[]).map_err(while_doing(DOING))?;
        }
        let mut below = None;
        let sessions: Vec<Option<Session>> = plan
            .steps
            .iter()
            .map(|step| {
                below = step.vertex.or(below);
                self.session(plan, step, below?, done, kept)
            })
            .collect();
        let body = serde_json::to_string(&sessions).expect("texts and numbers are JSON");
        let records = self.store.records(STEPS);
        records.put_latest(build, &body, &[], BUILDS_MAX).map_err(while_doing(DOING))
    }

    fn session(
        &self,
        plan: &Plan,
        step: &PlannedStep,
        vertex: VertexId,
        done: &HashMap<VertexId, Rootfs>,
        kept: Option<&Kept<'_>>,
    ) -> Option<Session> {
        let node = plan.graph.vertex(vertex);
        let kept = kept.filter(|kept| kept.vertex == vertex);
        let after = match kept {
            Some(kept) => After::Kept(kept.key().to_string()),
            None => After::Layers(snapshots(done.get(&vertex)?)),
        };
        let is_own = step.vertex.is_some();
        let below = node.inputs.first().filter(|_| is_own).unwrap_or(&vertex);
        let before = snapshots(done.get(below)?);
        let config = &step.config.config;
        let shell = configure::shell(&step.config).into_iter().next().unwrap_or_default();
        Some(match &node.op {
            Op::Run(run) if is_own => Session {
                before,
                after,
                env: environment(run),
                user: run.user.clone(),
                cwd: run.cwd.clone(),
                hostname: run.sandbox.hostname.clone(),
                network: run.network.name().to_owned(),
                is_insecure: run.sandbox.is_insecure,
                surroundings: Surroundings::of(&run.sandbox),
                shell,
                mounts: run
                    .mounts
                    .iter()
                    .map(|mount| self.mount(mount, &node.inputs, done, kept))
                    .collect::<Option<_>>()?,
            },
            _ => Session {
                before,
                after,
                env: config.env.iter().filter_map(|entry| entry.split_once('=')).map(owned).collect(),
                user: config.user.clone(),
                cwd: configure::join_path("/", &config.working_dir),
                hostname: String::new(),
                network: String::new(),
                is_insecure: false,
                surroundings: Surroundings::default(),
                shell,
                mounts: Vec::new(),
            },
        })
    }

    fn mount(
        &self,
        mount: &RunMount,
        inputs: &[VertexId],
        done: &HashMap<VertexId, Rootfs>,
        kept: Option<&Kept<'_>>,
    ) -> Option<SessionMount> {
        let target = mount.target.clone();
        let kept_folder = |readonly| {
            let path = kept?.folders.get(&mount.target)?.clone();
            Some(SessionMount::Folder { target: target.clone(), path, readonly })
        };
        Some(match &mount.kind {
            MountKind::Tmpfs { size_bytes } => SessionMount::Tmpfs { target, size_bytes: *size_bytes },
            MountKind::Bind { source, readonly } => match &source.from {
                MountFrom::Context => kept_folder(*readonly).unwrap_or(SessionMount::Gone { target }),
                MountFrom::Input { index, .. } => {
                    let snapshots = snapshots(done.get(&inputs[*index])?);
                    let (path, readonly) = (source.path.clone(), *readonly);
                    SessionMount::Layers { target, snapshots, path, readonly }
                }
            },
            MountKind::Cache(cache) => {
                let kept = kept.and_then(|kept| kept.folders.get(&mount.target)?.parent());
                // Which one a step had that did not fail is known only where it starts with nothing.
                let folder = || self.store.root().join(cache_name(cache));
                SessionMount::Cache {
                    target,
                    id: cache.id.clone(),
                    folder: kept.map_or_else(folder, Path::to_owned),
                    readonly: cache.readonly,
                    is_shared: cache.sharing == Sharing::Shared,
                }
            }
            MountKind::Secret { id, env, access, .. } => SessionMount::Secret {
                target,
                id: id.clone(),
                env: env.clone(),
                mode: access.mode,
                uid: access.uid,
                gid: access.gid,
            },
            MountKind::Ssh { id, access, .. } => SessionMount::Ssh {
                target,
                id: id.clone(),
                mode: access.mode,
                uid: access.uid,
                gid: access.gid,
            },
        })
    }

    /// The steps of a build, in order; those it did not reach are `None`.
    pub(crate) fn read(&self, build: &str) -> Result<Option<Vec<Option<Session>>>, StoreFailure> {
        let record = self.store.records(STEPS).get(build);
        let record = record.map_err(while_doing("cannot read the steps of the build"))?;
        Ok(record.and_then(|record| serde_json::from_str(&record.body).ok()))
    }

    /// The snapshots that failed steps of all Dockerfiles left and that are still wanted.
    pub(crate) fn kept_keys(&self) -> Result<HashSet<String>, StoreFailure> {
        let records = self.store.records(KEPT).list();
        let records = records.map_err(while_doing("cannot read what failed steps left"))?;
        let kept = records.iter().filter_map(|record| serde_json::from_str::<KeptRecord>(&record.body).ok());
        Ok(kept.flat_map(|record| record.keys).collect())
    }

    /// Removes what a failed step of this Dockerfile left, unless somebody looks at it now.
    pub(crate) fn forget(&self, dockerfile: &str) -> Result<(), StoreFailure> {
        const DOING: &str = "cannot forget what a failed step left";
        let records = self.store.records(KEPT);
        let Some(record) = records.get(dockerfile).map_err(while_doing(DOING))? else { return Ok(()) };
        records.remove(dockerfile).map_err(while_doing(DOING))?;
        let Ok(kept) = serde_json::from_str::<KeptRecord>(&record.body) else { return Ok(()) };
        let is_wanted = |key: &SnapshotKey| !kept.keys.iter().any(|kept| kept == key.as_str());
        self.snapshots.collect(&is_wanted).map(drop).map_err(while_doing(DOING))
    }
}

/// Mounts of layers were read-only before it was recorded what they were.
fn yes() -> bool {
    true
}

fn snapshots(rootfs: &Rootfs) -> Vec<String> {
    // One that is elsewhere may have come by the time it is looked into.
    let name = |layer: &Layer| match &layer.snapshot {
        Some(name) => name.clone(),
        None => dhow_image::snapshot_name(&layer.diff_id).to_string(),
    };
    rootfs.layers.iter().map(name).collect()
}

/// Without arguments that may be secrets, and without proxies: these are given again or not at all.
fn environment(run: &RunOp) -> Vec<(String, String)> {
    let shown = run.env.iter().filter(|var| !(var.is_arg && is_secret(&var.name)));
    shown.map(|var| (var.name.clone(), var.value.clone())).collect()
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}
