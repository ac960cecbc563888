//! Where a stage starts: an earlier stage, an image, or nothing.

use dhow_dockerfile::{Instruction, Span, Stage};
use dhow_oci::{ImageConfig, Platform};

use super::{DEFAULT_PATH, Lowering, StageEnd, stages};
use crate::error::{BuildError, StepError};
use crate::plan::{BaseImage, PlannedHistory, PlannedStage};
use crate::scope::Declared;

impl Lowering<'_> {
    /// Where a stage starts, and the instructions its base image triggers.
    pub(super) fn from(
        &mut self,
        index: usize,
        stage: &Stage,
        from: &stages::From,
    ) -> Result<(StageEnd, Vec<Instruction>), BuildError> {
        let base = from.base.as_str();
        let own = match self.named(base) {
            Some(context) => Some(self.context_end(&context, stage.span)?),
            None => match self.earlier_stage(base, index) {
                Some(earlier) => Some(self.stage_end(earlier)?),
                None => None,
            },
        };
        if let Some(mut end) = own {
            let triggers = start_from(&mut end.planned.config);
            end.declared.begin_stage(&end.planned.config);
            return Ok((end, self.triggers(stage.span, &triggers)?));
        }
        let platform = from.platform.clone().unwrap_or_else(|| self.platform.clone());
        let image = if base == "scratch" {
            BaseImage { config: scratch(&platform), layers: Vec::new(), source: None }
        } else {
            let reference = self.reference(base, stage.span)?;
            let image =
                self.world.base(&reference, &platform).map_err(|error| self.fail(stage.span, error))?;
            self.lint_base(stage, base, &platform, &image.config.platform());
            image
        };
        let history = image.config.history.iter().map(|entry| PlannedHistory {
            entry: entry.clone(),
            vertex: None,
            is_config: false,
        });
        let history = history.collect();
        let mut config = image.config;
        let vertex = self.base_vertex(base, image.layers, config.created.clone(), image.source);
        let triggers = start_from(&mut config);
        let planned = PlannedStage { base: vertex, vertex, config, history };
        let triggers = self.triggers(stage.span, &triggers)?;
        let mut declared = Declared::default();
        declared.begin_stage(&planned.config);
        Ok((StageEnd { planned, declared, workdir_set: false }, triggers))
    }

    pub(super) fn triggers(&self, span: Span, triggers: &[String]) -> Result<Vec<Instruction>, BuildError> {
        let mut instructions = Vec::new();
        for trigger in triggers {
            let (parsed, diagnostics) = Instruction::parse(trigger);
            if let Some(mistake) = diagnostics.iter().find(|found| found.is_error()) {
                let message = format!("ONBUILD trigger `{trigger}` of the base image: {}", mistake.message);
                return Err(self.fail(span, StepError::Invalid(message)));
            }
            instructions.extend(parsed);
        }
        Ok(instructions)
    }
}

/// The configuration of what begins with no image: BuildKit gives it a working directory.
pub(super) fn scratch(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::scratch(platform);
    config.config.working_dir = "/".to_owned();
    config
}

/// Makes the configuration of an image one to build upon, and takes the triggers out of it.
fn start_from(config: &mut ImageConfig) -> Vec<String> {
    if config.config.env_value("PATH").is_none() {
        config.config.set_env("PATH", DEFAULT_PATH);
    }
    // An image that is built on another is nobody else's work.
    for own in ["id", "parent", "container", "container_config"] {
        config.other.remove(own);
    }
    std::mem::take(&mut config.config.on_build)
}
