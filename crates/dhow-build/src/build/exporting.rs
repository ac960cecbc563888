//! From what was built to images, outputs and caches that others read.

use std::collections::{HashMap, HashSet};

use dhow_solver::VertexId;

use super::Build;
use super::running::Done;
use crate::elsewhere::{CachePlace, Elsewhere, Outcome};
use crate::error::{BuildError, chain};
use crate::event::{BuildEvent, Built};
use crate::execute::Rootfs;
use crate::export::{self, Export, Made};
use crate::plan::Target;

impl Build<'_, '_> {
    pub(super) fn finish(
        &self,
        elsewhere: &Elsewhere<'_>,
        done: &Done,
        known: &HashSet<String>,
    ) -> Result<Built, BuildError> {
        let now = (self.builder.clock)().to_string();
        let targets = &self.plan.targets;
        let made = targets.iter().map(|target| self.made(target, &done.rootfs, elsewhere, &now)).collect();
        let built = self.export(made, done)?;
        self.remember(&done.images, known)?;
        let targets: Vec<VertexId> = targets.iter().map(|target| self.plan.target(target).vertex).collect();
        let outcome = self.outcome(&targets, &done.rootfs, &now);
        self.export_caches(elsewhere, &outcome)?;
        Ok(built)
    }

    /// What came of a target.
    fn made(
        &self,
        target: &Target,
        done: &HashMap<VertexId, Rootfs>,
        elsewhere: &Elsewhere<'_>,
        now: &str,
    ) -> Made {
        let stage = self.plan.target(target);
        let rootfs = &done[&stage.vertex];
        let mut config = self.assemble(stage, &stage.config, stage.history.len(), rootfs, done);
        if self.request.cache.is_inline()
            && let Some((field, records)) = elsewhere.inline(&self.outcome(&[stage.vertex], done, now))
        {
            config.other.insert(field.to_owned(), records.into());
        }
        Made {
            platform: target.platform.clone().unwrap_or_else(|| config.platform()),
            config,
            base_layers: done.get(&stage.base).map_or(0, |base| base.layers.len()),
            base_history: stage.history.iter().filter(|entry| entry.vertex.is_none()).count(),
        }
    }

    fn outcome<'o>(
        &self,
        targets: &'o [VertexId],
        rootfs: &'o HashMap<VertexId, Rootfs>,
        now: &'o str,
    ) -> Outcome<'o> {
        let latest = self.epoch.and_then(|epoch| jiff::Timestamp::from_second(epoch).ok());
        Outcome { targets, rootfs, now, latest }
    }

    fn export(&self, made: Vec<Made>, done: &Done) -> Result<Built, BuildError> {
        let provenance = self.request.output.provenance.as_ref();
        let provenance = provenance.map(|request| self.provenance(request, done));
        let export = Export {
            images: self.builder.images,
            registry: self.builder.registry,
            request: &self.request.output,
            names: &self.request.names,
            is_multi: export::is_multi(self.request),
            epoch: self.epoch,
            provenance: provenance.as_ref(),
            lease: self.lease,
            observer: self.observer,
            now: self.now(),
            build: self.recorder.id().to_owned(),
        };
        Ok(export.run(made)?)
    }

    /// Writes the caches that others are to read. The image is there by now, whatever happens to them.
    fn export_caches(&self, elsewhere: &Elsewhere<'_>, outcome: &Outcome<'_>) -> Result<(), BuildError> {
        for to in self.request.cache.to.iter().filter(|to| to.place != CachePlace::Inline) {
            let name = to.to_string();
            (self.observer)(BuildEvent::ExportingCache(&name));
            match elsewhere.export(to, outcome, &|| (self.builder.registry)()) {
                Ok(()) => {}
                Err(error) if to.ignore_error => {
                    (self.observer)(BuildEvent::CacheUnusable(&name, &chain(&error)));
                }
                Err(source) => return Err(BuildError::CacheExport { to: name, source: Box::new(source) }),
            }
        }
        Ok(())
    }
}
