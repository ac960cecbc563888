use std::io::{self, Read};
use std::thread;
use std::time::{Duration, Instant};

use dhow_oci::{Descriptor, Digester, Reference};

use crate::auth::Scope;
use crate::client::Ask;
use crate::endpoint::Endpoint;
use crate::error::Subject;
use crate::transport::{Exchange, Payload, Reply, SendError, read_error_text};
use crate::url::Url;
use crate::{Action, Client, RegistryError, Scheme};

/// A connection that brought this much before it broke was a good one: failures are counted anew. So a
/// transfer of n MiB meets at most n + `attempts_max` connections.
const PROGRESS_BYTES: u64 = 1 << 20;
/// A server that brings less than this in [`SLOW_WINDOW`] of waiting is treated as silent.
const SLOW_BYTES: u64 = 64 << 10;
const SLOW_WINDOW: Duration = Duration::from_secs(60);

impl Client {
    /// Opens a blob from `offset` on.
    ///
    /// The reader gives exactly the bytes up to the descriptor's size or fails; when a connection breaks it
    /// goes on from there with another. It does not hash: whoever stores the bytes does that anyway, and
    /// others wrap it in a [`VerifyingReader`].
    pub fn fetch_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<BlobReader, RegistryError> {
        let mut reader = BlobReader {
            client: self.clone(),
            subject: Subject::blob(Action::Pull, repository, descriptor.digest),
            repository: repository.clone(),
            descriptor: descriptor.clone(),
            position: offset,
            body: None,
            failures: 0,
            progress: 0,
            pace: Pace::default(),
        };
        if offset < descriptor.size {
            reader.open()?;
        }
        Ok(reader)
    }
}

/// A blob on its way; see [`Client::fetch_blob`]. Errors carry a [`RegistryError`].
pub struct BlobReader {
    client: Client,
    subject: Subject,
    repository: Reference,
    descriptor: Descriptor,
    position: u64,
    body: Option<Box<dyn Read + Send>>,
    /// In a row, without [`PROGRESS_BYTES`] between them.
    failures: u32,
    progress: u64,
    pace: Pace,
}

/// How fast bytes come while we wait for them; time spent elsewhere does not count.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn is_too_slow(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < SLOW_WINDOW {
            return false;
        }
        std::mem::take(self).bytes < SLOW_BYTES
    }
}

impl BlobReader {
    /// How far into the blob the next byte is.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn open(&mut self) -> Result<(), RegistryError> {
        loop {
            let opened = self.client.first_of(self.repository.registry(), |endpoint| self.open_at(endpoint));
            let opened = match opened {
                Err(error @ RegistryError::BlobNotFound { .. }) => self.open_foreign().unwrap_or(Err(error)),
                other => other,
            };
            match opened {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) => self.pause_or(error)?,
            }
        }
    }

    fn open_at(&self, endpoint: &Endpoint) -> Result<Box<dyn Read + Send>, RegistryError> {
        let repository = endpoint.repository(self.repository.repository());
        let target = format!("/v2/{repository}/blobs/{}", self.descriptor.digest);
        let mut ask = Ask::get(target, Scope::pull(&repository));
        ask.headers = self.range();
        let reply = self.client.ask_once(endpoint, &ask, &self.subject);
        self.body_of(reply.map_err(|error| error.about(&self.subject))?)
    }

    /// Tries the other places that the descriptor names, without credentials; `None` if it names none.
    fn open_foreign(&self) -> Option<Result<Box<dyn Read + Send>, RegistryError>> {
        let attempts = self.descriptor.urls.iter().filter_map(|url| Url::parse(url).ok()).map(|url| {
            let config = self.client.config();
            if url.scheme() == Scheme::Http && !config.allows_plain(&url) {
                return Err(self.subject.bad_reply(format!("{url} is not reached by HTTPS")));
            }
            let endpoint = Endpoint::mirror(&url);
            let headers = self.range();
            let exchange = Exchange {
                method: "GET",
                url,
                headers: &headers,
                authorization: None,
                payload: Payload::None,
            };
            let reply = self.client.transport().send(&endpoint, exchange);
            self.body_of(reply.map_err(|error: SendError| error.about(&self.subject))?)
        });
        attempts.reduce(|first, next| if first.is_ok() { first } else { next })
    }

    fn range(&self) -> Vec<(&'static str, String)> {
        match self.position {
            0 => Vec::new(),
            position => vec![("range", format!("bytes={position}-"))],
        }
    }

    fn body_of(&self, reply: Reply) -> Result<Box<dyn Read + Send>, RegistryError> {
        match reply.status {
            200 => {
                self.check_size(reply.content_length())?;
                let mut body = reply.into_reader();
                // A server that does not do ranges sends everything; what we have is read past.
                let skipped = io::copy(&mut body.by_ref().take(self.position), &mut io::sink());
                match skipped {
                    Ok(skipped) if skipped == self.position => Ok(Box::new(body)),
                    _ => Err(self.broken("connection closed before the end")),
                }
            }
            206 => {
                let (start, total) = content_range(reply.header("content-range")).unzip();
                if start.is_some_and(|start| start != self.position) {
                    return Err(self
                        .subject
                        .bad_reply("the registry sent another range than it was asked for"));
                }
                self.check_size(total.flatten())?;
                Ok(Box::new(reply.into_reader()))
            }
            404 => Err(RegistryError::BlobNotFound {
                repository: self.repository.familiar_name(),
                digest: self.descriptor.digest.into(),
            }),
            _ => Err(self.subject.refused(reply)),
        }
    }

    fn check_size(&self, actual: Option<u64>) -> Result<(), RegistryError> {
        match actual {
            Some(actual) if actual != self.descriptor.size => Err(RegistryError::SizeMismatch {
                subject: self.subject.text.clone(),
                expected: self.descriptor.size,
                actual,
            }),
            _ => Ok(()),
        }
    }

    fn broken(&self, why: &str) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.subject.registry.clone(),
            action: self.subject.action,
            subject: self.subject.text.clone(),
            host: self.subject.registry.clone(),
            why: format!("{why} (at byte {} of {})", self.position, self.descriptor.size),
        }
    }

    /// Waits before the next try, or gives the error back if there is none.
    fn pause_or(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failures += 1;
        let asked = match &error {
            RegistryError::TooManyRequests { retry_after, .. } => *retry_after,
            _ => None,
        };
        match self.client.config().retry.pause(self.failures, asked).filter(|_| error.is_passing()) {
            Some(pause) => {
                tracing::debug!(%error, position = self.position, "resuming");
                thread::sleep(pause);
                Ok(())
            }
            None => Err(error),
        }
    }

    /// Reads from the open connection, or says why it is of no more use.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, String> {
        let wanted = usize::try_from(self.descriptor.size - self.position).unwrap_or(usize::MAX);
        let wanted = wanted.min(buffer.len());
        let Some(body) = &mut self.body else { return Err("no connection".into()) };
        let start = Instant::now();
        let count = match body.read(&mut buffer[..wanted]) {
            Ok(0) => return Err("connection closed before the end".into()),
            Ok(count) => count,
            Err(error) => return Err(read_error_text(error)),
        };
        self.position += count as u64;
        self.progress += count as u64;
        if self.progress >= PROGRESS_BYTES {
            self.failures = 0;
        }
        if self.position == self.descriptor.size {
            // A connection serves again once its body was read to the end, which only another read can tell.
            // The blob is whole already: what that read brings does not matter.
            let _ = body.read(&mut [0]);
            self.body = None;
        } else if self.pace.is_too_slow(start.elapsed(), count as u64) {
            self.body = None;
        }
        Ok(count)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.descriptor.size || buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.body.is_none() {
                self.open().map_err(io::Error::other)?;
            }
            match self.read_some(buffer) {
                Ok(count) => return Ok(count),
                Err(why) => {
                    self.body = None;
                    self.progress = 0;
                    let error = self.broken(&why);
                    self.pause_or(error).map_err(io::Error::other)?;
                }
            }
        }
    }
}

