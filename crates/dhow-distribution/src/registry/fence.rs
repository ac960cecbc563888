use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use dhow_oci::Digest;
use serde::{Deserialize, Serialize};

use super::Registry;
use crate::storage::StorageError;

/// An announcement that has been seen for so long was left by a process that died.
pub(super) const FENCE_SECONDS_MAX: u64 = 60;
/// Announcements that are older are removed by the next collector.
const FORGET_AGE: Duration = Duration::from_secs(600);
const FENCE_POLL: Duration = Duration::from_millis(100);
const PREFIX: &str = "gc/";

/// What a collector is about to remove.
#[derive(Serialize, Deserialize)]
struct Announcement {
    digests: Vec<Digest>,
}

impl Registry {
    /// Announces that `digests` are about to be removed. Returns the name of the announcement.
    pub(crate) async fn announce(&self, digests: &[Digest]) -> Result<String, StorageError> {
        let key = format!("{PREFIX}{}", super::random_name());
        let text = serde_json::to_vec(&Announcement { digests: digests.to_vec() }).expect("digests are JSON");
        self.storage.put(&key, text.into()).await?;
        Ok(key)
    }

    /// Ends an announcement: they are removed, or stay.
    pub(crate) async fn retract(&self, announcement: &str) -> Result<(), StorageError> {
        self.storage.delete(announcement).await.map(drop)
    }

    /// Waits until nobody is about to remove one of `digests`. To be called when what relies on them is written, and
    /// before it is made sure that they are there.
    pub(super) async fn fence(&self, digests: &[Digest]) -> Result<(), StorageError> {
        let mut seen: HashMap<String, Instant> = HashMap::new();
        loop {
            let announced = self.storage.list(PREFIX, None, usize::MAX).await?;
            let mut concerned = false;
            for entry in announced {
                let since = *seen.entry(entry.key.clone()).or_insert_with(Instant::now);
                if !self.concerns(&entry.key, digests).await? {
                    continue;
                }
                if since.elapsed() > Duration::from_secs(FENCE_SECONDS_MAX) {
                    self.storage.delete(&entry.key).await?;
                } else {
                    concerned = true;
                }
            }
            if !concerned {
                return Ok(());
            }
            tokio::time::sleep(FENCE_POLL).await;
        }
    }

    /// Removes announcements of collectors that died. One that lives has had its announcement for a shorter time, if
    /// the clocks of its machine, ours and the storage's agree to some minutes.
    pub(super) async fn forget_the_dead(&self) -> Result<u64, StorageError> {
        let mut forgotten = 0;
        for entry in self.storage.list(PREFIX, None, usize::MAX).await? {
            let age = SystemTime::now().duration_since(entry.written).unwrap_or_default();
            if age > FORGET_AGE {
                self.storage.delete(&entry.key).await?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    async fn concerns(&self, key: &str, digests: &[Digest]) -> Result<bool, StorageError> {
        let Some(text) = self.storage.get(key).await? else { return Ok(false) };
        // What cannot be read may be about anything.
        let announcement = serde_json::from_slice::<Announcement>(&text);
        Ok(announcement.map_or(true, |announcement| {
            announcement.digests.iter().any(|announced| digests.contains(announced))
        }))
    }
}
