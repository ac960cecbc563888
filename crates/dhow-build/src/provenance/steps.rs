//! The steps of a build in the JSON of BuildKit's LLB, and where they stand in the Dockerfile.

use std::collections::{BTreeMap, HashMap};

use dhow_oci::{Descriptor, Platform};
use dhow_solver::VertexId;
use serde_json::{Map, Value, json};

use super::Material;
use crate::execute::Rootfs;
use crate::facts::is_secret;
use crate::plan::{CopyFrom, CopyOp, CopySource, Op, Plan, RunOp};
use crate::request::StepNetwork;

/// Which input is none.
const NO_INPUT: i64 = -1;
/// A time or mode that is not set.
const UNSET: i64 = -1;

/// The steps that came to a stack of layers that the image has, with how many it has of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepLayers(Vec<(String, usize)>);

impl StepLayers {
    /// The layers of each step, in the form they have in the image.
    pub(super) fn described(&self, layers: &[Descriptor]) -> Option<Value> {
        let of = |(step, count): &(String, usize)| {
            let stack = layers.get(..*count)?;
            let stack = stack.iter().map(
                |layer| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }),
            );
            Some((format!("{step}:0"), json!([stack.collect::<Vec<_>>()])))
        };
        let told: Map<String, Value> = self.0.iter().filter_map(of).collect();
        (!told.is_empty()).then_some(Value::Object(told))
    }
}

