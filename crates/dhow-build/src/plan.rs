//! What a build will do: the graph, and what each instruction adds to the image.

use std::net::IpAddr;

use dhow_dockerfile::Span;
use dhow_oci::{DiffId, Digest, History, ImageConfig, Platform};
use dhow_runtime::{Resources, Rlimit};
use dhow_solver::{Graph, Vertex, VertexId};
use serde::{Deserialize, Serialize};

use crate::call::Outline;
use crate::chmod::Chmod;
use crate::event::StepInfo;
use crate::mount::RunMount;
use crate::provenance::Material;
use crate::remote::{GitSource, HttpSource};
use crate::request::StepNetwork;

/// A layer that is unpacked in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Its digest.
    pub diff_id: DiffId,
    /// Its digest without the times of its files: what dependents are keyed by.
    pub content: Digest,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// The snapshot that holds it; `None` while it is only known to be in a cache elsewhere.
    pub snapshot: Option<String>,
}

impl Layer {
    /// Whether it can be looked into.
    pub(crate) fn is_here(&self) -> bool {
        self.snapshot.is_some()
    }
}

impl Layer {
    /// A layer that was just made.
    pub(crate) fn of(frozen: &dhow_image::FrozenLayer) -> Layer {
        Layer {
            diff_id: frozen.diff_id,
            content: frozen.content,
            size_bytes: frozen.size_bytes,
            snapshot: Some(dhow_image::snapshot_name(&frozen.diff_id).to_string()),
        }
    }
}

/// An image to build upon.
#[derive(Clone, Debug)]
pub(crate) struct BaseImage {
    pub config: ImageConfig,
    pub layers: Vec<Layer>,
    /// Which image it is, if it came by a name.
    pub source: Option<Material>,
}

