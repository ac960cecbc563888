//! Images of the last build of a Dockerfile, step by step: what tells a configuration step that is new from
//! one that was there before.

use std::collections::{BTreeSet, HashMap, HashSet};

use dhow_oci::Digest;

use super::Build;
use crate::error::{StoreFailure, while_doing};
use crate::event::StepId;

const LAST_BUILD: &str = "build";

impl Build<'_, '_> {
    pub(super) fn record_key(&self) -> String {
        let target = self.request.target.as_deref().unwrap_or_default();
        Digest::sha256_of(format!("{}\0{target}", self.source.identity).as_bytes()).hex()
    }

    /// The images that the steps of the last build of this Dockerfile ended in.
    pub(super) fn last_build(&self) -> Result<HashSet<String>, StoreFailure> {
        if self.request.no_cache {
            return Ok(HashSet::new());
        }
        let record = self.builder.images.store().records(LAST_BUILD).get(&self.record_key());
        let record = record.map_err(while_doing("cannot read the record of the last build"))?;
        // One that cannot be read knows nothing.
        Ok(record.and_then(|record| serde_json::from_str(&record.body).ok()).unwrap_or_default())
    }

    pub(super) fn remember(
        &self,
        images: &HashMap<StepId, Digest>,
        known: &HashSet<String>,
    ) -> Result<(), StoreFailure> {
        let now: BTreeSet<String> = images.values().map(Digest::to_string).collect();
        if now.len() == known.len() && now.iter().all(|image| known.contains(image)) {
            return Ok(());
        }
        let body = serde_json::to_string(&now).expect("a list of texts is JSON");
        let records = self.builder.images.store().records(LAST_BUILD);
        records.put_soon(&self.record_key(), &body, &[]).map_err(while_doing("cannot record the build"))
    }
}
