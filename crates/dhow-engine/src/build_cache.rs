//! What the build cache takes, and how it is kept small.

use dhow_build::{PruneCache, Stock, StoreFailure};
use dhow_store::GcError;

pub use dhow_build::{CacheEntry, CacheTotals};

use crate::Engine;

/// What to remove of the build cache.
#[derive(Clone, Copy)]
pub struct PruneBuildCache<'a> {
    /// Entries as well whose layers images have.
    pub all: bool,
    /// Only these.
    pub fits: &'a dyn Fn(&CacheEntry) -> bool,
    /// Bytes to leave in any case.
    pub reserved_bytes: Option<u64>,
    /// Bytes that the cache may take.
    pub bytes_max: Option<u64>,
    /// Bytes that are to be free on the disk.
    pub free_bytes_min: Option<u64>,
}

/// Why the build cache was not pruned, or not measured.
#[derive(Debug, thiserror::Error)]
pub enum BuildCacheError {
    /// It cannot be read or changed.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// What was removed could not be freed.
    #[error(transparent)]
    Gc(#[from] GcError),
    /// The disk does not say how much room it has.
    #[error("cannot tell how much room the disk of the store has")]
    Disk(#[source] std::io::Error),
}

impl Engine {
    /// What the build cache holds, the entry used longest ago first.
    pub fn build_cache(&self) -> Result<Vec<CacheEntry>, BuildCacheError> {
        Ok(Stock::new(&self.images).entries()?)
    }

    /// Removes entries of the build cache, the one used longest ago first, and returns them.
    pub fn prune_build_cache(&self, prune: &PruneBuildCache<'_>) -> Result<Vec<CacheEntry>, BuildCacheError> {
        let stock = Stock::new(&self.images);
        let bytes_max = self.bytes_to_leave(&stock, prune)?;
        let pruned = stock.prune(&PruneCache { shared: prune.all, fits: prune.fits, bytes_max })?;
        if !pruned.is_empty() {
            self.images.gc((self.settings.clock)().into(), &|key| self.is_container(key))?;
        }
        Ok(pruned)
    }

    /// Bytes to leave of the cache; `None` is nothing at all.
    fn bytes_to_leave(
        &self,
        stock: &Stock<'_>,
        prune: &PruneBuildCache<'_>,
    ) -> Result<Option<u64>, BuildCacheError> {
        let for_disk = match prune.free_bytes_min {
            None => None,
            Some(wanted) => {
                let missing = wanted.saturating_sub(self.free_bytes()?);
                Some(if missing == 0 { u64::MAX } else { stock.own_bytes()?.saturating_sub(missing) })
            }
        };
        let limit = prune.bytes_max.into_iter().chain(for_disk).min();
        Ok(match (limit, prune.reserved_bytes) {
            (limit, None) => limit,
            (None, reserved) => reserved,
            (Some(limit), Some(reserved)) => Some(limit.max(reserved)),
        })
    }

    fn free_bytes(&self) -> Result<u64, BuildCacheError> {
        let stat =
            rustix::fs::statvfs(self.store().root()).map_err(|error| BuildCacheError::Disk(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Keeps the build cache below what the settings allow. As long as it is, that costs a few queries, and a look
    /// at the files of the cache mounts that were used.
    pub(crate) fn trim_build_cache(&self) -> Result<(), BuildCacheError> {
        let bytes_max = self.settings.build_cache_bytes_max;
        if Stock::new(&self.images).own_bytes()? <= bytes_max {
            return Ok(());
        }
        let prune = PruneBuildCache {
            all: false,
            fits: &|_| true,
            reserved_bytes: None,
            bytes_max: Some(bytes_max),
            free_bytes_min: None,
        };
        self.prune_build_cache(&prune).map(drop)
    }
}
