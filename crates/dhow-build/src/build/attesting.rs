//! What a build can say about how it made each of its images.

use dhow_oci::Digest;
use dhow_solver::VertexId;

use super::Build;
use super::running::Done;
use crate::output::{ProvenanceMode, ProvenanceRequest};
use crate::plan::{Op, RunOp, Target};
use crate::provenance::{Invocation, Material, Predicate, Provenance, StepLayers, Steps, locals};
use crate::request::StepNetwork;

/// Characters of the id of a build that has the same id wherever it runs.
const ID_CHARS: usize = 25;

impl Build<'_, '_> {
    pub(super) fn provenance<'r>(&self, request: &'r ProvenanceRequest, done: &Done) -> Provenance<'r> {
        let predicates = self.plan.targets.iter().map(|target| self.predicate(request, target, done));
        Provenance { request, predicates: predicates.collect() }
    }

    fn predicate(&self, request: &ProvenanceRequest, target: &Target, done: &Done) -> Predicate {
        let target = self.plan.target(target).vertex;
        let needed: Vec<VertexId> = self.plan.graph.needed(target).into_iter().collect();
        let ops = || needed.iter().map(|id| &self.plan.graph.vertex(*id).op);
        let runs: Vec<&RunOp> = ops()
            .filter_map(|op| match op {
                Op::Run(run) => Some(&**run),
                _ => None,
            })
            .collect();
        let is_known = |id: &VertexId| match &self.plan.graph.vertex(*id).op {
            Op::Base { layers, .. } => layers.is_empty() || done.materials.contains_key(id),
            Op::Fetch(_) | Op::CheckOut(_) => done.materials.contains_key(id),
            Op::All | Op::Run(_) | Op::Copy(_) | Op::Workdir(_) => true,
        };
        let has_all_materials = locals(self.request).is_empty() && needed.iter().all(is_known);
        let invocation =
            Invocation::new(self.request, self.source.name, self.material.as_ref(), request.mode, &runs);
        let of_steps = needed.iter().filter_map(|id| done.materials.get(id));
        let mut materials: Vec<Material> = of_steps.chain(&self.material).cloned().collect();
        materials.sort();
        materials.dedup();
        let (mut build_config, mut source, mut layers) = (None, None, StepLayers::default());
        if request.mode == ProvenanceMode::Max {
            let steps = Steps::new(self.plan, target, &done.materials);
            build_config = Some(steps.build_config());
            source = Some(steps.source(self.source.name, self.source.text));
            if !self.request.output.squash {
                layers = steps.layers(&done.rootfs);
            }
        }
        let started = self.cut(self.recorder.started());
        let mut predicate = Predicate {
            invocation,
            materials,
            has_all_materials,
            is_hermetic: has_all_materials && runs.iter().all(|run| run.network == StepNetwork::None),
            is_reproducible: request.reproducible,
            builder_id: request.builder_id.clone(),
            build_config,
            source,
            layers,
            id: self.recorder.id().to_owned(),
            started,
            finished: self.cut((self.builder.clock)()),
        };
        if self.epoch.is_some() {
            predicate.id = String::new();
            let rest = Digest::sha256_of(predicate.text().as_bytes());
            predicate.id = rest.hex()[..ID_CHARS].to_owned();
        }
        predicate
    }

    /// A time that is told: `SOURCE_DATE_EPOCH`, if there is one.
    fn cut(&self, time: jiff::Timestamp) -> String {
        let epoch = self.epoch.and_then(|epoch| jiff::Timestamp::from_second(epoch).ok());
        epoch.unwrap_or(time).to_string()
    }
}
