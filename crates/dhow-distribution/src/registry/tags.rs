use dhow_oci::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::manifests::AT_ONCE;
use super::{Registry, tag_key};
use crate::error::{ApiError, Code};
use crate::storage::{Entry, StorageError};

/// A page of a list that is asked for without a size, and of one that is asked for with a larger one.
pub(super) const PAGE_MAX: usize = 10_000;

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// How many names at most.
    pub(crate) size: Option<usize>,
    /// Only names behind this one.
    pub(crate) last: Option<String>,
}

impl Page {
    pub(super) fn limit(&self) -> usize {
        self.size.unwrap_or(PAGE_MAX).min(PAGE_MAX)
    }
}

/// Some names, and whether there are more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) names: Vec<String>,
    pub(crate) more: bool,
}

impl Names {
    /// Of one name more than wanted.
    fn cut(mut names: Vec<String>, limit: usize) -> Names {
        // A page of nothing has no end to go on from.
        let more = limit > 0 && names.len() > limit;
        names.truncate(limit);
        Names { names, more }
    }
}

impl Registry {
    pub(super) async fn tag(&self, repository: &str, tag: &str) -> Result<Option<Digest>, StorageError> {
        let Some(text) = self.storage.get(&tag_key(repository, tag)).await? else { return Ok(None) };
        Ok(std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok()))
    }

    /// The tags of a repository, in the order of their bytes.
    pub(crate) async fn tags(&self, repository: &str, page: &Page) -> Result<Names, ApiError> {
        let prefix = format!("repositories/{repository}/_tags/");
        let after = page.last.as_ref().map(|last| format!("{prefix}{last}"));
        let found = self.storage.list(&prefix, after.as_deref(), page.limit() + 1).await?;
        if found.is_empty() && !self.exists(repository).await? {
            return Err(name_unknown(repository));
        }
        Ok(Names::cut(names(&found, &prefix, ""), page.limit()))
    }

    /// The tags that mean `digest`.
    pub(super) async fn tags_of(
        &self,
        repository: &str,
        digest: Digest,
    ) -> Result<Vec<String>, StorageError> {
        let prefix = format!("repositories/{repository}/_tags/");
        let tags = names(&self.storage.list(&prefix, None, usize::MAX).await?, &prefix, "");
        let looked_up = tags.into_iter().map(|tag| async move {
            let means = self.tag(repository, &tag).await?;
            Ok::<_, StorageError>((means == Some(digest)).then_some(tag))
        });
        let found: Vec<_> = futures_util::stream::iter(looked_up).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Whether something was ever pushed to a repository.
    async fn exists(&self, repository: &str) -> Result<bool, StorageError> {
        Ok(self.storage.written(&super::catalog_key(repository)).await?.is_some())
    }

    /// All repositories that `is_visible`, in the order of their keys.
    pub(crate) async fn catalog(
        &self,
        page: &Page,
        is_visible: impl Fn(&str) -> bool,
    ) -> Result<Names, StorageError> {
        let (limit, mut found) = (page.limit(), Vec::new());
        let mut after = page.last.as_ref().map(|last| format!("catalog/{last}/_"));
        while found.len() <= limit {
            let entries = self.storage.list("catalog/", after.as_deref(), PAGE_MAX).await?;
            let Some(last) = entries.last() else { break };
            after = Some(last.key.clone());
            found.extend(names(&entries, "catalog/", "/_").into_iter().filter(|name| is_visible(name)));
        }
        Ok(Names::cut(found, limit))
    }
}

pub(crate) fn name_unknown(repository: &str) -> ApiError {
    ApiError::new(Code::NameUnknown, format!("there is no repository {repository}"))
}

/// The names between `prefix` and `suffix`.
fn names(entries: &[Entry], prefix: &str, suffix: &str) -> Vec<String> {
    let name = |entry: &Entry| {
        let rest = entry.key.strip_prefix(prefix)?.strip_suffix(suffix)?;
        Some(rest.to_owned())
    };
    entries.iter().filter_map(name).collect()
}
