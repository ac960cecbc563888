//! Writing a cache that others can read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Cursor, Read, Write as _};
use std::path::{Path, PathBuf};

use dhow_image::TravelError;
use dhow_oci::{Descriptor, DiffId, Digest, Document, Index, Manifest, Reference, media_type};
use dhow_registry::{Client, RegistryError};
use dhow_solver::VertexId;
use dhow_store::ReadError;

use super::Elsewhere;
use super::attributes::{CacheForm, CacheMode, CachePlace, CacheTo};
use super::chains::UNCOMPRESSED;
use super::config::{self, CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult};
use super::import::{REF_NAME, blob_path, read_bounded};
use super::keys::{From, Key, KeyInput};
use super::llb;
use crate::error::{StepError, StoreFailure};
use crate::execute::Rootfs;
use crate::plan::Op;

/// The annotation of a layer that says when it was made.
const CREATED_AT: &str = "buildkit/createdat";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Why a cache was not written. The image is built all the same.
#[derive(Debug, thiserror::Error)]
pub enum CacheExportError {
    /// The registry did not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer cannot leave.
    #[error(transparent)]
    Travel(#[from] TravelError),
    /// A layer that is not here could not be fetched.
    #[error(transparent)]
    Fetch(Box<StepError>),
    /// What is in the store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// The folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index of the folder is not one.
    #[error("{} is not an index", path.display())]
    Index {
        /// The file.
        path: PathBuf,
    },
}

/// A vertex with what it is called and what came of it.
pub(super) struct Exported<'a> {
    pub id: VertexId,
    pub key: &'a Key,
    /// Its layers, if they go along.
    pub result: Option<(Vec<DiffId>, String)>,
}

/// A cache that is ready to leave. Layers are named by what they unpack to.
pub(super) struct Draft {
    pub records: Vec<CacheRecord>,
    /// Each with the one it stands on.
    pub layers: Vec<(DiffId, Option<usize>)>,
}

impl Draft {
    /// The records of `vertices`, which come in an order in which they could run.
    pub(super) fn new(vertices: &[Exported<'_>]) -> Draft {
        let mut draft = Drafting::default();
        for vertex in vertices {
            draft.add(vertex);
        }
        Draft { records: draft.records, layers: draft.layers }
    }

    /// The stack of a layer, lowest first.
    fn stack(&self, at: usize) -> Vec<DiffId> {
        let mut stack = vec![self.layers[at].0];
        let mut here = self.layers[at].1;
        while let Some(at) = here {
            stack.push(self.layers[at].0);
            here = self.layers[at].1;
        }
        stack.reverse();
        stack
    }
}

#[derive(Default)]
struct Drafting {
    records: Vec<CacheRecord>,
    layers: Vec<(DiffId, Option<usize>)>,
    /// The records of the last operation of each vertex.
    of_vertex: HashMap<VertexId, Vec<usize>>,
    known: HashMap<(Digest, Vec<Vec<CacheInput>>), usize>,
    stacked: HashMap<(DiffId, Option<usize>), usize>,
}

impl Drafting {
    fn add(&mut self, vertex: &Exported<'_>) {
        let mut own: Vec<Vec<usize>> = Vec::new();
        for (at, operation) in vertex.key.operations.iter().enumerate() {
            let is_last = at + 1 == vertex.key.operations.len();
            let result = vertex.result.as_ref().filter(|_| is_last);
            let results: Vec<CacheResult> =
                result.and_then(|(stack, created)| self.result(stack, created)).into_iter().collect();
            let mut records = Vec::with_capacity(operation.ways.len());
            for way in &operation.ways {
                let inputs: Vec<Vec<CacheInput>> =
                    way.inputs.iter().map(|input| self.links(input, &own)).collect();
                // An input that nobody can name: nobody could find the step.
                if !inputs.iter().any(Vec::is_empty) {
                    records.push(self.record(way.record, &inputs, &results));
                }
            }
            own.push(records);
        }
        self.of_vertex.insert(vertex.id, own.pop().unwrap_or_default());
    }

    fn links(&mut self, input: &KeyInput, own: &[Vec<usize>]) -> Vec<CacheInput> {
        let records = match input.from {
            From::Vertex(vertex) => self.of_vertex.get(&vertex).cloned().unwrap_or_default(),
            From::Operation(at) => own[at].clone(),
            From::Files => Vec::new(),
        };
        let by_record =
            records.into_iter().map(|link| CacheInput { selector: input.selector, link }).collect::<Vec<_>>();
        let mut links = by_record;
        for content in &input.content {
            links.push(CacheInput { selector: None, link: self.record(*content, &[], &[]) });
        }
        links
    }