/// The steps that lead to one vertex.
pub(crate) struct Steps<'a> {
    pub plan: &'a Plan,
    pub target: VertexId,
    pub materials: &'a HashMap<VertexId, Material>,
    steps: Vec<Value>,
    names: BTreeMap<VertexId, String>,
    locals: BTreeMap<String, String>,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        target: VertexId,
        materials: &'a HashMap<VertexId, Material>,
    ) -> Steps<'a> {
        let (steps, names, locals) = Default::default();
        let mut all = Steps { plan, target, materials, steps, names, locals };
        for id in plan.graph.needed(target) {
            all.vertex(id);
        }
        // The last one does nothing: it is what the build was for.
        let inputs = all.names.get(&target).map(|name| format!("{name}:0"));
        let last = json!({ "Op": null });
        all.add(last, inputs.into_iter().collect());
        all
    }

    pub(crate) fn build_config(&self) -> Value {
        json!({ "llbDefinition": self.steps })
    }

    /// The Dockerfile, and the lines of each step.
    pub(crate) fn source(&self, name: &str, text: &str) -> Value {
        let mut locations = Map::new();
        for step in &self.plan.steps {
            let Some(name) = step.vertex.and_then(|vertex| self.names.get(&vertex)) else { continue };
            let line = |line: usize| json!({ "line": line });
            let range = json!({ "start": line(step.span.start_line), "end": line(step.span.end_line) });
            locations.entry(name.clone()).or_insert_with(|| json!({ "locations": [{ "ranges": [range] }] }));
        }
        let data = crate::elsewhere::base64(text.as_bytes());
        let info = json!({ "filename": name, "language": "Dockerfile", "data": data });
        json!({ "locations": locations, "infos": [info] })
    }

    pub(crate) fn layers(&self, rootfs: &HashMap<VertexId, Rootfs>) -> StepLayers {
        let Some(image) = rootfs.get(&self.target) else { return StepLayers::default() };
        let is_below = |own: &Rootfs| {
            own.layers.len() <= image.layers.len()
                && own.layers.iter().zip(&image.layers).all(|(own, held)| own.diff_id == held.diff_id)
        };
        let of = |(vertex, name): (&VertexId, &String)| {
            let own = rootfs.get(vertex).filter(|own| !own.layers.is_empty() && is_below(own))?;
            Some((name.clone(), own.layers.len()))
        };
        StepLayers(self.names.iter().filter_map(of).collect())
    }

    fn add(&mut self, op: Value, inputs: Vec<String>) -> String {
        let name = format!("step{}", self.steps.len());
        let mut step = Map::new();
        step.insert("id".to_owned(), name.clone().into());
        step.insert("op".to_owned(), op);
        if !inputs.is_empty() {
            step.insert("inputs".to_owned(), inputs.into());
        }
        self.steps.push(Value::Object(step));
        name
    }

    fn vertex(&mut self, id: VertexId) {
        let vertex = self.plan.graph.vertex(id);
        let inputs: Vec<Option<String>> =
            vertex.inputs.iter().map(|input| self.names.get(input).map(|name| format!("{name}:0"))).collect();
        let platform = self.plan.steps.iter().find(|step| step.vertex == Some(id));
        let platform = platform.map_or_else(Platform::host, |step| step.config.platform());
        let (op, inputs) = match &vertex.op {
            Op::All => return,
            // BuildKit has no step for nothing.
            Op::Base { layers, .. } if layers.is_empty() => return,
            Op::Base { .. } | Op::Fetch(_) | Op::CheckOut(_) => {
                let from =
                    self.materials.get(&id).map_or(vertex.site.position.as_str(), |it| it.uri.as_str());
                (json!({ "source": { "identifier": from } }), Vec::new())
            }
            Op::Run(run) => (exec(run, &inputs), inputs.into_iter().flatten().collect()),
            Op::Workdir(workdir) => {
                let mkdir =
                    json!({ "path": workdir.path, "mode": 0o755, "makeParents": true, "timestamp": UNSET });
                let input = if inputs.iter().flatten().next().is_some() { 0 } else { NO_INPUT };
                let inputs: Vec<String> = inputs.into_iter().flatten().collect();
                (file(&[(input, NO_INPUT, json!({ "mkdir": mkdir }))], inputs.len()), inputs)
            }
            Op::Copy(copy) => self.copy(copy, &inputs),
        };
        let op = json!({ "Op": op, "platform": described(&platform), "constraints": {} });
        let name = self.add(op, inputs);
        self.names.insert(id, name);
    }

    fn local(&mut self, name: &str) -> String {
        if let Some(step) = self.locals.get(name) {
            return format!("{step}:0");
        }
        let op =
            json!({ "Op": { "source": { "identifier": format!("local://{name}") } }, "constraints": {} });
        let step = self.add(op, Vec::new());
        self.locals.insert(name.to_owned(), step.clone());
        format!("{step}:0")
    }

    fn copy(&mut self, copy: &CopyOp, inputs: &[Option<String>]) -> (Value, Vec<String>) {
        let mut used: Vec<String> = Vec::new();
        let mut place = |input: Option<String>| match input {
            Some(input) => {
                let at = used.iter().position(|held| *held == input).unwrap_or(used.len());
                if at == used.len() {
                    used.push(input);
                }
                at as i64
            }
            None => NO_INPUT,
        };
        let base = place(inputs.first().cloned().flatten().filter(|_| !copy.link));
        let tree = match &copy.from {
            CopyFrom::Context => None,
            CopyFrom::Named(name) => Some(self.local(name)),
            CopyFrom::Stage(_) => inputs.get(1).cloned().flatten(),
        };
        let mut actions = Vec::new();
        for source in &copy.sources {
            let (from, path) = match source {
                CopySource::Path(path) if copy.from == CopyFrom::Context => {
                    (Some(self.local("context")), path.as_str())
                }
                CopySource::Path(path) => (tree.clone(), path.as_str()),
                CopySource::Input(at) => (inputs.get(*at).cloned().flatten(), "/"),
            };
            let mut told = Map::new();
            told.insert("src".to_owned(), absolute(path).into());
            told.insert("dest".to_owned(), copy.buildkit_dest.clone().into());
            told.insert("mode".to_owned(), UNSET.into());
            told.insert("followSymlink".to_owned(), true.into());
            told.insert("dirCopyContents".to_owned(), true.into());
            told.insert("createDestPath".to_owned(), true.into());
            told.insert("allowWildcard".to_owned(), true.into());
            told.insert("allowEmptyWildcard".to_owned(), true.into());
            told.insert("timestamp".to_owned(), UNSET.into());
            if copy.unpack {
                told.insert("attemptUnpackDockerCompatibility".to_owned(), true.into());
            }
            told.extend(copy.chown.clone().map(|owner| ("owner".to_owned(), owner.into())));
            told.extend(copy.chmod.as_ref().map(|mode| ("modeStr".to_owned(), mode.to_string().into())));
            if !copy.excludes.is_empty() {
                told.insert("excludePatterns".to_owned(), copy.excludes.clone().into());
            }
            actions.push((base, place(from), json!({ "copy": told })));
        }
        for (name, content) in &copy.inline {
            let path = format!("{}{name}", copy.dest);
            let data = crate::elsewhere::base64(content.as_bytes());
            let made = json!({ "path": path, "mode": 0o644, "data": data, "timestamp": UNSET });
            actions.push((base, NO_INPUT, json!({ "mkfile": made })));
        }
        (file(&actions, used.len()), used)
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn described(platform: &Platform) -> Value {
    let mut told = json!({ "Architecture": platform.architecture, "OS": platform.os });
    if let Some(variant) = &platform.variant {
        told["Variant"] = variant.clone().into();
    }
    told
}

fn exec(run: &RunOp, inputs: &[Option<String>]) -> Value {
    // Values that may be secret are known to nobody who reads an image.
    let told = run.env.iter().filter(|var| !(var.is_arg && is_secret(&var.name)));
    let env: Vec<String> = told.map(|var| format!("{}={}", var.name, var.value)).collect();
    let mut meta = json!({ "args": run.args, "env": env, "cwd": run.cwd });
    if !run.user.is_empty() {
        meta["user"] = run.user.clone().into();
    }
    let root = if inputs.first().is_some_and(Option::is_some) { 0 } else { NO_INPUT };
    let mut mounts = vec![json!({ "input": root, "dest": "/", "output": 0 })];
    mounts.extend(run.mounts.iter().map(|mount| json!({ "dest": mount.target, "comment": mount.fact() })));
    let mut exec = json!({ "meta": meta, "mounts": mounts });
    // As the protocol buffer numbers them.
    let network = match run.network {
        StepNetwork::Default => None,
        StepNetwork::Host => Some(1),
        StepNetwork::None => Some(2),
    };
    if let Some(network) = network {
        exec["network"] = network.into();
    }
    json!({ "exec": exec })
}

/// Each action with the places of the file system it changes and of that it reads. Those after the first change
/// what the one before made, which is counted after the inputs.
fn file(actions: &[(i64, i64, Value)], inputs: usize) -> Value {
    let last = actions.len().saturating_sub(1);
    let told = actions.iter().enumerate().map(|(at, (base, from, action))| {
        let base = if at == 0 { *base } else { (inputs + at - 1) as i64 };
        let output = if at == last { 0 } else { NO_INPUT };
        json!({ "input": base, "secondaryInput": from, "output": output, "Action": action })
    });
    json!({ "file": { "actions": told.collect::<Vec<_>>() } })
}
