//! The form in which an image leaves: how its layers are packed and whose names its parts have.

use std::num::NonZeroUsize;
use std::thread;

use dhow_layer::{CompressOptions, Compression, CompressorId};
use dhow_oci::media_type;

/// How layers are to travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerForm {
    /// The format of layers that were made here.
    pub compression: Compression,
    /// How hard to compress; `None` is the format's default.
    pub level: Option<u32>,
    /// Whether layers that came from elsewhere in another form are packed anew.
    pub force: bool,
}

impl Default for LayerForm {
    fn default() -> LayerForm {
        LayerForm { compression: Compression::Gzip, level: None, force: false }
    }
}

impl LayerForm {
    pub(crate) fn options(&self) -> CompressOptions {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        CompressOptions { level: self.level, ..CompressOptions::new(self.compression, threads) }
    }

    pub(crate) fn id(&self) -> CompressorId {
        self.options().id()
    }

    /// Whether bytes of this type that another tool made will do.
    pub(crate) fn accepts_foreign(&self, media_type: &str) -> bool {
        let is_alike = Dialect::Oci.layer(media_type) == Dialect::Oci.layer_of(self.compression);
        !self.force || (self.level.is_none() && is_alike)
    }
}

/// Whose media types a manifest uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Those of image-spec.
    #[default]
    Oci,
    /// Those of Docker's schema 2, which know no zstd.
    Docker,
}

impl Dialect {
    pub(crate) fn index(self) -> &'static str {
        if self == Dialect::Oci { media_type::OCI_INDEX } else { media_type::DOCKER_INDEX }
    }

    pub(crate) fn manifest(self) -> &'static str {
        if self == Dialect::Oci { media_type::OCI_MANIFEST } else { media_type::DOCKER_MANIFEST }
    }

    pub(crate) fn config(self) -> &'static str {
        if self == Dialect::Oci { media_type::OCI_CONFIG } else { media_type::DOCKER_CONFIG }
    }

    pub(crate) fn layer_of(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Dialect::Oci, Compression::None) => media_type::OCI_LAYER,
            (Dialect::Oci, Compression::Gzip) => media_type::OCI_LAYER_GZIP,
            (Dialect::Docker, Compression::None) => media_type::DOCKER_LAYER,
            (Dialect::Docker, Compression::Gzip) => media_type::DOCKER_LAYER_GZIP,
            (_, Compression::Zstd) => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// The name this dialect has for a layer's type in either.
    pub(crate) fn layer(self, media_type: &str) -> String {
        let compression = match media_type {
            media_type::OCI_LAYER | media_type::DOCKER_LAYER => Compression::None,
            media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Compression::Gzip,
            other => return other.to_owned(),
        };
        self.layer_of(compression).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_elsewhere_is_packed_anew_only_by_force() {
        let zstd = LayerForm { compression: Compression::Zstd, ..LayerForm::default() };
        assert!(zstd.accepts_foreign(media_type::DOCKER_LAYER_GZIP));
        let forced = LayerForm { force: true, ..zstd };
        assert!(!forced.accepts_foreign(media_type::DOCKER_LAYER_GZIP));
        assert!(forced.accepts_foreign(media_type::OCI_LAYER_ZSTD));
        // Nobody knows at what level others compressed.
        assert!(!LayerForm { level: Some(9), ..forced }.accepts_foreign(media_type::OCI_LAYER_ZSTD));
    }

    #[test]
    fn each_dialect_has_its_own_word_for_the_same_layer() {
        assert_eq!(Dialect::Oci.layer(media_type::DOCKER_LAYER_GZIP), media_type::OCI_LAYER_GZIP);
        assert_eq!(Dialect::Docker.layer(media_type::OCI_LAYER), media_type::DOCKER_LAYER);
        assert_eq!(Dialect::Docker.layer(media_type::OCI_LAYER_ZSTD), media_type::OCI_LAYER_ZSTD);
    }
}
