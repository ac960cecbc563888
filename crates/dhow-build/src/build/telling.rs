//! What the solver says of vertices, told of steps.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use dhow_solver::{Event, Lookup, VertexId};

use super::Build;
use super::running::Done;
use crate::elsewhere::Elsewhere;
use crate::event::{BuildEvent, StepResult};
use crate::execute::Rootfs;
use crate::plan::PlannedStep;

impl Build<'_, '_> {
    /// Passes events on as steps, and fills in the steps that only change the configuration: they are done as
    /// soon as the vertex before them is.
    pub(super) fn observe(
        &self,
        event: &Event,
        steps: &HashMap<VertexId, &PlannedStep>,
        done: &Mutex<Done>,
        known: &HashSet<String>,
        elsewhere: &Elsewhere<'_>,
    ) {
        let id = |vertex: &VertexId| steps.get(vertex).map(|step| step.info.id);
        match event {
            Event::Started(vertex) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Started(id)))
            }
            Event::Keyed(vertex, key) => {
                id(vertex).into_iter().for_each(|id| self.recorder.keyed(id, *key));
            }
            Event::LookedUp(vertex, Lookup::Hit) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Cached(id)));
            }
            Event::LookedUp(vertex, Lookup::Elsewhere) => {
                let name = elsewhere.origin(*vertex).unwrap_or_default();
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::CachedFrom(id, &name)));
            }
            Event::LookedUp(vertex, Lookup::Miss(reason)) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Running(id, reason)));
            }
            // A base image is here by now, so there is nothing left to do about it.
            Event::LookedUp(vertex, Lookup::Bypassed) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Cached(id)));
            }
            Event::Finished(vertex) => self.finished(*vertex, steps, done, known),
            // It was taken from a cache that turned out to be wrong: the build begins anew.
            Event::Failed(_) if elsewhere.has_broken() => {}
            Event::Failed(vertex) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::Failed(id)))
            }
            Event::GivenUp(vertex) => {
                id(vertex).into_iter().for_each(|id| (self.observer)(BuildEvent::GivenUp(id)))
            }
        }
    }

    /// Tells of the step that `vertex` did the work of, and of those that are done with it.
    fn finished(
        &self,
        vertex: VertexId,
        steps: &HashMap<VertexId, &PlannedStep>,
        done: &Mutex<Done>,
        known: &HashSet<String>,
    ) {
        let mut done = done.lock().expect("no observer panics");
        let Some(rootfs) = done.rootfs.get(&vertex).cloned() else { return };
        let own = steps.get(&vertex).map(|step| step.info.id);
        let mut below: Option<&PlannedStep> = None;
        for step in &self.plan.steps {
            let belongs = match (step.vertex, below) {
                (Some(own), _) => own == vertex,
                (None, Some(before)) => before.stage == step.stage,
                (None, None) => false,
            };
            below = if belongs { Some(step) } else { None };
            if !belongs {
                continue;
            }
            let image = self.image_id(step, &rootfs, &done.rootfs);
            done.images.insert(step.info.id, image);
            let is_own = own == Some(step.info.id);
            if !is_own {
                (self.observer)(BuildEvent::Started(step.info.id));
                // Where a stage begins with another there is never anything to do.
                if step.vertex.is_some() || known.contains(&image.to_string()) {
                    (self.observer)(BuildEvent::Cached(step.info.id));
                }
            }
            let layer_bytes = self.layer_bytes(step, &rootfs, &done.rootfs).filter(|_| is_own);
            let log = done.logs.get(&vertex).copied().filter(|_| is_own);
            let result = StepResult { image, layer_bytes, log };
            (self.observer)(BuildEvent::Finished(step.info.id, &result));
        }
    }

    /// Bytes of the layer that a step added, if it added one.
    fn layer_bytes(
        &self,
        step: &PlannedStep,
        rootfs: &Rootfs,
        done: &HashMap<VertexId, Rootfs>,
    ) -> Option<u64> {
        let vertex = self.plan.graph.vertex(step.vertex?);
        let below = done.get(vertex.inputs.first()?)?;
        let added = rootfs.layers.get(below.layers.len()..)?;
        added.last().map(|layer| layer.size_bytes)
    }
}
