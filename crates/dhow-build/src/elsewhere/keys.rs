//! Which of BuildKit's operations a vertex is, and so which records mean it.

use dhow_oci::{Digest, Platform, chain_ids};
use dhow_solver::{Facts, Graph, Vertex, VertexId};

use super::llb::{self, DIALECTS, Dialect};
use crate::plan::{CopyFrom, CopyOp, EnvVar, HOSTNAME, Op, RunOp, Sandbox, WorkdirOp};

/// How BuildKit names a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Operations in order; the last one is the vertex's.
    pub operations: Vec<Operation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// The different ways in which it has been written.
    pub ways: Vec<Way>,
}

/// An operation as it is written in a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The digest of the records that mean its output.
    pub record: Digest,
    pub inputs: Vec<KeyInput>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyInput {
    pub from: From,
    /// Which of its paths count, as the record's digest of them.
    pub selector: Option<Digest>,
    /// Records that mean the content of these paths; none if it is not known.
    pub content: Vec<Digest>,
}

/// What an operation reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Vertex(VertexId),
    /// An earlier operation of the same key.
    Operation(usize),
    /// Files that have no record of their own: only their content can be known.
    Files,
}

/// Makes keys for one graph.
pub(super) struct Keys<'a> {
    pub graph: &'a Graph<Op>,
    /// What the stage of a vertex is built for.
    pub platform: &'a dyn Fn(VertexId) -> Platform,
}

impl Operation {
    fn new(write: impl Fn(Dialect) -> (Digest, Vec<KeyInput>)) -> Operation {
        let mut ways: Vec<Way> = Vec::with_capacity(DIALECTS.len());
        for dialect in DIALECTS {
            let (digest, inputs) = write(dialect);
            let way = Way { record: llb::output(&digest, 0), inputs };
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        Operation { ways }
    }
}

impl KeyInput {
    fn whole(vertex: VertexId) -> KeyInput {
        KeyInput { from: From::Vertex(vertex), selector: None, content: Vec::new() }
    }
}

impl Keys<'_> {
    /// The key of a vertex; `content` is the hash of what a `COPY` reads, if it was taken. `facts` are all the
    /// vertex depends on, if they are known: a step that BuildKit has no word for is named by them.
    ///
    /// An empty file system has no key: operations upon it are written without that input.
    pub(super) fn key(&self, id: VertexId, content: &[Digest], facts: Option<&Facts>) -> Option<Key> {
        let vertex = self.graph.vertex(id);
        let content = content.iter().map(llb::content_output).collect();
        // Every field is named here, so that a new one is not forgotten in the key.
        let operations = match &vertex.op {
            Op::All => return None,
            Op::Base { layers, created: _, source: _ } => {
                let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
                let chain = *chain_ids(&diff_ids).last()?;
                vec![Operation::new(|_| (llb::image(&chain), Vec::new()))]
            }
            Op::Run(run) => match self.run(id, vertex, run) {
                Some(operation) => vec![operation],
                None => vec![self.private(vertex, false, facts?)],
            },
            Op::Workdir(WorkdirOp { path, user }) => {
                let below = self.below(vertex);
                let base = below.is_some().then_some(0);
                let inputs = || below.map(KeyInput::whole).into_iter().collect();
                vec![Operation::new(|dialect| (llb::workdir(path, user, base, dialect), inputs()))]
            }
            Op::Fetch(_) => return None,
            Op::CheckOut(_) => vec![self.private(vertex, true, facts?)],
            Op::Copy(copy) => match self.copy(vertex, copy, content) {
                Some(operations) => operations,
                None => vec![self.private(vertex, copy.link, facts?)],
            },
        };
        Some(Key { operations })
    }

    /// What a vertex stands on, if it is not empty.
    fn below(&self, vertex: &Vertex<Op>) -> Option<VertexId> {
        vertex.inputs.first().copied().filter(|id| !self.is_empty(*id))
    }

    fn is_empty(&self, id: VertexId) -> bool {
        matches!(&self.graph.vertex(id).op, Op::Base { layers, .. } if layers.is_empty())
    }

