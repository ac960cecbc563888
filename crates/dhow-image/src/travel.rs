//! The bytes in which layers leave: those they came in, or else, once, ours.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use dhow_layer::{Compression, Compressor, Decompressor, DiffError, DiffOptions, write_tar};
use dhow_oci::{Descriptor, DiffId, Digest, Digester, Document, MANIFEST_BYTES_MAX, Manifest, media_type};
use dhow_snapshot::Snapshotter as _;
use dhow_store::{
    AcquireError, CommitError, DatabaseError, Image, IngestError, LayerBlob, Lease, PutRecordError, ReadError,
};

use crate::form::{Dialect, LayerForm};
use crate::{Images, ReadImageError};

/// Between tar writer and compressor.
const BUFFER_BYTES: usize = 128 << 10;
/// Records of layers' travelling bytes that were made here: by what compressor, under the blob's digest.
const MADE_HERE: &str = "layer-form";

/// Why a layer cannot leave.
#[derive(Debug, thiserror::Error)]
pub enum TravelError {
    /// Its folder cannot be written as a tar.
    #[error("cannot write layer {diff_id}")]
    Diff {
        /// The layer.
        diff_id: DiffId,
        /// Why.
        source: DiffError,
    },
    /// Its bytes cannot be compressed.
    #[error("cannot compress layer {diff_id}")]
    Compress {
        /// The layer.
        diff_id: DiffId,
        /// Why.
        source: io::Error,
    },
    /// It was made elsewhere, and the bytes it came in are gone.
    #[error(
        "the original bytes of layer {diff_id} are not here and cannot be made again: pull the image it is from"
    )]
    Lost {
        /// The layer.
        diff_id: DiffId,
    },
    /// It is not here at all.
    #[error(transparent)]
    Missing(#[from] ReadImageError),
    /// The store could not be asked.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The compressed bytes could not be stored.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The compressed bytes could not be stored.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// How they were compressed could not be recorded.
    #[error(transparent)]
    Record(#[from] PutRecordError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// A manifest with its bytes.
#[derive(Clone, Debug)]
pub(crate) struct WrittenManifest {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Manifest,
}

impl WrittenManifest {
    /// A manifest of our own making. Layers are called by the names that `dialect` has for them: a manifest
    /// that mixes both is refused by some registries.
    ///
    /// Unless somebody wants otherwise it speaks OCI, as its layers then may be zstd and every registry and
    /// engine of the last years reads it. An image that came with a Docker manifest leaves with it.
    pub(crate) fn new(
        dialect: Dialect,
        config: Descriptor,
        layers: Vec<Descriptor>,
        annotations: BTreeMap<String, String>,
    ) -> WrittenManifest {
        let named = |layer: Descriptor| Descriptor { media_type: dialect.layer(&layer.media_type), ..layer };
        let layers = layers.into_iter().map(named).collect();
        let config = Descriptor { media_type: dialect.config().to_owned(), ..config };
        let manifest = Manifest { annotations, ..Manifest::new(dialect.manifest(), config, layers) };
        let bytes = serde_json::to_vec(&manifest).expect("a manifest has only text for keys");
        let descriptor = Descriptor::of(dialect.manifest(), &bytes);
        WrittenManifest { descriptor, bytes, manifest }
    }
}

impl Images {
    /// The manifest an image came with, if it is still here. Below an index it is the one of this image.
    pub(crate) fn original_manifest(&self, image: &Image) -> Option<WrittenManifest> {
        let target = image.record.target.as_ref()?;
        match self.document(target)? {
            (bytes, Document::Manifest(manifest)) => {
                let is_ours = manifest.config.digest == image.record.id;
                is_ours.then(|| WrittenManifest { descriptor: target.clone(), bytes, manifest: *manifest })
            }
            (_, Document::Index(_)) => {
                image.record.blobs.iter().find_map(|digest| self.manifest_of(image, digest))
            }
        }
    }

    fn manifest_of(&self, image: &Image, digest: &Digest) -> Option<WrittenManifest> {
        let size = self.store().content().find(digest).ok()??.size_bytes;
        // Layers are among these blobs too; almost all are told by their size or first byte.
        let (bytes, document) = self.document(&Descriptor::new("", *digest, size))?;
        let Document::Manifest(manifest) = document else { return None };
        if manifest.config.digest != image.record.id {
            return None;
        }
        let media_type = manifest.media_type.clone().unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
        let descriptor = Descriptor::new(media_type, *digest, bytes.len() as u64);
        Some(WrittenManifest { descriptor, bytes, manifest: *manifest })
    }

    pub(crate) fn document(&self, descriptor: &Descriptor) -> Option<(Vec<u8>, Document)> {
        let bytes = self.store().content().read_bounded(&descriptor.digest, MANIFEST_BYTES_MAX).ok()?;
        let served_as = Some(descriptor.media_type.as_str()).filter(|name| !name.is_empty());
        let document = Document::parse(served_as, &bytes).ok()?;
        Some((bytes, document))
    }

    /// The travelling bytes of the layer at `position` of a stack, in the store and protected by `lease`.
    ///
    /// Bytes that another tool made are kept as they came, unless `form` insists on its own; ours are made
    /// when first needed and remembered, from bytes that are here, in whatever form, or else from the files.
    pub(crate) fn travelling(
        &self,
        stack: &[DiffId],
        position: usize,
        form: &LayerForm,
        lease: &Lease,
    ) -> Result<Descriptor, TravelError> {
        let diff_id = stack[position];
        let (mut plain, mut packed, mut made_here) = (None, None, None);
        for blob in self.store().layers().blobs_of(&diff_id)? {
            if self.store().content().acquire(lease, &blob.digest)?.is_none() {
                continue;
            }
            if blob.digest == diff_id.digest() {
                plain = Some(blob);
                continue;
            }
            match self.made_as(&blob.digest)? {
                None if form.accepts_foreign(&blob.media_type) => return Ok(descriptor(blob)),
                Some(made_as) if made_as == form.id().as_str() => made_here = Some(blob),
                _ => packed = packed.or(Some(blob)),
            }
        }
        if let Some(blob) = made_here {
            return Ok(descriptor(blob));
        }
        let blob = match plain.or(packed) {
            Some(here) if form.compression == Compression::None && here.digest == diff_id.digest() => here,
            Some(here) => self.compress(diff_id, form, lease, |output| {
                let mut input = Decompressor::new(self.store().content().open(&here.digest)?)
                    .map_err(|source| TravelError::Compress { diff_id, source })?;
                let copied = io::copy(&mut input, output);
                copied.map(drop).map_err(|source| TravelError::Compress { diff_id, source })
            })?,
            None => {
                let folder = self.layer_folder(stack, position)?;
                self.compress(diff_id, form, lease, |output| tar(diff_id, &folder, output))?
            }
        };
        Ok(descriptor(blob))
    }

    fn layer_folder(&self, stack: &[DiffId], position: usize) -> Result<PathBuf, ReadImageError> {
        let snapshots = self.layer_snapshots(&stack[..=position])?;
        let folder = self.snapshots().layer_path(&snapshots[position]);
        folder.ok_or(ReadImageError::LayerMissing { diff_id: stack[position] })
    }

    /// Which compressor of ours made these bytes; `None` if they came from elsewhere.
    fn made_as(&self, digest: &Digest) -> Result<Option<String>, DatabaseError> {
        Ok(self.store().records(MADE_HERE).get(&digest.to_string())?.map(|record| record.body))
    }

    /// Compresses what `write` writes and stores it if it is the layer.
    fn compress(
        &self,
        diff_id: DiffId,
        form: &LayerForm,
        lease: &Lease,
        write: impl FnOnce(&mut dyn Write) -> Result<(), TravelError>,
    ) -> Result<LayerBlob, TravelError> {
        let failed = |source| TravelError::Compress { diff_id, source };
        let ingest = self.store().content().ingest(lease)?;
        let compressor = Compressor::new(ingest, &form.options()).map_err(failed)?;
        let mut output = BufWriter::with_capacity(
            BUFFER_BYTES,
            Digested { output: compressor, digester: Digester::sha256() },
        );
        write(&mut output)?;
        let Digested { output, digester } =
            output.into_inner().map_err(|error| failed(error.into_error()))?;
        let ingest = output.finish().map_err(failed)?;
        if DiffId::new(digester.finish()) != diff_id {
            return Err(TravelError::Lost { diff_id });
        }
        let blob = ingest.commit()?;
        let media_type = Dialect::Oci.layer_of(form.compression).to_owned();
        let blob = LayerBlob { digest: blob.digest, diff_id, media_type, size_bytes: blob.size_bytes };
        self.store().records(MADE_HERE).put_soon(&blob.digest.to_string(), form.id().as_str(), &[])?;
        self.store().layers().put_blobs(std::slice::from_ref(&blob))?;
        Ok(blob)
    }
}

fn descriptor(blob: LayerBlob) -> Descriptor {
    Descriptor::new(blob.media_type, blob.digest, blob.size_bytes)
}

fn tar(diff_id: DiffId, folder: &Path, output: &mut dyn Write) -> Result<(), TravelError> {
    let written = write_tar(folder, output, &DiffOptions::default());
    written.map(drop).map_err(|source| TravelError::Diff { diff_id, source })
}

/// Digests what passes through.
struct Digested<W> {
    output: W,
    digester: Digester,
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.digester.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
