//! Doing what the vertices say.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use dhow_dockerfile::IgnoreRules;
use dhow_image::Images;
use dhow_oci::{DiffId, Digest, Digester, Reference, chain_ids};
use dhow_snapshot::{MountSpec, SnapshotKey, SnapshotName, Snapshotter as _};
use dhow_solver::{FactKind, Facts, Tree, Vertex, VertexId, Worker};
use dhow_store::Lease;
use dhow_sys::beneath::{Owner, Root, Time};
use dhow_sys::overlay;
use dhow_sys::userns::IdMap;

use crate::cache::{Step, StepCache};
use crate::chmod::Chmod;
use crate::context::Context;
use crate::copy::{CopyOptions, Destination, is_dir, make_dirs, modified};
use crate::elsewhere::{Elsewhere, Sources};
use crate::error::{StepError, StoreFailure, while_doing};
use crate::event::Stream;
use crate::hash::{self, Counts};
use crate::log::{Logs, StepLog};
use crate::owner::{find_owner, has_names};
use crate::plan::{CopyFrom, CopyOp, CopySource, Layer, Op, Plan, RunOp, WorkdirOp};
use crate::provenance::Material;
use crate::remote::{Commit, Fetched, Remote};
use crate::run::{Aside, Bound, CacheMounts, Kept, RunSteps, run_facts};
use crate::run_options::RunOptions;
use crate::select::{Found, Selected};
use crate::unpack;

/// A root file system: layers, lowest first.
#[derive(Clone, Debug)]
pub(crate) struct Rootfs {
    pub layers: Vec<Layer>,
    /// What dependents are keyed by: the layers' content, not their times.
    pub content: Digest,
    /// When the latest layer was made.
    pub created: Option<String>,
}

impl Rootfs {
    /// Layers of an image are known by their diff ids alone.
    pub(crate) fn base(step: Step) -> Rootfs {
        let diff_ids: Vec<DiffId> = step.layers.iter().map(|layer| layer.diff_id).collect();
        let content = chain_ids(&diff_ids).last().map_or_else(|| Digest::sha256_of(b""), |id| id.digest());
        Rootfs { layers: step.layers, content, created: step.created }
    }

    fn with(&self, step: Step) -> Rootfs {
        let mut rootfs = self.clone();
        for layer in step.layers {
            let mut digester = Digester::sha256();
            digester.update(rootfs.content.as_bytes());
            digester.update(layer.content.as_bytes());
            rootfs.content = digester.finish();
            rootfs.layers.push(layer);
        }
        rootfs.created = step.created.or(rootfs.created);
        rootfs
    }

    /// Whether all of it can be looked into.
    pub(crate) fn is_here(&self) -> bool {
        self.layers.iter().all(Layer::is_here)
    }
}

/// The snapshots of layers that are here, topmost first.
pub(crate) fn parents(layers: &[Layer]) -> Result<Vec<SnapshotName>, StoreFailure> {
    let parse = |layer: &Layer| {
        let name = layer.snapshot.as_deref().unwrap_or_default();
        name.parse().map_err(while_doing("a layer is recorded wrongly"))
    };
    layers.iter().rev().map(parse).collect()
}

/// Does the work of one build.
pub(crate) struct Executor<'a> {
    pub images: &'a Images,
    pub cache: &'a StepCache<'a>,
    pub context: &'a Context,
    /// Folders that were given a name.
    pub named: &'a BTreeMap<String, Context>,
    pub remote: Remote<'a>,
    /// What came by HTTP.
    pub fetched: Mutex<HashMap<VertexId, Fetched>>,
    /// What references of repositories were found to mean.
    pub commits: Mutex<HashMap<VertexId, Commit>>,
    pub runs: RunSteps<'a>,
    pub lease: &'a Lease,
    /// What programs print.
    pub logs: &'a Logs<'a>,
    pub clock: fn() -> jiff::Timestamp,
    /// Tells the active snapshots of this build from those of others.
    pub name: String,
    pub counter: AtomicUsize,
    /// What each `COPY` found when its facts were asked for; its copy uses the same.
    pub selections: Mutex<HashMap<VertexId, Vec<Found>>>,
    /// What each mount of a `RUN` found.
    pub bounds: Mutex<HashMap<VertexId, Vec<Option<Bound>>>>,
    /// Files of the build context that are mounted, by their content.
    pub context_copies: Mutex<HashMap<Digest, Arc<Aside<'a>>>>,
    pub caches: CacheMounts<'a>,
    pub options: &'a RunOptions,
    /// What stays of a step that failed.
    pub kept: Mutex<Option<Kept<'a>>>,
    pub finished: &'a (dyn Fn(VertexId, &Rootfs, Option<StepLog>) + Sync),
    pub elsewhere: &'a Elsewhere<'a>,
}

