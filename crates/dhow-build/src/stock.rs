//! What the build cache holds, and how it is kept from growing without end.
//!
//! An entry is a step's record with the layer, the list of files and the log that it keeps alive. What images
//! have as well is *shared*: removing its entry frees next to nothing. The folders of `RUN --mount=type=cache` are
//! entries too. Entries go in the order of their last use.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use dhow_image::Images;
use dhow_store::{Ref, Store};

use crate::cache::{Kept, STEPS};
use crate::error::{StoreFailure, while_doing};
use crate::run::{CacheFolder, cache_folders, remove_cache_folder};

const READING: &str = "cannot read the build cache";
const REMOVING: &str = "cannot trim the build cache";

/// Something the build cache keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// What it is found by.
    pub id: String,
    /// What it is: the text of the step.
    pub description: String,
    /// The entries it was made on.
    pub parents: Vec<String>,
    /// Bytes of all that it keeps.
    pub size_bytes: u64,
    /// When it was made, in unix seconds.
    pub created: i64,
    /// When it was last used.
    pub last_used: i64,
    /// How often it was used.
    pub uses: u64,
    /// Whether an image has its layer as well.
    pub is_shared: bool,
    /// Whether a build uses it now.
    pub is_in_use: bool,
    /// Whether it is a folder that `RUN --mount=type=cache` keeps.
    pub is_mount: bool,
    /// What it keeps alive, with sizes.
    parts: BTreeSet<(Ref, u64)>,
}

/// Bytes of several entries, each thing counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheTotals {
    /// Of all.
    pub bytes: u64,
    /// Of those whose removal would free something now.
    pub reclaimable_bytes: u64,
}

/// What to remove of the cache.
#[derive(Clone, Copy)]
pub struct PruneCache<'a> {
    /// Shared entries as well.
    pub shared: bool,
    /// Only these.
    pub fits: &'a dyn Fn(&CacheEntry) -> bool,
    /// Stop when the rest takes no more than this.
    pub bytes_max: Option<u64>,
}

/// The build cache of a store.
#[derive(Clone, Copy)]
pub struct Stock<'a> {
    images: &'a Images,
}

impl<'a> Stock<'a> {
    /// The build cache beside `images`.
    pub fn new(images: &'a Images) -> Stock<'a> {
        Stock { images }
    }

    fn store(&self) -> &'a Store {
        self.images.store()
    }