    /// `None` if there is more to it than a program and what it sees.
    fn run(&self, id: VertexId, vertex: &Vertex<Op>, run: &RunOp) -> Option<Operation> {
        // The platform of the stage says what `foreign` does.
        let RunOp { args, script, env, proxies: _, cwd, user, network, foreign: _, mounts, sandbox } = run;
        let Sandbox { hostname, is_insecure, hosts, rlimits, shm_bytes, cgroup_parent, resources: _ } =
            sandbox;
        let is_plain = script.is_none() && mounts.is_empty() && hostname == HOSTNAME && !is_insecure;
        if !(is_plain
            && hosts.is_empty()
            && rlimits.is_empty()
            && shm_bytes.is_none()
            && cgroup_parent.is_empty())
        {
            return None;
        }
        let pair = |EnvVar { name, value, is_arg: _ }: &EnvVar| format!("{name}={value}");
        let platform = normal((self.platform)(id));
        let exec = llb::Exec {
            args,
            env: env.iter().map(pair).collect(),
            cwd,
            user,
            network: *network,
            platform: &platform,
        };
        let below = self.below(vertex);
        Some(Operation::new(|dialect| {
            let root = |below| KeyInput { selector: llb::exec_selector(dialect), ..KeyInput::whole(below) };
            (llb::exec(&exec, dialect), below.map(root).into_iter().collect())
        }))
    }

    /// `None` if BuildKit does it with operations that are not written down here.
    fn copy(&self, vertex: &Vertex<Op>, copy: &CopyOp, content: Vec<Digest>) -> Option<Vec<Operation>> {
        let CopyOp {
            from,
            sources: _,
            inline: _,
            dest: _,
            buildkit_dest,
            chown,
            chmod,
            excludes: _,
            parents: _,
            is_add: _,
            unpack,
            unpack_fetched: _,
            link,
        } = copy;
        // The others are hashed in ways of their own.
        let sources = copy.paths().filter(|_| copy.is_plain())?;
        let below = self.below(vertex).filter(|_| !link);
        let source = match from {
            CopyFrom::Context | CopyFrom::Named(_) => Some(From::Files),
            CopyFrom::Stage(_) => {
                vertex.inputs.get(1).filter(|id| !self.is_empty(**id)).map(|id| From::Vertex(*id))
            }
        };
        let paths: Vec<String> = sources.iter().map(|source| clean(source)).collect();
        let mut inputs: Vec<KeyInput> = below.map(KeyInput::whole).into_iter().collect();
        // One that is there already is not listed twice, and what is written to counts as a whole.
        let place = inputs.iter().position(|input| Some(input.from) == source);
        let place = place.or(source.map(|from| {
            inputs.push(KeyInput { from, selector: Some(llb::selector(&paths)), content });
            inputs.len() - 1
        }));
        let written = llb::Copy {
            sources: &paths,
            dest: buildkit_dest,
            chown: chown.as_deref(),
            chmod: chmod.as_ref(),
            unpack: *unpack,
            base: below.is_some().then_some(0),
            from: place.map(|place| place as i64),
            inputs: inputs.len() as i64,
        };
        let mut operations = vec![Operation::new(|dialect| (llb::copy(&written, dialect), inputs.clone()))];
        if *link && let Some(below) = self.below(vertex) {
            let linked = KeyInput { from: From::Operation(0), selector: None, content: Vec::new() };
            let inputs = vec![KeyInput::whole(below), linked];
            operations.push(Operation::new(|_| (llb::merge(), inputs.clone())));
        }
        Some(operations)
    }

    fn private(&self, vertex: &Vertex<Op>, is_linked: bool, facts: &Facts) -> Operation {
        let below = self.below(vertex).filter(|_| !is_linked);
        let digest = llb::private(&facts.without_inputs().key().digest());
        Operation::new(|_| (digest, below.map(KeyInput::whole).into_iter().collect()))
    }
}

/// A platform as BuildKit writes it: variants that every processor of the kind is are left out.
fn normal(platform: Platform) -> Platform {
    let variant = platform.variant.filter(|variant| {
        !matches!((platform.architecture.as_str(), variant.as_str()), ("arm64", "v8" | "8") | ("amd64", "v1"))
    });
    Platform { variant, ..platform }
}

/// A source as an absolute path without dots.
pub(super) fn clean(source: &str) -> String {
    crate::configure::join_path("/", source)
}

/// The destination as BuildKit joins it: like the path, but an end in `/` or `/.` is kept.
pub(crate) fn destination(working_dir: &str, dest: &str) -> String {
    let path = crate::configure::join_path(working_dir, dest);
    let end = match dest {
        "" | "." => "/",
        dest if dest.ends_with('/') => "/",
        dest if dest.ends_with("/.") => "/.",
        _ => "",
    };
    match (path.as_str(), end) {
        ("/", "/") => path,
        ("/", "/.") => "/.".to_owned(),
        _ => format!("{path}{end}"),
    }
}