impl Executor<'_> {
    /// What the vertices looked at so far got from elsewhere.
    pub(crate) fn materials(&self, plan: &Plan) -> HashMap<VertexId, Material> {
        let fetched = self.fetched.lock().expect("no thread panics while it holds the lock");
        let commits = self.commits.lock().expect("no thread panics while it holds the lock");
        let of = |id: VertexId| match &plan.graph.vertex(id).op {
            Op::Base { source, .. } => source.clone(),
            Op::Fetch(source) => fetched.get(&id).map(|it| Material::file(source.shown(), &it.digest)),
            Op::CheckOut(source) => commits.get(&id).map(|it| Material::commit(source.to_string(), &it.id)),
            Op::All | Op::Run(_) | Op::Copy(_) | Op::Workdir(_) => None,
        };
        plan.graph.needed(plan.vertex).into_iter().filter_map(|id| Some((id, of(id)?))).collect()
    }
}

impl Worker for Executor<'_> {
    type Op = Op;
    type Step = Step;
    type Output = Rootfs;
    type Error = StepError;

    fn facts(&self, id: VertexId, vertex: &Vertex<Op>, inputs: &[Rootfs]) -> Result<Facts, StepError> {
        let mut facts = Facts::new();
        match &vertex.op {
            Op::Base { .. } => self.base_facts(&vertex.site.instruction, &mut facts)?,
            Op::All => {}
            Op::Run(run) => {
                run_facts(run, &mut facts);
                self.mount_facts(id, run, inputs, &mut facts)?;
            }
            // Bypassed: what comes is asked for each time, and counts where it is copied.
            Op::Fetch(_) => {}
            Op::CheckOut(git) => return self.check_out_facts(id, git),
            Op::Workdir(workdir) => {
                facts.text(FactKind::Instruction, "", format!("WORKDIR {}", workdir.path));
                facts.text(FactKind::Option, "user", workdir.user.as_str());
            }
            Op::Copy(copy) => self.copy_facts(id, copy, vertex, inputs, &mut facts)?,
        }
        let is_linked = matches!(&vertex.op, Op::Copy(CopyOp { link: true, .. }));
        if let Some(below) = inputs.first().filter(|_| !is_linked) {
            facts.content(FactKind::Input, "", below.content);
        }
        self.note_elsewhere(id, vertex, &facts);
        Ok(facts)
    }

    fn elsewhere(
        &self,
        id: VertexId,
        inputs: &[Rootfs],
        facts: Option<&Facts>,
    ) -> Result<Option<Step>, StepError> {
        Ok(match facts {
            None => self.elsewhere.find_unseen(id, inputs)?,
            Some(_) => self.elsewhere.find(id, inputs)?,
        })
    }

    fn run(&self, id: VertexId, vertex: &Vertex<Op>, inputs: &[Rootfs]) -> Result<Step, StepError> {
        match &vertex.op {
            Op::Base { layers, created, source: _ } => {
                Ok(Step { layers: layers.clone(), created: created.clone(), log: None, is_whole: true })
            }
            Op::All => Ok(Step { layers: Vec::new(), created: None, log: None, is_whole: false }),
            Op::Run(run) => self.run_program(id, run, inputs),
            Op::Workdir(workdir) => self.make_workdir(id, workdir, &inputs[0]),
            Op::Fetch(source) => self.fetch(id, source),
            Op::CheckOut(source) => self.check_out(id, source),
            Op::Copy(copy) => self.copy_files(id, copy, inputs),
        }
    }

    fn join(&self, id: VertexId, vertex: &Vertex<Op>, inputs: &[Rootfs], step: Step) -> Rootfs {
        let log = step.log;
        let rootfs = match &vertex.op {
            _ if step.is_whole => Rootfs::base(step),
            Op::Base { .. } | Op::Fetch(_) | Op::CheckOut(_) => Rootfs::base(step),
            _ => inputs[0].with(step),
        };
        self.selections().remove(&id);
        self.bounds.lock().expect("no thread panics while it holds the lock").remove(&id);
        (self.finished)(id, &rootfs, log);
        rootfs
    }

    fn give_up(&self) {
        self.runs.stop.now();
    }
}

