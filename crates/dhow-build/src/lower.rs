//! From a Dockerfile to a graph: which stages the target needs, and what each instruction means there.

mod base;
mod contexts;
mod files;
mod lint;
mod mounts;
mod outline;
mod remote;
mod run;
mod stages;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{
    ArgInstruction, CopyInstruction, Diagnostic, Dockerfile, Expanded, Instruction, InstructionKind, Span,
};
use dhow_image::Layout;
use dhow_oci::{History, Platform, Reference};
use dhow_solver::{CachePolicy, Graph, Site, Vertex, VertexId};

use crate::call::Outline;
use crate::configure;
use crate::error::{BuildError, StepError, StepFailure};
use crate::event::{StepId, StepInfo};
use crate::plan::{
    BaseImage, Layer, Op, Plan, PlannedHistory, PlannedStage, PlannedStep, Target, Vertices, WorkdirOp,
};
use crate::request::BuildRequest;
use crate::scope::{Arguments, Declared, Scope};

pub(crate) use contexts::NamedContext;

/// What BuildKit writes into the history of images, and tools look for.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A Dockerfile that was read and has no mistakes.
pub(crate) struct Source<'a> {
    /// Its name for people.
    pub name: &'a str,
    pub text: &'a str,
    pub dockerfile: &'a Dockerfile,
    /// Tells this Dockerfile from all others on this machine.
    pub identity: &'a str,
}

/// What lowering needs from the world.
pub(crate) trait World {
    /// An image to build upon, pulled if it is not here.
    fn base(&self, reference: &Reference, platform: &Platform) -> Result<BaseImage, StepError>;

    /// An image in a layout on this machine.
    fn layout(&self, layout: &Layout, platform: &Platform) -> Result<BaseImage, StepError>;

    /// Whether the build context has a file of this name.
    fn context_has(&self, name: &str) -> bool;

    /// The path that `source`, a source of COPY or ADD, stands for, if the ignore file leaves it out.
    fn left_out(&self, source: &str) -> Option<String>;

    /// Tells the user something about an instruction.
    fn warn(&self, span: Span, message: String, hint: Option<String>);

    /// Takes down what a rule has found.
    fn lint(&self, diagnostic: Diagnostic);

    /// Nothing will be built, so that it does not matter whether it could be.
    fn only_asks(&self) -> bool {
        false
    }
}

/// How much of a Dockerfile is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// What the target needs.
    Target,
    /// Every stage, if no target is named.
    Everything,
}

