//! What each instruction means where it stands: a vertex, or a change of the configuration.

use dhow_dockerfile::{ArgInstruction, Instruction, InstructionKind, Span};
use dhow_oci::History;
use dhow_solver::{CachePolicy, Site, Vertex, VertexId};

use super::{Lowering, StageEnd, lint};
use crate::configure;
use crate::error::{BuildError, StepError};
use crate::event::{StepId, StepInfo};
use crate::plan::{Op, PlannedHistory, PlannedStep, WorkdirOp};
use crate::scope::Scope;

/// What BuildKit writes into the history of images, and tools look for.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// An instruction as it stands in the Dockerfile.
pub(super) struct Written<'a> {
    pub span: Span,
    pub text: &'a str,
    /// Its name as typed.
    pub keyword: &'a str,
    /// The comments above it.
    pub comments: &'a [String],
}

impl<'a> Written<'a> {
    pub(super) fn new(instruction: &'a Instruction) -> Written<'a> {
        let Instruction { span, original, keyword, comments, .. } = instruction;
        Written { span: *span, text: original, keyword, comments }
    }
}

/// A stage while its instructions are being gone through.
pub(super) struct Current {
    pub index: usize,
    /// How many instructions it has, `FROM` and triggers included.
    pub count: usize,
    pub done: usize,
    pub end: StageEnd,
    /// Whether `CMD` was set in this very stage.
    pub has_cmd: bool,
    pub seen: lint::Seen,
}

impl Lowering<'_> {
    pub(super) fn instruction(
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

    /// Adds a step to the plan and to the stage.
    pub(super) fn step(
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

    pub(super) fn vertex(
        &mut self,
        current: &mut Current,
        op: Op,
        inputs: Vec<VertexId>,
        text: &str,
    ) -> VertexId {
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

    pub(super) fn scope<'s>(&self, current: &'s Current) -> Scope<'s> {
        Scope {
            config: &current.end.planned.config,
            declared: &current.end.declared,
            escape: self.source.dockerfile.directives.escape,
        }
    }

    pub(super) fn expand(&self, current: &Current, span: Span, word: &str) -> Result<String, BuildError> {
        let expanded = self.scope(current).expand(word);
        expanded.map_err(|error| self.fail(span, StepError::Invalid(error.to_string())))
    }
}

pub(super) fn layer_history(created_by: String) -> History {
    History { created_by, comment: HISTORY_COMMENT.to_owned(), ..History::default() }
}

pub(super) fn config_history(created_by: String) -> History {
    History { empty_layer: true, ..layer_history(created_by) }
}
