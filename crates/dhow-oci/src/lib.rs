//! The nouns of image-spec and distribution-spec, parsed and printed; no I/O.
//!
//! Values are checked where they enter: a [`Digest`], a [`Reference`] or a [`Platform`] that exists is well
//! formed. The wire types ([`Manifest`], [`Index`], [`ImageConfig`], [`Descriptor`]) keep fields they do not
//! know, so that reading and writing one loses nothing.
#![forbid(unsafe_code)]

mod config;
mod descriptor;
mod digest;
mod manifest;
pub mod media_type;
mod platform;
mod reference;

pub use config::{ContainerConfig, Empty, HealthConfig, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, ChainId, DiffId, Digest, Digester, ParseDigestError, chain_ids};
pub use manifest::{Document, DocumentError, Index, MANIFEST_BYTES_MAX, Manifest};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, ParseReferenceError, Reference, is_repository, is_tag};