/// Makes the plan of a build. Each platform has stages of its own; vertices that come out equal are shared.
pub(crate) fn lower(
    source: &Source<'_>,
    request: &BuildRequest,
    reach: Reach,
    world: &dyn World,
) -> Result<Plan, BuildError> {
    let wanted: Vec<Option<&Platform>> = match &request.platforms[..] {
        [] => vec![None],
        platforms => platforms.iter().map(Some).collect(),
    };
    let mut world = Once { world, platform: 0, told: RefCell::default() };
    let mut vertices = Vertices::default();
    let (mut steps, mut stages, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    let mut outline = None;
    for (number, platform) in wanted.iter().enumerate() {
        world.platform = number;
        vertices.next_platform();
        let offset = stages.len();
        let (lowered, target) = lower_for(source, request, reach, &world, *platform, &mut vertices)?;
        // Platforms differ in values only.
        outline.get_or_insert(lowered.outline);
        let label = platform.filter(|_| wanted.len() > 1);
        steps.extend(in_order(lowered.steps).into_iter().map(|step| moved(step, offset, label)));
        stages.extend(lowered.stages.into_iter().map(|end| end.map(|end| end.planned)));
        targets.push(Target { stage: offset + target, platform: platform.cloned() });
    }
    for target in &targets {
        if let Some(end) = &mut stages[target.stage] {
            end.config.config.labels.extend(request.labels.clone());
        }
    }
    for (index, step) in steps.iter_mut().enumerate() {
        step.info.id = StepId(index);
    }
    let end = |target: &Target| stages[target.stage].as_ref().expect("a target is needed").vertex;
    let ends: Vec<VertexId> = targets.iter().map(end).collect();
    let vertex = if ends.len() == 1 { ends[0] } else { all(&mut vertices.graph, ends) };
    Ok(Plan { graph: vertices.graph, steps, stages, targets, vertex, outline: outline.unwrap_or_default() })
}

/// A vertex that is done when all of these are.
fn all(graph: &mut Graph<Op>, inputs: Vec<VertexId>) -> VertexId {
    let site = Site { position: "all platforms".to_owned(), instruction: String::new() };
    graph.add(Vertex { op: Op::All, inputs, site, cache: CachePolicy::Bypass })
}

/// A step where the stages before its own are those of other platforms too.
fn moved(step: PlannedStep, offset: usize, platform: Option<&Platform>) -> PlannedStep {
    let stage = match platform {
        Some(platform) => format!("{platform} {}", step.info.stage),
        None => step.info.stage.clone(),
    };
    PlannedStep { stage: step.stage + offset, info: StepInfo { stage, ..step.info }, ..step }
}

fn lower_for<'a>(
    source: &'a Source<'a>,
    request: &'a BuildRequest,
    reach: Reach,
    world: &'a dyn World,
    platform: Option<&Platform>,
    vertices: &'a mut Vertices,
) -> Result<(Lowered, usize), BuildError> {
    let host = Platform::host();
    let target_platform = platform.unwrap_or(&host).clone();
    let stage = request.target.as_deref();
    let arguments = Arguments::new(request.build_args.clone(), &host, &target_platform, stage);
    let mut lowering = Lowering {
        source,
        request,
        world,
        arguments,
        globals: BTreeMap::new(),
        known_args: BTreeMap::new(),
        froms: Vec::new(),
        outlines: BTreeMap::new(),
        platform: target_platform,
        vertices,
        steps: Vec::new(),
        stages: vec![None; source.dockerfile.stages.len()],
        open: Vec::new(),
        images: BTreeMap::new(),
        named: NamedContext::parse_all(&request.sources.named)?,
        context_ends: BTreeMap::new(),
    };
    (lowering.globals, lowering.known_args) = lowering.globals_with(|name| lowering.arguments.given(name))?;
    lowering.froms = lowering.froms()?;
    let target = lowering.target()?;
    lowering.check_sources()?;
    let everything = reach == Reach::Everything && request.target.is_none();
    let needed =
        if everything { (0..source.dockerfile.stages.len()).collect() } else { lowering.needed(target) };
    for index in needed {
        lowering.stage_end(index)?;
    }
    let unused = lowering.arguments.unused(&declared_names(source.dockerfile));
    if !unused.is_empty() {
        let message = format!("One or more build-args [{}] were not consumed", unused.join(" "));
        world.warn(source.dockerfile.stages[target].span, message, None);
    }
    let outline = lowering.outline(target);
    Ok((Lowered { steps: lowering.steps, stages: lowering.stages, outline }, target))
}

/// What came of the stages for one platform.
struct Lowered {
    steps: Vec<PlannedStep>,
    stages: Vec<Option<StageEnd>>,
    outline: Outline,
}

/// A world that does not tell again what it told for another platform, since each comes across the same mistakes.
struct Once<'a> {
    world: &'a dyn World,
    /// The number of the present platform.
    platform: usize,
    /// What was told, by line and message, and the number of the platform it was told for.
    told: RefCell<BTreeMap<(usize, String), usize>>,
}

impl Once<'_> {
    fn is_new(&self, span: Span, message: &str) -> bool {
        let mut told = self.told.borrow_mut();
        *told.entry((span.start_line, message.to_owned())).or_insert(self.platform) == self.platform
    }
}

impl World for Once<'_> {
    fn base(&self, reference: &Reference, platform: &Platform) -> Result<BaseImage, StepError> {
        self.world.base(reference, platform)
    }

    fn layout(&self, layout: &Layout, platform: &Platform) -> Result<BaseImage, StepError> {
        self.world.layout(layout, platform)
    }

    fn context_has(&self, name: &str) -> bool {
        self.world.context_has(name)
    }

    fn left_out(&self, source: &str) -> Option<String> {
        self.world.left_out(source)
    }

    fn warn(&self, span: Span, message: String, hint: Option<String>) {
        if self.is_new(span, &message) {
            self.world.warn(span, message, hint);
        }
    }

    fn lint(&self, diagnostic: Diagnostic) {
        if self.is_new(diagnostic.span, &diagnostic.message) {
            self.world.lint(diagnostic);
        }
    }

    fn only_asks(&self) -> bool {
        self.world.only_asks()
    }
}