    fn record(&mut self, digest: Digest, inputs: &[Vec<CacheInput>], results: &[CacheResult]) -> usize {
        let place = (digest, inputs.to_vec());
        if let Some(at) = self.known.get(&place) {
            let record = &mut self.records[*at];
            if record.results.is_empty() {
                record.results = results.to_vec();
            }
            return *at;
        }
        let at = self.records.len();
        self.records.push(CacheRecord {
            results: results.to_vec(),
            chains: Vec::new(),
            digest,
            inputs: inputs.to_vec(),
        });
        self.known.insert(place, at);
        at
    }

    fn result(&mut self, stack: &[DiffId], created: &str) -> Option<CacheResult> {
        let mut below = None;
        for diff_id in stack {
            let next = self.layers.len();
            let at = *self.stacked.entry((*diff_id, below)).or_insert(next);
            if at == next {
                self.layers.push((*diff_id, below));
            }
            below = Some(at);
        }
        below.map(|layer| CacheResult { layer, created_at: created.to_owned() })
    }
}

/// What is known at the end of a build.
pub(crate) struct Outcome<'a> {
    /// What the images are made of: one for each platform.
    pub targets: &'a [VertexId],
    pub rootfs: &'a HashMap<VertexId, Rootfs>,
    /// The time for steps that do not say when they were made.
    pub now: &'a str,
    /// The latest time that is told: `SOURCE_DATE_EPOCH`, so that equal builds have equal caches.
    pub latest: Option<jiff::Timestamp>,
}

impl Outcome<'_> {
    /// When a file system was made.
    fn time(&self, rootfs: &Rootfs) -> String {
        self.cut(rootfs.created.as_deref().unwrap_or(self.now))
    }

    /// A time as it is told.
    fn cut(&self, text: &str) -> String {
        let (text, time) = match text.parse::<jiff::Timestamp>() {
            Ok(time) => (text, Some(time)),
            Err(_) => (self.now, self.now.parse().ok()),
        };
        let later = self.latest.filter(|latest| time.is_some_and(|time| time > *latest));
        later.map_or_else(|| text.to_owned(), |latest| latest.to_string())
    }
}

fn stack(rootfs: &Rootfs) -> Vec<DiffId> {
    rootfs.layers.iter().map(|layer| layer.diff_id).collect()
}

