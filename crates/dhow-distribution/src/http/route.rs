use dhow_oci::{Digest, is_repository, is_tag};

use crate::error::{ApiError, Code};
use crate::registry::Reference;

/// What a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Blob(String, Digest),
    Catalog,
    Health,
    /// A tag that cannot exist is not an error of the path: nobody has pushed it.
    Manifest(String, Result<Reference, String>),
    Referrers(String, Digest),
    Search,
    Tags(String),
    Token,
    Upload(String, String),
    Uploads(String),
}

impl Route {
    /// Reads a path as it was sent.
    pub(super) fn parse(path: &str) -> Result<Route, ApiError> {
        match path {
            "/v2" | "/v2/" => return Ok(Route::Base),
            "/v2/_catalog" => return Ok(Route::Catalog),
            "/v1/search" => return Ok(Route::Search),
            "/token" => return Ok(Route::Token),
            "/healthz" => return Ok(Route::Health),
            _ => {}
        }
        let nowhere =
            || ApiError::new(Code::Unsupported, "there is nothing here").status(hyper::StatusCode::NOT_FOUND);
        let path = path.strip_prefix("/v2/").ok_or_else(nowhere)?;
        // Decoded piece by piece: an escaped slash separates nothing, and no name has one.
        let pieces: Option<Vec<String>> = path.split('/').map(super::query::decode).collect();
        let pieces = pieces.ok_or_else(nowhere)?;
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        match pieces.as_slice() {
            [name @ .., "blobs", "uploads", ""] | [name @ .., "blobs", "uploads"] => {
                Ok(Route::Uploads(repository(name)?))
            }
            [name @ .., "blobs", "uploads", upload] => {
                let is_name = upload.len() == 32
                    && upload.bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
                let unknown = || ApiError::new(Code::BlobUploadUnknown, "there is no such upload");
                let name = repository(name)?;
                if is_name { Ok(Route::Upload(name, (*upload).to_owned())) } else { Err(unknown()) }
            }
            [name @ .., "blobs", digest] => Ok(Route::Blob(repository(name)?, parse_digest(digest)?)),
            [name @ .., "manifests", reference] => {
                Ok(Route::Manifest(repository(name)?, self::reference(reference)?))
            }
            [name @ .., "referrers", digest] => {
                Ok(Route::Referrers(repository(name)?, parse_digest(digest)?))
            }
            [name @ .., "tags", "list"] => Ok(Route::Tags(repository(name)?)),
            _ => Err(nowhere()),
        }
    }

    /// The repository it is in.
    pub(super) fn repository(&self) -> Option<&str> {
        match self {
            Route::Blob(name, _)
            | Route::Manifest(name, _)
            | Route::Referrers(name, _)
            | Route::Tags(name)
            | Route::Upload(name, _)
            | Route::Uploads(name) => Some(name),
            Route::Base | Route::Catalog | Route::Health | Route::Search | Route::Token => None,
        }
    }
}

fn repository(pieces: &[&str]) -> Result<String, ApiError> {
    let name = pieces.join("/");
    if is_repository(&name) && pieces.iter().all(|piece| !piece.contains('/')) {
        return Ok(name);
    }
    Err(ApiError::new(Code::NameInvalid, format!("{name:?} is no name of a repository")))
}

pub(super) fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error| ApiError::new(Code::DigestInvalid, format!("{text:?}: {error}")))
}

fn reference(text: &str) -> Result<Result<Reference, String>, ApiError> {
    if text.contains(':') {
        return Ok(Ok(Reference::Digest(parse_digest(text)?)));
    }
    Ok(if is_tag(text) { Ok(Reference::Tag(text.to_owned())) } else { Err(text.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let digest = Digest::sha256_of(b"");
        let name = || "a/b".to_owned();
        let upload = "0123456789abcdef0123456789abcdef";
        for (path, route) in [
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            (format!("/v2/a/b/blobs/{digest}"), Route::Blob(name(), digest)),
            (format!("/v2/a/b/blobs/{digest}").replace(':', "%3A"), Route::Blob(name(), digest)),
            ("/v2/a/b/blobs/uploads/".to_owned(), Route::Uploads(name())),
            ("/v2/a/b/blobs/uploads".to_owned(), Route::Uploads(name())),
            (format!("/v2/a/b/blobs/uploads/{upload}"), Route::Upload(name(), upload.to_owned())),
            (
                "/v2/a/b/manifests/3.1".to_owned(),
                Route::Manifest(name(), Ok(Reference::Tag("3.1".to_owned()))),
            ),
            (format!("/v2/a/b/manifests/{digest}"), Route::Manifest(name(), Ok(Reference::Digest(digest)))),
            ("/v2/a/b/manifests/.x".to_owned(), Route::Manifest(name(), Err(".x".to_owned()))),
            (format!("/v2/a/b/referrers/{digest}"), Route::Referrers(name(), digest)),
            ("/v2/a/b/tags/list".to_owned(), Route::Tags(name())),
            ("/v2/blobs/uploads/tags/list".to_owned(), Route::Tags("blobs/uploads".to_owned())),
        ] {
            assert_eq!(Route::parse(&path).ok(), Some(route), "{path}");
        }
    }

    #[test]
    fn odd_paths_are_refused_with_the_code_that_fits() {
        for (path, code) in [
            ("/v2/../etc/tags/list", Code::NameInvalid),
            ("/v2/a/%2e%2e/%2e%2e/tags/list", Code::NameInvalid),
            ("/v2/a%2Fb/tags/list", Code::NameInvalid),
            ("/v2/_blobs/tags/list", Code::NameInvalid),
            ("/v2//tags/list", Code::NameInvalid),
            ("/v2/tags/list", Code::NameInvalid),
            ("/v2/A/tags/list", Code::NameInvalid),
            ("/v2/a%00/tags/list", Code::NameInvalid),
            ("/v2/a/blobs/sha256:..", Code::DigestInvalid),
            ("/v2/a/manifests/md5:00", Code::DigestInvalid),
            ("/v2/a/blobs/uploads/..", Code::BlobUploadUnknown),
            ("/v2/a/blobs/uploads/%2e%2e%2fx", Code::BlobUploadUnknown),
            ("/v2/a/%ff/tags/list", Code::Unsupported),
            ("/", Code::Unsupported),
            ("/v2/a", Code::Unsupported),
        ] {
            assert_eq!(Route::parse(path).err().map(|error| error.code), Some(code), "{path}");
        }
    }
}