    /// All entries, the one used longest ago first.
    pub fn entries(&self) -> Result<Vec<CacheEntry>, StoreFailure> {
        let records = self.store().records(STEPS).list().map_err(while_doing(READING))?;
        let uses = self.store().records(STEPS).uses().map_err(while_doing(READING))?;
        let leased: HashSet<Ref> = self.store().leased().map_err(while_doing(READING))?.into_iter().collect();
        let mut measured: HashMap<Ref, (u64, bool)> = HashMap::new();
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            let refs = self.store().records(STEPS).refs(&record.key).map_err(while_doing(READING))?;
            let mut parts = BTreeSet::new();
            let (mut is_shared, mut is_in_use) = (false, false);
            for part in refs {
                let (size, has_others) = match measured.get(&part) {
                    Some(known) => *known,
                    None => *measured.entry(part.clone()).or_insert(self.measure(&part)?),
                };
                is_shared |= has_others && matches!(part, Ref::Snapshot(_));
                is_in_use |= leased.contains(&part);
                parts.insert((part, size));
            }
            // One that cannot be read was written by another dhow; it takes room all the same.
            let kept: Option<Kept> = serde_json::from_str(&record.body).ok();
            let (description, parents) = kept.map(Kept::into_title_and_inputs).unwrap_or_default();
            let used = uses.get(&record.key).copied().unwrap_or_default();
            entries.push(CacheEntry {
                id: record.key,
                description,
                parents,
                size_bytes: parts.iter().map(|(_, size)| size).sum(),
                created: used.first,
                last_used: used.last,
                uses: used.count,
                is_shared,
                is_in_use,
                is_mount: false,
                parts,
            });
        }
        entries.extend(cache_folders(self.store())?.into_iter().map(CacheEntry::of_mount));
        entries.sort_by_key(|entry| entry.last_used);
        Ok(entries)
    }

    /// The size of what an entry keeps, and whether anything but the cache keeps it.
    fn measure(&self, part: &Ref) -> Result<(u64, bool), StoreFailure> {
        let size = match part {
            Ref::Snapshot(name) => {
                let layer = self.store().layers().by_snapshot(name).map_err(while_doing(READING))?;
                layer.map_or(0, |layer| layer.size_bytes)
            }
            Ref::Blob(digest) => {
                let blob = self.store().content().find(digest).map_err(while_doing(READING))?;
                blob.map_or(0, |blob| blob.size_bytes)
            }
            _ => 0,
        };
        let holders = self.store().holders(part).map_err(while_doing(READING))?;
        Ok((size, holders.0.iter().any(|holder| holder.kind != STEPS)))
    }

    /// Removes entries, the one used longest ago first, and returns them. What a build uses now stays. The
    /// bytes are freed by the next gc of the store.
    pub fn prune(&self, prune: &PruneCache<'_>) -> Result<Vec<CacheEntry>, StoreFailure> {
        let entries = self.entries()?;
        let counts = |entry: &&CacheEntry| prune.shared || !entry.is_shared;
        let mut left = Held::of(entries.iter().filter(counts));
        let mut pruned = Vec::new();
        for entry in entries.iter().filter(counts) {
            if prune.bytes_max.is_some_and(|max| left.bytes <= max) {
                break;
            }
            if entry.is_in_use || !(prune.fits)(entry) {
                continue;
            }
            // A step may have taken it since.
            if entry.is_mount && !remove_cache_folder(self.store(), &entry.id)? {
                continue;
            }
            left.release(entry);
            pruned.push(entry.clone());
        }
        let ids = pruned.iter().filter(|entry| !entry.is_mount).map(|entry| entry.id.as_str());
        self.store().records(STEPS).remove_soon(ids).map_err(while_doing(REMOVING))?;
        Ok(pruned)
    }

    /// Bytes that only the cache keeps; the quick answer, which leaves logs and lists of files out.
    pub fn own_bytes(&self) -> Result<u64, StoreFailure> {
        let layers = self.store().layer_bytes_kept_by(STEPS).map_err(while_doing(READING))?;
        let mounts: u64 = cache_folders(self.store())?.iter().map(|folder| folder.size_bytes).sum();
        Ok(layers.saturating_add(mounts))
    }
}

impl CacheEntry {
    fn of_mount(folder: CacheFolder) -> CacheEntry {
        let CacheFolder { name, description, used, is_in_use, size_bytes } = folder;
        CacheEntry {
            id: name,
            description,
            parents: Vec::new(),
            size_bytes,
            created: used.first,
            last_used: used.last,
            uses: used.count,
            is_shared: false,
            is_in_use,
            is_mount: true,
            parts: BTreeSet::new(),
        }
    }

    /// Bytes of it that are no part that another entry may keep as well.
    fn own_bytes(&self) -> u64 {
        if self.is_mount { self.size_bytes } else { 0 }
    }

    /// The word that buildx has for its sort.
    pub fn kind(&self) -> &'static str {
        if self.is_mount { "exec.cachemount" } else { "regular" }
    }

    /// Whether its removal would free something now.
    pub fn is_reclaimable(&self) -> bool {
        !self.is_shared && !self.is_in_use
    }
}

impl CacheTotals {
    /// The totals of `entries`.
    pub fn of(entries: &[CacheEntry]) -> CacheTotals {
        CacheTotals {
            bytes: Held::of(entries).bytes,
            reclaimable_bytes: Held::of(entries.iter().filter(|entry| entry.is_reclaimable())).bytes,
        }
    }
}

/// Things that entries keep, and how many do.
struct Held<'e> {
    holders: BTreeMap<&'e Ref, usize>,
    bytes: u64,
}

impl<'e> Held<'e> {
    fn of(entries: impl IntoIterator<Item = &'e CacheEntry>) -> Held<'e> {
        let mut held = Held { holders: BTreeMap::new(), bytes: 0 };
        for entry in entries {
            held.bytes += entry.own_bytes();
            for (part, size) in &entry.parts {
                let count = held.holders.entry(part).or_default();
                *count += 1;
                if *count == 1 {
                    held.bytes += size;
                }
            }
        }
        held
    }

    fn release(&mut self, entry: &CacheEntry) {
        self.bytes -= entry.own_bytes();
        for (part, size) in &entry.parts {
            if let Some(count) = self.holders.get_mut(part) {
                *count -= 1;
                if *count == 0 {
                    self.bytes -= size;
                }
            }
        }
    }
}
