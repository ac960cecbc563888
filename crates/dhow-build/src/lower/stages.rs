//! What every `FROM` and `--from` says. This is known before anything is built, and mistakes in stages that
//! nobody needs are mistakes all the same.

use std::collections::BTreeSet;

use dhow_dockerfile::{
    CopyInstruction, Expanded, Instruction, InstructionKind, Rule, Span, Stage, suggestion,
};
use dhow_oci::{Platform, Reference};

use super::Lowering;
use crate::error::{BuildError, StepError};

/// A `FROM` with its variables replaced.
#[derive(Clone, Debug)]
pub(super) struct From {
    pub base: String,
    pub platform: Option<Platform>,
}

impl Lowering<'_> {
    /// All of them, in order.
    pub(super) fn froms(&self) -> Result<Vec<From>, BuildError> {
        self.check_defaults();
        self.source.dockerfile.stages.iter().map(|stage| self.read_from(stage)).collect()
    }

    fn read_from(&self, stage: &Stage) -> Result<From, BuildError> {
        let base = self.expanded_global(&stage.base, stage.span)?;
        self.check_declared(&base, stage);
        if base.text.is_empty() {
            let blank = format!("base name ({}) should not be blank", stage.base);
            let told = match base.unset.first().or(base.used.first()) {
                Some(name) => {
                    format!("{blank}: {name} has no value, give it one with --build-arg or a default")
                }
                None => blank,
            };
            return Err(self.fail(stage.span, StepError::Invalid(told)));
        }
        let platform = stage.platform.as_ref().map(|text| self.platform_of(stage, text)).transpose()?;
        Ok(From { base: base.text, platform })
    }

    fn platform_of(&self, stage: &Stage, text: &str) -> Result<Platform, BuildError> {
        let expanded = self.expanded_global(text, stage.span)?;
        self.check_declared(&expanded, stage);
        self.check_platform(stage, text, &expanded);
        let meant = expanded.unset.iter().find_map(|name| suggestion(name, &self.global_names()));
        let meant = meant.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
        if expanded.text.is_empty() {
            let message = format!("empty platform value from expression {text}{meant}");
            return Err(self.fail(stage.span, StepError::Invalid(message)));
        }
        let parsed: Result<Platform, _> = expanded.text.parse();
        parsed.map_err(|error| {
            let message = format!("failed to parse platform {text}: {error}{meant}");
            self.fail(stage.span, StepError::Invalid(message))
        })
    }

    /// Names that a `FROM` may use.
    fn global_names(&self) -> Vec<&str> {
        let declared = self.source.dockerfile.global_args.iter().flat_map(|arg| &arg.kind.args);
        self.arguments.automatic_names().chain(declared.map(|arg| arg.name.as_str())).collect()
    }

    /// UndefinedArgInFrom.
    fn check_declared(&self, expanded: &Expanded, stage: &Stage) {
        let known = self.global_names();
        for name in expanded.unset.iter().filter(|name| !known.contains(&name.as_str())) {
            let meant = suggestion(name, &known).map(|known| format!(" (did you mean {known}?)"));
            let message = format!("FROM argument '{name}' is not declared{}", meant.unwrap_or_default());
            self.lint(Rule::UndefinedArgInFrom, &stage.comments, stage.span, message);
        }
    }

    /// RedundantTargetPlatform and FromPlatformFlagConstDisallowed.
    fn check_platform(&self, stage: &Stage, text: &str, expanded: &Expanded) {
        const TARGET: &str = "TARGETPLATFORM";
        let only_target = expanded.unset.is_empty() && expanded.used.iter().eq([TARGET]);
        if only_target && self.global(TARGET).is_some_and(|value| *value == expanded.text) {
            let message = format!(
                "Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
            );
            self.lint(Rule::RedundantTargetPlatform, &stage.comments, stage.span, message);
        }
        let is_constant = expanded.unset.is_empty() && expanded.used.is_empty();
        let Ok(platform) = expanded.text.parse::<Platform>() else { return };
        let name = stage.name.as_deref().unwrap_or_default();
        if is_constant && !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let message = format!("FROM --platform flag should not use constant value {:?}", expanded.text);
            self.lint(Rule::FromPlatformFlagConstDisallowed, &stage.comments, stage.span, message);
        }
    }

    /// InvalidDefaultArgInFrom: what `FROM` names if nobody gives any argument.
    fn check_defaults(&self) {
        let Ok((globals, _)) = self.globals_with(|_| None) else { return };
        for stage in &self.source.dockerfile.stages {
            let lookup = |name: &str| globals.get(name).or_else(|| self.arguments.automatic(name)).cloned();
            let Ok(expanded) = dhow_dockerfile::expand(&stage.base, self.escape(), lookup) else { return };
            if expanded.text.parse::<Reference>().is_err() {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base
                );
                self.lint(Rule::InvalidDefaultArgInFrom, &[], stage.span, message);
            }
        }
    }

    /// Looks for names that mean nothing, and for stages that wait for each other.
    pub(super) fn check_sources(&self) -> Result<(), BuildError> {
        let mut edges = Vec::new();
        for stage in &self.source.dockerfile.stages {
            let mut needs = Vec::new();
            for instruction in &stage.instructions {
                for from in sources(instruction) {
                    let found = self.check_source(&from, instruction.span)?;
                    needs.extend(found.map(|index| (index, instruction.span)));
                }
            }
            edges.push(needs);
        }
        self.check_cycles(&edges)?;
        let stages = self.source.dockerfile.stages.iter().zip(&self.froms).enumerate();
        for (index, (stage, from)) in stages {
            if self.earlier_stage(&from.base, index).is_none() && from.base != "scratch" {
                self.reference(&from.base, stage.span)?;
            }
        }
        Ok(())
    }

    /// The stage that a `--from` names, earlier or later.
    fn check_source(&self, from: &str, span: Span) -> Result<Option<usize>, BuildError> {
        let stages = &self.source.dockerfile.stages;
        let as_it_is = dhow_dockerfile::expand(from, self.escape(), |_| None);
        if !as_it_is.is_ok_and(|expanded| expanded.text == from) {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using \
                           ARG from global scope as a workaround";
            return Err(self.fail(span, StepError::Invalid(message.to_owned())));
        }
        if let Ok(number) = from.parse::<i64>() {
            let index = usize::try_from(number).ok().filter(|index| *index < stages.len());
            let message = format!("invalid stage index {number}");
            return index.map(Some).ok_or_else(|| self.fail(span, StepError::Invalid(message)));
        }
        let index = self.source.dockerfile.stage_index(from);
        if index.is_none() {
            self.reference(from, span)?;
        }
        Ok(index)
    }

    fn check_cycles(&self, edges: &[Vec<(usize, Span)>]) -> Result<(), BuildError> {
        let mut clear = BTreeSet::new();
        for start in 0..edges.len() {
            let mut way = Vec::new();
            if let Some((circle, span)) = cycle(start, edges, &mut way, &mut clear) {
                return Err(self.circle(&circle, span));
            }
        }
        Ok(())
    }

    /// The complaint about stages each of which needs the next, and the last the first.
    pub(super) fn circle(&self, stages: &[usize], span: Span) -> BuildError {
        let names: Vec<String> =
            stages.iter().chain(stages.first()).map(|index| self.shown_name(*index)).collect();
        let first = names.first().map_or("", String::as_str);
        let message = format!("circular dependency detected on stage: {first} ({})", names.join(" needs "));
        self.fail(span, StepError::Invalid(message))
    }
}