/// Every name that an `ARG` of the file declares, in stages that are not needed too.
fn declared_names(dockerfile: &Dockerfile) -> BTreeSet<String> {
    let in_stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let args = in_stages.filter_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(arg) => Some(arg),
        _ => None,
    });
    let globals = dockerfile.global_args.iter().map(|instruction| &instruction.kind);
    globals.chain(args).flat_map(|arg| &arg.args).map(|arg| arg.name.clone()).collect()
}

/// Steps by stage as the file has them. They were planned in the order in which stages were found
/// to be needed.
fn in_order(mut steps: Vec<PlannedStep>) -> Vec<PlannedStep> {
    steps.sort_by_key(|step| step.stage);
    steps
}

/// Values of the global arguments, and all that can be said about them.
type Globals = (BTreeMap<String, String>, BTreeMap<String, outline::KnownArg>);

struct Lowering<'a> {
    source: &'a Source<'a>,
    request: &'a BuildRequest,
    world: &'a dyn World,
    arguments: Arguments,
    globals: BTreeMap<String, String>,
    /// The same with all that can be said about them.
    known_args: BTreeMap<String, outline::KnownArg>,
    /// What can be said about the stages looked at so far.
    outlines: BTreeMap<usize, outline::StageOutline>,
    /// What each `FROM` says, by number of the stage.
    froms: Vec<stages::From>,
    platform: Platform,
    vertices: &'a mut Vertices,
    steps: Vec<PlannedStep>,
    /// By number; those that nothing needed yet are not there.
    stages: Vec<Option<StageEnd>>,
    /// Those that are being lowered, each needed by the one before.
    open: Vec<usize>,
    /// Images that `COPY --from` names, by reference.
    images: BTreeMap<String, VertexId>,
    /// What stands in for stages and images, by name.
    named: BTreeMap<String, NamedContext>,
    context_ends: BTreeMap<String, StageEnd>,
}

#[derive(Clone)]
struct StageEnd {
    planned: PlannedStage,
    declared: Declared,
    /// Whether a `WORKDIR` of this file has set the working directory.
    workdir_set: bool,
}

/// An instruction as it stands in the Dockerfile.
struct Written<'a> {
    span: Span,
    text: &'a str,
    /// Its name as typed.
    keyword: &'a str,
    /// The comments above it.
    comments: &'a [String],
}

impl<'a> Written<'a> {
    fn new(instruction: &'a Instruction) -> Written<'a> {
        let Instruction { span, original, keyword, comments, .. } = instruction;
        Written { span: *span, text: original, keyword, comments }
    }
}

/// A stage while its instructions are being gone through.
struct Current {
    index: usize,
    /// How many instructions it has, `FROM` and triggers included.
    count: usize,
    done: usize,
    end: StageEnd,
    /// Whether `CMD` was set in this very stage.
    has_cmd: bool,
    seen: lint::Seen,
}

impl Lowering<'_> {
    fn fail(&self, span: Span, cause: StepError) -> BuildError {
        let failure =
            StepFailure { file: self.source.name.to_owned(), text: self.source.text.to_owned(), span, cause };
        BuildError::Step { failure: Box::new(failure) }
    }

    fn escape(&self) -> char {
        self.source.dockerfile.directives.escape
    }

