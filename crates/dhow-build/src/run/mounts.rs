//! The mounts of a `RUN`, from what the Dockerfile says to what the launcher is told.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dhow_oci::Digest;
use dhow_runtime::{BindHow, InMemory, MemoryFile, MountSpec as ContainerMount, Propagation};
use dhow_snapshot::{OverlaySnapshotter, Prepared, SnapshotKey, Snapshotter as _};
use dhow_solver::{FactKind, Facts, VertexId};
use dhow_sys::beneath::{Owner, Root, Time};
use dhow_sys::userns::IdMap;

use super::mount_points::MountPoints;
use super::{RunError, cache_mounts, secrets, ssh};
use crate::copy::{CopyOptions, Destination};
use crate::error::{StepError, StoreFailure, while_doing};
use crate::execute::{Executor, Rootfs};
use crate::hash::{self, Counts};
use crate::mount::{Access, CacheMount, MountFrom, MountKind, MountSource, RunMount};
use crate::plan::RunOp;
use crate::select::{Selected, Source};

/// For people, where an instruction has to be named.
const INSTRUCTION: &str = "RUN --mount";
/// What a copy of files is called in its folder, be it a file or a directory.
const COPY: &str = "files";
const SCRIPT_MODE: u32 = 0o755;
/// Where programs look for their agent.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// The files that a mount shows, as they were when the facts were asked for.
pub(crate) struct Bound {
    found: Vec<Selected>,
    content: Digest,
    /// The stage they are in, if not the build context.
    stage: Option<Root>,
}

/// A snapshot that lives no longer than this, unless it is told to stay.
pub(crate) struct Aside<'a> {
    snapshots: &'a OverlaySnapshotter,
    pub(super) key: SnapshotKey,
    prepared: Prepared,
    stays: AtomicBool,
}

impl<'a> Aside<'a> {
    pub(super) fn new(snapshots: &'a OverlaySnapshotter, key: SnapshotKey, prepared: Prepared) -> Aside<'a> {
        Aside { snapshots, key, prepared, stays: AtomicBool::new(false) }
    }

    pub(super) fn stay(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        if !self.stays.load(Ordering::Relaxed) {
            // If it cannot be removed now, the next build or gc does it.
            let _ = self.snapshots.remove(&self.key);
        }
    }
}

/// A tmpfs. Programs may be executed there, unlike in what `docker run --tmpfs` makes.
pub(super) fn tmpfs(target: String, size_bytes: Option<u64>) -> ContainerMount {
    let mut options = vec!["exec".to_owned(), "dev".to_owned()];
    options.extend(size_bytes.map(|size| format!("size={size}")));
    ContainerMount::Tmpfs { target, options }
}

/// An agent that is to be forwarded, by a socket of this name in a folder of the step's.
pub(super) struct Agent<'a> {
    pub id: &'a str,
    pub socket: &'a Path,
    pub access: Access,
    pub dir: &'a Path,
    pub name: &'a str,
}

impl Agent<'_> {
    pub(super) fn forward(&self, target: &str, ready: &mut Ready<'_>) -> Result<(), RunError> {
        let forward = ssh::Forward::start(self.socket, self.dir, self.name, self.access);
        let forward = forward.map_err(|source| RunError::Agent {
            id: self.id.to_owned(),
            socket: self.socket.to_owned(),
            source,
        })?;
        ready._held.push(Box::new(forward));
        ready.container.push(ContainerMount::Bind {
            source: self.dir.join(self.name),
            target: target.to_owned(),
            readonly: false,
            propagation: Propagation::Private,
            how: BindHow::default(),
        });
        if ready.env.is_empty() {
            ready.env.push(format!("{AGENT_VARIABLE}={target}"));
        }
        Ok(())
    }
}

/// What has to stay until the program has ended.
pub(super) trait Held {}
impl Held for Aside<'_> {}
impl Held for File {}
impl Held for cache_mounts::Taken {}
impl Held for ssh::Forward {}

/// What the launcher is told about the mounts of a step.
#[derive(Default)]
pub(crate) struct Ready<'a> {
    pub container: Vec<ContainerMount>,
    pub memory: InMemory,
    pub env: Vec<String>,
    pub points: MountPoints,
    /// Copies of files of the build context.
    pub copies: Vec<Arc<Aside<'a>>>,
    _held: Vec<Box<dyn Held + 'a>>,
}

impl<'a> Ready<'a> {
    /// Keeps something until the program has ended.
    pub(super) fn hold(&mut self, held: impl Held + 'a) {
        self._held.push(Box::new(held));
    }
}

impl<'a> Executor<'a> {
    /// Adds the files that the mounts of a `RUN` read to what its result depends on.
    pub(crate) fn mount_facts(
        &self,
        id: VertexId,
        run: &RunOp,
        inputs: &[Rootfs],
        facts: &mut Facts,
    ) -> Result<(), StepError> {
        let mut bounds = Vec::with_capacity(run.mounts.len());
        for mount in &run.mounts {
            let bound = match mount.source() {
                None => None,
                Some(source) => Some(self.bind(source, inputs, mount, facts)?),
            };
            bounds.push(bound);
        }
        if !run.mounts.is_empty() {
            self.bounds.lock().expect("no thread panics while it holds the lock").insert(id, bounds);
        }
        Ok(())
    }