/// What a vertex does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Waits for the results of several platforms.
    All,
    /// Starts from an image, or from nothing.
    Base { layers: Vec<Layer>, created: Option<String>, source: Option<Material> },
    /// Runs a program.
    Run(Box<RunOp>),
    /// Copies files.
    Copy(CopyOp),
    /// Makes a directory.
    Workdir(WorkdirOp),
    /// Gets a file by HTTP.
    Fetch(HttpSource),
    /// Gets the files of a commit.
    CheckOut(GitSource),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunOp {
    pub args: Vec<String>,
    /// A script given in place that begins with `#!`.
    pub script: Option<ScriptFile>,
    /// Environment of the image, then declared build arguments.
    pub env: Vec<EnvVar>,
    /// Proxy settings: the program sees them, the cache does not.
    pub proxies: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub network: StepNetwork,
    /// What its programs are made for, if not for this machine.
    pub foreign: Option<Platform>,
    pub mounts: Vec<RunMount>,
    pub sandbox: Sandbox,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScriptFile {
    pub path: String,
    pub content: String,
}

/// What every build step is called inside, so that equal steps see equal names.
pub(crate) const HOSTNAME: &str = "buildkitsandbox";

/// What surrounds a program: what it is called, may do and use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub hostname: String,
    /// Keeps nothing of the host from it.
    pub is_insecure: bool,
    /// Names for `/etc/hosts`; without an address they are names of this host.
    pub hosts: Vec<(String, Option<IpAddr>)>,
    pub rlimits: Vec<Rlimit>,
    pub shm_bytes: Option<u64>,
    pub cgroup_parent: String,
    pub resources: Resources,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvVar {
    pub name: String,
    pub value: String,
    /// Whether it came from an `ARG`, which may be a secret.
    pub is_arg: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyOp {
    pub from: CopyFrom,
    pub sources: Vec<CopySource>,
    /// Files given in the Dockerfile: name and content.
    pub inline: Vec<(String, String)>,
    /// Absolute; ends in a slash if it must be a directory.
    pub dest: String,
    /// The same as BuildKit writes it in its keys.
    pub buildkit_dest: String,
    pub chown: Option<String>,
    pub chmod: Option<Chmod>,
    pub excludes: Vec<String>,
    /// Whether sources keep the directories they are in.
    pub parents: bool,
    /// Whether it is an `ADD`.
    pub is_add: bool,
    /// Whether local archives are unpacked.
    pub unpack: bool,
    /// Whether archives that come by HTTP are.
    pub unpack_fetched: bool,
    /// Whether the files go into a layer that does not depend on those below.
    pub link: bool,
}

/// One source of a `COPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopySource {
    /// A path or pattern as written, variables expanded.
    Path(String),
    /// What another vertex got: the input with this number.
    Input(usize),
}

/// Where a `COPY` reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyFrom {
    /// The build context.
    Context,
    /// The folder that was given this name.
    Named(String),
    /// The second input of the vertex; the text names it for people.
    Stage(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkdirOp {
    pub path: String,
    pub user: String,
}

/// One instruction of a stage.
#[derive(Clone, Debug)]
pub(crate) struct PlannedStep {
    pub info: StepInfo,
    pub span: Span,
    /// The vertex that does its work; those without only change the configuration.
    pub vertex: Option<VertexId>,
    /// The stage it belongs to.
    pub stage: usize,
    /// The configuration after it, without history and layers.
    pub config: ImageConfig,
    /// How many entries the history of its stage has after it.
    pub history_count: usize,
}

/// A stage that will be built.
#[derive(Clone, Debug)]
pub(crate) struct PlannedStage {
    /// The vertex of the image it starts from.
    pub base: VertexId,
    /// The vertex of its final file system.
    pub vertex: VertexId,
    /// Configuration at its end.
    pub config: ImageConfig,
    /// History at its end: entries of the base as they are, its own with the vertex they belong to.
    pub history: Vec<PlannedHistory>,
}

#[derive(Clone, Debug)]
pub(crate) struct PlannedHistory {
    pub entry: History,
    /// The vertex that decides about its layer and time; `None` for entries of the base image.
    pub vertex: Option<VertexId>,
    /// Whether it is of an instruction that never makes a layer.
    pub is_config: bool,
}

/// All that a build will do.
pub(crate) struct Plan {
    pub graph: Graph<Op>,
    pub steps: Vec<PlannedStep>,
    /// By number; those that are not needed are not there.
    pub stages: Vec<Option<PlannedStage>>,
    /// The stages to build, by number: one for each platform.
    pub targets: Vec<Target>,
    /// The vertex that needs all of them.
    pub vertex: VertexId,
    /// What the target can be told.
    pub outline: Outline,
}

/// A stage to build.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub stage: usize,
    /// What it is built for; `None` if nobody said.
    pub platform: Option<Platform>,
}

impl Plan {
    pub(crate) fn target(&self, target: &Target) -> &PlannedStage {
        self.stages[target.stage].as_ref().expect("a target is needed")
    }

    pub(crate) fn is_target(&self, stage: usize) -> bool {
        self.targets.iter().any(|target| target.stage == stage)
    }
}

/// Vertices that are added once, however many platforms need them.
#[derive(Default)]
pub(crate) struct Vertices {
    pub graph: Graph<Op>,
    ids: Vec<VertexId>,
    /// How many of them were added for earlier platforms. Those of one platform are kept apart: each is a
    /// step to be shown.
    shared: usize,
}

impl Vertices {
    /// From now on vertices are of another platform.
    pub(crate) fn next_platform(&mut self) {
        self.shared = self.ids.len();
    }

    pub(crate) fn add(&mut self, vertex: Vertex<Op>) -> VertexId {
        let is_same = |id: &&VertexId| {
            let held = self.graph.vertex(**id);
            held.site == vertex.site && held.inputs == vertex.inputs && held.op == vertex.op
        };
        if let Some(held) = self.ids[..self.shared].iter().find(is_same) {
            return *held;
        }
        let id = self.graph.add(vertex);
        self.ids.push(id);
        id
    }
}
