//! Files by HTTP. The body is kept as a blob; the next build asks the server whether it is still the same.

use std::io::Read;

use dhow_oci::Digest;
use dhow_registry::{Content, Download, DownloadError, DownloadRequest, Url};
use dhow_store::{Blob, Ref};
use serde::{Deserialize, Serialize};

use super::{Remote, SourceError};
use crate::error::while_doing;

/// The largest file whose length the server announces: one tebibyte.
const ANNOUNCED_BYTES_MAX: u64 = 1 << 40;
/// The largest file whose length it does not announce, which may be one without an end: four gibibytes.
const UNANNOUNCED_BYTES_MAX: u64 = 4 << 30;
const BUFFER_BYTES: usize = 256 << 10;
/// How often a body that breaks off is begun anew.
const TRIES_MAX: u32 = 3;
/// Files that are kept to be asked about again.
const FILES_KEPT: usize = 100;
/// The name of a file whose URL has none.
const UNNAMED: &str = "__unnamed__";
/// Records of what is here, by the digest of the URL: it may hold secrets.
const RECORDS: &str = "http-source";

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpSource {
    pub url: String,
    /// What its content must be.
    pub checksum: Option<Digest>,
}

/// A file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub digest: Digest,
    /// The name it has by its URL.
    pub name: String,
    /// Its `Last-Modified`, in seconds since 1970.
    pub modified: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Known {
    digest: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
    /// When it came, in seconds since 1970.
    came: i64,
}

/// Whether a source is a URL of HTTP.
pub(crate) fn is_http(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_some_and(|scheme| scheme == "http" || scheme == "https")
}

impl HttpSource {
    /// For people: without user info and query.
    pub(crate) fn shown(&self) -> String {
        Url::parse(&self.url).map_or_else(|_| "the URL".to_owned(), |url| url.to_string())
    }

    /// The last part of the path.
    fn name(&self) -> String {
        let path = Url::parse(&self.url).map(|url| url.path().to_owned()).unwrap_or_default();
        let name = unescape(path.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
        let is_name = !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']);
        if is_name { name } else { UNNAMED.to_owned() }
    }
}

impl Remote<'_> {
    /// Sees to it that a file is here as it is there.
    pub(crate) fn fetch(&self, source: &HttpSource) -> Result<Fetched, SourceError> {
        let known = self.known(source)?;
        if let Some(known) = known.as_ref().filter(|known| source.checksum == Some(known.digest)) {
            // Nothing that the server could say would make a difference.
            return Ok(fetched(source, known));
        }
        let url = Url::parse(&source.url).map_err(DownloadError::from)?;
        let authorization = self.credentials.of_file(&url)?;
        let mut tries = 1;
        let known = loop {
            let request = DownloadRequest {
                url: &source.url,
                etag: known.as_ref().and_then(|known| known.etag.as_deref()),
                last_modified: known.as_ref().and_then(|known| known.last_modified.as_deref()),
                authorization: authorization.clone(),
            };
            match ((self.download)(&request)?, &known) {
                (Download::NotModified, Some(_)) => break known.expect("it was just matched"),
                (Download::NotModified, None) => unreachable!("nothing was said about what is here"),
                (Download::Content(content), _) => match self.receive(source, content) {
                    Err(SourceError::Body { .. } | SourceError::Length { .. }) if tries < TRIES_MAX => {
                        tries += 1;
                    }
                    result => break result?,
                },
            }
        };
        if let Some(expected) = source.checksum.filter(|expected| *expected != known.digest) {
            return Err(mismatch(source, expected, known.digest));
        }
        Ok(fetched(source, &known))
    }

    /// What is here of the URL, protected from now on.
    fn known(&self, source: &HttpSource) -> Result<Option<Known>, SourceError> {
        const DOING: &str = "cannot look up what was fetched before";
        let store = self.images.store();
        let record = store.records(RECORDS).get(&key(source)).map_err(while_doing(DOING))?;
        // One that cannot be read knows nothing.
        let Some(known) = record.and_then(|record| serde_json::from_str::<Known>(&record.body).ok()) else {
            return Ok(None);
        };
        let blob = store.content().acquire(self.lease, &known.digest).map_err(while_doing(DOING))?;
        Ok(blob.map(|_| known))
    }