    fn bind(
        &self,
        source: &MountSource,
        inputs: &[Rootfs],
        mount: &RunMount,
        facts: &mut Facts,
    ) -> Result<Bound, StepError> {
        let (stage, place) = match &source.from {
            MountFrom::Context => (None, "build context".to_owned()),
            MountFrom::Input { index, name } => {
                (Some(self.view(&inputs[*index])?), format!("file system of {name}"))
            }
        };
        let tree = stage.as_ref().map_or_else(|| self.context.source(None), Source::whole);
        let found = tree.select_path(Path::new(&source.path), &place);
        let found = vec![found.map_err(|source| StepError::Select { instruction: INSTRUCTION, source })?];
        let counts = Counts { owner: stage.is_some(), chmod: None };
        let list = hash::tree(self.images.store(), tree.root, &found, &counts, self.now_ns());
        let list = list.map_err(|error| error.into_step(INSTRUCTION))?;
        let content = self.cache.note_tree(&list);
        facts.content(FactKind::Files, mount.name(), content);
        Ok(Bound { found, content, stage })
    }

    /// Makes everything ready that the mounts of a `RUN` need.
    pub(crate) fn mounts(
        &self,
        id: VertexId,
        run: &RunOp,
        inputs: &[Rootfs],
        scratch: &Path,
    ) -> Result<Ready<'a>, StepError> {
        let mut ready = Ready::default();
        if let Some(script) = &run.script {
            ready.memory.files.push(MemoryFile {
                target: script.path.clone(),
                content: script.content.clone().into_bytes(),
                mode: SCRIPT_MODE,
                uid: 0,
                gid: 0,
            });
        }
        if run.mounts.is_empty() {
            return Ok(ready);
        }
        let bounds = self.bounds.lock().expect("no thread panics while it holds the lock").remove(&id);
        let bounds = bounds.expect("facts are asked for before a step runs");
        let targets = run.mounts.iter().map(|mount| mount.target.as_str()).filter(|t| !t.is_empty());
        ready.points = MountPoints::of(&self.view(&inputs[0])?, targets)
            .map_err(while_doing("cannot look at the mount points of a step"))?;
        self.cache_mounts(run, &bounds, &mut ready)?;
        for (number, (mount, bound)) in run.mounts.iter().zip(&bounds).enumerate() {
            let target = mount.target.clone();
            match (&mount.kind, bound) {
                (MountKind::Bind { source, readonly }, Some(bound)) => {
                    self.bind_mount(source, *readonly, bound, inputs, target, &mut ready)?;
                }
                (MountKind::Tmpfs { size_bytes }, _) => {
                    ready.container.push(tmpfs(target, *size_bytes));
                }
                (MountKind::Secret { id, env, required, access }, _) => {
                    let wanted = secrets::Wanted {
                        id,
                        target: &target,
                        env: env.as_deref(),
                        required: *required,
                        access: self.access(*access),
                    };
                    wanted.add_to(&mut ready.memory, self.options)?;
                }
                (MountKind::Ssh { id, required, access }, _) => {
                    let name = format!("ssh-{number}");
                    self.forward_agent(id, *required, *access, (scratch, &name), &target, &mut ready)?;
                }
                (MountKind::Bind { .. } | MountKind::Cache(_), _) => {}
            }
        }
        Ok(ready)
    }

    fn bind_mount(
        &self,
        source: &MountSource,
        readonly: bool,
        bound: &Bound,
        inputs: &[Rootfs],
        target: String,
        ready: &mut Ready<'a>,
    ) -> Result<(), StepError> {
        let index = match &source.from {
            MountFrom::Context => {
                let copy = self.context_copy(bound, readonly)?;
                ready.container.push(ContainerMount::Bind {
                    source: copy.prepared.path().join(COPY),
                    target,
                    readonly,
                    propagation: Propagation::Private,
                    how: BindHow::default(),
                });
                ready.copies.push(copy);
                return Ok(());
            }
            MountFrom::Input { index, .. } => *index,
        };
        let parents = self.parents(&inputs[index])?;
        let snapshots = self.images.snapshots();
        let subpath = source.path.trim_matches('/').to_owned();
        if readonly {
            let spec = snapshots.view(&parents).map_err(while_doing("cannot look into a stage"))?;
            let lowers = spec.lowers;
            ready.container.push(ContainerMount::Overlay { lowers, upper: None, subpath, target });
            return Ok(());
        }
        // What is written there is thrown away.
        let key = self.aside_key()?;
        let prepared = snapshots.prepare(&key, &parents).map_err(while_doing("cannot prepare a snapshot"))?;
        let aside = Aside::new(snapshots, key, prepared);
        let spec = snapshots.mount_spec(&aside.key).map_err(while_doing("cannot mount a snapshot"))?;
        let upper = spec.upper.zip(spec.work);
        ready.container.push(ContainerMount::Overlay { lowers: spec.lowers, upper, subpath, target });
        ready._held.push(Box::new(aside));
        Ok(())
    }

    /// The selected files of the build context as they are in an image: without what is ignored, and root's.
    /// Steps that only read them share one copy.
    fn context_copy(&self, bound: &Bound, is_shared: bool) -> Result<Arc<Aside<'a>>, StepError> {
        let mut copies = self.context_copies.lock().expect("no thread panics while it holds the lock");
        if let Some(copy) = copies.get(&bound.content).filter(|_| is_shared) {
            return Ok(Arc::clone(copy));
        }
        let snapshots = self.images.snapshots();
        let key = self.aside_key()?;
        let prepared = snapshots.prepare_layer(&key).map_err(while_doing("cannot prepare a snapshot"))?;
        let copy = Arc::new(Aside::new(snapshots, key, prepared));
        let root = Root::open(copy.prepared.path()).map_err(while_doing("cannot open a snapshot"))?;
        copy_bound(&self.context.root, bound, &root, Path::new(COPY), Some(Owner { uid: 0, gid: 0 }))?;
        if is_shared {
            copies.insert(bound.content, Arc::clone(&copy));
        }
        Ok(copy)
    }

    fn cache_mounts(
        &self,
        run: &RunOp,
        bounds: &[Option<Bound>],
        ready: &mut Ready<'a>,
    ) -> Result<(), StepError> {
        let caches: Vec<(&RunMount, &CacheMount, Option<&Bound>)> = run
            .mounts
            .iter()
            .zip(bounds)
            .filter_map(|(mount, bound)| match &mount.kind {
                MountKind::Cache(cache) => Some((mount, cache, bound.as_ref())),
                _ => None,
            })
            .collect();
        let fills: Vec<_> = caches
            .iter()
            .map(|(_, _, bound)| {
                move |to: &Root, path: &Path| match bound {
                    None => Ok(()),
                    Some(bound) => {
                        let from = bound.stage.as_ref().unwrap_or(&self.context.root);
                        copy_bound(from, bound, to, path, None)
                    }
                }
            })
            .collect();
        let wanted: Vec<cache_mounts::Wanted<'_>> = caches
            .iter()
            .zip(&fills)
            .map(|((mount, cache, bound), fill)| cache_mounts::Wanted {
                cache,
                description: description(mount, cache, run),
                seed: bound.map(|bound| bound.content),
                fill,
            })
            .collect();
        let taken = self.caches.take_all(&wanted)?;
        for ((mount, cache, _), (source, held)) in caches.iter().zip(taken) {
            ready.container.push(ContainerMount::Bind {
                source,
                target: mount.target.clone(),
                readonly: cache.readonly,
                propagation: Propagation::Private,
                how: BindHow::default(),
            });
            if let Some(held) = held {
                ready._held.push(Box::new(held));
            }
        }
        Ok(())
    }

    fn forward_agent(
        &self,
        id: &str,
        required: bool,
        access: Access,
        (dir, name): (&Path, &str),
        target: &str,
        ready: &mut Ready<'_>,
    ) -> Result<(), StepError> {
        let Some(socket) = self.options.agent(id) else {
            return match required {
                true => Err(RunError::NoAgent { id: id.to_owned() }.into()),
                false => Ok(()),
            };
        };
        let agent = Agent { id, socket, access: self.access(access), dir, name };
        Ok(agent.forward(target, ready)?)
    }

    /// Where there is but one id, everything belongs to root.
    fn access(&self, access: Access) -> Access {
        match self.images.user_namespace().is_some_and(IdMap::has_one_id) {
            true => Access { uid: None, gid: None, ..access },
            false => access,
        }
    }

    fn aside_key(&self) -> Result<SnapshotKey, StoreFailure> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}-mount", self.name).parse().map_err(while_doing("cannot name a snapshot"))
    }
}

/// As BuildKit describes it.
fn description(mount: &RunMount, cache: &CacheMount, run: &RunOp) -> String {
    let told = format!("cached mount {} from exec {}", mount.target, run.args.join(" "));
    // Without a namespace, the id is the target unless another is given.
    match cache.id.trim_start_matches('/') == mount.target.trim_start_matches('/') {
        true => told,
        false => format!("{told} with id {:?}", cache.id),
    }
}

fn copy_bound(
    from: &Root,
    bound: &Bound,
    to: &Root,
    path: &Path,
    owner: Option<Owner>,
) -> Result<(), StepError> {
    let failed = |source| StepError::Copy { instruction: INSTRUCTION, source };
    let options = CopyOptions { owner, chmod: None, made_at: Time::default(), replace: false };
    let path = Path::new("/").join(path);
    let destination = Destination::find(to, &path.to_string_lossy()).map_err(failed)?;
    bound.found.iter().try_for_each(|source| destination.copy(from, source, &options)).map_err(failed)
}