/// The facts of a `COPY` that are not files.
fn copy_option_facts(copy: &CopyOp, facts: &mut Facts) {
    facts.text(FactKind::Instruction, "", format!("copy to {}", copy.dest));
    facts.text(FactKind::Option, "--chown", copy.chown.as_deref().unwrap_or_default());
    facts.text(FactKind::Option, "--chmod", copy.chmod.as_ref().map(Chmod::to_string).unwrap_or_default());
    facts.text(FactKind::Option, "--link", if copy.link { "true" } else { "" });
    let unpack = match (copy.unpack, copy.unpack_fetched) {
        (_, true) => "all",
        (true, false) => "true",
        (false, false) => "",
    };
    facts.text(FactKind::Option, "unpack", unpack);
    if copy.sources.len() > 1 {
        // What comes later meets what is there: their order counts.
        let name = |source: &CopySource| match source {
            CopySource::Path(path) => {
                Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            CopySource::Input(_) => "//".to_owned(),
        };
        let names: Vec<String> = copy.sources.iter().map(name).collect();
        facts.text(FactKind::Option, "sources", names.join(" "));
    }
    for (name, content) in &copy.inline {
        facts.content(FactKind::Option, format!("<<{name}"), Digest::sha256_of(content.as_bytes()));
    }
}

impl Executor<'_> {
    /// What the name of a base means, to tell when it means something else. Nothing is keyed by it: steps
    /// depend on the layers.
    fn base_facts(&self, instruction: &str, facts: &mut Facts) -> Result<(), StepError> {
        let name = instruction.strip_prefix("FROM ").unwrap_or(instruction);
        facts.text(FactKind::Instruction, "", instruction);
        let Ok(reference) = name.parse::<Reference>() else { return Ok(()) };
        let image = self.images.by_reference(&reference.or_latest());
        if let Some(image) = image.map_err(while_doing("cannot look at the base image"))? {
            let digest = image.record.target.map_or(image.record.id, |target| target.digest);
            facts.text(FactKind::Base, name, format!("{}:{}", digest.algorithm().name(), digest.short()));
        }
        Ok(())
    }

    /// Tells what a vertex is to the caches elsewhere, which name it in their own way.
    fn note_elsewhere(&self, id: VertexId, vertex: &Vertex<Op>, facts: &Facts) {
        if !self.elsewhere.is_active() {
            return;
        }
        // Taken out, as reading the files may take long and others want theirs.
        let selection = self.selections().remove(&id);
        let sources = match (&vertex.op, &selection) {
            (Op::Copy(copy), Some(found)) if copy.is_plain() => {
                copy.paths().map(|patterns| Sources { is_context: !copy.keeps_owner(), patterns, found })
            }
            _ => None,
        };
        self.elsewhere.note(id, facts, sources.as_ref());
        self.selections().extend(selection.map(|selection| (id, selection)));
    }

    /// The snapshots of a file system, topmost first. Layers that are elsewhere are fetched.
    pub(crate) fn parents(&self, rootfs: &Rootfs) -> Result<Vec<SnapshotName>, StepError> {
        Ok(parents(&self.elsewhere.bring(&rootfs.layers)?)?)
    }

    fn copy_facts(
        &self,
        id: VertexId,
        copy: &CopyOp,
        vertex: &Vertex<Op>,
        inputs: &[Rootfs],
        facts: &mut Facts,
    ) -> Result<(), StepError> {
        copy_option_facts(copy, facts);
        // A source that is a directory gives its contents, a file goes under its name: both are told by the
        // names in the list.
        let found = self.select(copy, vertex, inputs, facts)?;
        let tree = self.hash(copy, &found)?;
        self.selections().insert(id, found);
        facts.content(FactKind::Files, "files", self.cache.note_tree(&tree));
        Ok(())
    }

    fn selections(&self) -> MutexGuard<'_, HashMap<VertexId, Vec<Found>>> {
        self.selections.lock().expect("no thread panics while it holds the lock")
    }

    fn hash(&self, copy: &CopyOp, found: &[Found]) -> Result<Tree, StepError> {
        let counts = Counts { owner: copy.keeps_owner() && copy.chown.is_none(), chmod: copy.chmod.as_ref() };
        let tree = hash::tree_of(self.images.store(), found, &counts, self.now_ns());
        tree.map_err(|error| error.into_step(copy.instruction()))
    }

    /// The time, in nanoseconds since 1970.
    pub(crate) fn now_ns(&self) -> i64 {
        i64::try_from((self.clock)().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// The files of a root file system, to look at.
    pub(crate) fn view(&self, rootfs: &Rootfs) -> Result<Root, StepError> {
        let parents = self.parents(rootfs)?;
        let spec = self.images.snapshots().view(&parents).map_err(while_doing("cannot look into a stage"))?;
        Ok(look_at(&spec)?)
    }

    /// An active snapshot on top of `below` that is frozen into a step when `work` has filled it.
    fn step(
        &self,
        below: &[SnapshotName],
        work: impl FnOnce(&SnapshotKey, &MountSpec) -> Result<(), StepError>,
    ) -> Result<Step, StepError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let key: SnapshotKey =
            format!("{}-{number}", self.name).parse().map_err(while_doing("cannot name a snapshot"))?;
        let snapshots = self.images.snapshots();
        let prepared = snapshots.prepare(&key, below).map_err(while_doing("cannot prepare a snapshot"))?;
        let fill = || {
            let spec = snapshots.mount_spec(&key).map_err(while_doing("cannot mount a snapshot"))?;
            work(&key, &spec)?;
            Ok(self.images.freeze(&key, self.lease).map_err(while_doing("cannot freeze a step"))?)
        };
        let frozen = match fill() {
            Ok(frozen) => frozen,
            Err(error) => {
                let error: StepError = error;
                self.keep_or_remove(key, prepared);
                return Err(error);
            }
        };
        drop(prepared);
        let layer = frozen.map(|layer| Layer::of(&layer));
        let created = (self.clock)().round(jiff::Unit::Microsecond).unwrap_or_else(|_| (self.clock)());
        Ok(Step {
            layers: layer.into_iter().collect(),
            created: Some(created.to_string()),
            log: None,
            is_whole: false,
        })
    }

    fn run_program(&self, id: VertexId, run: &RunOp, inputs: &[Rootfs]) -> Result<Step, StepError> {
        let step = self.step(&self.parents(&inputs[0])?, |key, spec| {
            let scratch = self.runs.scratch(key)?;
            let ready = self.mounts(id, run, inputs, scratch.path())?;
            let ended = self.runs.run(id, run, key, spec, &scratch, &ready);
            ended.inspect_err(|error| {
                if matches!(error, StepError::Exit { .. }) {
                    self.note_failure(id, key, &ready);
                }
            })
        })?;
        Ok(Step { log: self.logs.finish(id)?, ..step })
    }

    fn make_workdir(&self, id: VertexId, workdir: &WorkdirOp, below: &Rootfs) -> Result<Step, StepError> {
        self.step(&self.parents(below)?, |_, spec| {
            let root = mount(spec)?;
            let path = Path::new(&workdir.path);
            let looked = while_doing("cannot look at the directory");
            let real = crate::resolve::resolve(&root, path).map_err(looked)?;
            let failed = |source| StepError::Copy { instruction: "WORKDIR", source };
            if is_dir(&root, &real).map_err(failed)? {
                // Nobody asks whose it would be.
                return Ok(());
            }
            let owner = self.owner(id, &root, &workdir.user);
            make_dirs(&root, &real, 0o755, Some(owner), made_at(below)).map_err(failed)
        })
    }

    fn copy_files(&self, id: VertexId, copy: &CopyOp, inputs: &[Rootfs]) -> Result<Step, StepError> {
        let found = self.selections().remove(&id).expect("facts are asked for before a step runs");
        let below = if copy.link { Vec::new() } else { self.parents(&inputs[0])? };
        self.step(&below, |key, spec| {
            if copy.chown.as_deref().is_some_and(has_names) && below.is_empty() {
                let message = "--chown takes numbers here: an image of nothing has no tables of names";
                return Err(StepError::Invalid(message.to_owned()));
            }
            let root = match &spec.upper {
                // With nothing below there is nothing to stack, and blocks can be shared with the source.
                Some(upper) if copy.link => {
                    Root::open(upper).map_err(while_doing("cannot open a snapshot"))?
                }
                _ => mount(spec)?,
            };
            let owner = match &copy.chown {
                Some(text) => Some(self.owner(id, &root, text)),
                None if copy.keeps_owner() => None,
                None => Some(Owner { uid: 0, gid: 0 }),
            };
            let options = CopyOptions {
                owner,
                chmod: copy.chmod.clone(),
                made_at: if copy.link { newest(&found) } else { made_at(&inputs[0]) },
                replace: false,
            };
            let failed = |source| StepError::Copy { instruction: copy.instruction(), source };
            for Found { root: from, selected: source, unpack, source: _ } in &found {
                if *unpack && !source.is_dir() && unpack::is_archive(from, source)? {
                    self.unpack(key, from, source, &root, copy, &options)?;
                    continue;
                }
                // Looked for each time: the one before may have made it.
                let destination = Destination::find(&root, &copy.dest).map_err(failed)?;
                destination.copy(from, source, &options).map_err(failed)?;
            }
            let destination = Destination::find(&root, &copy.dest).map_err(failed)?;
            for (name, content) in &copy.inline {
                destination.write(name, content, &options).map_err(failed)?;
            }
            Ok(())
        })
    }

    /// Whom `user[:group]` makes the owner. Where there is but one id, everything belongs to root.
    fn owner(&self, id: VertexId, root: &Root, text: &str) -> Owner {
        let found = find_owner(root, text);
        if let Some(unknown) = found.unknown {
            let said = format!("warning: {unknown}; files go to root instead\n");
            (self.runs.output)(id, Stream::Stderr, said.as_bytes());
        }
        let has_one_id = self.images.user_namespace().is_some_and(IdMap::has_one_id);
        if has_one_id { Owner { uid: 0, gid: 0 } } else { found.owner }
    }

    /// Unpacks an archive aside, then copies what came out of it.
    fn unpack(
        &self,
        key: &SnapshotKey,
        from: &Root,
        archive: &Selected,
        root: &Root,
        copy: &CopyOp,
        options: &CopyOptions,
    ) -> Result<(), StepError> {
        let snapshots = self.images.snapshots();
        let aside: SnapshotKey =
            format!("{key}-archive").parse().map_err(while_doing("cannot name a snapshot"))?;
        let prepared = snapshots.prepare_layer(&aside).map_err(while_doing("cannot prepare a snapshot"))?;
        let options = CopyOptions {
            owner: copy.chown.as_ref().and(options.owner),
            // What comes out of an archive has the modes that are in it.
            chmod: None,
            replace: true,
            ..options.clone()
        };
        let result = unpack::unpack(
            from,
            archive,
            prepared.path(),
            self.images.apply_options(),
            root,
            &copy.dest,
            &options,
        );
        // A folder that cannot be removed now is removed by gc.
        let _ = snapshots.remove(&aside);
        result
    }
}

