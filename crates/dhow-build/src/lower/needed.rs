//! Which stages the target needs, and what they are called.

use std::collections::BTreeSet;

use dhow_dockerfile::{CopyInstruction, InstructionKind};

use super::Lowering;
use crate::error::BuildError;

impl Lowering<'_> {
    /// The stage to build.
    pub(super) fn target(&self) -> Result<usize, BuildError> {
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
    pub(super) fn needed(&self, target: usize) -> BTreeSet<usize> {
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

    /// The last stage before `index` that has this name.
    pub(super) fn earlier_stage(&self, name: &str, index: usize) -> Option<usize> {
        let stages = &self.source.dockerfile.stages[..index];
        stages
            .iter()
            .rposition(|stage| stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name)))
    }

    /// The stage that `--from` means. Unlike that of a `FROM` it may come later.
    pub(super) fn stage_for_copy(&self, from: &str) -> Option<usize> {
        let count = self.source.dockerfile.stages.len();
        let by_number = || from.parse().ok().filter(|number| *number < count);
        self.earlier_stage(from, count).or_else(by_number)
    }

    /// The named context that stands in for a whole stage.
    pub(super) fn replacement(&self, index: usize) -> Option<String> {
        self.named(self.source.dockerfile.stages[index].name.as_deref()?)
    }

    pub(super) fn stage_name(&self, index: usize) -> Option<&str> {
        self.source.dockerfile.stages[index].name.as_deref()
    }

    /// What a stage is called: by its name, or by its number.
    pub(super) fn shown_name(&self, index: usize) -> String {
        self.source.dockerfile.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }
}
