use dhow_oci::{DEFAULT_TAG, Document};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::manifests::AT_ONCE;
use super::{Page, Registry};
use crate::storage::StorageError;

/// What image-spec calls a text for people about an image.
const DESCRIPTION: &str = "org.opencontainers.image.description";

/// A repository that was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// What its latest image says about itself.
    pub(crate) description: String,
}

impl Registry {
    /// Repositories whose name has `term` in it, the shortest names first.
    pub(crate) async fn search(
        &self,
        term: &str,
        limit: usize,
        is_visible: impl Fn(&str) -> bool,
    ) -> Result<Vec<Found>, StorageError> {
        let term = term.to_lowercase();
        let mut names = Vec::new();
        let mut page = Page::default();
        loop {
            let part = self.catalog(&page, |name| is_visible(name) && name.contains(&term)).await?;
            page.last = part.names.last().cloned();
            names.extend(part.names);
            if !part.more {
                break;
            }
        }
        names.sort_by_key(|name| name.len());
        names.truncate(limit);
        let found = names.into_iter().map(|name| async move {
            let description = self.description(&name).await?.unwrap_or_default();
            Ok::<_, StorageError>(Found { name, description })
        });
        futures_util::stream::iter(found).buffered(AT_ONCE).try_collect().await
    }

    async fn description(&self, repository: &str) -> Result<Option<String>, StorageError> {
        let Some(digest) = self.tag(repository, DEFAULT_TAG).await? else { return Ok(None) };
        let Some(bytes) = self.manifest_bytes(repository, digest).await? else { return Ok(None) };
        Ok(match Document::parse(None, &bytes) {
            Ok(Document::Manifest(mut manifest)) => manifest.annotations.remove(DESCRIPTION),
            Ok(Document::Index(mut index)) => index.annotations.remove(DESCRIPTION),
            Err(_) => None,
        })
    }
}
