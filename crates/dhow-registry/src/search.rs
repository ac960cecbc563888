use serde::Deserialize;

use crate::auth::Scope;
use crate::client::Ask;
use crate::endpoint::Endpoint;
use crate::error::Subject;
use crate::url::{Url, push_escaped};
use crate::{Action, Client, RegistryError, Scheme};

const SEARCH_BYTES_MAX: u64 = 4 << 20;
const DOCKER_HUB_SEARCH: &str = "index.docker.io";

/// One repository found by [`Client::search`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SearchResult {
    /// Its name.
    pub name: String,
    /// What it says about itself.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// How many like it.
    #[serde(default)]
    pub star_count: u64,
    /// Whether Docker vouches for it.
    #[serde(default)]
    pub is_official: bool,
    /// Whether it was built by Docker's withdrawn automation.
    #[serde(default)]
    pub is_automated: bool,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default, deserialize_with = "or_default")]
    results: Vec<SearchResult>,
}

/// Servers write `null` for what is empty.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Client {
    /// Searches Docker Hub, or the registry that `term` begins with (`registry.corp/flask`), for at most
    /// `limit` repositories; servers allow 1 to 100.
    pub fn search(&self, term: &str, limit: u32) -> Result<Vec<SearchResult>, RegistryError> {
        let (registry, rest) = split_registry(term);
        let subject = Subject::registry(Action::Search, registry, rest);
        let endpoint = self.search_endpoint(registry);
        let mut target = format!("{}/v1/search?n={limit}&q=", endpoint.path());
        push_escaped(&mut target, rest);
        let ask = Ask::get(target, Scope::none()).header("accept", "application/json");
        let mut reply = self.ask(&endpoint, &ask, &subject)?;
        match reply.status {
            200 => {}
            404 => return Err(subject.bad_reply("this registry does not offer search")),
            _ => return Err(subject.refused(reply)),
        }
        let bytes = reply.small(SEARCH_BYTES_MAX).map_err(|failure| subject.failed(failure))?;
        let (what, limit) = ("list of results", SEARCH_BYTES_MAX);
        let bytes =
            bytes.ok_or_else(|| RegistryError::TooLarge { subject: subject.text.clone(), what, limit })?;
        let results: Results = serde_json::from_slice(&bytes).map_err(|error| subject.bad_reply(error))?;
        Ok(results.results)
    }

    fn search_endpoint(&self, registry: &str) -> Endpoint {
        let table = self.config().registries.get(registry);
        if let Some(url) = table.and_then(|table| table.search.as_ref()) {
            return Endpoint::at(registry, url);
        }
        let has_location = table.is_some_and(|table| table.location.is_some());
        if registry == dhow_oci::DEFAULT_REGISTRY && !has_location {
            let url = Url::new(Scheme::Https, DOCKER_HUB_SEARCH, "/").expect("a constant URL");
            return Endpoint::at(registry, &url);
        }
        self.config().endpoint(registry)
    }
}

/// Splits `registry.corp/flask`; a first part without dot, colon or `localhost` is part of the term.
fn split_registry(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => match first {
            "index.docker.io" => (dhow_oci::DEFAULT_REGISTRY, rest),
            _ => (first, rest),
        },
        _ => (dhow_oci::DEFAULT_REGISTRY, term),
    }
}