impl Elsewhere<'_> {
    /// The records for within the image that ends with `outcome`'s only target, as its configuration keeps them.
    pub(crate) fn inline(&self, outcome: &Outcome<'_>) -> Option<(&'static str, String)> {
        let mut draft = self.draft(outcome, CacheMode::Min);
        // A result is known there by how many of the image's layers it has.
        let heights: Vec<usize> = (0..draft.layers.len()).map(|at| draft.stack(at).len() - 1).collect();
        for record in &mut draft.records {
            record.results.iter_mut().for_each(|result| result.layer = heights[result.layer]);
        }
        if draft.records.iter().all(|record| record.results.is_empty()) {
            return None;
        }
        let config = CacheConfig { layers: Vec::new(), records: draft.records }.sorted();
        let records = serde_json::to_vec(&config.records).expect("records have only text for keys");
        Some((config::INLINE_FIELD, llb::base64(&records)))
    }

    /// Writes a cache of this build.
    pub(crate) fn export<'c>(
        &self,
        to: &CacheTo,
        outcome: &Outcome<'_>,
        client: &dyn Fn() -> &'c Client,
    ) -> Result<(), CacheExportError> {
        let draft = self.draft(outcome, to.mode);
        let layers = self.layers(&draft, outcome, to)?;
        let config = CacheConfig {
            layers: draft
                .layers
                .iter()
                .map(|(diff_id, below)| CacheLayer::new(layers[diff_id].digest, *below))
                .collect(),
            records: draft.records,
        };
        let config = config.sorted();
        let sent: Vec<Descriptor> = {
            let by_digest: BTreeMap<Digest, &Descriptor> =
                layers.values().map(|layer| (layer.digest, layer)).collect();
            by_digest.into_values().cloned().collect()
        };
        let config = serde_json::to_vec(&config).expect("a cache configuration has only text for keys");
        let described = Descriptor::of(config::MEDIA_TYPE, &config);
        let (media_type, document) = document(to.form, described.clone(), sent.clone());
        let parcel =
            Parcel { layers: &sent, config: (&described, &config), document: (media_type, &document) };
        match &to.place {
            CachePlace::Registry(reference) => self.push(&parcel, reference, client()),
            CachePlace::Local { folder, tag, reset } => self.save(&parcel, folder, tag, *reset),
            CachePlace::Inline => Ok(()),
        }
    }

    fn draft(&self, outcome: &Outcome<'_>, mode: CacheMode) -> Draft {
        let state = self.state();
        let targets = outcome.targets.iter().filter_map(|target| outcome.rootfs.get(target));
        let images: Vec<Vec<DiffId>> = targets.map(stack).collect();
        let needed: BTreeSet<VertexId> =
            outcome.targets.iter().flat_map(|target| self.plan.graph.needed(*target)).collect();
        let vertices = needed.into_iter().filter_map(|id| {
            let key = state.keys.get(&id)?;
            let rootfs = outcome.rootfs.get(&id);
            // An image is had from where it is.
            let is_image = matches!(self.plan.graph.vertex(id).op, Op::Base { .. });
            let result = rootfs.filter(|_| !is_image).map(|rootfs| (stack(rootfs), outcome.time(rootfs)));
            let result = result.filter(|(stack, _)| {
                !stack.is_empty()
                    && (mode == CacheMode::Max || images.iter().any(|image| image.starts_with(stack)))
            });
            Some(Exported { id, key, result })
        });
        Draft::new(&vertices.collect::<Vec<_>>())
    }

    /// The layers of a draft as they travel, all of them in the store.
    fn layers(
        &self,
        draft: &Draft,
        outcome: &Outcome<'_>,
        to: &CacheTo,
    ) -> Result<HashMap<DiffId, Descriptor>, CacheExportError> {
        // A step that changed no file stands on the layer of an earlier one, which counts.
        let mut made_at: HashMap<DiffId, String> = HashMap::new();
        for rootfs in outcome.rootfs.values() {
            let Some(layer) = rootfs.layers.last() else { continue };
            let time = outcome.time(rootfs);
            let held = made_at.entry(layer.diff_id).or_insert_with(|| time.clone());
            *held = time.min(std::mem::take(held));
        }
        let by_stack: HashMap<Vec<DiffId>, &Rootfs> =
            outcome.rootfs.values().map(|rootfs| (stack(rootfs), rootfs)).collect();
        let is_below: BTreeSet<usize> = draft.layers.iter().filter_map(|(_, below)| *below).collect();
        let mut layers = HashMap::new();
        for top in (0..draft.layers.len()).filter(|at| !is_below.contains(at)) {
            let stack = draft.stack(top);
            if let Some(rootfs) = by_stack.get(&stack) {
                self.bring(&rootfs.layers).map_err(|error| CacheExportError::Fetch(Box::new(error)))?;
            }
            for position in 0..stack.len() {
                let diff_id = stack[position];
                if layers.contains_key(&diff_id) {
                    continue;
                }
                let blob = self.images.layer_blob(&stack, position, &to.layers, self.lease)?;
                let mut layer = Descriptor::new(to.form.layer(&blob.media_type), blob.digest, blob.size);
                layer.annotations.insert(UNCOMPRESSED.to_owned(), diff_id.to_string());
                let created = made_at.get(&diff_id).cloned().unwrap_or_else(|| outcome.cut(outcome.now));
                layer.annotations.insert(CREATED_AT.to_owned(), created);
                layers.insert(diff_id, layer);
            }
        }
        Ok(layers)
    }

    fn blob(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.images.store().content().open(digest).map_err(io::Error::other)?))
    }

    fn push(
        &self,
        parcel: &Parcel<'_>,
        reference: &Reference,
        client: &Client,
    ) -> Result<(), CacheExportError> {
        let store = self.images.store();
        for layer in parcel.layers {
            let sources = store.layers().sources(&layer.digest, reference.registry());
            let sources =
                sources.map_err(|error| StoreFailure::new("cannot look up where a layer is", error))?;
            let from = sources.into_iter().find(|source| source != reference.repository());
            client.push_blob(reference, layer, from.as_deref(), &|| self.blob(&layer.digest))?;
        }
        let (described, config) = parcel.config;
        let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(config.to_vec()))) };
        client.push_blob(reference, described, None, &open)?;
        let (media_type, document) = parcel.document;
        client.push_manifest(reference, media_type, document)?;
        let digests: Vec<Digest> = parcel.layers.iter().map(|layer| layer.digest).collect();
        let noted = store.layers().put_sources(&digests, reference.registry(), reference.repository());
        Ok(noted.map_err(|error| StoreFailure::new("cannot note where a layer is", error))?)
    }

    fn save(
        &self,
        parcel: &Parcel<'_>,
        folder: &Path,
        tag: &str,
        reset: bool,
    ) -> Result<(), CacheExportError> {
        let (described, config) = parcel.config;
        let (media_type, document) = parcel.document;
        let mut entry = Descriptor::of(media_type, document);
        for layer in parcel.layers {
            write(&blob_path(folder, &layer.digest), &mut || self.blob(&layer.digest))?;
        }
        for (digest, bytes) in [(described.digest, config), (entry.digest, document)] {
            write(&blob_path(folder, &digest), &mut || Ok(Box::new(Cursor::new(bytes.to_vec()))))?;
        }
        write(&folder.join("oci-layout"), &mut || Ok(Box::new(LAYOUT.as_bytes())))?;
        let path = folder.join("index.json");
        let mut index = read_index(&path)?;
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        index
            .manifests
            .retain(|held| !reset && held.annotations.get(REF_NAME).map(String::as_str) != Some(tag));
        index.manifests.push(entry.clone());
        let bytes = serde_json::to_vec(&index).expect("an index has only text for keys");
        replace(&path, &mut || Ok(Box::new(Cursor::new(bytes.clone()))))?;
        if reset {
            let kept: BTreeSet<Digest> = parcel
                .layers
                .iter()
                .map(|layer| layer.digest)
                .chain([described.digest, entry.digest])
                .collect();
            remove_others(folder, &kept)?;
        }
        Ok(())
    }
}

