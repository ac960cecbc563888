use std::io::{self, Read};
use std::thread;

use dhow_oci::{Descriptor, Digest, Reference};

use crate::auth::Scope;
use crate::client::Ask;
use crate::endpoint::Endpoint;
use crate::error::Subject;
use crate::retry::{is_passing, retry_after};
use crate::transport::{Exchange, Payload, Reply, SendError};
use crate::url::Url;
use crate::{Action, Client, RegistryError};

/// The size of one piece when a registry does not take a blob in one.
const CHUNK_BYTES: u64 = 16 << 20;
/// A registry that insists on larger pieces than this is not obeyed.
const CHUNK_BYTES_MAX: u64 = 1 << 30;

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// Gives the content of a blob from its beginning, once per attempt.
pub type OpenContent<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send + 'a>> + Sync + 'a;

impl Client {
    /// Whether a repository has a blob.
    pub fn blob_exists(&self, repository: &Reference, digest: Digest) -> Result<bool, RegistryError> {
        let upload = Upload::new(self, repository, digest);
        upload.exists()
    }

    /// Sees to it that a repository has a blob: looks, asks the registry to mount it from its repository
    /// `from` if that is given, and only then opens and sends it.
    pub fn push_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        from: Option<&str>,
        open: &OpenContent<'_>,
    ) -> Result<Pushed, RegistryError> {
        let upload = Upload::new(self, repository, descriptor.digest);
        if upload.exists()? {
            return Ok(Pushed::Existed);
        }
        upload.run(descriptor.size, from, open)
    }
}

/// One blob and where it is to go.
struct Upload<'a> {
    client: &'a Client,
    endpoint: Endpoint,
    /// As the endpoint knows it.
    repository: String,
    digest: Digest,
    subject: Subject,
    scope: Scope,
}

/// A place the registry made for an upload.
struct Session {
    /// Where the registry was reached.
    home: Url,
    url: Url,
    chunk_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One PUT.
    Single,
    /// Several PATCHes.
    Chunked,
}

/// Why an attempt did not succeed.
enum Setback {
    Final(RegistryError),
    /// It may, another time.
    Passing(RegistryError),
    /// It may, in another shape.
    Shape(RegistryError),
}

impl From<RegistryError> for Setback {
    fn from(error: RegistryError) -> Setback {
        Setback::Final(error)
    }
}

