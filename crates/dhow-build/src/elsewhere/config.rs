//! BuildKit's cache configuration, version 0: which records there are, how they follow from each other, and
//! the layers of their results. Foreign bytes: read within limits, and every index is checked.

use dhow_oci::Digest;
use serde::{Deserialize, Deserializer, Serialize};

/// The type of the document.
pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Where an image's configuration keeps the records of an inline cache, in base 64.
pub(super) const INLINE_FIELD: &str = "moby.buildkit.cache.v0";
/// The most records, and the most layers, that are read.
const ENTRIES_MAX: usize = 50_000;
/// What no parent is in numbers.
const NO_PARENT: i64 = -1;

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheConfig {
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<CacheLayer>,
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<CacheRecord>,
}

/// A layer on top of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheLayer {
    pub blob: Digest,
    /// Its place in the list; the first is left out of the text as empty, and none is -1.
    #[serde(default, skip_serializing_if = "is_zero")]
    parent: i64,
}

/// A result of an operation, or content that one depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CacheRecord {
    /// Results that are a layer with all below it.
    #[serde(default, rename = "layers", deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<CacheResult>,
    /// Results whose layers are named one by one.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<ChainedResult>,
    pub digest: Digest,
    /// For each input, the records that will do.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<CacheInput>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CacheResult {
    pub layer: usize,
    #[serde(default)]
    pub created_at: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChainedResult {
    pub layers: Vec<usize>,
    #[serde(default)]
    pub created_at: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct CacheInput {
    /// Which paths of the input count; none for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Digest>,
    #[serde(default)]
    pub link: usize,
}

/// Why a document is not a cache configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("the cache configuration is not valid JSON of its type")]
    Json(#[from] serde_json::Error),
    #[error("the cache configuration has more than {ENTRIES_MAX} entries")]
    TooMany,
    #[error("layer {0} of the cache configuration stands on itself or on nothing")]
    Layer(usize),
    #[error("record {0} of the cache configuration points to what is not there")]
    Record(usize),
}

impl CacheLayer {
    pub(super) fn new(blob: Digest, parent: Option<usize>) -> CacheLayer {
        CacheLayer { blob, parent: parent.map_or(NO_PARENT, |parent| parent as i64) }
    }

    /// The layer it stands on.
    pub(super) fn parent(&self) -> Option<usize> {
        usize::try_from(self.parent).ok()
    }
}

impl CacheConfig {
    /// Reads a document and checks all that points somewhere.
    pub(super) fn parse(bytes: &[u8]) -> Result<CacheConfig, ConfigError> {
        let config: CacheConfig = serde_json::from_slice(bytes)?;
        config.check()?;
        Ok(config)
    }

    /// Checks a document that was put together out of an image.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.layers.len() > ENTRIES_MAX || self.records.len() > ENTRIES_MAX {
            return Err(ConfigError::TooMany);
        }
        for at in 0..self.layers.len() {
            self.chain(at).ok_or(ConfigError::Layer(at))?;
        }
        for (at, record) in self.records.iter().enumerate() {
            let results = record.results.iter().map(|result| result.layer);
            let chained = record.chains.iter().flat_map(|chain| chain.layers.iter().copied());
            let has_layers = results.chain(chained).all(|layer| layer < self.layers.len());
            let mut links = record.inputs.iter().flatten().map(|input| input.link);
            if !has_layers || !links.all(|link| link < self.records.len()) {
                return Err(ConfigError::Record(at));
            }
        }
        Ok(())
    }

    /// A layer with all below it, lowest first; `None` if the chain does not end.
    pub(super) fn chain(&self, at: usize) -> Option<Vec<usize>> {
        let mut chain = vec![at];
        let mut here = self.layers.get(at)?;
        while let Some(parent) = here.parent() {
            // Nobody stacks this many; a longer chain goes in circles.
            if chain.len() > CHAIN_MAX {
                return None;
            }
            here = self.layers.get(parent)?;
            chain.push(parent);
        }
        chain.reverse();
        Some(chain)
    }

    /// The same in one order for all, so that equal caches are equal bytes.
    pub(super) fn sorted(self) -> CacheConfig {
        let CacheConfig { layers, records } = self;
        let (layer_order, layer_places) = order(layers.len(), |a, b| {
            (layers[a].blob, layers[a].parent).cmp(&(layers[b].blob, layers[b].parent))
        });
        let (record_order, record_places) = order(records.len(), |a, b| {
            let key = |at: usize| {
                let inputs = records[at].inputs.iter().map(|links| {
                    let links = links.iter().map(|input| (input.selector, records[input.link].digest));
                    links.collect::<Vec<_>>()
                });
                (records[at].digest, inputs.collect::<Vec<_>>())
            };
            key(a).cmp(&key(b))
        });
        let layers = layer_order.iter().map(|at| {
            let parent = layers[*at].parent().map(|parent| layer_places[parent]);
            CacheLayer::new(layers[*at].blob, parent)
        });
        let records = record_order.iter().map(|at| {
            let mut record = records[*at].clone();
            // Within an image, layers are those of the image.
            for result in &mut record.results {
                result.layer = layer_places.get(result.layer).copied().unwrap_or(result.layer);
            }
            for links in &mut record.inputs {
                links.iter_mut().for_each(|input| input.link = record_places[input.link]);
                links.sort_by(|a, b| (a.link, &a.selector).cmp(&(b.link, &b.selector)));
            }
            record
        });
        CacheConfig { layers: layers.collect(), records: records.collect() }
    }
}

/// The longest stack of layers.
const CHAIN_MAX: usize = 1_000;

/// Numbers in order, and the new place of each.
fn order(count: usize, compare: impl Fn(usize, usize) -> std::cmp::Ordering) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| compare(*a, *b));
    let mut places = vec![0; count];
    for (place, at) in order.iter().enumerate() {
        places[*at] = place;
    }
    (order, places)
}

/// Go writes `null` for a list that is not there.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