    /// The `ARG`s before the first `FROM`, with the values that `given` knows. A default that is not needed
    /// may be malformed.
    fn globals_with<'v>(&self, given: impl Fn(&str) -> Option<&'v String>) -> Result<Globals, BuildError> {
        let (mut globals, mut known) = (BTreeMap::new(), BTreeMap::<String, outline::KnownArg>::new());
        for instruction in &self.source.dockerfile.global_args {
            for arg in &instruction.kind.args {
                let (value, mut deps) = match (given(&arg.name), &arg.default) {
                    (Some(given), _) => (Some(given.clone()), BTreeSet::new()),
                    (None, Some(default)) => {
                        let expanded = self.expand_with(&globals, default, instruction.span)?;
                        (Some(expanded.text), expanded.used)
                    }
                    (None, None) => (None, BTreeSet::new()),
                };
                if let Some(earlier) = known.get(&arg.name).filter(|_| deps.remove(&arg.name)) {
                    deps.extend(earlier.deps.iter().cloned());
                }
                let (description, span) = (arg.description.clone(), instruction.span);
                let entry =
                    outline::KnownArg { value: value.clone().unwrap_or_default(), description, deps, span };
                known.insert(arg.name.clone(), entry);
                globals.extend(value.map(|value| (arg.name.clone(), value)));
            }
        }
        Ok((globals, known))
    }

    fn expand_with(
        &self,
        globals: &BTreeMap<String, String>,
        word: &str,
        span: Span,
    ) -> Result<Expanded, BuildError> {
        let lookup = |name: &str| globals.get(name).or_else(|| self.arguments.automatic(name)).cloned();
        let expanded = dhow_dockerfile::expand(word, self.escape(), lookup);
        expanded.map_err(|error| self.fail(span, StepError::Invalid(error.to_string())))
    }

    fn expanded_global(&self, word: &str, span: Span) -> Result<Expanded, BuildError> {
        self.expand_with(&self.globals, word, span)
    }

    fn global(&self, name: &str) -> Option<&String> {
        self.globals.get(name).or_else(|| self.arguments.automatic(name))
    }

    /// The stage to build.
    fn target(&self) -> Result<usize, BuildError> {
        let stages = &self.source.dockerfile.stages;
        let Some(name) = &self.request.target else { return Ok(stages.len() - 1) };
        let by_number = || name.parse().ok().filter(|index| *index < stages.len());
        self.source.dockerfile.stage_index(name).or_else(by_number).ok_or_else(|| BuildError::Target {
            name: name.clone(),
            known: stages.iter().filter_map(|stage| stage.name.clone()).collect(),
        })
    }

    /// `target` and every stage that it builds on or copies from, as far as the file itself says: triggers of
    /// base images may copy from further ones.
    fn needed(&self, target: usize) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if !needed.insert(index) {
                continue;
            }
            let stage = &self.source.dockerfile.stages[index];
            if self.replacement(index).is_some() {
                continue;
            }
            open.extend(self.earlier_stage(&self.froms[index].base, index));
            for instruction in &stage.instructions {
                match &instruction.kind {
                    InstructionKind::Copy(CopyInstruction { from: Some(from), .. }) => {
                        open.extend(self.stage_for_copy(from));
                    }
                    InstructionKind::Run(run) => {
                        let sources = run.mounts.iter().filter_map(|mount| mount.from());
                        open.extend(sources.filter_map(|from| self.stage_for_copy(&from)));
                    }
                    _ => {}
                }
            }
        }
        needed
    }

    /// A stage, lowered now if it was not before. What it copies from may be below it, but not in a circle.
    fn stage_end(&mut self, index: usize) -> Result<StageEnd, BuildError> {
        if let Some(end) = &self.stages[index] {
            return Ok(end.clone());
        }
        if let Some(start) = self.open.iter().position(|open| *open == index) {
            return Err(self.circle(&self.open[start..], self.source.dockerfile.stages[index].span));
        }
        self.open.push(index);
        let end = self.stage(index)?;
        self.open.pop();
        self.stages[index] = Some(end.clone());
        Ok(end)
    }

    /// What a stage is called: by its name, or by its number.
    fn shown_name(&self, index: usize) -> String {
        self.source.dockerfile.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }

    /// The last stage before `index` that has this name.
    fn earlier_stage(&self, name: &str, index: usize) -> Option<usize> {
        let stages = &self.source.dockerfile.stages[..index];
        stages
            .iter()
            .rposition(|stage| stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name)))
    }

    /// The stage that `--from` means. Unlike that of a `FROM` it may come later.
    fn stage_for_copy(&self, from: &str) -> Option<usize> {
        let count = self.source.dockerfile.stages.len();
        let by_number = || from.parse().ok().filter(|number| *number < count);
        self.earlier_stage(from, count).or_else(by_number)
    }

    fn stage(&mut self, index: usize) -> Result<StageEnd, BuildError> {
        let stage = &self.source.dockerfile.stages[index];
        if let Some(name) = self.replacement(index) {
            return self.context_end(&name, stage.span);
        }
        let from = self.froms[index].clone();
        self.outline_from(index);
        let (end, triggers) = self.from(index, stage, &from)?;
        let count = 1 + triggers.len() + stage.instructions.len();
        let mut current = Current { index, count, done: 0, end, has_cmd: false, seen: lint::Seen::default() };
        let vertex = Some(current.end.planned.vertex);
        let name = stage.name.as_ref().map(|name| format!(" AS {name}")).unwrap_or_default();
        let text = format!("FROM {}{name}", from.base);
        let at =
            Written { span: stage.span, text: &text, keyword: &stage.keyword, comments: &stage.comments };
        self.step(&mut current, &at, vertex, None);
        for trigger in &triggers {
            let at = Written { span: stage.span, ..Written::new(trigger) };
            self.instruction(&mut current, &trigger.kind, &at)?;
        }
        for instruction in &stage.instructions {
            self.instruction(&mut current, &instruction.kind, &Written::new(instruction))?;
        }
        Ok(current.end)
    }

    /// The named context that stands in for a whole stage.
    fn replacement(&self, index: usize) -> Option<String> {
        self.named(self.source.dockerfile.stages[index].name.as_deref()?)
    }

    fn reference(&self, text: &str, span: Span) -> Result<Reference, BuildError> {
        let parsed: Result<Reference, _> = text.parse();
        let message = |error| StepError::Invalid(format!("failed to parse stage name {text:?}: {error}"));
        Ok(parsed.map_err(|error| self.fail(span, message(error)))?.or_latest())
    }

    fn base_vertex(&mut self, name: &str, layers: Vec<Layer>, created: Option<String>) -> VertexId {
        let site = Site { position: format!("image {name}"), instruction: format!("FROM {name}") };
        let op = Op::Base { layers, created };
        self.vertices.add(Vertex { op, inputs: Vec::new(), site, cache: CachePolicy::Bypass })
    }

    /// Adds a step to the plan and to the stage.
    fn step(
        &mut self,
        current: &mut Current,
        at: &Written<'_>,
        vertex: Option<VertexId>,
        history: Option<History>,
    ) {
        current.done += 1;
        let info = StepInfo {
            id: StepId(self.steps.len()),
            stage: self.shown_name(current.index),
            number: current.done,
            count: current.count,
            text: at.text.to_owned(),
            line: at.span.start_line,
        };
        if let Some(entry) = &history {
            let is_config = vertex.is_none();
            let vertex = Some(vertex.unwrap_or(current.end.planned.vertex));
            current.end.planned.history.push(PlannedHistory { entry: entry.clone(), vertex, is_config });
        }
        let config = current.end.planned.config.clone();
        let history_count = current.end.planned.history.len();
        self.steps.push(PlannedStep {
            info,
            span: at.span,
            vertex,
            stage: current.index,
            config,
            history_count,
        });
    }

    fn instruction(
        &mut self,
        current: &mut Current,
        kind: &InstructionKind,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        self.lint_instruction(current, kind, at);
        match kind {
            InstructionKind::Arg(arg) => self.arg(current, arg, at),
            InstructionKind::Run(run) => {
                self.outline_mounts(current, run, at);
                self.run(current, run, at)
            }
            InstructionKind::Copy(copy) => self.copy(current, copy, at),
            InstructionKind::Add(add) => self.add(current, add, at),
            InstructionKind::Workdir(path) => self.workdir(current, path, at),
            other => self.configure(current, other, at),
        }
    }

    fn scope<'s>(&self, current: &'s Current) -> Scope<'s> {
        Scope {
            config: &current.end.planned.config,
            declared: &current.end.declared,
            escape: self.source.dockerfile.directives.escape,
        }
    }

    fn expand(&self, current: &Current, span: Span, word: &str) -> Result<String, BuildError> {
        let expanded = self.scope(current).expand(word);
        expanded.map_err(|error| self.fail(span, StepError::Invalid(error.to_string())))
    }

    fn arg(
        &mut self,
        current: &mut Current,
        arg: &ArgInstruction,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        let mut texts = Vec::new();
        for arg in &arg.args {
            self.lint_arg(current, arg, at);
            // A default that is not needed may be malformed.
            let default = match &arg.default {
                Some(default) if self.arguments.given(&arg.name).is_none() => {
                    Some(self.expand(current, at.span, default)?)
                }
                _ => None,
            };
            let value = current.end.declared.declare(&arg.name, default, &self.arguments, &self.globals);
            texts.push(match value {
                Some(value) => format!("{}={value}", arg.name),
                None => arg.name.clone(),
            });
            self.outline_arg(current, arg, at);
        }
        let text = format!("ARG {}", texts.join(" "));
        self.step(current, at, None, Some(config_history(text)));
        Ok(())
    }

    /// Everything that changes nothing but the configuration.
    fn configure(
        &mut self,
        current: &mut Current,
        kind: &InstructionKind,
        at: &Written<'_>,
    ) -> Result<(), BuildError> {
        let escape = self.escape();
        let StageEnd { planned, declared, .. } = &mut current.end;
        let before = planned.config.clone();
        let scope = Scope { config: &before, declared, escape };
        let applied = configure::apply(&mut planned.config, &scope, kind, &mut current.has_cmd);
        let text = applied.map_err(|message| self.fail(at.span, StepError::Invalid(message)))?;
        if let InstructionKind::Env(pairs) = kind {
            for pair in &pairs.pairs {
                let name =
                    Scope { config: &before, declared: &current.end.declared, escape }.expand(&pair.key);
                current.end.declared.hide(&name.unwrap_or_default());
            }
        }
        self.step(current, at, None, text.map(config_history));
        Ok(())
    }

    fn vertex(&mut self, current: &mut Current, op: Op, inputs: Vec<VertexId>, text: &str) -> VertexId {
        let site = Site {
            position: format!("stage {} step {}", current.index, current.done),
            instruction: text.to_owned(),
        };
        let cache = match self.request.runs_again(self.stage_name(current.index), current.index) {
            true => CachePolicy::Refresh,
            false => CachePolicy::Use,
        };
        let vertex = self.vertices.add(Vertex { op, inputs, site, cache });
        current.end.planned.vertex = vertex;
        vertex
    }

    fn stage_name(&self, index: usize) -> Option<&str> {
        self.source.dockerfile.stages[index].name.as_deref()
    }

    fn workdir(&mut self, current: &mut Current, path: &str, at: &Written<'_>) -> Result<(), BuildError> {
        let path = self.expand(current, at.span, path)?;
        let config = &mut current.end.planned.config.config;
        let real = configure::join_path(&config.working_dir, &path);
        // As in Docker, an absolute path is recorded as it is written.
        config.working_dir = if path.starts_with('/') { path } else { real.clone() };
        let text = format!("WORKDIR {}", config.working_dir);
        if real == "/" {
            self.step(current, at, None, Some(config_history(text)));
            return Ok(());
        }
        let op = WorkdirOp { path: real, user: config.user.clone() };
        let inputs = vec![current.end.planned.vertex];
        let vertex = self.vertex(current, Op::Workdir(op), inputs, at.text);
        self.step(current, at, Some(vertex), Some(layer_history(text)));
        Ok(())
    }

    fn refuse(&self, span: Span, is_used: bool, what: &str) -> Result<(), BuildError> {
        let is_used = is_used && !self.world.only_asks();
        if is_used { Err(self.fail(span, StepError::Unsupported(what.to_owned()))) } else { Ok(()) }
    }
}

fn layer_history(created_by: String) -> History {
    History { created_by, comment: HISTORY_COMMENT.to_owned(), ..History::default() }
}

fn config_history(created_by: String) -> History {
    History { empty_layer: true, ..layer_history(created_by) }
}

#[cfg(test)]
mod lint_tests;
#[cfg(test)]
mod tests;