    fn receive(&self, source: &HttpSource, content: Content) -> Result<Known, SourceError> {
        let (etag, last_modified) = (content.etag.clone(), content.last_modified.clone());
        let blob = self.store(source, content)?;
        let known = Known { digest: blob.digest, etag, last_modified, came: (self.clock)().as_second() };
        let body = serde_json::to_string(&known).expect("texts are JSON");
        let records = self.images.store().records(RECORDS);
        records
            .put_soon(&key(source), &body, &[Ref::Blob(blob.digest)])
            .map_err(while_doing("cannot note what was fetched"))?;
        self.forget_oldest()?;
        Ok(known)
    }

    /// Lets go of bodies that came long ago; those in use are held by the images they are in.
    fn forget_oldest(&self) -> Result<(), SourceError> {
        const DOING: &str = "cannot forget what was fetched before";
        let records = self.images.store().records(RECORDS);
        let mut held = records.list().map_err(while_doing(DOING))?;
        let came = |record: &dhow_store::Record| {
            serde_json::from_str::<Known>(&record.body).map_or(0, |known| known.came)
        };
        held.sort_by_cached_key(came);
        for record in &held[..held.len().saturating_sub(FILES_KEPT)] {
            records.remove(&record.key).map_err(while_doing(DOING))?;
        }
        Ok(())
    }

    /// Writes a body into the store, where it is seen only when it is whole and what it shall be.
    fn store(&self, source: &HttpSource, content: Content) -> Result<Blob, SourceError> {
        use std::io::Write as _;
        const DOING: &str = "cannot keep what is being fetched";
        let announced = content.content_length;
        let (max, limit) = match announced {
            Some(_) => (ANNOUNCED_BYTES_MAX, "ANNOUNCED_BYTES_MAX"),
            None => (UNANNOUNCED_BYTES_MAX, "UNANNOUNCED_BYTES_MAX"),
        };
        let too_large = || SourceError::TooLarge { url: source.shown(), max, limit };
        if announced.is_some_and(|length| length > max) {
            return Err(too_large());
        }
        let mut ingest = self.images.store().content().ingest(self.lease).map_err(while_doing(DOING))?;
        let mut reader = content.reader;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut total = 0_u64;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(source_error) => {
                    return Err(SourceError::Body { url: source.shown(), source: source_error });
                }
            };
            total += count as u64;
            if total > max {
                return Err(too_large());
            }
            ingest.write_all(&buffer[..count]).map_err(while_doing(DOING))?;
        }
        if let Some(expected) = announced.filter(|expected| *expected != total) {
            return Err(SourceError::Length { url: source.shown(), expected, actual: total });
        }
        let sealed = ingest.seal().map_err(while_doing(DOING))?;
        let actual = sealed.blob().digest;
        if let Some(expected) = source.checksum.filter(|expected| *expected != actual) {
            return Err(mismatch(source, expected, actual));
        }
        let content = self.images.store().content();
        let published = content.publish(vec![sealed], dhow_store::SyncBefore::Files);
        Ok(published.map_err(while_doing(DOING))?[0])
    }
}

fn mismatch(source: &HttpSource, expected: Digest, actual: Digest) -> SourceError {
    SourceError::Checksum { url: source.shown(), expected: Box::new(expected), actual: Box::new(actual) }
}

fn key(source: &HttpSource) -> String {
    Digest::sha256_of(source.url.as_bytes()).hex()
}

fn fetched(source: &HttpSource, known: &Known) -> Fetched {
    let modified = known.last_modified.as_deref().and_then(http_date);
    Fetched { digest: known.digest, name: source.name(), modified }
}

/// Seconds since 1970 of a time such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text.trim()).ok().map(|time| time.timestamp().as_second())
}

/// `%41` is `A`; what is not text afterwards stays as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        (bytes, rest) = match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => ([bytes, vec![byte]].concat(), &tail[2..]),
            None => ([bytes, vec![*first]].concat(), tail),
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_the_path_of_its_url() {
        for (url, name) in [
            ("http://h/a/b.txt", "b.txt"),
            ("http://h/a/b.txt?c=/d#e/f", "b.txt"),
            ("http://h/a/dir/", "dir"),
            ("http://h/a%20b", "a b"),
            ("http://h/", UNNAMED),
            ("http://h", UNNAMED),
            ("http://h?x", UNNAMED),
            ("http://h/..", UNNAMED),
            ("http://h/a%2Fb", UNNAMED),
        ] {
            assert_eq!(HttpSource { url: url.to_owned(), checksum: None }.name(), name, "{url}");
        }
    }

    #[test]
    fn times_of_http_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }
}