/// Start and, if known, total of `bytes 5-9/10`.
fn content_range(value: Option<&str>) -> Option<(u64, Option<u64>)> {
    let (range, total) = value?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}

/// Passes bytes through and fails at the end, or as soon as there are too many, unless they are those of a
/// descriptor. Errors carry a [`RegistryError`].
pub struct VerifyingReader<R> {
    inner: R,
    descriptor: Descriptor,
    digester: Option<Digester>,
    position: u64,
}

impl<R: Read> VerifyingReader<R> {
    /// Expects the content of `descriptor`, from its beginning.
    pub fn new(inner: R, descriptor: &Descriptor) -> VerifyingReader<R> {
        let digester = Some(Digester::new(descriptor.digest.algorithm()));
        VerifyingReader { inner, descriptor: descriptor.clone(), digester, position: 0 }
    }

    fn check_size(&self) -> io::Result<()> {
        let (subject, expected) = (self.descriptor.digest.to_string(), self.descriptor.size);
        let error = RegistryError::SizeMismatch { subject, expected, actual: self.position };
        if self.position == expected { Ok(()) } else { Err(invalid(error)) }
    }

    fn check_digest(&mut self) -> io::Result<()> {
        let Some(digester) = self.digester.take() else { return Ok(()) };
        let (expected, actual) = (self.descriptor.digest, digester.finish());
        if actual == expected {
            return Ok(());
        }
        let subject = expected.to_string();
        let (expected, actual) = (expected.into(), actual.into());
        Err(invalid(RegistryError::DigestMismatch { subject, expected, actual }))
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position += count as u64;
        if count == 0 && !buffer.is_empty() {
            self.check_size()?;
            self.check_digest()?;
        } else if self.position > self.descriptor.size {
            self.check_size()?;
        } else if let Some(digester) = &mut self.digester {
            digester.update(&buffer[..count]);
        }
        Ok(count)
    }
}

fn invalid(error: RegistryError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_told_from_a_stream() {
        let mut trickle = Pace::default();
        let tens = |pace: &mut Pace, bytes| (0..6).any(|_| pace.is_too_slow(Duration::from_secs(10), bytes));
        assert!(tens(&mut trickle, 1));
        assert!(!tens(&mut Pace::default(), 100 << 10));
    }

    #[test]
    fn ranges_are_read_with_and_without_a_total() {
        assert_eq!(content_range(Some("bytes 5-9/10")), Some((5, Some(10))));
        assert_eq!(content_range(Some("bytes 5-9/*")), Some((5, None)));
        assert_eq!(content_range(Some("bytes */10")), None);
    }
}
