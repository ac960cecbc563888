use axum::body::Body;
use dhow_oci::Digest;
use hyper::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use hyper::{Response, StatusCode};

use super::range::{self, Wanted};
use super::route::parse_digest;
use super::{CONTENT_DIGEST, Call, UPLOAD_UUID, empty, etag, set, set_content};
use crate::auth::Action;
use crate::error::{ApiError, Code};
use crate::registry::{Part, Progress, blob_unknown};

const OCTETS: &str = "application/octet-stream";
/// A digest never means anything else, but who may read it may change.
const FOREVER: &str = "private, max-age=31536000, immutable";

pub(super) async fn head(call: &Call<'_>, name: &str, digest: Digest) -> Result<Response<Body>, ApiError> {
    let size = call.app.registry.blob_size(name, digest).await?.ok_or_else(|| blob_unknown(digest))?;
    let mut response = blob(digest, StatusCode::OK);
    set(&mut response, CONTENT_LENGTH, &size.to_string());
    Ok(response)
}

pub(super) async fn get(call: &Call<'_>, name: &str, digest: Digest) -> Result<Response<Body>, ApiError> {
    let size = call.app.registry.blob_size(name, digest).await?.ok_or_else(|| blob_unknown(digest))?;
    if call.has(&etag(digest)) {
        return Ok(blob(digest, StatusCode::NOT_MODIFIED));
    }
    let (range, status) = match range::wanted(call.header(RANGE), size) {
        Wanted::All => (0..size, StatusCode::OK),
        Wanted::Part(range) => (range, StatusCode::PARTIAL_CONTENT),
        Wanted::Nothing => {
            let error = ApiError::new(Code::RangeInvalid, format!("the blob has {size} bytes"));
            return Err(error.header(CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    let content = call.app.registry.read_blob(name, digest, range.clone()).await?;
    let content = content.ok_or_else(|| blob_unknown(digest))?;
    let mut response = blob(digest, status);
    set(&mut response, CONTENT_LENGTH, &(range.end - range.start).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        set(&mut response, CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    *response.body_mut() = Body::from_stream(content);
    Ok(response)
}

pub(super) async fn delete(call: &Call<'_>, name: &str, digest: Digest) -> Result<Response<Body>, ApiError> {
    call.app.registry.delete_blob(name, digest).await?;
    let mut response = empty(StatusCode::ACCEPTED);
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    Ok(response)
}

fn blob(digest: Digest, status: StatusCode) -> Response<Body> {
    let mut response = empty(status);
    set_content(&mut response, digest, OCTETS);
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(&mut response, CACHE_CONTROL, FOREVER);
    response
}

/// POST: a whole blob, one of another repository, or the begin of an upload.
pub(super) async fn begin(call: &Call<'_>, name: &str, body: Body) -> Result<Response<Body>, ApiError> {
    let registry = &call.app.registry;
    if let Some(digest) = call.query.get("digest") {
        let digest = parse_digest(digest)?;
        registry.upload_whole(name, part(call)?, body, digest).await?;
        return Ok(created(name, digest));
    }
    if let (Some(digest), Some(from)) = (call.query.get("mount"), call.query.get("from")) {
        let digest = parse_digest(digest)?;
        // Who may not look there is told nothing, and uploads.
        let may_look =
            dhow_oci::is_repository(from) && call.app.auth.allows(&call.caller, from, Action::Pull);
        if may_look && registry.mount(name, digest, from).await? {
            return Ok(created(name, digest));
        }
    }
    let progress = registry.begin_upload(name).await?;
    Ok(uploading(name, &progress, StatusCode::ACCEPTED))
}

pub(super) async fn status(call: &Call<'_>, name: &str, upload: &str) -> Result<Response<Body>, ApiError> {
    let progress = call.app.registry.upload(name, upload).await?;
    Ok(uploading(name, &progress, StatusCode::NO_CONTENT))
}

pub(super) async fn append(
    call: &Call<'_>,
    name: &str,
    upload: &str,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    match call.app.registry.append(name, upload, part(call)?, body).await {
        Ok(progress) => Ok(uploading(name, &progress, StatusCode::ACCEPTED)),
        Err(error) => Err(with_progress(call, name, upload, error).await),
    }
}

pub(super) async fn finish(
    call: &Call<'_>,
    name: &str,
    upload: &str,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let missing = || ApiError::new(Code::DigestInvalid, "an upload ends with ?digest=");
    let digest = parse_digest(call.query.get("digest").ok_or_else(missing)?)?;
    match call.app.registry.finish_upload(name, upload, part(call)?, body, digest).await {
        Ok(()) => Ok(created(name, digest)),
        Err(error) => Err(with_progress(call, name, upload, error).await),
    }
}

pub(super) async fn cancel(call: &Call<'_>, name: &str, upload: &str) -> Result<Response<Body>, ApiError> {
    call.app.registry.cancel_upload(name, upload).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Tells a client that is at the wrong place where the right one is.
async fn with_progress(call: &Call<'_>, name: &str, upload: &str, error: ApiError) -> ApiError {
    if error.code != Code::RangeInvalid {
        return error;
    }
    match call.app.registry.upload(name, upload).await {
        Ok(progress) => error
            .header(LOCATION, location(name, upload))
            .header(RANGE, received(&progress))
            .header(UPLOAD_UUID, upload),
        Err(_) => error,
    }
}

fn part(call: &Call<'_>) -> Result<Part, ApiError> {
    let Some(header) = call.header(CONTENT_RANGE) else { return Ok(Part::default()) };
    range::part(header).ok_or_else(|| {
        ApiError::new(Code::BlobUploadInvalid, format!("Content-Range: {header} is not FIRST-LAST"))
    })
}

fn created(name: &str, digest: Digest) -> Response<Body> {
    let mut response = empty(StatusCode::CREATED);
    set(&mut response, LOCATION, &format!("/v2/{name}/blobs/{digest}"));
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    response
}

fn uploading(name: &str, progress: &Progress, status: StatusCode) -> Response<Body> {
    let mut response = empty(status);
    set(&mut response, LOCATION, &location(name, &progress.upload));
    set(&mut response, RANGE, &received(progress));
    set(&mut response, UPLOAD_UUID, &progress.upload);
    response
}

fn location(name: &str, upload: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{upload}")
}

/// The specification has no way to say that there is nothing; everybody says it like this.
fn received(progress: &Progress) -> String {
    format!("0-{}", progress.bytes.saturating_sub(1))
}
