//! From a Dockerfile to a graph: which stages the target needs, and what each instruction means there.

mod base;
mod contexts;
mod files;
mod globals;
mod instructions;
mod lint;
mod mounts;
mod needed;
mod once;
mod outline;
mod remote;
mod run;
mod stages;

use std::collections::BTreeMap;

use dhow_dockerfile::{Diagnostic, Dockerfile, Span};
use dhow_image::Layout;
use dhow_oci::{Platform, Reference};
use dhow_solver::{CachePolicy, Graph, Site, Vertex, VertexId};

use crate::call::Outline;
use crate::error::{BuildError, StepError, StepFailure};
use crate::event::{StepId, StepInfo};
use crate::plan::{BaseImage, Layer, Op, Plan, PlannedStage, PlannedStep, Target, Vertices};
use crate::provenance::Material;
use crate::request::BuildRequest;
use crate::scope::{Arguments, Declared};

pub(crate) use contexts::NamedContext;

use globals::declared_names;
use instructions::{Current, Written, layer_history};
use once::Once;

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
    let mut world = Once::new(world);
    let mut vertices = Vertices::default();
    let (mut steps, mut stages, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    let mut outline = None;
    for (number, platform) in wanted.iter().enumerate() {
        world.at_platform(number);
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

/// Steps by stage as the file has them. They were planned in the order in which stages were found
/// to be needed.
fn in_order(mut steps: Vec<PlannedStep>) -> Vec<PlannedStep> {
    steps.sort_by_key(|step| step.stage);
    steps
}

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

impl Lowering<'_> {
    fn fail(&self, span: Span, cause: StepError) -> BuildError {
        let failure =
            StepFailure { file: self.source.name.to_owned(), text: self.source.text.to_owned(), span, cause };
        BuildError::Step { failure: Box::new(failure) }
    }

    fn escape(&self) -> char {
        self.source.dockerfile.directives.escape
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

    fn reference(&self, text: &str, span: Span) -> Result<Reference, BuildError> {
        let parsed: Result<Reference, _> = text.parse();
        let message = |error| StepError::Invalid(format!("failed to parse stage name {text:?}: {error}"));
        Ok(parsed.map_err(|error| self.fail(span, message(error)))?.or_latest())
    }

    fn base_vertex(
        &mut self,
        name: &str,
        layers: Vec<Layer>,
        created: Option<String>,
        source: Option<Material>,
    ) -> VertexId {
        let site = Site { position: format!("image {name}"), instruction: format!("FROM {name}") };
        let op = Op::Base { layers, created, source };
        self.vertices.add(Vertex { op, inputs: Vec::new(), site, cache: CachePolicy::Bypass })
    }

    fn refuse(&self, span: Span, is_used: bool, what: &str) -> Result<(), BuildError> {
        let is_used = is_used && !self.world.only_asks();
        if is_used { Err(self.fail(span, StepError::Unsupported(what.to_owned()))) } else { Ok(()) }
    }
}

#[cfg(test)]
mod lint_tests;
#[cfg(test)]
mod tests;
