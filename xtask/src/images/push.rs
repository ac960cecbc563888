//! Puts images into a registry on this machine.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};

use super::document::Document;
use crate::http::{Body, Request, Response};

/// Pushes to one registry and remembers what is where.
pub(crate) struct Pusher<'a> {
    /// `address:port` of the registry.
    host: &'a str,
    /// A repository for each blob that is in the registry.
    blobs: BTreeMap<String, String>,
}

impl<'a> Pusher<'a> {
    /// For the registry at `host`.
    pub(crate) fn new(host: &'a str) -> Self {
        Self { host, blobs: BTreeMap::new() }
    }

    /// Makes sure that `repository` has the blob `digest` with the content of `file`.
    pub(crate) fn file(&mut self, repository: &str, digest: &str, file: &Path) -> anyhow::Result<()> {
        self.blob(repository, digest, Body::File(file))
    }

    /// Makes sure that `repository` has `document` as a blob.
    pub(crate) fn document(&mut self, repository: &str, document: &Document) -> anyhow::Result<()> {
        self.blob(repository, &document.digest(), Body::Bytes(&document.bytes))
    }

    /// Puts a manifest or index under `name`, a tag or its own digest.
    pub(crate) fn manifest(&self, repository: &str, name: &str, manifest: &Document) -> anyhow::Result<()> {
        let target = format!("/v2/{repository}/manifests/{name}");
        let body = Body::Bytes(&manifest.bytes);
        let request = Request { method: "PUT", target: &target, content_type: manifest.media_type, body };
        self.expect(&request, &[201]).map(drop)
    }

    fn blob(&mut self, repository: &str, digest: &str, body: Body<'_>) -> anyhow::Result<()> {
        if self.blobs.get(digest).is_some_and(|holder| holder == repository) {
            return Ok(());
        }
        if let Some(location) = self.start_upload(repository, digest)? {
            let target = upload_target(&location, self.host, digest)?;
            let request =
                Request { method: "PUT", target: &target, content_type: "application/octet-stream", body };
            self.expect(&request, &[201])?;
        }
        self.blobs.entry(digest.to_owned()).or_insert_with(|| repository.to_owned());
        Ok(())
    }

    /// Returns where to upload to, unless the registry could take the blob from another repository.
    fn start_upload(&self, repository: &str, digest: &str) -> anyhow::Result<Option<String>> {
        let mut target = format!("/v2/{repository}/blobs/uploads/");
        if let Some(holder) = self.blobs.get(digest) {
            target += &format!("?mount={digest}&from={holder}");
        }
        let response = self.expect(&Request::new("POST", &target), &[201, 202])?;
        if response.status == 201 {
            return Ok(None);
        }
        response
            .headers
            .get("location")
            .cloned()
            .context("the registry does not say where to upload to")
            .map(Some)
    }

    fn expect(&self, request: &Request<'_>, statuses: &[u16]) -> anyhow::Result<Response> {
        let response = request.send(self.host)?;
        if !statuses.contains(&response.status) {
            let Response { status, body, .. } = response;
            bail!("{} {} was answered with {status}: {}", request.method, request.target, body.trim());
        }
        Ok(response)
    }
}

/// Path and query of the PUT that ends an upload to `location`.
fn upload_target(location: &str, host: &str, digest: &str) -> anyhow::Result<String> {
    let target = location.strip_prefix("http://").map_or(Some(location), |rest| rest.strip_prefix(host));
    let target = target.filter(|target| target.starts_with('/'));
    let target = target.with_context(|| format!("the registry sends us elsewhere: {location}"))?;
    let separator = if target.contains('?') { '&' } else { '?' };
    Ok(format!("{target}{separator}digest={digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_ends_where_the_registry_says() {
        let target = |location| upload_target(location, "127.0.0.1:5000", "sha256:aa").ok();
        let ended = Some("/v2/x/blobs/uploads/1?_state=s&digest=sha256:aa".to_owned());
        assert_eq!(target("http://127.0.0.1:5000/v2/x/blobs/uploads/1?_state=s"), ended);
        assert_eq!(target("/v2/x/blobs/uploads/1?_state=s"), ended);
        assert_eq!(target("/up"), Some("/up?digest=sha256:aa".to_owned()));
        assert_eq!(target("http://elsewhere:80/up"), None);
    }
}
