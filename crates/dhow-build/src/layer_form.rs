//! How layers are to be packed, as outputs and caches say it: `compression`, `compression-level` and
//! `force-compression`.

use std::ops::RangeInclusive;

use dhow_image::LayerForm;
use dhow_layer::Compression;

/// The names there are, for hints.
pub(crate) const COMPRESSIONS: &str = "the compressions are uncompressed, gzip and zstd";

/// The attributes as they were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct SaidForm {
    pub compression: Option<String>,
    pub level: Option<u32>,
    pub force: Option<bool>,
}

/// Why layers cannot be packed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    /// There is such a compression, but not here.
    #[error("compression={0} is not supported yet")]
    Unsupported(String),
    /// There is no such compression.
    #[error("there is no compression {0}")]
    Unknown(String),
    /// Nothing is compressed.
    #[error("compression-level means nothing without compression")]
    Meaningless,
    /// The compression has no such level.
    #[error("levels of {compression} are {} to {}", levels.start(), levels.end())]
    Level { level: u32, compression: Compression, levels: RangeInclusive<u32> },
}

impl SaidForm {
    /// The form; `None` if nothing was said.
    pub(crate) fn form(&self) -> Result<Option<LayerForm>, FormError> {
        let said = match self.compression.as_deref() {
            None => None,
            Some("uncompressed") => Some(Compression::None),
            Some("gzip") => Some(Compression::Gzip),
            Some("zstd") => Some(Compression::Zstd),
            Some(known @ ("estargz" | "nydus" | "overlaybd")) => {
                return Err(FormError::Unsupported(known.to_owned()));
            }
            Some(other) => return Err(FormError::Unknown(other.to_owned())),
        };
        let compression = said.unwrap_or(Compression::Gzip);
        // 0 is zstd's own word for its default, and gzip's for none at all.
        let level = self.level.filter(|level| (compression, *level) != (Compression::Zstd, 0));
        if let Some(level) = level {
            check_level(compression, level)?;
        }
        let is_said = said.is_some() || level.is_some() || self.force.is_some();
        Ok(is_said.then_some(LayerForm { compression, level, force: self.force.unwrap_or(false) }))
    }
}

fn check_level(compression: Compression, level: u32) -> Result<(), FormError> {
    let levels = match compression {
        Compression::None => return Err(FormError::Meaningless),
        Compression::Gzip => 0..=9,
        Compression::Zstd => 1..=22,
    };
    if levels.contains(&level) { Ok(()) } else { Err(FormError::Level { level, compression, levels }) }
}