/// When a file system was made. Images say what they like about that, and others read it as a time.
/// All that is sent.
struct Parcel<'a> {
    layers: &'a [Descriptor],
    config: (&'a Descriptor, &'a [u8]),
    document: (&'static str, &'a [u8]),
}

impl CacheForm {
    /// What a layer is called in this form.
    fn layer(self, media_type: &str) -> String {
        let is_docker = self == CacheForm::DockerIndex;
        match (media_type, is_docker) {
            (media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP, true) => {
                media_type::DOCKER_LAYER_GZIP
            }
            (media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP, false) => media_type::OCI_LAYER_GZIP,
            (media_type::OCI_LAYER | media_type::DOCKER_LAYER, true) => media_type::DOCKER_LAYER,
            (media_type::OCI_LAYER | media_type::DOCKER_LAYER, false) => media_type::OCI_LAYER,
            (other, _) => other,
        }
        .to_owned()
    }
}

/// The document that lists everything, and its type.
fn document(form: CacheForm, config: Descriptor, layers: Vec<Descriptor>) -> (&'static str, Vec<u8>) {
    let media_type = match form {
        CacheForm::ImageManifest => {
            let manifest = Manifest::new(media_type::OCI_MANIFEST, config, layers);
            let bytes = serde_json::to_vec(&manifest).expect("a manifest has only text for keys");
            return (media_type::OCI_MANIFEST, bytes);
        }
        CacheForm::Index => media_type::OCI_INDEX,
        CacheForm::DockerIndex => media_type::DOCKER_INDEX,
    };
    let index = Index { manifests: layers.into_iter().chain([config]).collect(), ..empty_index(media_type) };
    (media_type, serde_json::to_vec(&index).expect("an index has only text for keys"))
}

fn empty_index(media_type: &str) -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type.to_owned()),
        manifests: Vec::new(),
        annotations: BTreeMap::new(),
        other: serde_json::Map::new(),
    }
}

/// The index of a folder; an empty one if there is none yet.
fn read_index(path: &Path) -> Result<Index, CacheExportError> {
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(empty_index(media_type::OCI_INDEX));
        }
        Err(source) => return Err(CacheExportError::Write { path: path.to_owned(), source }),
    };
    match Document::parse(Some(media_type::OCI_INDEX), &bytes) {
        Ok(Document::Index(index)) => Ok(index),
        _ => Err(CacheExportError::Index { path: path.to_owned() }),
    }
}

type Open<'a> = dyn FnMut() -> io::Result<Box<dyn Read + Send + 'a>> + 'a;

/// Writes a file that is named by its content, unless it is there.
fn write(path: &Path, open: &mut Open<'_>) -> Result<(), CacheExportError> {
    if path.exists() { Ok(()) } else { replace(path, open) }
}

/// Writes a file so that others see the old one or the new one.
fn replace(path: &Path, open: &mut Open<'_>) -> Result<(), CacheExportError> {
    let failed = |source| CacheExportError::Write { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = fs::File::create(&beside)?;
        io::copy(&mut open()?, &mut file)?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    })();
    written.map_err(|source| {
        // What is left of it is in nobody's way but the user's.
        let _ = fs::remove_file(&beside);
        failed(source)
    })
}

/// Removes what earlier caches left in a folder.
fn remove_others(folder: &Path, kept: &BTreeSet<Digest>) -> Result<(), CacheExportError> {
    let blobs = folder.join("blobs/sha256");
    let failed = |source| CacheExportError::Write { path: blobs.clone(), source };
    for entry in fs::read_dir(&blobs).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let digest = format!("sha256:{}", entry.file_name().to_string_lossy()).parse::<Digest>();
        if digest.is_ok_and(|digest| !kept.contains(&digest)) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}