impl<'a> Upload<'a> {
    fn new(client: &'a Client, repository: &Reference, digest: Digest) -> Upload<'a> {
        let endpoint = client.config().endpoint(repository.registry());
        let name = endpoint.repository(repository.repository());
        Upload {
            client,
            digest,
            subject: Subject::blob(Action::Push, repository, digest),
            scope: Scope::push(&name),
            repository: name,
            endpoint,
        }
    }

    fn exists(&self) -> Result<bool, RegistryError> {
        let target = format!("/v2/{}/blobs/{}", self.repository, self.digest);
        let ask = Ask::new("HEAD", target, self.scope.clone());
        let reply = self.client.ask(&self.endpoint, &ask, &self.subject)?;
        match reply.status {
            200..300 => Ok(true),
            404 => Ok(false),
            _ => Err(self.subject.refused(reply)),
        }
    }

    fn run(&self, size: u64, from: Option<&str>, open: &OpenContent<'_>) -> Result<Pushed, RegistryError> {
        let mut shape = Shape::Single;
        let mut from = from;
        for failures in 1.. {
            let error = match self.attempt(size, from.take(), shape, open) {
                Ok(pushed) => return Ok(pushed),
                Err(Setback::Final(error)) => return Err(error),
                Err(Setback::Shape(error)) if shape == Shape::Chunked => return Err(error),
                Err(Setback::Shape(error) | Setback::Passing(error)) => error,
            };
            // What breaks one long request may let several shorter ones pass.
            shape = Shape::Chunked;
            let asked = match &error {
                RegistryError::TooManyRequests { retry_after, .. } => *retry_after,
                _ => None,
            };
            let Some(pause) = self.client.config().retry.pause(failures, asked) else { return Err(error) };
            tracing::debug!(%error, "pushing again");
            thread::sleep(pause);
            // The answer may have been lost, not the blob.
            if self.exists()? {
                return Ok(Pushed::Uploaded);
            }
        }
        unreachable!("a pause is refused after the last attempt")
    }

    fn attempt(
        &self,
        size: u64,
        from: Option<&str>,
        shape: Shape,
        open: &OpenContent<'_>,
    ) -> Result<Pushed, Setback> {
        let Some(session) = self.start(from)? else { return Ok(Pushed::Mounted) };
        let content = open().map_err(|source| self.unreadable(source))?;
        let mut content = Content { inner: content, left: size, failed: None };
        match shape {
            Shape::Single => self.put(&session, &mut content, size)?,
            Shape::Chunked => self.patch(session, &mut content, size)?,
        }
        Ok(Pushed::Uploaded)
    }

    /// Opens a session; `None` if the blob was mounted instead.
    fn start(&self, from: Option<&str>) -> Result<Option<Session>, RegistryError> {
        let mut target = format!("/v2/{}/blobs/uploads/", self.repository);
        let mut scope = self.scope.clone();
        if let Some(from) = from {
            let from = self.endpoint.repository(from);
            target.push_str(&format!("?mount={}&from=", self.digest));
            crate::url::push_escaped(&mut target, &from);
            scope = Scope::mount(&self.repository, &from);
        }
        let mut ask = Ask::new("POST", target, scope);
        ask.bytes = Some(b"");
        let mut reply = self.client.ask(&self.endpoint, &ask, &self.subject)?;
        match reply.status {
            201 => Ok(None),
            200 | 202 => {
                reply.drain();
                let least = reply.header("oci-chunk-min-length").and_then(|text| text.parse().ok());
                let chunk_bytes = least.unwrap_or(0).clamp(CHUNK_BYTES, CHUNK_BYTES_MAX);
                let url = self.client.location(&reply, &self.subject)?;
                Ok(Some(Session { home: reply.url, url, chunk_bytes }))
            }
            // A registry that is not allowed to look into `from` may still take the blob from us.
            401 | 403 | 404 if from.is_some() => self.start(None),
            _ => Err(self.subject.refused(reply)),
        }
    }

    fn put(&self, session: &Session, content: &mut Content<'_>, size: u64) -> Result<(), Setback> {
        let url = session.url.clone().with_query("digest", &self.digest.to_string());
        let headers = [("content-type", "application/octet-stream".to_owned())];
        let reply = self.send("PUT", &session.home, url, &headers, content, size)?;
        match reply.status {
            200..300 => Ok(()),
            405 | 411 | 413 | 501 => Err(Setback::Shape(self.subject.refused(reply))),
            _ => Err(self.setback(reply)),
        }
    }

    fn patch(&self, mut session: Session, content: &mut Content<'_>, size: u64) -> Result<(), Setback> {
        let mut start = 0;
        while start < size {
            let length = session.chunk_bytes.min(size - start);
            let headers = [
                ("content-type", "application/octet-stream".to_owned()),
                ("content-range", format!("{start}-{}", start + length - 1)),
            ];
            let mut reply =
                self.send("PATCH", &session.home, session.url.clone(), &headers, content, length)?;
            if !(200..300).contains(&reply.status) {
                return Err(self.setback(reply));
            }
            reply.drain();
            session.url = self.client.location(&reply, &self.subject)?;
            start += length;
        }
        self.put(&session, content, 0)
    }

    /// Sends `length` bytes of the content.
    fn send(
        &self,
        method: &'static str,
        home: &Url,
        url: Url,
        headers: &[(&'static str, String)],
        content: &mut Content<'_>,
        length: u64,
    ) -> Result<Reply, Setback> {
        let authorization =
            self.client.authorization_for(&url, home, &self.endpoint, &self.scope, &self.subject)?;
        let payload = match length {
            0 => Payload::Bytes(b""),
            size => Payload::Stream { reader: content, size },
        };
        let exchange = Exchange { method, url, headers, authorization: authorization.as_ref(), payload };
        let outcome = self.client.transport().send(&self.endpoint, exchange);
        if let Some(source) = content.failed.take() {
            return Err(Setback::Final(self.unreadable(source)));
        }
        let reply = match outcome {
            Ok(reply) => reply,
            Err(SendError::Failure(failure)) if failure.is_passing() => {
                return Err(Setback::Passing(self.subject.failed(failure)));
            }
            Err(error) => return Err(Setback::Final(error.about(&self.subject))),
        };
        if reply.status == 401
            && self.client.auth().learn(&self.endpoint, &reply, &self.scope, authorization.as_ref())
        {
            // The token ran out while the blob was on its way.
            return Err(Setback::Passing(self.subject.refused(reply)));
        }
        Ok(reply)
    }

    fn setback(&self, reply: Reply) -> Setback {
        // 404: the session is gone. 416: it and we disagree about how far we are.
        let is_lost = matches!(reply.status, 404 | 416) || is_passing(reply.status);
        let too_long = retry_after(reply.header("retry-after"))
            .is_some_and(|asked| asked > self.client.config().retry.retry_after_max);
        let error = self.subject.refused(reply);
        if is_lost && !too_long { Setback::Passing(error) } else { Setback::Final(error) }
    }

    fn unreadable(&self, source: io::Error) -> RegistryError {
        RegistryError::Content { digest: self.digest.into(), source }
    }
}

/// The content being sent: as long as promised, or failing.
struct Content<'a> {
    inner: Box<dyn Read + Send + 'a>,
    left: u64,
    /// Why it failed, to be told apart from a failing connection.
    failed: Option<io::Error>,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let error = match self.inner.read(&mut buffer[..wanted]) {
            Ok(0) if wanted > 0 => {
                io::Error::new(io::ErrorKind::UnexpectedEof, "content is shorter than its size")
            }
            Ok(count) => {
                self.left -= count as u64;
                return Ok(count);
            }
            Err(error) => error,
        };
        self.failed = Some(error);
        Err(io::Error::other("content"))
    }
}