/// The time that directories made on the way get: that of the image below, so that equal inputs give equal
/// layers whenever they are built.
fn made_at(below: &Rootfs) -> Time {
    let created = below.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Time { seconds: created.map_or(0, |time| time.as_second()), nanoseconds: 0 }
}

/// The time that directories made on the way get where nothing below counts.
fn newest(found: &[Found]) -> Time {
    let entries = found.iter().flat_map(|found| &found.selected.entries);
    entries.map(|entry| modified(&entry.stat)).max().unwrap_or_default()
}

pub(crate) fn exclusions(copy: &CopyOp) -> Result<IgnoreRules, StepError> {
    let patterns = copy.excludes.iter().map(String::as_str);
    IgnoreRules::from_patterns(patterns).map_err(|error| StepError::Invalid(format!("--exclude: {error}")))
}

impl CopyOp {
    /// Whether files keep their owners: those of stages and images do, those of contexts belong to root.
    fn keeps_owner(&self) -> bool {
        matches!(self.from, CopyFrom::Stage(_))
    }

    /// The sources, if all of them are paths.
    pub(crate) fn paths(&self) -> Option<Vec<&str>> {
        let paths = self.sources.iter().map(|source| match source {
            CopySource::Path(path) => Some(path.as_str()),
            CopySource::Input(_) => None,
        });
        paths.collect()
    }

    /// Whether it copies what its sources name, no more and no less.
    pub(crate) fn is_plain(&self) -> bool {
        !self.parents
            && self.excludes.is_empty()
            && self.inline.is_empty()
            && !self.sources.is_empty()
            && self.paths().is_some()
    }

    pub(crate) fn instruction(&self) -> &'static str {
        if self.is_add { "ADD" } else { "COPY" }
    }
}

/// The tree of a stack that is only looked at. With no layers there is an empty folder and nothing to stack.
pub(crate) fn look_at(spec: &MountSpec) -> Result<Root, StoreFailure> {
    match spec.lowers.as_slice() {
        [empty] => Root::open(empty).map_err(while_doing("cannot open an empty folder")),
        _ => mount(spec),
    }
}

/// The tree that a mount shows. It is in no directory of the host and gone with the value.
pub(crate) fn mount(spec: &MountSpec) -> Result<Root, StoreFailure> {
    let mounted = spec.mount(overlay::Options::default()).map_err(while_doing("cannot mount a snapshot"))?;
    Ok(Root::from_fd(mounted.into()))
}
