//! The configuration of an image, put together from what was planned and what came of it.

use std::collections::HashMap;

use dhow_oci::{Digest, ImageConfig};
use dhow_solver::VertexId;

use super::Build;
use crate::execute::Rootfs;
use crate::plan::{PlannedHistory, PlannedStage, PlannedStep};

impl Build<'_, '_> {
    pub(super) fn assemble(
        &self,
        stage: &PlannedStage,
        config: &ImageConfig,
        history_count: usize,
        rootfs: &Rootfs,
        done: &HashMap<VertexId, Rootfs>,
    ) -> ImageConfig {
        let base_layers = done.get(&stage.base).map_or(0, |base| base.layers.len());
        assemble(config, &stage.history[..history_count], base_layers, rootfs, done)
    }

    /// The ID of the image that ends with `step`.
    pub(super) fn image_id(
        &self,
        step: &PlannedStep,
        rootfs: &Rootfs,
        done: &HashMap<VertexId, Rootfs>,
    ) -> Digest {
        let stage = self.plan.stages[step.stage].as_ref().expect("a step belongs to a needed stage");
        let is_last = step.history_count == stage.history.len() && self.plan.is_target(step.stage);
        let config = if is_last { &stage.config } else { &step.config };
        let config = self.assemble(stage, config, step.history_count, rootfs, done);
        Digest::sha256_of(&serde_json::to_vec(&config).expect("a configuration has only text for keys"))
    }
}

/// The image's configuration: what was planned, with the layers there are and when they were made.
fn assemble(
    config: &ImageConfig,
    history: &[PlannedHistory],
    base_layers: usize,
    rootfs: &Rootfs,
    done: &HashMap<VertexId, Rootfs>,
) -> ImageConfig {
    let mut config = config.clone();
    config.rootfs.diff_ids = rootfs.layers.iter().map(|layer| layer.diff_id).collect();
    config.created = rootfs.created.clone();
    config.history.clear();
    let mut layers = base_layers;
    for planned in history {
        let mut entry = planned.entry.clone();
        if let Some(rootfs) = planned.vertex.and_then(|vertex| done.get(&vertex)) {
            entry.created = rootfs.created.clone();
            // A step that changed no file makes no layer.
            entry.empty_layer = planned.is_config || rootfs.layers.len() == layers;
            layers = rootfs.layers.len();
        }
        config.history.push(entry);
    }
    config
}
