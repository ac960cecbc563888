//! Removes what nothing leads to, while pushes run; the text of [`super`] says why that is safe.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use dhow_oci::{Digest, Document};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::manifests::{AT_ONCE, references};
use super::{Page, Registry, blob_key, catalog_key, digest_at_end, fence};
use crate::storage::{Entry, StorageError};

/// So many digests are announced at a time.
const BATCH: usize = 1000;
/// After this much of a fence's time the collector stops removing, to be sure that its announcement still counts.
const REMOVE_SECONDS_MAX: u64 = fence::FENCE_SECONDS_MAX / 2;
/// What has lain in the storage unfinished for so long was left by a process that died.
const SWEEP_AGE: Duration = Duration::from_secs(3600);

/// What to collect.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// Blobs that were pushed or asked for within this time stay: an image may be on its way that has them.
    pub grace: Duration,
    /// Uploads that nobody has continued for this time are removed.
    pub upload_expiry: Duration,
    /// Only count.
    pub dry_run: bool,
}

/// What was collected, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blobs whose content was removed.
    pub blobs: u64,
    /// How much that was.
    pub bytes: u64,
    /// Blobs taken from repositories that no longer need them, though others may.
    pub unlinked: u64,
    /// Uploads that nobody continued.
    pub uploads: u64,
    /// Other things left behind by processes that were killed.
    pub swept: u64,
}

/// What there is, seen once.
#[derive(Default)]
struct Survey {
    /// Digests that a repository's manifests need.
    needed: HashMap<String, HashSet<Digest>>,
    /// Blobs' records that are older than the grace, by repository.
    old: BTreeMap<String, Vec<Digest>>,
    /// Digests with a record that is not.
    young: HashSet<Digest>,
    /// Repositories whose manifests are gone.
    empty: Vec<String>,
}

impl Survey {
    fn needs(&self, repository: &str, digest: &Digest) -> bool {
        self.needed.get(repository).is_some_and(|needed| needed.contains(digest))
    }

    /// Records nobody needs: repository and digest.
    fn unneeded(&self) -> HashSet<(String, Digest)> {
        let pairs = self.old.iter().flat_map(|(repository, digests)| {
            let unneeded = digests.iter().filter(move |digest| !self.needs(repository, digest));
            unneeded.map(move |digest| (repository.clone(), *digest))
        });
        pairs.collect()
    }

    /// Digests whose content must stay: one that is needed, and one whose record stays.
    fn keeps(&self) -> HashSet<Digest> {
        let needed = self.needed.values().flatten().copied();
        needed.chain(self.young.iter().copied()).collect()
    }
}

impl Registry {
    /// Collects garbage.
    pub(crate) async fn gc(&self, options: &GcOptions) -> Result<GcReport, StorageError> {
        let mut report = GcReport::default();
        self.expire_uploads(options, &mut report).await?;
        if !options.dry_run {
            report.swept = self.storage.sweep(ago(SWEEP_AGE)).await?;
        }
        if !options.dry_run {
            report.swept += self.forget_the_dead().await?;
        }
        let mut known = HashMap::new();
        let first = self.survey(options, &mut known).await?;
        let unneeded = first.unneeded();
        let keeps = first.keeps();
        let deadline = ago(options.grace);
        let contents = self.storage.contents().await?;
        let unneeded_contents: HashSet<Digest> = contents
            .iter()
            .filter(|content| content.written < deadline && !keeps.contains(&content.digest))
            .map(|content| content.digest)
            .collect();
        let mut digests: Vec<Digest> =
            unneeded.iter().map(|(_, digest)| *digest).chain(unneeded_contents.iter().copied()).collect();
        digests.sort_unstable();
        digests.dedup();
        if options.dry_run {
            report.unlinked = unneeded.len() as u64;
            for digest in &unneeded_contents {
                report.blobs += 1;
                report.bytes += self.storage.size(*digest).await?.unwrap_or(0);
            }
            return Ok(report);
        }
        for batch in digests.chunks(BATCH) {
            let since = Instant::now();
            let announcement = self.announce(batch).await?;
            let outcome =
                self.remove(options, batch, &unneeded_contents, since, &mut known, &mut report).await;
            self.retract(&announcement).await?;
            outcome?;
        }
        for repository in &first.empty {
            self.drop_from_catalog(repository).await?;
        }
        Ok(report)
    }

    /// Removes what of `batch` is still needed by nobody, now that it is announced.
    async fn remove(
        &self,
        options: &GcOptions,
        batch: &[Digest],
        contents: &HashSet<Digest>,
        since: Instant,
        known: &mut HashMap<Digest, Vec<Digest>>,
        report: &mut GcReport,
    ) -> Result<(), StorageError> {
        let batch: HashSet<Digest> = batch.iter().copied().collect();
        let survey = self.survey(options, known).await?;
        let keeps = survey.keeps();
        let is_late = || since.elapsed() > Duration::from_secs(REMOVE_SECONDS_MAX);
        for (repository, digest) in survey.unneeded() {
            if is_late() {
                return Ok(());
            }
            if batch.contains(&digest) && self.storage.delete(&blob_key(&repository, digest)).await? {
                report.unlinked += 1;
            }
        }
        for digest in batch.iter().filter(|digest| contents.contains(digest) && !keeps.contains(digest)) {
            let Some(bytes) = self.storage.size(*digest).await? else { continue };
            if is_late() {
                return Ok(());
            }
            self.storage.remove(*digest).await?;
            report.blobs += 1;
            report.bytes += bytes;
        }
        Ok(())
    }

