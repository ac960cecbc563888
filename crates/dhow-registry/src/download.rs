//! Any file by its URL, for `ADD` and for contexts of builds.
//!
//! It has nothing to do with registries but the way there: whom to trust, which proxy to take, how long to wait
//! and how often to try are said once in a [`Config`](crate::Config), and a build behind a company's proxy with a
//! company's certificate authority needs the same answers for its files as for its images. So this is a door of
//! the room that has the transport, and not a second HTTP client.

use std::io::Read;
use std::thread;

use crate::endpoint::Endpoint;
use crate::retry::{is_passing, retry_after};
use crate::transport::{Exchange, Payload, Reply, SendError};
use crate::url::{Url, UrlError};
use crate::{Client, RegistryError, Secret};

/// What to fetch.
#[derive(Clone, Debug, Default)]
pub struct DownloadRequest<'a> {
    /// An `http` or `https` URL. A user name and password in it become an `Authorization`.
    pub url: &'a str,
    /// The `ETag` of what is here already.
    pub etag: Option<&'a str>,
    /// The `Last-Modified` of what is here already.
    pub last_modified: Option<&'a str>,
    /// The value of an `Authorization` header, sent to the host of the URL only.
    pub authorization: Option<Secret>,
}

/// The answer to a request.
pub enum Download {
    /// What is here already is what would come.
    NotModified,
    /// It comes.
    Content(Content),
}

/// A file on the wire.
pub struct Content {
    /// Where it came from, after redirects.
    pub url: Url,
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Last-Modified`, as the server wrote it.
    pub last_modified: Option<String>,
    /// How many bytes are announced.
    pub content_length: Option<u64>,
    /// Its bytes. An error here is a connection that broke or fell silent.
    pub reader: Box<dyn Read + Send>,
}

/// Why a file was not fetched. URLs are shown without user info and query.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The text is no URL.
    #[error("{0}")]
    Url(#[from] UrlError),
    /// The server could not be reached, or what it said cannot be understood.
    #[error("cannot fetch {url}: {host}: {why}")]
    Failed {
        /// What was asked for.
        url: String,
        /// Who did not answer: the server or one that it sent us to.
        host: String,
        /// What happened.
        why: String,
    },
    /// The server does not have it, or does not give it to us.
    #[error("cannot fetch {url}: the server answered {status} {words}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Its usual words.
        words: String,
    },
    /// A certificate or a proxy that is configured cannot be used.
    #[error(transparent)]
    Setup(RegistryError),
}

impl Client {
    /// Fetches a file, following redirects, and tries again what may pass.
    pub fn download(&self, request: &DownloadRequest<'_>) -> Result<Download, DownloadError> {
        let url = Url::parse(request.url)?;
        let authorization = request.authorization.clone().or_else(|| basic(request.url));
        let mut headers = Vec::new();
        let conditions = [("if-none-match", request.etag), ("if-modified-since", request.last_modified)];
        for (name, value) in conditions {
            headers.extend(value.map(|value| (name, value.to_owned())));
        }
        let reply = self.fetch(&url, &headers, authorization.as_ref())?;
        let text = |name| reply.header(name).map(str::to_owned);
        match reply.status {
            200 => Ok(Download::Content(Content {
                url: reply.url.clone(),
                etag: text("etag"),
                last_modified: text("last-modified"),
                content_length: reply.content_length(),
                reader: Box::new(reply.into_reader()),
            })),
            304 if !headers.is_empty() => Ok(Download::NotModified),
            status => Err(DownloadError::Status { url: url.to_string(), status, words: reply.status_text() }),
        }
    }

    fn fetch(
        &self,
        url: &Url,
        headers: &[(&'static str, String)],
        authorization: Option<&Secret>,
    ) -> Result<Reply, DownloadError> {
        let endpoint = Endpoint::mirror(url);
        let retry = &self.config().retry;
        for failures in 1.. {
            let exchange =
                Exchange { method: "GET", url: url.clone(), headers, authorization, payload: Payload::None };
            let outcome = self.transport().send(&endpoint, exchange);
            let pause = match &outcome {
                Ok(reply) if is_passing(reply.status) => {
                    retry.pause(failures, retry_after(reply.header("retry-after")))
                }
                Err(SendError::Failure(failure)) if failure.is_passing() => retry.pause(failures, None),
                _ => None,
            };
            match (pause, outcome) {
                (Some(pause), _) => thread::sleep(pause),
                (None, Ok(reply)) => return Ok(reply),
                (None, Err(SendError::Failure(failure))) => {
                    let (host, why) = (failure.host, failure.why);
                    return Err(DownloadError::Failed { url: url.to_string(), host, why });
                }
                (None, Err(SendError::Setup(error))) => return Err(DownloadError::Setup(error)),
            }
        }
        unreachable!("a pause is refused after the last attempt")
    }
}

/// The user info of a URL as an `Authorization`.
fn basic(url: &str) -> Option<Secret> {
    let (_, rest) = url.split_once("://")?;
    let (authority, _) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user_info, _) = authority.rsplit_once('@')?;
    Some(Secret::of_user_info(user_info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_info_becomes_an_authorization() {
        for (url, header) in [
            ("http://me:pw@a/x", Some("Basic bWU6cHc=")),
            ("http://me%40b:p%3Aw@a", Some("Basic bWVAYjpwOnc=")),
            ("http://token@a", Some("Basic dG9rZW46")),
            ("http://a/x@y", None),
            ("http://a?x@y", None),
        ] {
            assert_eq!(basic(url).as_ref().map(Secret::expose), header, "{url}");
        }
    }
}
