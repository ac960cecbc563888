//! What is to become of a finished build: the outputs a user asks for (`-o`), as data.

mod attest;
mod attributes;
mod csv;
mod parse;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use dhow_image::{Annotation, Dialect, LayerForm};
use dhow_oci::Reference;

pub use attest::{
    ProvenanceMode, ProvenanceRequest, ProvenanceVersion, parse_attestation, parse_short_attestation,
};
pub use attributes::{Attributes, OutputError};
pub use csv::split_csv;
pub use parse::{parse_annotation, parse_output};

/// Where results go and what is noted on them.
#[derive(Clone, Debug, Default)]
pub struct OutputRequest {
    /// The outputs; none is an image in the store.
    pub outputs: Vec<Output>,
    /// Notes for all images among them.
    pub annotations: Vec<Annotation>,
    /// Whether all layers on top of the base become one.
    pub squash: bool,
    /// What is told of how it was made; `None` is nothing.
    pub provenance: Option<ProvenanceRequest>,
    /// Whether somebody wants to know the digest the image would have in a registry, which takes packing it.
    pub digest_wanted: bool,
}

/// One thing to make of a build.
#[derive(Clone, Debug)]
pub enum Output {
    /// The files of the final stage, in a folder.
    Local {
        /// The folder.
        dest: PathBuf,
        /// Whether each platform has a folder of its own in it; `None` if there are several.
        split: Option<bool>,
        /// Whether what is there and not part of the result is removed.
        delete: bool,
    },
    /// The files of the final stage, as a tar.
    Tar {
        /// Where it goes.
        dest: ArchiveDest,
        /// As with a folder.
        split: Option<bool>,
    },
    /// An image as an OCI image layout.
    Layout {
        /// Where it goes.
        dest: LayoutDest,
        /// Whether `docker load` is to read it.
        docker: bool,
        /// Names in the layout; none are those of the build.
        names: Vec<Reference>,
        /// How it is packed.
        pack: PackRequest,
    },
    /// An image in the store, in a registry or both.
    Image(ImageOutput),
}

/// An image in the store, in a registry or both.
#[derive(Clone, Debug)]
pub struct ImageOutput {
    /// Its names; none are those of the build.
    pub names: Vec<Reference>,
    /// Whether it is pushed to where its names say.
    pub push: bool,
    /// Whether it gets no tag there.
    pub push_by_digest: bool,
    /// Whether the store keeps it.
    pub store: bool,
    /// The repository that it is named by with its digest, if it has no other name.
    pub dangling_prefix: Option<Reference>,
    /// Whether it gets the name of its digest beside those it has.
    pub name_canonical: bool,
    /// How it is packed.
    pub pack: PackRequest,
}

impl Default for ImageOutput {
    fn default() -> ImageOutput {
        ImageOutput {
            names: Vec::new(),
            push: false,
            push_by_digest: false,
            store: true,
            dangling_prefix: None,
            name_canonical: false,
            pack: PackRequest::default(),
        }
    }
}

/// How an image is packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackRequest {
    /// The form of layers; `None` is that of a push, made when it is needed.
    pub layers: Option<LayerForm>,
    /// Whose media types are used; `None` is whatever there is.
    pub dialect: Option<Dialect>,
    /// Whether files of new layers that are younger than `SOURCE_DATE_EPOCH` get its time; `None` is yes if
    /// there is one.
    pub rewrite_timestamp: Option<bool>,
    /// The time to use in place of the build's `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Notes for this output.
    pub annotations: Vec<Annotation>,
}

impl PackRequest {
    /// Whether anything about the package matters before it is pushed or saved.
    pub(crate) fn is_particular(&self) -> bool {
        self.layers.is_some() || self.dialect.is_some() || !self.annotations.is_empty()
    }
}

/// Where a stream goes.
#[derive(Clone, Debug)]
pub enum ArchiveDest {
    /// A file, which appears when it is complete.
    File(PathBuf),
    /// Something that is open: standard output.
    Open(Arc<File>),
}

/// Where a layout goes.
#[derive(Clone, Debug)]
pub enum LayoutDest {
    /// A tar.
    Archive(ArchiveDest),
    /// A folder.
    Folder(PathBuf),
}