/// The `--from` of a COPY, the `from` of mounts.
fn sources(instruction: &Instruction) -> Vec<String> {
    match &instruction.kind {
        InstructionKind::Copy(CopyInstruction { from: Some(from), .. }) => vec![from.clone()],
        InstructionKind::Run(run) => {
            // A `from` has no variables; a mount that cannot be resolved fails later, with its reason.
            let mounts = run.mounts.iter().filter_map(|mount| mount.resolve('\\', |_| None).ok());
            mounts.filter_map(|mount| mount.from).collect()
        }
        _ => Vec::new(),
    }
}

/// A circle on the `way` that goes on at `stage`, and the instruction that closes it.
fn cycle(
    stage: usize,
    edges: &[Vec<(usize, Span)>],
    way: &mut Vec<usize>,
    clear: &mut BTreeSet<usize>,
) -> Option<(Vec<usize>, Span)> {
    if clear.contains(&stage) {
        return None;
    }
    way.push(stage);
    for (next, span) in &edges[stage] {
        if let Some(start) = way.iter().position(|passed| passed == next) {
            return Some((way[start..].to_vec(), *span));
        }
        if let Some(found) = cycle(*next, edges, way, clear) {
            return Some(found);
        }
    }
    way.pop();
    clear.insert(stage);
    None
}