    /// Looks at all repositories. `known` has what manifests refer to, which never changes.
    async fn survey(
        &self,
        options: &GcOptions,
        known: &mut HashMap<Digest, Vec<Digest>>,
    ) -> Result<Survey, StorageError> {
        let deadline = ago(options.grace);
        let mut survey = Survey::default();
        for entry in self.storage.list("repositories/", None, usize::MAX).await? {
            let Some((repository, kind)) = split(&entry.key) else { continue };
            let Some(digest) = digest_at_end(&entry.key) else { continue };
            match kind {
                "_blobs" if entry.written < deadline => {
                    survey.old.entry(repository.to_owned()).or_default().push(digest);
                }
                "_blobs" => {
                    survey.young.insert(digest);
                }
                "_manifests" => {
                    let needed = survey.needed.entry(repository.to_owned()).or_default();
                    // Read below, all at once.
                    needed.insert(digest);
                }
                _ => {}
            }
        }
        self.follow(&mut survey, known).await?;
        let mut page = Page::default();
        loop {
            let catalog = self.catalog(&page, |_| true).await?;
            page.last = catalog.names.last().cloned();
            survey.empty.extend(catalog.names.into_iter().filter(|name| !survey.needed.contains_key(name)));
            if !catalog.more {
                return Ok(survey);
            }
        }
    }

    /// Adds what the manifests found refer to.
    async fn follow(
        &self,
        survey: &mut Survey,
        known: &mut HashMap<Digest, Vec<Digest>>,
    ) -> Result<(), StorageError> {
        let found = survey.needed.iter().flat_map(|(repository, digests)| {
            digests
                .iter()
                .filter(|digest| !known.contains_key(digest))
                .map(move |digest| (repository.clone(), *digest))
        });
        let reads = found.map(|(repository, digest)| async move {
            let bytes = self.manifest_bytes(&repository, digest).await?;
            Ok::<_, StorageError>((digest, bytes))
        });
        let reads: Vec<_> = reads.collect();
        let read: Vec<_> = futures_util::stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        for (digest, bytes) in read {
            // It may have been deleted meanwhile, and then refers to nothing.
            let Some(bytes) = bytes else { continue };
            let document = Document::parse(None, &bytes)
                .map_err(|error| StorageError::failed("understand manifest", digest.to_string(), error))?;
            known.insert(digest, references(&document).iter().map(|reference| reference.digest).collect());
        }
        for needed in survey.needed.values_mut() {
            let referred: Vec<Digest> =
                needed.iter().filter_map(|digest| known.get(digest)).flatten().copied().collect();
            needed.extend(referred);
        }
        Ok(())
    }

    async fn expire_uploads(&self, options: &GcOptions, report: &mut GcReport) -> Result<(), StorageError> {
        let deadline = ago(options.upload_expiry);
        for (upload, written) in self.storage.uploads().await? {
            if written >= deadline {
                continue;
            }
            if !options.dry_run {
                match self.storage.resume(&upload).await {
                    Ok(Some(open)) => open.discard().await?,
                    // Somebody writes to it after all, or it is gone, or swept.
                    Ok(None) | Err(StorageError::Busy(_)) => continue,
                    Err(error) => return Err(error),
                }
            }
            report.uploads += 1;
        }
        Ok(())
    }

    /// A push that comes between is seen afterwards, as it writes its manifest before the catalog.
    async fn drop_from_catalog(&self, repository: &str) -> Result<(), StorageError> {
        let key = catalog_key(repository);
        self.storage.delete(&key).await?;
        let prefix = format!("repositories/{repository}/_manifests/");
        let manifests: Vec<Entry> = self.storage.list(&prefix, None, 1).await?;
        if !manifests.is_empty() {
            self.storage.put(&key, Default::default()).await?;
        }
        Ok(())
    }
}

fn ago(age: Duration) -> SystemTime {
    SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `repositories/a/b/_blobs/…` is of repository `a/b` and kind `_blobs`.
fn split(key: &str) -> Option<(&str, &str)> {
    let rest = key.strip_prefix("repositories/")?;
    let (repository, rest) = rest.split_once("/_")?;
    let kind_bytes = rest.find('/')?;
    let start = "repositories/".len() + repository.len() + 1;
    Some((repository, &key[start..start + 1 + kind_bytes]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_repository_and_its_kind() {
        assert_eq!(split("repositories/a/b/_blobs/sha256/00"), Some(("a/b", "_blobs")));
        assert_eq!(split("repositories/a/_tags/latest"), Some(("a", "_tags")));
        assert_eq!(split("catalog/a/_"), None);
    }
}
