//! What a target can be told: the arguments it reads, the secrets and agents it may use.

use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{BuildArg, MountType, RunInstruction, Span};

use super::{Current, Lowering, Written};
use crate::call::{Outline, OutlineArg, OutlineMount};

/// An argument where it was last declared.
#[derive(Clone, Debug)]
pub(super) struct KnownArg {
    pub value: String,
    pub description: Option<String>,
    /// Arguments its default is made of.
    pub deps: BTreeSet<String>,
    pub span: Span,
}

/// The part of one stage.
#[derive(Clone, Debug, Default)]
pub(super) struct StageOutline {
    args: BTreeMap<String, KnownArg>,
    used: BTreeSet<String>,
    secrets: Vec<OutlineMount>,
    agents: Vec<OutlineMount>,
    /// The stage it builds on and those it takes files from.
    needs: BTreeSet<usize>,
}

impl Lowering<'_> {
    /// The beginning of a stage: what its `FROM` reads.
    pub(super) fn outline_from(&mut self, index: usize) {
        let stage = &self.source.dockerfile.stages[index];
        let words = [Some(&stage.base), stage.platform.as_ref()];
        let expanded =
            words.into_iter().flatten().filter_map(|word| self.expanded_global(word, stage.span).ok());
        let outline = StageOutline {
            args: self.known_args.clone(),
            used: expanded.flat_map(|expanded| expanded.used).collect(),
            needs: self.earlier_stage(&self.froms[index].base, index).into_iter().collect(),
            ..StageOutline::default()
        };
        self.outlines.insert(index, outline);
    }

    pub(super) fn outline_need(&mut self, index: usize, needed: usize) {
        self.outlines.entry(index).or_default().needs.insert(needed);
    }

    /// An `ARG` of a stage, once it is declared. One that only asks for the global value is shown where that is.
    pub(super) fn outline_arg(&mut self, current: &Current, arg: &BuildArg, at: &Written<'_>) {
        let is_own = arg.default.is_some() || self.arguments.given(&arg.name).is_some();
        let is_global = self.global(&arg.name).is_some();
        let value = current.end.declared.value(&arg.name).cloned();
        let outline = self.outlines.entry(current.index).or_default();
        outline.used.insert(arg.name.clone());
        if is_own || !is_global {
            let known = KnownArg {
                value: value.unwrap_or_default(),
                description: arg.description.clone(),
                deps: BTreeSet::new(),
                span: at.span,
            };
            outline.args.insert(arg.name.clone(), known);
        }
    }

    /// Secrets and agents of a `RUN`.
    pub(super) fn outline_mounts(&mut self, current: &Current, run: &RunInstruction, at: &Written<'_>) {
        let scope = self.scope(current);
        let resolve = |spec: &dhow_dockerfile::MountSpec| {
            spec.resolve(scope.escape, |name| {
                scope
                    .expanded(&format!("${{{name}}}"))
                    .ok()
                    .filter(|word| word.unset.is_empty())
                    .map(|word| word.text)
            })
        };
        let mounts: Vec<_> = run.mounts.iter().filter_map(|spec| resolve(spec).ok()).collect();
        let outline = self.outlines.entry(current.index).or_default();
        for mount in mounts {
            let (list, name) = match mount.mount_type {
                MountType::Secret => {
                    let base = |path: String| path.rsplit('/').next().unwrap_or_default().to_owned();
                    let name = mount.source.or(mount.id).or(mount.target.map(base));
                    (&mut outline.secrets, name.unwrap_or_default())
                }
                MountType::Ssh => (&mut outline.agents, mount.id.unwrap_or_else(|| "default".to_owned())),
                _ => continue,
            };
            if list.iter().all(|known| known.name != name) {
                list.push(OutlineMount { name, required: mount.required, span: at.span });
            }
        }
    }

    /// All of what `target` and the stages it needs can be told.
    pub(super) fn outline(&self, target: usize) -> Outline {
        let stage = &self.source.dockerfile.stages[target];
        let mut outline = Outline {
            name: stage.name.clone(),
            description: stage.description.clone(),
            ..Outline::default()
        };
        let (mut open, mut seen) = (vec![target], BTreeSet::new());
        while let Some(index) = open.pop() {
            if !seen.insert(index) {
                continue;
            }
            let Some(stage) = self.outlines.get(&index) else { continue };
            stage.add_to(&mut outline);
            open.extend(&stage.needs);
        }
        outline.args.sort_by_key(|arg| arg.span.start);
        outline.secrets.sort_by_key(|mount| mount.span.start);
        outline.ssh.sort_by_key(|mount| mount.span.start);
        outline
    }
}

impl StageOutline {
    fn add_to(&self, outline: &mut Outline) {
        let mut open: Vec<&String> = self.used.iter().collect();
        let mut used = BTreeSet::new();
        while let Some(name) = open.pop() {
            let Some(arg) = self.args.get(name).filter(|_| used.insert(name)) else { continue };
            open.extend(&arg.deps);
            if outline.args.iter().all(|known| known.name != *name) {
                outline.args.push(OutlineArg {
                    name: name.clone(),
                    description: arg.description.clone(),
                    value: arg.value.clone(),
                    span: arg.span,
                });
            }
        }
        for (from, to) in [(&self.secrets, &mut outline.secrets), (&self.agents, &mut outline.ssh)] {
            for mount in from {
                if to.iter().all(|known| known.name != mount.name) {
                    to.push(mount.clone());
                }
            }
        }
    }
}
