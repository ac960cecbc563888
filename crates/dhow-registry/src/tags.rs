use dhow_oci::Reference;
use serde::Deserialize;

use crate::auth::Scope;
use crate::client::Ask;
use crate::error::Subject;
use crate::transport::Reply;
use crate::{Action, Client, RegistryError};

const PAGE_TAGS: u32 = 1000;
const PAGE_BYTES_MAX: u64 = 8 << 20;
const PAGES_MAX: usize = 1000;

#[derive(Deserialize)]
struct Page {
    /// `null` when the last tag was deleted.
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags of a repository, in the registry's order. Mirrors are not asked: they know those they have.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        let mut subject = Subject::of(Action::Pull, repository);
        subject.text = format!("the tags of {}", subject.name);
        let endpoint = self.config().endpoint(repository.registry());
        let name = endpoint.repository(repository.repository());
        let mut target = format!("/v2/{name}/tags/list?n={PAGE_TAGS}");
        let mut tags = Vec::new();
        for _ in 0..PAGES_MAX {
            let reply = self.ask(&endpoint, &Ask::get(target.clone(), Scope::pull(&name)), &subject)?;
            let next = next_page(&reply);
            tags.extend(read_page(reply, &subject)?);
            match next {
                // A page that follows itself would never end.
                Some(next) if next != target => target = next,
                _ => return Ok(tags),
            }
        }
        Err(subject.bad_reply(format!("more than {PAGES_MAX} pages")))
    }
}

fn read_page(mut reply: Reply, subject: &Subject) -> Result<Vec<String>, RegistryError> {
    if reply.status != 200 {
        return Err(subject.refused(reply));
    }
    let bytes = reply.small(PAGE_BYTES_MAX).map_err(|failure| subject.failed(failure))?;
    let (what, limit) = ("list of tags", PAGE_BYTES_MAX);
    let bytes =
        bytes.ok_or_else(|| RegistryError::TooLarge { subject: subject.text.clone(), what, limit })?;
    let page: Page = serde_json::from_slice(&bytes).map_err(|error| subject.bad_reply(error))?;
    Ok(page.tags.unwrap_or_default())
}

/// The target of `Link: </v2/x/tags/list?last=y>; rel="next"`, which stays with the same server.
fn next_page(reply: &Reply) -> Option<String> {
    let link =
        reply.headers("link").find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))?;
    let (location, _) = link.trim().strip_prefix('<')?.split_once('>')?;
    let url = reply.url.join(location).ok()?;
    url.same_origin(&reply.url).then(|| url.target().to_owned())
}
