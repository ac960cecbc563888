//! A cache that others wrote, as something to look steps up in.

use std::collections::HashMap;

use dhow_oci::{Descriptor, DiffId, Digest};

use super::config::{CacheConfig, ConfigError};

/// The annotation of a layer that says what it unpacks to.
pub(super) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// A layer that may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteLayer {
    pub descriptor: Descriptor,
    pub diff_id: DiffId,
}

/// A result that may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Lowest first, those of the base image included.
    pub layers: Vec<RemoteLayer>,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
}

/// What is known of one input of a step.
pub(super) struct Input<'a> {
    /// Records of this cache that mean the input.
    pub records: &'a [usize],
    /// Which of its paths count.
    pub selector: Option<&'a Digest>,
    /// Records of the content of these paths.
    pub content: &'a [Digest],
}

/// The records of one cache, and the layers it has.
pub(super) struct Chains {
    config: CacheConfig,
    layers: Vec<Option<RemoteLayer>>,
    by_digest: HashMap<Digest, Vec<usize>>,
}

impl Chains {
    /// A cache whose layers are described by `descriptors`. A layer without a description, or one that does
    /// not say what it unpacks to, is not there: it could not be checked.
    pub(super) fn new(config: CacheConfig, descriptors: &[Descriptor]) -> Result<Chains, ConfigError> {
        config.check()?;
        let described: HashMap<Digest, RemoteLayer> =
            descriptors.iter().filter_map(|layer| Some((layer.digest, described(layer)?))).collect();
        let layers = config.layers.iter().map(|layer| described.get(&layer.blob).cloned()).collect();
        let mut by_digest: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (at, record) in config.records.iter().enumerate() {
            by_digest.entry(record.digest).or_default().push(at);
        }
        Ok(Chains { config, layers, by_digest })
    }

    /// The records with this digest that mean a step on these inputs.
    pub(super) fn find(&self, digest: &Digest, inputs: &[Input<'_>]) -> Vec<usize> {
        let candidates = self.by_digest.get(digest).into_iter().flatten();
        candidates.copied().filter(|at| self.fits(*at, inputs)).collect()
    }

    fn fits(&self, at: usize, inputs: &[Input<'_>]) -> bool {
        let record = &self.config.records[at];
        record.inputs.len() == inputs.len()
            && record.inputs.iter().zip(inputs).all(|(links, input)| {
                links.iter().any(|link| match &link.selector {
                    None if self.is_content(link.link, input.content) => true,
                    selector => selector.as_ref() == input.selector && input.records.contains(&link.link),
                })
            })
    }

    fn is_content(&self, at: usize, content: &[Digest]) -> bool {
        let record = &self.config.records[at];
        record.inputs.is_empty() && content.contains(&record.digest)
    }

    /// The latest result of these records whose layers can all be had.
    pub(super) fn result(&self, records: &[usize]) -> Option<Found> {
        let results = records.iter().flat_map(|at| {
            let record = &self.config.records[*at];
            let stacked = record
                .results
                .iter()
                .filter_map(|result| self.found(&self.config.chain(result.layer)?, &result.created_at));
            let chained =
                record.chains.iter().filter_map(|chain| self.found(&chain.layers, &chain.created_at));
            stacked.chain(chained)
        });
        // The text of a time in UTC sorts like the time, but for its fraction; that near nobody cares.
        results.reduce(|best, next| if next.created > best.created { next } else { best })
    }

    fn found(&self, chain: &[usize], created: &str) -> Option<Found> {
        let layers = chain.iter().map(|at| self.layers[*at].clone()).collect::<Option<Vec<_>>>()?;
        let created = Some(created.to_owned()).filter(|time| !time.is_empty() && !time.starts_with("0001-"));
        (!layers.is_empty()).then_some(Found { layers, created })
    }
}

fn described(layer: &Descriptor) -> Option<RemoteLayer> {
    let diff_id = layer.annotations.get(UNCOMPRESSED)?.parse::<Digest>().ok()?;
    Some(RemoteLayer { descriptor: layer.clone(), diff_id: DiffId::new(diff_id) })
}
